import HTTPTypes
import NIOCore
import NIOHTTPTypes

/// Sends status 100 to a client that waits for it before it sends its body (`Expect: 100-continue`), once its body is to be
/// read. A request that is refused by its header gets its answer instead (RFC 9110, section 10.1.1).
///
/// Command-line clients do so for bodies of a megabyte and more; without status 100 they wait for a second.
final class ContinueHandler: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    /// The event of the layers above by which they say that they begin to read the body of the oldest request without a
    /// response.
    struct BodyIsRead: Sendable {}

    /// Returns true if a value of `Expect` says that the client waits for status 100.
    static func asksForContinue(_ value: String) -> Bool { value.lowercased() == "100-continue" }

    /// The number of requests read whose response is not written. Status 100 must not interrupt an earlier response.
    private var unanswered = 0
    /// True if the client of the newest request waits before it sends the body.
    private var isAwaited = false

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if case .head(let head) = unwrapInboundIn(data) {
            isAwaited = head.expectsContinue
            unanswered += 1
        } else {
            isAwaited = false
        }
        context.fireChannelRead(data)
    }

    func triggerUserOutboundEvent(context: ChannelHandlerContext, event: Any, promise: EventLoopPromise<Void>?) {
        guard event is BodyIsRead else { return context.triggerUserOutboundEvent(event, promise: promise) }
        if isAwaited, unanswered == 1 {
            isAwaited = false
            context.writeAndFlush(wrapOutboundOut(.head(HTTPResponse(status: .continue))), promise: nil)
        }
        promise?.succeed()
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if case .end = unwrapOutboundIn(data) { unanswered -= 1 }
        context.write(data, promise: promise)
    }
}

extension HTTPRequest {
    /// True if the client waits for status 100 before it sends the body.
    var expectsContinue: Bool { headerFields[values: .expect].contains(where: ContinueHandler.asksForContinue) }
}
