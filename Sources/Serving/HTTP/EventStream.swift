import Hummingbird
import JSON
import Synchronization

/// Writes server-sent events to one client.
///
/// A slow reader is bounded twice: a write waits until the connection takes it, and a write that waits too long
/// ends the connection. What the engine produces meanwhile waits too, and is bounded by the tokens the request asked for.
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

    /// - Parameter json: a value that was written before.
    @concurrent mutating func send(written json: [UInt8]) async throws {
        var event = ByteBuffer()
        event.reserveCapacity(json.count + 8)
        event.writeStaticString("data: ")
        event.writeBytes(json)
        event.writeStaticString("\n\n")
        try await send(event)
    }

    /// Tells the client that the stream is complete. A stream without this was cut off.
    @concurrent mutating func sendDone() async throws {
        try await send(ByteBuffer(string: "data: [DONE]\n\n"))
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
    /// A response of server-sent events. An error thrown by `write` is sent as the last event; then the connection ends.
    static func events(
        on connection: ClientConnection, writeTimeout: Duration,
        _ write: @escaping @concurrent @Sendable (inout EventStream) async throws -> Void
    ) -> Response {
        let headers: HTTPFields = [
            .contentType: "text/event-stream; charset=utf-8", .cacheControl: "no-cache",
            // Proxies must not collect events.
            .init("X-Accel-Buffering")!: "no",
        ]
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

/// Knows since when a write has been waiting.
private final class WriteStall: Sendable {
    private let since = Mutex<ContinuousClock.Instant?>(nil)

    func begin() { since.withLock { $0 = .now } }
    func end() { since.withLock { $0 = nil } }

    /// Calls `onStall` when one write has waited longer than `limit`; returns when cancelled.
    func watch(limit: Duration, onStall: () -> Void) async {
        while (try? await Task.sleep(for: limit / 2)) != nil {
            if let start = since.withLock({ $0 }), start.duration(to: .now) > limit { return onStall() }
        }
    }
}
