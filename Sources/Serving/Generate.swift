import Hummingbird
import Inference
import JSON

/// `POST` and `PUT /generate`: SGLang's own interface, with tokens in and out.
struct GenerateRoutes: Sendable {
    let configuration: ServerConfiguration
    let slot: ModelSlot

    func post(_ request: Request, _ context: ServingContext) async throws -> Response {
        let service = try slot.service()
        let fields = try await BodyReader(configuration).fields(of: request)
        let asked = try GenerateRequest(fields, service: service, configuration: configuration)
        let names = ["prompt": fields.value("text") == nil ? "input_ids" : "text"]
        let generations = try service.start(asked.requests, names: names, metrics: slot.metrics)
        let answers = asked.requests.indices.map { GenerateAnswer(asked, index: $0, service: service) }
        let (connection, isBatch) = (context.connection, asked.isBatch)
        guard asked.streams else {
            return .json(try await Self.whole(answers, isBatch: isBatch, of: generations, on: connection))
        }
        return .events(on: connection, writeTimeout: configuration.writeTimeout) { events in
            var answers = answers
            try await connection.forEach(of: generations, count: answers.count, showsAborts: true) { index, event in
                guard answers[index].take(event) else { return }
                let json = answers[index].json(elapsed: generations.elapsed, index: isBatch ? index : nil)
                try await events.send(json)
            }
            try await events.sendDone()
        }
    }

    private static func whole(
        _ answers: [GenerateAnswer], isBatch: Bool, of generations: TextGenerations, on connection: ClientConnection
    ) async throws -> JSONValue {
        var answers = answers
        var elapsed = Array(repeating: Duration.zero, count: answers.count)
        try await connection.forEach(of: generations, count: answers.count, showsAborts: true) { index, event in
            _ = answers[index].take(event)
            elapsed[index] = generations.elapsed
        }
        let all = zip(answers, elapsed).map { $0.json(elapsed: $1, index: nil) }
        return isBatch ? .array(all) : all[0]
    }
}

/// One answer of `/generate`. While streaming, each event shows all of it so far, as SGLang's do.
struct GenerateAnswer: Sendable {
    private let id: String
    private let promptTokens: Int
    private let returnsLogProbs: Bool
    private let returnsTokenText: Bool
    private let wantsTop: Bool
    private let service: TextService
    private var text = ""
    private var tokens: [Int32] = []
    private var promptScores: [TokenLogProbs] = []
    private var scores: [TokenLogProbs] = []
    private var finish: TextFinish?

    init(_ request: GenerateRequest, index: Int, service: TextService) {
        let asked = request.requests[index]
        id = request.ids[index]
        promptTokens = asked.prompt.count
        returnsLogProbs = request.returnsLogProbs
        returnsTokenText = request.returnsTokenText
        wantsTop = (asked.logProbs?.topCount ?? 0) > 0
        self.service = service
    }

    /// - Returns: false if there is nothing new to show.
    mutating func take(_ event: TextEvent) -> Bool {
        switch event {
        case .promptScores(let more):
            promptScores += more
            return false
        case .token(let token, let more):
            tokens.append(token.token)
            if returnsLogProbs { scores.append(token) }
            text += more
        case .finished(let end):
            text += end.text
            finish = end
        case .failed: return false
        }
        return true
    }

    /// - Parameter index: the place in a batch, shown in the events of a stream.
    func json(elapsed: Duration, index: Int?) -> JSONValue {
        var members = [
            JSONMember("text", .string(text)), JSONMember("output_ids", .array(tokens.map(JSONValue.integer))),
            JSONMember("meta_info", meta(elapsed: elapsed)),
        ]
        if let index { members.append(JSONMember("index", .integer(index))) }
        return .object(members)
    }

    private func meta(elapsed: Duration) -> JSONValue {
        var members = [
            JSONMember("id", .string(id)), JSONMember("finish_reason", finishReason),
            JSONMember("prompt_tokens", .integer(promptTokens)),
            JSONMember("completion_tokens", .integer(tokens.count)),
            JSONMember("cached_tokens", .integer(finish?.cachedTokens ?? 0)),
            JSONMember("e2e_latency", .number(elapsed / .seconds(1))),
        ]
        if let speculation = finish?.speculation, let length = speculation.acceptLength {
            members += [
                JSONMember("spec_verify_ct", .integer(speculation.steps)),
                JSONMember("spec_draft_tokens", .integer(speculation.guessed)),
                JSONMember("spec_accepted_tokens", .integer(speculation.right)),
                JSONMember("spec_accept_length", .number(length)),
            ]
        }
        if returnsLogProbs {
            members += lists("input", of: promptScores)
            members += lists("output", of: scores)
        }
        return .object(members)
    }

    private var finishReason: JSONValue {
        guard let finish else { return .null }
        return switch finish.reason {
        case .stopToken(let token): .fields(["type": .string("stop"), "matched": .integer(token)])
        case .stopString(let text): .fields(["type": .string("stop"), "matched": .string(text)])
        case .length: .fields(["type": .string("length"), "length": .integer(tokens.count)])
        case .abort: .fields(["type": .string("abort"), "message": .string("the engine aborted this request")])
        }
    }

    /// `…_token_logprobs` and, if alternatives were asked for, `…_top_logprobs`.
    private func lists(_ name: String, of scores: [TokenLogProbs]) -> [JSONMember] {
        let tokens = scores.map { triple($0.token, $0.logProb) }
        let list = JSONMember("\(name)_token_logprobs", .array(tokens))
        guard wantsTop else { return [list] }
        let tops = scores.map { score in
            score.logProb == nil ? .null : JSONValue.array(score.top.map { triple($0.token, $0.logProb) })
        }
        return [list, JSONMember("\(name)_top_logprobs", .array(tops))]
    }

    private func triple(_ token: Int32, _ logProb: Float?) -> JSONValue {
        .array([
            logProb.map(JSONValue.number) ?? .null, .integer(token),
            returnsTokenText ? .string(service.text(of: token)) : .null,
        ])
    }
}
