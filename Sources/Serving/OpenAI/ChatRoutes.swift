import Hummingbird
import JSON

/// Handles `POST /v1/chat/completions`, which answers a conversation.
struct ChatRoutes: Sendable {
    let configuration: ServerConfiguration
    let slot: ModelSlot

    func post(_ request: Request, _ context: ServingContext) async throws -> Response {
        let (service, configuration, slot) = (try slot.service(), configuration, slot)
        let connection = context.connection
        let asked = try await BodyReader(configuration, slot).read(request, on: connection) { fields, share in
            let asked = try ChatRequest(fields, service: service, configuration: configuration)
            try share.resize(to: asked.memory)
            return (request: asked, share: share)
        }
        let chat = asked.request
        let generations = try service.start(
            chat.requests, names: ["prompt": "messages", "max_new_tokens": "max_tokens"], slot: slot)
        let choices = chat.requests.indices.map { ChatChoice(chat, index: $0, service: service) }
        let (stream, thinks) = (chat.stream, chat.separatesReasoning)
        let envelope = Envelope(
            prefix: "chatcmpl-", object: stream.isOn ? "chat.completion.chunk" : "chat.completion",
            model: configuration.servedModelName)
        guard stream.isOn else {
            let body = try await Self.whole(
                choices, of: generations, on: connection, in: envelope, showsReasoning: thinks,
                bytes: chat.wantsLogProbs ? chat.memory : 0)
            withExtendedLifetime(asked.share) {}
            return .json(written: body)
        }
        return .events(on: connection, writeTimeout: configuration.writeTimeout) { events in
            var (choices, usage) = (choices, UsageTotals(choicesPerPrompt: choices.count))
            for choice in choices { try await events.send(written: envelope.chunk(choice.opening, stream)) }
            try await connection.forEach(of: generations, count: choices.count) { index, event in
                for piece in choices[index].feed(event) {
                    try await events.send(written: envelope.chunk(piece, stream))
                }
                if case .finished(let finish) = event {
                    usage.add(finish, of: index, reasoningTokens: thinks ? choices[index].reasoningTokens : nil)
                }
            }
            if stream.includesUsage { try await events.send(written: envelope.body(choices: [], usage: usage.json)) }
            try await events.sendDone()
        }
    }

    /// Returns the body of an answer that is not streamed.
    ///
    /// - Parameter bytes: the approximate size of what has to be written, which decides whether `WorkPool` writes it.
    private static func whole(
        _ choices: [ChatChoice], of generations: TextGenerations, on connection: ClientConnection,
        in envelope: Envelope,
        showsReasoning: Bool, bytes: Int
    ) async throws -> [UInt8] {
        var (choices, usage) = (choices, UsageTotals(choicesPerPrompt: choices.count))
        try await connection.forEach(of: generations, count: choices.count) { index, event in
            choices[index].collect(event)
            if case .finished(let finish) = event {
                usage.add(finish, of: index, reasoningTokens: showsReasoning ? choices[index].reasoningTokens : nil)
            }
        }
        let (all, costs) = (choices, usage.json)
        return try await WorkPool.shared.run(bytes: bytes) {
            envelope.body(choices: all.map(\.whole), usage: costs)
        }
    }
}
