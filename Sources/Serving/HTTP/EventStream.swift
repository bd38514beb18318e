import Hummingbird
import JSON
import Synchronization

/// Writes server-sent events to one client.
///
/// A write waits until the connection accepts it, and a write that waits too long ends the connection. Events of the
/// engine are buffered meanwhile; their number is bounded by the tokens that the request asked for.
struct EventStream: ~Copyable {
    private var writer: any ResponseBodyWriter
    private let stall: WriteStall

    fileprivate init(writer: any ResponseBodyWriter, stall: WriteStall) {
        self.writer = writer
        self.stall = stall
    }

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
        try await send(event)
    }

    /// Sends `[DONE]`, which tells the client that the stream is complete. A stream without it was interrupted.
    @concurrent mutating func sendDone() async throws {
        try await send(ByteBuffer(string: "data: [DONE]\n\n"))
    }

    /// Sends a comment, which clients skip: it shows proxies and clients that the connection is in use.
    @concurrent mutating func sendComment() async throws {
        try await send(ByteBuffer(string: ": keep-alive\n\n"))
    }

    @concurrent private mutating func send(_ event: ByteBuffer) async throws {
        stall.begin()
        defer { stall.end() }
        try await writer.write(event)
    }

    @concurrent fileprivate consuming func finish() async throws {
        try await writer.finish(nil)
    }
}

extension Response {
    /// Returns a response of server-sent events. A `RequestError` that `write` throws is sent as the last event.
    static func events(
        on connection: ClientConnection, _ configuration: ServerConfiguration,
        _ write: @escaping @concurrent @Sendable (inout EventStream) async throws -> Void
    ) -> Response {
        let headers: HTTPFields = [
            .contentType: "text/event-stream; charset=utf-8", .cacheControl: "no-cache",
            // Proxies must not buffer events.
            .init("X-Accel-Buffering")!: "no",
        ]
        let writeTimeout = configuration.writeTimeout
        return Response(
            status: .ok, headers: headers,
            body: ResponseBody { writer in
                let stall = WriteStall()
                let watch = Task { await stall.watch(limit: writeTimeout) { connection.close() } }
                defer { watch.cancel() }
                var events = EventStream(writer: writer, stall: stall)
                do {
                    try await write(&events)
                } catch let error as RequestError {
                    try await events.send(error.json)
                }
                try await events.finish()
            })
    }
}

/// The time since which a write has been waiting; `nil` while none is.
package final class WriteStall: Sendable {
    private let since = Mutex<ContinuousClock.Instant?>(nil)

    package init() {}

    package func begin() { since.withLock { $0 = .now } }
    package func end() { since.withLock { $0 = nil } }

    /// Calls `onStall` when one write has waited longer than `limit`; returns when cancelled.
    package func watch(limit: Duration, onStall: () -> Void) async {
        while (try? await Task.sleep(for: limit / 2)) != nil {
            if let start = since.withLock({ $0 }), start.duration(to: .now) > limit { return onStall() }
        }
    }
}
