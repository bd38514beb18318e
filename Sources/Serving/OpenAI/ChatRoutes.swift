import Hummingbird
import JSON

/// `POST /v1/chat/completions`: a conversation, answered.
struct ChatRoutes: Sendable {
    let configuration: ServerConfiguration
    let slot: ModelSlot

    func post(_ request: Request, _ context: ServingContext) async throws -> Response {
        let service = try slot.service()
        let fields = try await BodyReader(configuration).fields(of: request)
        let asked = try ChatRequest(fields, service: service, configuration: configuration)
        let generations = try service.start(
            asked.requests, names: ["prompt": "messages", "max_new_tokens": "max_tokens"], metrics: slot.metrics)
        let choices = asked.requests.indices.map { ChatChoice(asked, index: $0, service: service) }
        let (connection, stream, model) = (context.connection, asked.stream, configuration.servedModelName)
        guard stream.isOn else {
            let envelope = Envelope(prefix: "chatcmpl-", object: "chat.completion", model: model)
            return .json(try await Self.whole(choices, of: generations, on: connection, in: envelope))
        }
        let envelope = Envelope(prefix: "chatcmpl-", object: "chat.completion.chunk", model: model)
        return .events(on: connection, writeTimeout: configuration.writeTimeout) { events in
            var (choices, usage) = (choices, UsageTotals(choicesPerPrompt: choices.count))
            for choice in choices { try await events.send(envelope.chunk(choices: [choice.opening], stream)) }
            try await connection.forEach(of: generations, count: choices.count) { index, event in
                for piece in choices[index].feed(event) {
                    try await events.send(envelope.chunk(choices: [piece], stream))
                }
                if case .finished(let finish) = event { usage.add(finish, of: index) }
            }
            if stream.includesUsage { try await events.send(envelope.body(choices: [], usage: usage.json)) }
            try await events.sendDone()
        }
    }

    private static func whole(
        _ choices: [ChatChoice], of generations: TextGenerations, on connection: ClientConnection, in envelope: Envelope
    ) async throws -> JSONValue {
        var (choices, usage) = (choices, UsageTotals(choicesPerPrompt: choices.count))
        try await connection.forEach(of: generations, count: choices.count) { index, event in
            choices[index].collect(event)
            if case .finished(let finish) = event { usage.add(finish, of: index) }
        }
        return envelope.body(choices: choices.map(\.whole), usage: usage.json)
    }
}
