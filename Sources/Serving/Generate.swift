import Hummingbird
import Inference
import JSON

/// Handles `POST` and `PUT /generate`, SGLang's own interface, which takes and returns tokens.
struct GenerateRoutes: Sendable {
    let configuration: ServerConfiguration
    let slot: ModelSlot

    func post(_ request: Request, _ context: ServingContext) async throws -> Response {
        let (service, configuration, slot) = (try slot.service(), configuration, slot)
        let connection = context.connection
        let (asked, share) = try await BodyReader(configuration, slot).read(request, on: connection) { fields, share in
            let asked = try GenerateRequest(fields, service: service, configuration: configuration)
            try share.resize(to: asked.memory)
            return (asked, share)
        }
        let generations = try await service.start(
            asked.requests, names: ["prompt": asked.promptName], slot: slot, on: connection,
            waitingEvery: asked.streams ? configuration.keepAliveInterval : nil)
        let answers = asked.requests.indices.map { asked.answer(index: $0, service: service) }
        let isBatch = asked.isBatch
        guard asked.streams else {
            let body = try await Self.whole(
                answers, isBatch: isBatch, of: generations, on: connection,
                bytes: asked.requests.contains { $0.logProbs != nil } ? asked.memory : 0)
            withExtendedLifetime(share) {}
            return .json(written: body)
        }
        return .events { events in
            var answers = answers
            try await connection.forEach(of: generations, count: answers.count) { index, event in
                if case .waiting = event { return try await events.sendComment() }
                guard answers[index].take(event) else { return }
                try await events.send(
                    written: answers[index].json(elapsed: generations.elapsed, index: isBatch ? index : nil))
            }
            try await events.sendDone()
        }
    }

    /// Returns the body of an answer that is not streamed.
    ///
    /// - Parameter bytes: the approximate size of what has to be written, which decides whether `WorkPool` writes it.
    private static func whole(
        _ answers: [GenerateAnswer], isBatch: Bool, of generations: TextGenerations, on connection: ClientConnection,
        bytes: Int
    ) async throws -> [UInt8] {
        var answers = answers
        var elapsed = Array(repeating: Duration.zero, count: answers.count)
        try await connection.forEach(of: generations, count: answers.count) { index, event in
            _ = answers[index].take(event)
            elapsed[index] = generations.elapsed
        }
        let all = Array(zip(answers, elapsed))
        return try await WorkPool.shared.run(bytes: bytes) {
            guard isBatch else { return all[0].0.json(elapsed: all[0].1, index: nil) }
            var writer = JSONWriter()
            writer.beginArray()
            for (answer, elapsed) in all { writer.written(answer.json(elapsed: elapsed, index: nil)) }
            writer.endArray()
            return writer.takeBytes()
        }
    }
}

extension GenerateRequest {
    fileprivate func answer(index: Int, service: TextService) -> GenerateAnswer {
        let request = requests[index]
        let textOfToken: @Sendable (Int32) -> String = { service.text(of: $0) }
        return GenerateAnswer(
            id: ids[index], promptTokens: request.prompt.count, returnsLogProbs: request.logProbs != nil,
            returnsTop: (request.logProbs?.topCount ?? 0) > 0,
            textOfToken: returnsTokenText ? textOfToken : nil)
    }
}

/// One answer of `/generate`. In a stream, each event shows the whole answer so far, as in SGLang: the contribution of
/// a token is encoded once, and each event copies the encoded text.
package struct GenerateAnswer: Sendable {
    private let id: String
    private let promptTokens: Int
    private let returnsLogProbs: Bool
    private var text = GrowingJSON.string
    private var tokens = GrowingJSON.array
    private var tokenCount = 0
    private var cachedTokens = 0
    private var promptScores: Scores
    private var scores: Scores
    private var finish: TextFinish?

    /// The lists of log-probabilities of the prompt or of the output, as JSON text.
    private struct Scores {
        /// True if each token's best alternatives are listed.
        let hasTop: Bool
        /// Returns the text of a token; `nil` if log-probabilities do not include it.
        let textOfToken: (@Sendable (Int32) -> String)?
        private(set) var tokens = GrowingJSON.array
        private(set) var top = GrowingJSON.array
        private(set) var isEmpty = true

        init(hasTop: Bool, textOfToken: (@Sendable (Int32) -> String)?) {
            self.hasTop = hasTop
            self.textOfToken = textOfToken
        }

        mutating func append(_ token: TokenLogProbs) {
            isEmpty = false
            tokens.append(triple(token.token, token.logProb))
            guard hasTop else { return }
            // The first token of a prompt has no distribution.
            top.append(token.logProb == nil ? .null : .array(token.top.map { triple($0.token, $0.logProb) }))
        }

        private func triple(_ token: Int32, _ logProb: Float?) -> JSONValue {
            let text: JSONValue = if let textOfToken { .string(textOfToken(token)) } else { .null }
            return .array([logProb.map(JSONValue.number) ?? .null, .integer(token), text])
        }
    }

    package init(
        id: String, promptTokens: Int, returnsLogProbs: Bool, returnsTop: Bool,
        textOfToken: (@Sendable (Int32) -> String)?
    ) {
        self.id = id
        self.promptTokens = promptTokens
        self.returnsLogProbs = returnsLogProbs
        promptScores = Scores(hasTop: returnsTop, textOfToken: textOfToken)
        scores = promptScores
    }

    /// Adds an event to the answer.
    ///
    /// - Returns: `false` if there is nothing new to show.
    package mutating func take(_ event: TextEvent) -> Bool {
        switch event {
        case .promptScores(let more):
            for token in more {
                // The first token is shown without its log-probability, as in SGLang, whatever comes before it.
                let isFirst = promptScores.isEmpty
                promptScores.append(isFirst ? TokenLogProbs(token: token.token) : token)
            }
            return false
        case .token(let token, let more):
            tokens.append(.integer(token.token))
            tokenCount += 1
            if returnsLogProbs { scores.append(token) }
            text.append(more)
        case .finished(let end):
            text.append(end.text)
            finish = end
            cachedTokens = end.cachedTokens ?? cachedTokens
        case .started(let count):
            cachedTokens = count
            return false
        case .waiting, .failed: return false
        }
        return true
    }

    /// Returns the whole answer so far, as JSON text.
    ///
    /// - Parameter index: the index of the answer in its batch, shown in the events of a stream; `nil` for no batch.
    package func json(elapsed: Duration, index: Int?) -> [UInt8] {
        var writer = JSONWriter()
        let lists = [text, tokens, promptScores.tokens, promptScores.top, scores.tokens, scores.top]
        writer.reserve(lists.reduce(1024) { $0 + $1.count })
        writer.beginObject()
        writer.member("text", text)
        writer.member("output_ids", tokens)
        writer.key("meta_info")
        writer.beginObject()
        for member in facts(elapsed: elapsed) { writer.member(member.key, member.value) }
        if returnsLogProbs {
            for (name, scores) in [("input", promptScores), ("output", scores)] {
                writer.member("\(name)_token_logprobs", scores.tokens)
                if scores.hasTop { writer.member("\(name)_top_logprobs", scores.top) }
            }
        }
        writer.endObject()
        if let index { writer.member("index", .integer(index)) }
        writer.endObject()
        return writer.takeBytes()
    }

    private func facts(elapsed: Duration) -> [JSONMember] {
        var members = [
            JSONMember("id", .string(id)), JSONMember("finish_reason", finishReason),
            JSONMember("prompt_tokens", .integer(promptTokens)), JSONMember("completion_tokens", .integer(tokenCount)),
            JSONMember("cached_tokens", .integer(cachedTokens)),
            JSONMember("e2e_latency", .number(elapsed / .seconds(1))),
        ]
        if let speculation = finish?.speculation, let length = speculation.acceptLength {
            members += [
                JSONMember("spec_verify_ct", .integer(speculation.steps)),
                JSONMember("spec_draft_tokens", .integer(speculation.drafted)),
                JSONMember("spec_accepted_tokens", .integer(speculation.accepted)),
                JSONMember("spec_accept_length", .number(length)),
            ]
        }
        return members
    }

    private var finishReason: JSONValue {
        guard let finish else { return .null }
        return switch finish.reason {
        case .stopToken(let token): .fields(["type": .string("stop"), "matched": .integer(token)])
        case .stopString(let text): .fields(["type": .string("stop"), "matched": .string(text)])
        case .length: .fields(["type": .string("length"), "length": .integer(tokenCount)])
        case .abort: .fields(["type": .string("abort"), "message": .string("another request aborted this one")])
        }
    }
}
