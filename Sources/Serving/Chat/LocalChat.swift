package import JSON

/// Answers requests to `/v1/chat/completions` in this process, as the route does, without HTTP.
package struct LocalChat: Sendable {
    private let service: TextService
    private let slot: ModelSlot
    private let configuration: ServerConfiguration

    /// - Parameter model: The name that requests give as `model`.
    package init(_ service: TextService, model: String) {
        self.service = service
        slot = ModelSlot(service)
        configuration = ServerConfiguration(servedModelName: model)
    }

    /// Answers a request. If the task is cancelled, the generation is aborted.
    ///
    /// - Parameters:
    ///   - body: The body of a request with `"stream": true`.
    ///   - take: Receives the JSON text of each event of the stream.
    /// - Throws: `RequestError` if the request is refused or its generation fails.
    @concurrent package func stream(_ body: JSONValue, _ take: ([UInt8]) throws -> Void) async throws {
        let fields = try ChatFields(RequestFields(body), service: service, configuration: configuration)
        let request = try ChatRequest(fields.conversation, fields.options, service: service)
        let generations = try await service.start(request.requests, names: ChatRoutes.names, slot: slot)
        defer { generations.cancel() }
        var stream = ChatStream(request, fields.stream, service: service, model: configuration.servedModelName)
        for event in stream.opening { try take(event) }
        try await generations.forEach(count: request.requests.count) { index, event in
            for event in stream.feed(event, of: index) { try take(event) }
        }
        for event in stream.closing { try take(event) }
    }
}
