import Grammar
package import Inference
package import Tokenization

/// The service that turns requests with text into generations and their tokens into text. It is the only type that uses
/// both the tokenizer and the engine.
package final class TextService: Sendable {
    package let engine: any EngineClient
    package let tokenizer: Tokenizer
    package let defaults: SamplingDefaults
    /// The seeds of requests that give none.
    let seeds: SeedSource
    /// The tokens that end an answer, unless a request ignores them.
    package let endOfText: Set<Int32>
    /// The format of conversations for this model, or the reason why they are refused.
    package let chatFormat: Result<ChatFormat, ChatError>
    /// The exchange of keys with other servers; `nil` where there is none.
    let transfers: TransferService?
    /// Returns the state of the store of prefixes; `nil` where there is none.
    let prefixStore: (@Sendable () -> PrefixStoreStatus)?

    /// Creates the service.
    ///
    /// - Parameters:
    ///   - endOfText: the end tokens of `generation_config.json`; the tokenizer's own is added.
    ///   - chatFormat: the format of conversations; `nil` for the one that is detected.
    ///   - transfers: the exchange of keys with other servers; `nil` where there is none.
    ///   - prefixStore: returns the state of the store of prefixes; `nil` where there is none.
    package init(
        engine: any EngineClient, tokenizer: Tokenizer, defaults: SamplingDefaults = SamplingDefaults(),
        endOfText: Set<Int32> = [], chatFormat: Result<ChatFormat, ChatError>? = nil,
        transfers: TransferService? = nil, prefixStore: (@Sendable () -> PrefixStoreStatus)? = nil
    ) {
        self.engine = engine
        self.transfers = transfers
        self.prefixStore = prefixStore
        self.tokenizer = tokenizer
        self.defaults = defaults
        seeds = SeedSource(seed: defaults.seed)
        self.chatFormat = chatFormat ?? Result { () throws(ChatError) in try ChatFormat.detect(tokenizer) }
        self.endOfText = tokenizer.eosToken.map { endOfText.union([$0]) } ?? endOfText
    }

    /// Submits all requests or none.
    ///
    /// - Parameters:
    ///   - names: the request's names of the engine's parameters, where they differ.
    ///   - connection: the client's connection; if it hangs up while the answer's form is compiled, that ends. `nil`
    ///     where there is none.
    ///   - interval: the time after which a `waiting` event follows, again and again; `nil` for none.
    /// - Returns: the running generations; dropping or cancelling them aborts those that still run.
    /// - Throws: the first refusal; requests that were submitted before it are aborted.
    func start(
        _ requests: [TextRequest], names: [String: String], slot: ModelSlot, on connection: ClientConnection? = nil,
        waitingEvery interval: Duration? = nil
    ) async throws -> TextGenerations {
        do {
            try await prepareForms(of: requests, on: connection)
            return try start(requests, slot: slot, waitingEvery: interval)
        } catch let error as RequestError {
            throw error.renamed(by: names)
        }
    }

    /// Compiles the grammars of the forms that answers must have, on a thread of the pool.
    private func prepareForms(of requests: [TextRequest], on connection: ClientConnection?) async throws {
        let forms = requests.compactMap(\.form)
        guard !forms.isEmpty else { return }
        let engine = engine
        let compile: @Sendable () throws -> Void = {
            for form in forms.distinct {
                do {
                    try engine.prepare(form.source)
                } catch let error as EngineError {
                    try WorkPool.checkCancellation()
                    throw RequestError(error).renamed(by: ["grammar": form.field])
                }
            }
        }
        var watch: HangUpHandler.Watch?
        try await WorkPool.shared.run(
            bytes: WorkPool.smallBytes, onStart: { watch = await connection?.onHangUp($0) }, compile)
        withExtendedLifetime(watch) {}
    }

    private func start(
        _ requests: [TextRequest], slot: ModelSlot, waitingEvery interval: Duration?
    ) throws(RequestError) -> TextGenerations {
        guard requests.count <= engine.limits.maxQueuedRequests else {
            throw .invalid(
                "n",
                "\(requests.count) answers can never be queued at once: this server queues "
                    + "\(engine.limits.maxQueuedRequests); ask for fewer, or raise --max-queued-requests")
        }
        let requests = requests.map { transfers?.shortened($0) ?? $0 }
        for request in requests { try check(request) }
        let numbers = try slot.running.add(requests.map(\.ids))
        do throws(RequestError) {
            return TextGenerations(
                try submit(requests), numbers, service: self, slot: slot, waitingEvery: interval)
        } catch {
            slot.running.remove(numbers)
            throw error
        }
    }

    private func submit(_ requests: [TextRequest]) throws(RequestError) -> [(TextRequest, Generation)] {
        var submitted: [(TextRequest, Generation)] = []
        for request in requests {
            if let generation = transfers?.generation(for: request) {
                submitted.append((request, generation))
                continue
            }
            let asked = try engineRequest(request)
            do {
                submitted.append((request, try engine.submit(asked)))
            } catch {
                throw RequestError(error).renamed(by: request.form.map { ["grammar": $0.field] } ?? [:])
            }
        }
        return submitted
    }

    private func engineRequest(_ request: TextRequest) throws(RequestError) -> GenerationRequest {
        var asked = GenerationRequest(
            prompt: request.prompt, sampling: request.sampling, logProbs: request.logProbs,
            cacheSalt: request.cacheSalt, grammar: request.form?.source)
        asked.mode = transfers?.mode ?? .none
        if let transfers, let bootstrap = request.bootstrap {
            asked.prefillServer = try transfers.prefillServer(for: bootstrap)
            asked.room = bootstrap.room
        }
        if let transfers, let params = request.transferParams {
            asked.prefillServer = try transfers.prefillServer(for: params)
        }
        // An answer that follows a grammar ends when it is complete, even with `ignore_eos`.
        if !request.ignoresEndOfText || request.form != nil { asked.sampling.stopTokens.formUnion(endOfText) }
        return asked
    }

    /// Refuses prompts that do not fit the context, with messages that say more than the engine's.
    private func check(_ request: TextRequest) throws(RequestError) {
        let (count, context) = (request.prompt.count, engine.limits.contextLength)
        guard count > 0 else { throw .invalid("prompt", "prompt: there are no tokens; give at least one") }
        let wanted = request.sampling.maxNewTokens ?? 1
        guard count <= context, wanted <= context - count else {
            throw .contextExceeded("prompt", .tokens(count, new: wanted), context: context)
        }
    }
}

// MARK: - Text and tokens

extension TextService {
    /// Returns the tokens of a raw prompt. Control tokens in it count as such, since the client writes the whole
    /// prompt.
    ///
    /// - Throws: `clientGone` if the client has disconnected.
    func tokens(of text: String, addingBeginning: Bool) throws(RequestError) -> [Int32] {
        let tokens =
            addingBeginning
            ? tokenizer.encodePrompt(text, mayContinue: { WorkPool.mayContinue })
            : tokenizer.encode(text, allowingControlTokens: true, mayContinue: { WorkPool.mayContinue })
        try WorkPool.checkCancellation()
        return tokens
    }

    /// Returns the tokens of a prompt. A text that is too long for the context with any tokens is refused unread.
    func prompt(_ text: String, _ parameter: String, addingBeginning: Bool = true) throws(RequestError) -> [Int32] {
        let context = engine.limits.contextLength
        guard text.utf8.count <= context * Self.maxBytesOfToken else {
            throw .contextExceeded(parameter, .bytes(text.utf8.count), context: context)
        }
        return try tokens(of: text, addingBeginning: addingBeginning)
    }

    /// A number of bytes above the longest token of known vocabularies.
    private static let maxBytesOfToken = 256

    /// Returns the tokens of a rendered conversation.
    ///
    /// - Parameter parameter: the member of the request that has the conversation, for errors.
    func tokens(of prompt: ChatPrompt, _ parameter: String) throws(RequestError) -> [Int32] {
        let (bytes, context) = (prompt.byteCount, engine.limits.contextLength)
        guard bytes <= context * Self.maxBytesOfToken else {
            throw .contextExceeded(parameter, .bytes(bytes), context: context)
        }
        let tokens = tokenizer.encode(segments: prompt.segments, mayContinue: { WorkPool.mayContinue })
        try WorkPool.checkCancellation()
        return tokens
    }

    /// Returns the text of a prompt as a client would have written it.
    func text(ofPrompt tokens: [Int32]) -> String {
        tokenizer.decode(tokens.dropFirst(hasBeginning(tokens) ? 1 : 0), skippingSpecialTokens: false)
    }

    /// Returns true for a prompt that begins with the beginning-of-sentence token, which no client writes.
    func hasBeginning(_ prompt: [Int32]) -> Bool { prompt.first != nil && prompt.first == tokenizer.bosToken }

    /// Returns the text of one token by itself, as lists of log-probabilities show it.
    func text(of token: Int32) -> String {
        String(decoding: tokenizer.bytes(of: token), as: UTF8.self)
    }
}

/// One prompt with the parameters of the text that continues it.
struct TextRequest: Sendable {
    var prompt: [Int32]
    /// The sampling parameters. Their stop tokens are those that the request names; the service adds the end of text.
    var sampling = SamplingParameters()
    var logProbs: LogProbOptions?
    /// The form that the answer must have; `nil` for any.
    var form: AnswerForm?
    var stopStrings: [String] = []
    /// The model's reasoning, in which no stop string counts; `nil` if the model has none.
    var reasoning: Reasoning?
    /// True if the stop string that ends the answer is part of it.
    var includesStopString = false
    var ignoresEndOfText = false
    var skipsSpecialTokens = true
    /// The special tokens that are kept in the text, because a parser reads them.
    var keptTokens: Set<Int32> = []
    /// The cache salt; only requests with equal salts use each other's cached prefixes.
    var cacheSalt: String?
    /// The ids by which other requests can abort this one: its own, and that of the request of which it is an answer.
    var ids: [String] = []
    /// The other server of a request that a router has sent to two.
    var bootstrap: Bootstrap?
    /// The part of the work that a router has given to another server, one after the other.
    var transferParams: KVTransferParams?

    /// The marks of a model's reasoning.
    struct Reasoning: Sendable {
        /// The text by which the model opens its reasoning itself, at the beginning of its output.
        var beginning: String
        /// The texts of which each ends the reasoning.
        var ends: [String]
        /// True if the output begins inside the reasoning.
        var isOpen: Bool
    }

    /// Estimates the memory in bytes that the request takes until its answer is sent: its prompt and log-probabilities,
    /// which are many times as large as text. A stream sends most of them at once.
    ///
    /// - Parameter isCollected: whether the answer is sent whole.
    func memory(isCollected: Bool) -> Int {
        var bytes = 16 * prompt.count
        guard let logProbs else { return bytes }
        let scored = logProbs.promptStart.map { prompt.count - $0 } ?? 0
        // A request without a limit rarely produces as many tokens as fit the context.
        let new = isCollected ? min(sampling.maxNewTokens ?? 1024, 1 << 20) : 0
        bytes += (scored + new) * (logProbs.topCount + 1) * 64
        return bytes
    }
}

/// One event of a `TextRequest`; the last event is `finished` or `failed`.
package enum TextEvent: Sendable, Equatable {
    /// The first token follows; this many tokens of the prompt were found in the prefix cache.
    case started(cachedTokens: Int)
    case promptScores([TokenLogProbs])
    /// A token with the text that is final now. It is empty while a character is incomplete or a stop string may begin.
    case token(TokenLogProbs, text: String)
    /// An interval has passed in which the request has not ended; a stream then shows that it still works.
    case waiting
    case finished(TextFinish)
    case failed(String)
}

package struct TextFinish: Sendable, Equatable {
    package enum Reason: Sendable, Equatable {
        case stopToken(Int32)
        case stopString(String)
        case length
        case abort
    }

    var reason: Reason
    /// The text that had been held back.
    var text = ""
    var promptTokens: Int
    var completionTokens: Int
    /// The number of prompt tokens that were found in the prefix cache; `nil` if a stop string ended the generation
    /// before the engine reported it.
    var cachedTokens: Int?
    var speculation: SpeculationCount?
}
