import NIOCore
import NIOPosix
import Synchronization
import TestSupport

/// A connection on which a test sends and receives bytes as they are.
final class RawConnection: Sendable {
    private struct Heard {
        var text = ""
        var isOver = false
    }

    private let outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>
    private let heard = Mutex(Heard())
    /// True if nothing is read from the connection.
    private let isDeaf: Mutex<Bool>

    private init(_ outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>, isDeaf: Bool) {
        self.outbound = outbound
        self.isDeaf = Mutex(isDeaf)
    }

    /// Connects, runs `body`, and hangs up.
    ///
    /// - Parameter isDeaf: whether nothing is read from the connection until `startListening()`.
    static func open(
        port: Int, isDeaf: Bool = false, _ body: @escaping @Sendable (RawConnection) async throws -> Void
    ) async throws {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            // A client may still send when the server has closed its sending side.
            .channelOption(.allowRemoteHalfClosure, value: true)
            .connect(host: "127.0.0.1", port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try NIOAsyncChannel<ByteBuffer, ByteBuffer>(
                        wrappingChannelSynchronously: channel,
                        configuration: .init(isOutboundHalfClosureEnabled: true))
                }
            }
        try await channel.executeThenClose { inbound, outbound in
            let connection = RawConnection(outbound, isDeaf: isDeaf)
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { await connection.listen(to: inbound) }
                try await body(connection)
                group.cancelAll()
            }
        }
    }

    private func listen(to inbound: NIOAsyncChannelInboundStream<ByteBuffer>) async {
        while isDeaf.withLock({ $0 }) {
            do { try await Task.sleep(for: .milliseconds(2)) } catch { return }
        }
        do {
            for try await buffer in inbound { heard.withLock { $0.text += String(buffer: buffer) } }
        } catch {
            // A broken connection counts as closed.
        }
        heard.withLock { $0.isOver = true }
    }

    func startListening() { isDeaf.withLock { $0 = false } }

    func send(_ text: String) async throws {
        try await outbound.write(ByteBuffer(string: text))
    }

    /// Closes the sending side, as `nc -N` does at the end of its input.
    func finishSending() { outbound.finish() }

    /// Sends a request with a body and the right length.
    func post(_ path: String, _ body: String) async throws {
        try await send(
            "POST \(path) HTTP/1.1\r\nHost: localhost\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
    }

    /// Returns what was received since the last call, as soon as it contains `end` or the server has hung up. It
    /// gives up as `eventually` does.
    func receive(until end: String? = nil) async -> String {
        _ = await eventually {
            self.heard.withLock { heard in heard.isOver || end.map { heard.text.contains($0) } ?? false }
        }
        return heard.withLock { heard in
            defer { heard.text = "" }
            return heard.text
        }
    }

    /// True if the server has hung up.
    var isOver: Bool { heard.withLock { $0.isOver } }
}
