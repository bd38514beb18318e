import Hummingbird
import Inference
import JSON
import Tokenization

/// `POST /v1/completions`: text or tokens, continued.
struct CompletionRoutes: Sendable {
    let configuration: ServerConfiguration
    let slot: ModelSlot

    func post(_ request: Request, _ context: ServingContext) async throws -> Response {
        let service = try slot.service()
        let fields = try await BodyReader(configuration).fields(of: request)
        let asked = try CompletionRequest(fields, service: service, configuration: configuration)
        let generations = try service.start(
            asked.requests, names: ["max_new_tokens": "max_tokens"], metrics: slot.metrics)
        let envelope = Envelope(prefix: "cmpl-", object: "text_completion", model: configuration.servedModelName)
        let choices = asked.requests.indices.map { CompletionChoice(asked, index: $0, service: service) }
        let connection = context.connection
        let (count, perPrompt, stream) = (choices.count, asked.choicesPerPrompt, asked.stream)
        guard stream.isOn else {
            return .json(
                try await Self.whole(choices, perPrompt: perPrompt, of: generations, on: connection, in: envelope))
        }
        return .events(on: connection, writeTimeout: configuration.writeTimeout) { events in
            var (choices, usage) = (choices, UsageTotals(choicesPerPrompt: perPrompt))
            try await connection.forEach(of: generations, count: count) { index, event in
                if let piece = choices[index].feed(event) {
                    try await events.send(envelope.chunk(choices: [piece], stream))
                }
                if case .finished(let finish) = event { usage.add(finish, of: index) }
            }
            if stream.includesUsage { try await events.send(envelope.body(choices: [], usage: usage.json)) }
            try await events.sendDone()
        }
    }

    private static func whole(
        _ choices: [CompletionChoice], perPrompt: Int, of generations: TextGenerations,
        on connection: ClientConnection, in envelope: Envelope
    ) async throws -> JSONValue {
        var (choices, usage) = (choices, UsageTotals(choicesPerPrompt: perPrompt))
        try await connection.forEach(of: generations, count: choices.count) { index, event in
            choices[index].collect(event)
            if case .finished(let finish) = event { usage.add(finish, of: index) }
        }
        return envelope.body(choices: choices.map(\.whole), usage: usage.json)
    }
}

/// One choice of a completion as it grows.
struct CompletionChoice: Sendable {
    private let index: Int
    private let service: TextService
    private let wantsScores: Bool
    private var scores = CompletionLogProbs()
    private var text: String
    private var finish: TextFinish.Reason?

    init(_ request: CompletionRequest, index: Int, service: TextService) {
        self.index = index
        self.service = service
        wantsScores = request.topLogProbs != nil
        // An echo is the beginning of the text.
        text = request.echoes ? service.text(ofPrompt: request.requests[index].prompt) : ""
    }

    /// Takes an event in.
    mutating func collect(_ event: TextEvent) {
        switch event {
        case .promptScores(let tokens): for token in tokens { scores.append(token, service) }
        case .token(let token, let more):
            if wantsScores { scores.append(token, service) }
            text += more
        case .finished(let end):
            text += end.text
            finish = end.reason
        case .failed: break
        }
    }

    /// Takes an event in and gives out everything not yet given.
    /// - Returns: `nil` if there is nothing to show yet.
    mutating func feed(_ event: TextEvent) -> JSONValue? {
        collect(event)
        guard !text.isEmpty || !scores.isEmpty || finish != nil else { return nil }
        defer {
            text = ""
            scores.removeAll()
        }
        return whole
    }

    /// What has been taken in and not given out.
    var whole: JSONValue {
        .fields([
            "index": .integer(index), "text": .string(text), "logprobs": wantsScores ? scores.json : .null,
            "finish_reason": .optional(finish?.word),
        ])
    }
}

/// The `logprobs` member of a completion: four lists, one entry a token.
struct CompletionLogProbs {
    private var tokens: [JSONValue] = []
    private var logProbs: [JSONValue] = []
    private var tops: [JSONValue] = []
    private var offsets: [JSONValue] = []
    /// Characters (code points) before the next token, over everything given out so far.
    private var offset = 0

    var isEmpty: Bool { tokens.isEmpty }

    mutating func append(_ token: TokenLogProbs, _ service: TextService) {
        let bytes = service.tokenizer.bytes(of: token.token)
        tokens.append(.string(Self.name(bytes)))
        logProbs.append(token.logProb.map(JSONValue.number) ?? .null)
        tops.append(token.logProb == nil ? .null : top(token, service))
        offsets.append(.integer(offset))
        // Special tokens are not shown, and continuation bytes begin no character.
        if !service.tokenizer.isSpecial(token.token) { offset += bytes.count { $0 & 0xC0 != 0x80 } }
    }

    mutating func removeAll() {
        (tokens, logProbs, tops, offsets) = ([], [], [], [])
    }

    var json: JSONValue {
        .fields([
            "tokens": .array(tokens), "token_logprobs": .array(logProbs), "top_logprobs": .array(tops),
            "text_offset": .array(offsets),
        ])
    }

    /// The best tokens and the token itself, as `token: log-probability`.
    private func top(_ token: TokenLogProbs, _ service: TextService) -> JSONValue {
        var members = token.top.map {
            JSONMember(Self.name(service.tokenizer.bytes(of: $0.token)), .number($0.logProb))
        }
        if let logProb = token.logProb, !token.top.contains(where: { $0.token == token.token }) {
            members.append(JSONMember(Self.name(service.tokenizer.bytes(of: token.token)), .number(logProb)))
        }
        return .object(members)
    }

    /// The token's text; if it is no whole text, its bytes in the notation of this API, which keeps tokens apart.
    private static func name(_ bytes: [UInt8]) -> String {
        String(validating: bytes, as: UTF8.self)
            ?? "bytes:" + bytes.map { "\\x" + ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}
