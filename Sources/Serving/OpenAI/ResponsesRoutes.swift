import Hummingbird
import JSON

/// Handles `POST /v1/responses`, OpenAI's newer form of the chat route. No response is stored.
struct ResponsesRoutes: Sendable {
    let configuration: ServerConfiguration
    let slot: ModelSlot

    func post(_ request: Request, _ context: ServingContext) async throws -> Response {
        let (configuration, connection) = (configuration, context.connection)
        let started = try await ChatStart(
            request, on: connection, configuration, slot,
            names: ["prompt": "input", "max_new_tokens": "max_output_tokens"], repeatsRequest: true
        ) { fields, service in
            try ResponsesFields.read(fields, service: service, configuration: configuration)
        }
        let answer = ResponsesAnswer(
            started.request, started.fields, model: configuration.servedModelName, started.service.transfers)
        return try await started.response(answer, on: connection, configuration)
    }
}
