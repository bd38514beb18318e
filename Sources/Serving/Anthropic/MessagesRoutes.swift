import Hummingbird
import JSON

/// Handles `POST /v1/messages` and `POST /v1/messages/count_tokens`, with which Anthropic's clients use the chat route.
struct MessagesRoutes: Sendable {
    static let path = "/v1/messages"

    let configuration: ServerConfiguration
    let slot: ModelSlot

    func post(_ request: Request, _ context: ServingContext) async throws -> Response {
        let (configuration, connection) = (configuration, context.connection)
        let started = try await ChatStart(
            request, on: connection, configuration, slot,
            names: ["prompt": "messages", "max_new_tokens": "max_tokens", "stop": "stop_sequences"]
        ) { fields, service in
            let fields = try MessagesFields(fields, at: .messages, served: configuration.modelNames)
            let options = try fields.options(service, configuration)
            return (try ChatRequest(fields.conversation, options, service: service), fields.showsThinking)
        }
        let answer = MessagesAnswer(
            started.request, model: configuration.servedModelName, showsThinking: started.fields)
        return try await started.response(answer, on: connection, configuration)
    }

    /// Returns the number of tokens that the prompt of a conversation has.
    func countTokens(_ request: Request, _ context: ServingContext) async throws -> Response {
        let (service, configuration) = (try slot.service(), configuration)
        let count = try await BodyReader(configuration, slot).read(request, on: context.connection) { fields, _ in
            let fields = try MessagesFields(fields, at: .countTokens, served: configuration.modelNames)
            let prompt = try fields.conversation.prompt(in: fields.conversation.format(service))
            return try service.tokens(of: prompt, "messages").count
        }
        return .json(.fields(["input_tokens": .integer(count)]))
    }
}
