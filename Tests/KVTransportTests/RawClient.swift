import Foundation
import KVTransport
import NIOCore
import NIOPosix
import Synchronization

/// A client that sends and receives bytes as they are.
final class RawClient: Sendable {
    private let channel: any Channel
    private let seen: Seen

    private final class Seen: Sendable {
        let state = Mutex((bytes: [UInt8](), isClosed: false))
    }

    private final class Reader: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let seen: Seen

        init(_ seen: Seen) { self.seen = seen }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let bytes = Array(unwrapInboundIn(data).readableBytesView)
            seen.state.withLock { $0.bytes += bytes }
        }

        func channelInactive(context: ChannelHandlerContext) { seen.state.withLock { $0.isClosed = true } }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }

    init(port: Int) async throws {
        let seen = Seen()
        self.seen = seen
        channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Reader(seen))
                }
            }
            .connect(host: "127.0.0.1", port: port).get()
    }

    var received: [UInt8] { seen.state.withLock { $0.bytes } }
    var isClosed: Bool { seen.state.withLock { $0.isClosed } }

    /// Sends bytes. The other side may have closed the connection before.
    func send(_ bytes: [UInt8]) async {
        try? await channel.writeAndFlush(ByteBuffer(bytes: bytes)).get()
    }

    /// Sends a record.
    func send(record: [UInt8]) async { await send(Self.length(UInt32(record.count)) + record) }

    static func length(_ count: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: count >> (8 * $0)) } }

    /// Waits for the next record, and takes it; `nil` if the connection ends before.
    func record() async throws -> [UInt8]? {
        while true {
            let found: [UInt8]? = seen.state.withLock { state in
                guard state.bytes.count >= 4 else { return nil }
                let count = Int(state.bytes[..<4].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) })
                guard state.bytes.count >= 4 + count else { return nil }
                defer { state.bytes.removeFirst(4 + count) }
                return Array(state.bytes[4..<4 + count])
            }
            if let found { return found }
            if isClosed { return nil }
            try await Task.sleep(for: .milliseconds(2))
        }
    }

    /// Does the dialer's part of a handshake.
    func shake(_ handshake: inout TransferHandshake) async throws {
        await send(record: handshake.greeting)
        while !handshake.isDone, let record = try await record() {
            if let answer = try handshake.take(record) { await send(record: answer) }
        }
    }

    func close() { channel.close(promise: nil) }
}
