import Hummingbird
import Inference
import JSON
import Tokenization

/// Handles `POST /v1/completions`, which continues a text or tokens.
struct CompletionRoutes: Sendable {
    let configuration: ServerConfiguration
    let slot: ModelSlot

    func post(_ request: Request, _ context: ServingContext) async throws -> Response {
        let (service, configuration, slot) = (try slot.service(), configuration, slot)
        let connection = context.connection
        let asked = try await BodyReader(configuration, slot).read(request, on: connection) { fields, share in
            let asked = try CompletionRequest(fields, service: service, configuration: configuration)
            try share.resize(to: asked.memory)
            return (request: asked, share: share)
        }
        let completion = asked.request
        let generations = try await service.start(
            completion.requests, names: ["max_new_tokens": "max_tokens"], slot: slot, on: connection,
            waitingEvery: completion.stream.isOn ? configuration.keepAliveInterval : nil)
        let envelope = Envelope(prefix: "cmpl-", object: "text_completion", model: configuration.servedModelName)
        let choices = completion.requests.indices.map { CompletionChoice(completion, index: $0, service: service) }
        let (count, perPrompt, stream) = (choices.count, completion.choicesPerPrompt, completion.stream)
        guard stream.isOn else {
            let body = try await Self.whole(
                choices, perPrompt: perPrompt, of: generations, on: connection, in: envelope,
                bytes: completion.topLogProbs == nil ? 0 : completion.memory,
                transfer: service.transfers?.answer(to: completion.transferParams, id: envelope.id))
            withExtendedLifetime(asked.share) {}
            return .json(written: body)
        }
        return .events { events in
            var (choices, usage) = (choices, UsageTotals(choicesPerPrompt: perPrompt))
            var running = RunningUsage(completion.requests)
            try await connection.forEach(of: generations, count: count) { index, event in
                if case .waiting = event { return try await events.sendComment() }
                running.add(event, of: index)
                if let piece = choices[index].feed(event) {
                    try await events.send(written: envelope.chunk(piece, stream, running.json(of: index)))
                }
                if case .finished(let finish) = event { usage.add(finish, of: index) }
            }
            if stream.includesUsage { try await events.send(written: envelope.body(choices: [], usage: usage.json)) }
            try await events.sendDone()
        }
    }

    /// Returns the body of an answer that is not streamed.
    ///
    /// - Parameters:
    ///   - bytes: the approximate size of what has to be written, which decides whether `WorkPool` writes it.
    ///   - transfer: the member `kv_transfer_params`; `nil` for none.
    private static func whole(
        _ choices: [CompletionChoice], perPrompt: Int, of generations: TextGenerations,
        on connection: ClientConnection, in envelope: Envelope, bytes: Int, transfer: JSONValue?
    ) async throws -> [UInt8] {
        var (choices, usage) = (choices, UsageTotals(choicesPerPrompt: perPrompt))
        try await connection.forEach(of: generations, count: choices.count) { index, event in
            choices[index].collect(event)
            if case .finished(let finish) = event { usage.add(finish, of: index) }
        }
        let (all, costs) = (choices, usage.json)
        return try await WorkPool.shared.run(bytes: bytes) {
            envelope.body(choices: all.map(\.whole), usage: costs, transfer: transfer)
        }
    }
}

/// One choice of a completion while it is generated.
struct CompletionChoice: Sendable {
    private let index: Int
    private let service: TextService
    private let wantsScores: Bool
    /// The tokens that are not in the text: the beginning of an echoed prompt, and special tokens of the answer.
    private let (hidesBeginning, hidesSpecialTokens): (Bool, Bool)
    private var scores = CompletionLogProbs()
    /// True if the prompt's first token was scored.
    private var hasPromptScores = false
    private var text: String
    private var finish: TextFinish.Reason?

    init(_ request: CompletionRequest, index: Int, service: TextService) {
        self.index = index
        self.service = service
        wantsScores = request.topLogProbs != nil
        let own = request.requests[index]
        text = request.echoes ? service.text(ofPrompt: own.prompt) : ""
        hidesBeginning = service.hasBeginning(own.prompt)
        hidesSpecialTokens = own.skipsSpecialTokens
    }

    /// Adds an event to the choice.
    mutating func collect(_ event: TextEvent) {
        switch event {
        case .promptScores(let tokens):
            for token in tokens {
                let isHidden = hidesBeginning && !hasPromptScores
                hasPromptScores = true
                scores.append(token, isText: !isHidden, service)
            }
        case .token(let token, let more):
            let isHidden = hidesSpecialTokens && service.tokenizer.isSpecial(token.token)
            if wantsScores { scores.append(token, isText: !isHidden, service) }
            text += more
        case .finished(let end):
            text += end.text
            finish = end.reason
        case .started, .waiting, .failed: break
        }
    }

    /// Adds an event, and returns everything that was not returned before, as JSON text.
    ///
    /// - Returns: `nil` if there is nothing new yet.
    mutating func feed(_ event: TextEvent) -> [UInt8]? {
        if case .started = event { return nil }
        collect(event)
        guard !text.isEmpty || !scores.isEmpty || finish != nil else { return nil }
        defer {
            text = ""
            scores.removeAll()
        }
        return whole
    }

    /// Everything that was added and that `feed` has not returned, as JSON text.
    var whole: [UInt8] {
        var writer = JSONWriter()
        writer.beginObject()
        writer.member("index", .integer(index))
        writer.member("text", .string(text))
        writer.key("logprobs")
        if wantsScores { scores.write(to: &writer) } else { writer.value(.null) }
        writer.member("finish_reason", .optional(finish?.word))
        writer.endObject()
        return writer.takeBytes()
    }
}

/// The member `logprobs` of a completion: four lists with one entry for each token, encoded as tokens are added.
struct CompletionLogProbs: Sendable {
    private(set) var isEmpty = true
    private var tokens = GrowingJSON.array
    private var logProbs = GrowingJSON.array
    private var tops = GrowingJSON.array
    private var offsets = GrowingJSON.array
    /// The number of characters (code points) of the whole text before the next token.
    private var offset = 0

    /// Adds a token.
    ///
    /// - Parameter isText: whether the text that the answer shows has the token.
    mutating func append(_ token: TokenLogProbs, isText: Bool, _ service: TextService) {
        isEmpty = false
        let bytes = service.tokenizer.bytes(of: token.token)
        tokens.append(.string(Self.name(bytes)))
        logProbs.append(token.logProb.map(JSONValue.number) ?? .null)
        tops.append(token.logProb == nil ? .null : top(token, service))
        offsets.append(.integer(offset))
        // Continuation bytes do not begin a character.
        if isText { offset += bytes.count { $0 & 0xC0 != 0x80 } }
    }

    mutating func removeAll() {
        isEmpty = true
        (tokens, logProbs, tops, offsets) = (.array, .array, .array, .array)
    }

    func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.member("tokens", tokens)
        writer.member("token_logprobs", logProbs)
        writer.member("top_logprobs", tops)
        writer.member("text_offset", offsets)
        writer.endObject()
    }

    /// Returns the log-probabilities of the most likely tokens and of the token itself, by token.
    private func top(_ token: TokenLogProbs, _ service: TextService) -> JSONValue {
        var members = token.top.map {
            JSONMember(Self.name(service.tokenizer.bytes(of: $0.token)), .number($0.logProb))
        }
        if let logProb = token.logProb, !token.top.contains(where: { $0.token == token.token }) {
            members.append(JSONMember(Self.name(service.tokenizer.bytes(of: token.token)), .number(logProb)))
        }
        return .object(members)
    }

    /// Returns the text of a token or, if its bytes are not valid UTF-8, the bytes in the notation of this API, which
    /// is different for different tokens.
    private static func name(_ bytes: [UInt8]) -> String {
        String(validating: bytes, as: UTF8.self)
            ?? "bytes:" + bytes.map { "\\x" + ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}
