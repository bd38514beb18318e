import HTTPTypes
import NIOCore
import NIOHTTPTypes

/// Sends status 100 to a client that waits for it before it sends its body (`Expect: 100-continue`).
///
/// Command-line clients do so for bodies of a megabyte and more; without status 100 they wait for a second.
final class ContinueHandler: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    /// The maximum size of a body; larger bodies will be refused, so their clients get no status 100.
    private let maxBodyBytes: Int
    /// The number of requests read whose response is not written. Status 100 must not interrupt an earlier response.
    private var unanswered = 0

    init(maxBodyBytes: Int) { self.maxBodyBytes = maxBodyBytes }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if case .head(let head) = unwrapInboundIn(data) {
            let length = head.headerFields[.contentLength].flatMap { Int($0) } ?? 0
            if unanswered == 0, length <= maxBodyBytes, head.headerFields[.expect]?.lowercased() == "100-continue" {
                context.writeAndFlush(wrapOutboundOut(.head(HTTPResponse(status: .continue))), promise: nil)
            }
            unanswered += 1
        }
        context.fireChannelRead(data)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if case .end = unwrapOutboundIn(data) { unanswered -= 1 }
        context.write(data, promise: promise)
    }
}
