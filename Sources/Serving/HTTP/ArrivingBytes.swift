import NIOCore

/// Sees what arrives on a connection before it is decoded.
///
/// It remembers the first bytes of a request, since a request whose header is not valid is never decoded, and the response to
/// a HEAD has no body. Once no further request is read, it discards what arrives.
final class ArrivingBytes: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer

    private static let head = Array("HEAD ".utf8)
    private let maxDiscarded: Int
    private var start: [UInt8] = []
    /// The value of `count` from which on everything is discarded; `nil` while requests are read.
    private var end: Int?
    /// The number of bytes that have arrived.
    private(set) var count = 0

    /// - Parameter maxDiscarded: the number of discarded bytes beyond which the connection is closed.
    init(discardsAtMost maxDiscarded: Int) { self.maxDiscarded = maxDiscarded }

    /// True if the request that is arriving is known to be a HEAD. It is not known of requests that a client sends
    /// before it has the response to an earlier one.
    var isHead: Bool { start == Self.head }

    /// Forgets the first bytes of a request that has arrived completely.
    func forgetStart() { start = [] }

    /// Discards everything from now on.
    func discard() { end = end ?? count }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let bytes = unwrapInboundIn(data)
        count += bytes.readableBytes
        if let end {
            if count - end > maxDiscarded { context.close(promise: nil) }
            return
        }
        if start.count < Self.head.count {
            start += bytes.readableBytesView.prefix(Self.head.count - start.count)
        }
        context.fireChannelRead(data)
    }
}
