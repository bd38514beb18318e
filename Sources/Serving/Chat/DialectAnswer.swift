import Hummingbird

/// One answer in a dialect of the chat route whose streams have named events: Anthropic's messages and OpenAI's
/// responses.
protocol DialectAnswer: Sendable {
    /// An event of a stream: its name, and its data as JSON text.
    typealias StreamEvent = (name: String, data: [UInt8])

    /// Adds an event to an answer that is sent whole.
    mutating func collect(_ event: TextEvent)

    /// The whole answer, as JSON text.
    var whole: [UInt8] { get }

    /// Returns the first events of a stream.
    mutating func begin() -> [StreamEvent]

    /// Adds an event, and returns the events that it makes in the stream.
    mutating func feed(_ event: TextEvent) -> [StreamEvent]

    /// Returns the last event of a stream whose generation failed.
    mutating func failure(_ error: RequestError) -> StreamEvent
}

extension ChatStart {
    /// Returns the response with the one answer to the request: whole, or as a stream.
    func response(
        _ answer: some DialectAnswer, on connection: ClientConnection, _ configuration: ServerConfiguration
    ) async throws -> Response {
        let (generations, kept) = (generations, repeatsRequest ? share : nil)
        guard request.isStreamed else {
            var answer = answer
            try await connection.forEach(of: generations, count: 1) { _, event in answer.collect(event) }
            withExtendedLifetime(share) {}
            return .json(written: answer.whole)
        }
        return .events { events in
            var answer = answer
            for part in answer.begin() { try await events.send(written: part.data, named: part.name) }
            do {
                try await connection.forEach(of: generations, count: 1) { _, event in
                    if case .waiting = event { return try await events.sendComment() }
                    for part in answer.feed(event) { try await events.send(written: part.data, named: part.name) }
                }
            } catch let error as RequestError {
                let last = answer.failure(error)
                try await events.send(written: last.data, named: last.name)
            }
            withExtendedLifetime(kept) {}
        }
    }
}
