import Hummingbird
import JSON

/// Writes server-sent events to one client.
///
/// A write waits until the connection accepts it, and `WriteTimeout` ends a connection that accepts nothing for too long.
/// Events of the engine are buffered meanwhile; their number is bounded by the tokens that the request asked for.
struct EventStream: ~Copyable {
    private var writer: any ResponseBodyWriter

    fileprivate init(writer: any ResponseBodyWriter) { self.writer = writer }

    @concurrent mutating func send(_ value: JSONValue) async throws {
        try await send(written: value.pythonBytes)
    }

    /// Sends an event.
    ///
    /// - Parameters:
    ///   - json: the JSON text of the event.
    ///   - name: the name of the event, where the interface has names.
    @concurrent mutating func send(written json: [UInt8], named name: String? = nil) async throws {
        var event = ByteBuffer()
        event.reserveCapacity(json.count + 64)
        if let name { event.writeString("event: \(name)\n") }
        event.writeStaticString("data: ")
        event.writeBytes(json)
        event.writeStaticString("\n\n")
        try await writer.write(event)
    }

    /// Sends `[DONE]`, which tells the client that the stream is complete. A stream without it was interrupted.
    @concurrent mutating func sendDone() async throws {
        try await writer.write(ByteBuffer(string: "data: [DONE]\n\n"))
    }

    /// Sends a comment, which clients skip: it shows proxies and clients that the connection is in use.
    @concurrent mutating func sendComment() async throws {
        try await writer.write(ByteBuffer(string: ": keep-alive\n\n"))
    }

    @concurrent fileprivate consuming func finish() async throws {
        try await writer.finish(nil)
    }
}

extension Response {
    /// Returns a response of server-sent events. A `RequestError` that `write` throws is sent as the last event.
    static func events(
        _ write: @escaping @concurrent @Sendable (inout EventStream) async throws -> Void
    ) -> Response {
        let headers: HTTPFields = [
            .contentType: "text/event-stream; charset=utf-8", .cacheControl: "no-cache",
            // Proxies must not buffer events.
            .init("X-Accel-Buffering")!: "no",
        ]
        return Response(
            status: .ok, headers: headers,
            body: ResponseBody { writer in
                var events = EventStream(writer: writer)
                do {
                    try await write(&events)
                } catch let error as RequestError {
                    try await events.send(error.json)
                }
                try await events.finish()
            })
    }
}
