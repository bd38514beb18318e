import HTTPTypes
import NIOCore
import NIOHTTPTypes

/// Tells a client that waits for leave to send its body (`Expect: 100-continue`) to go on.
///
/// Command-line clients ask for bodies of a megabyte and more, and without an answer wait a second before they send.
final class ContinueHandler: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    /// Longer bodies will be refused, and must not be sent for.
    private let maxBodyBytes: Int
    /// Requests read whose response is not written: a leave must not stand within the response to an earlier request.
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
