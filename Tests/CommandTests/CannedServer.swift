import NIOCore
import NIOPosix
import braid

/// This server listens on a port of its own and answers every request with the same bytes.
struct CannedServer: Sendable {
    private let channel: any Channel

    /// - Parameter closes: Whether the connection ends after the bytes.
    init(_ answer: String, closes: Bool = true) async throws {
        channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Handler(answer: answer, closes: closes))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
    }

    var address: ServerAddress { ServerAddress(host: "127.0.0.1", port: channel.localAddress!.port!) }

    func stop() async throws { try await channel.close() }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        let answer: String
        let closes: Bool
        private var request = ""

        init(answer: String, closes: Bool) {
            self.answer = answer
            self.closes = closes
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            request += String(buffer: unwrapInboundIn(data))
            // Bodies are JSON objects, which end with a brace. Closing before all of one has arrived would break the
            // client's sending.
            guard request.hasSuffix("}") else { return }
            let sent = context.writeAndFlush(NIOAny(ByteBuffer(string: answer)))
            if closes { sent.assumeIsolated().whenComplete { _ in context.close(promise: nil) } }
        }
    }
}
