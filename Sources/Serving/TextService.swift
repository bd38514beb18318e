package import Inference
package import Tokenization

/// Text in, text out: the only part that knows both the tokenizer and the engine.
package final class TextService: Sendable {
    package let engine: any EngineClient
    package let tokenizer: Tokenizer
    package let defaults: SamplingDefaults
    /// Tokens that end an answer, unless a request wants to go on.
    package let endOfText: Set<Int32>
    /// How conversations are written for this model, or why they are refused.
    package let chatFormat: Result<ChatFormat, ChatError>

    /// - Parameter endOfText: from `generation_config.json`; the tokenizer's own end token is always among them.
    package init(
        engine: any EngineClient, tokenizer: Tokenizer, defaults: SamplingDefaults = SamplingDefaults(),
        endOfText: Set<Int32> = []
    ) {
        self.engine = engine
        self.tokenizer = tokenizer
        self.defaults = defaults
        chatFormat = Result { () throws(ChatError) in try ChatFormat.detect(tokenizer) }
        self.endOfText = tokenizer.eosToken.map { endOfText.union([$0]) } ?? endOfText
    }

    /// Submits all requests or none.
    /// - Parameter names: what the client calls the engine's parameters, where that differs.
    /// - Returns: what becomes of them, as it happens; dropping or cancelling it aborts what still runs.
    /// - Throws: the first refusal; requests already taken are aborted.
    func start(
        _ requests: [TextRequest], names: [String: String], slot: ModelSlot
    ) throws(RequestError) -> TextGenerations {
        do {
            return try start(requests, slot: slot)
        } catch {
            throw error.renamed(by: names)
        }
    }

    private func start(_ requests: [TextRequest], slot: ModelSlot) throws(RequestError) -> TextGenerations {
        guard requests.count <= engine.limits.maxQueuedRequests else {
            throw .invalid(
                "n",
                "\(requests.count) answers can never be queued at once: this server queues "
                    + "\(engine.limits.maxQueuedRequests); ask for fewer, or raise --max-queued-requests")
        }
        for request in requests { try check(request) }
        var submitted: [(TextRequest, Generation)] = []
        for request in requests {
            var asked = GenerationRequest(
                prompt: request.prompt, sampling: request.sampling, logProbs: request.logProbs,
                cacheSalt: request.cacheSalt, grammar: request.form?.source)
            // An answer of a certain form ends where it is whole, whatever else was asked.
            if !request.ignoresEndOfText || request.form != nil { asked.sampling.stopTokens.formUnion(endOfText) }
            do {
                submitted.append((request, try engine.submit(asked)))
            } catch {
                throw RequestError(error).renamed(by: request.form.map { ["grammar": $0.field] } ?? [:])
            }
        }
        return TextGenerations(submitted, service: self, slot: slot)
    }

    /// Refuses what the engine could only refuse in its own words, so that the message can say what to do.
    private func check(_ request: TextRequest) throws(RequestError) {
        let (count, context) = (request.prompt.count, engine.limits.contextLength)
        guard count > 0 else { throw .invalid("prompt", "prompt: there are no tokens; give at least one") }
        let wanted = request.sampling.maxNewTokens ?? 1
        guard count <= context, wanted <= context - count else {
            throw .contextExceeded("prompt", "\(count) tokens and \(wanted) new ones", context: context)
        }
    }
}

// MARK: - Text and tokens

extension TextService {
    /// The tokens of a raw prompt. Control tokens in it are meant as such, since here the client writes the whole prompt.
    ///
    /// - Throws: `clientGone` where nobody waits for them any more.
    func tokens(of text: String, addingBeginning: Bool) throws(RequestError) -> [Int32] {
        let tokens =
            addingBeginning
            ? tokenizer.encodePrompt(text, mayContinue: { WorkPool.mayContinue })
            : tokenizer.encode(text, allowingControlTokens: true, mayContinue: { WorkPool.mayContinue })
        try WorkPool.checkCancellation()
        return tokens
    }

    /// The tokens of a prompt, which is refused unread when no tokens could make it fit the context.
    func prompt(_ text: String, _ parameter: String, addingBeginning: Bool = true) throws(RequestError) -> [Int32] {
        let context = engine.limits.contextLength
        guard text.utf8.count <= context * Self.maxBytesOfToken else {
            throw .contextExceeded(parameter, "\(text.utf8.count) bytes of text", context: context)
        }
        return try tokens(of: text, addingBeginning: addingBeginning)
    }

    /// More than the longest token of the vocabularies we know.
    private static let maxBytesOfToken = 256

    /// The tokens of a rendered conversation.
    func tokens(of prompt: ChatPrompt) throws(RequestError) -> [Int32] {
        let (bytes, context) = (prompt.byteCount, engine.limits.contextLength)
        guard bytes <= context * Self.maxBytesOfToken else {
            throw .contextExceeded("messages", "\(bytes) bytes of text", context: context)
        }
        let tokens = tokenizer.encode(segments: prompt.segments, mayContinue: { WorkPool.mayContinue })
        try WorkPool.checkCancellation()
        return tokens
    }

    /// The text of a prompt as a client would have written it.
    func text(ofPrompt tokens: [Int32]) -> String {
        let hasBeginning = tokens.first != nil && tokens.first == tokenizer.bosToken
        return tokenizer.decode(tokens.dropFirst(hasBeginning ? 1 : 0), skippingSpecialTokens: false)
    }

    /// The text of one token by itself, as lists of log-probabilities show it.
    func text(of token: Int32) -> String {
        String(decoding: tokenizer.bytes(of: token), as: UTF8.self)
    }
}

/// One prompt and how to continue it as text.
struct TextRequest: Sendable {
    var prompt: [Int32]
    /// Its stop tokens are those the request names; the end of text is added by the service.
    var sampling = SamplingParameters()
    var logProbs: LogProbOptions?
    /// What the answer is held to; `nil` for anything.
    var form: AnswerForm?
    var stopStrings: [String] = []
    /// If not empty, stop strings count only behind the first of these: behind the end of reasoning.
    var stopsAfter: [String] = []
    /// Whether the stop string that ends the answer is part of it.
    var includesStopString = false
    var ignoresEndOfText = false
    var skipsSpecialTokens = true
    /// Special tokens that are text nevertheless, because something reads them.
    var keptTokens: Set<Int32> = []
    /// Only requests with the same salt use each other's cached prefixes.
    var cacheSalt: String?

    /// Bytes the request takes until its answer is sent, roughly: its prompt, and scores, which are many times as large
    /// as text. A stream hands most of them on as they come.
    ///
    /// - Parameter isCollected: whether the answer is sent whole.
    func memory(isCollected: Bool) -> Int {
        var bytes = 16 * prompt.count
        guard let logProbs else { return bytes }
        let scored = logProbs.promptStart.map { prompt.count - $0 } ?? 0
        // A request that does not say how much it wants rarely gets all that would fit.
        let new = isCollected ? min(sampling.maxNewTokens ?? 1024, 1 << 20) : 0
        bytes += (scored + new) * (logProbs.topCount + 1) * 64
        return bytes
    }
}

/// What becomes of a `TextRequest`, in order; the last is `finished` or `failed`.
package enum TextEvent: Sendable, Equatable {
    case promptScores([TokenLogProbs])
    /// A token with the text that is certain now: empty while a character is incomplete or a stop string may begin.
    case token(TokenLogProbs, text: String)
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
    /// Text that had been held back.
    var text = ""
    var promptTokens: Int
    var completionTokens: Int
    /// `nil` where the engine was not asked: a stop string ends a generation before it reports its costs.
    var cachedTokens: Int?
    var speculation: SpeculationCount?
}
