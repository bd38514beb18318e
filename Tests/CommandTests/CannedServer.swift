import NIOCore
import NIOPosix
import Routing
import braid

/// This server listens on a port of its own and answers requests with bytes that are known before.
struct CannedServer: Sendable {
    private let channel: any Channel

    /// - Parameter closes: True if the connection ends after the bytes.
    init(_ answer: String, closes: Bool = true) async throws {
        try await self.init(closes: closes) { _ in answer }
    }

    /// - Parameter answer: Returns the bytes for a request, of which it receives the bytes.
    init(closes: Bool = true, _ answer: @escaping @Sendable (String) -> String) async throws {
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
        let answer: @Sendable (String) -> String
        let closes: Bool
        private var request = ""

        init(answer: @escaping @Sendable (String) -> String, closes: Bool) {
            self.answer = answer
            self.closes = closes
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            request += String(buffer: unwrapInboundIn(data))
            // Bodies are JSON objects, which end with a brace. Closing before all of one has arrived would break the
            // client's sending.
            guard request.hasSuffix("}") || request.hasPrefix("GET ") && request.hasSuffix("\r\n\r\n") else { return }
            let sent = context.writeAndFlush(NIOAny(ByteBuffer(string: answer(request))))
            if closes { sent.assumeIsolated().whenComplete { _ in context.close(promise: nil) } }
        }
    }
}
