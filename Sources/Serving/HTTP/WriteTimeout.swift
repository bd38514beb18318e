import NIOCore

/// Closes a connection whose client has read nothing of what waits to be sent for a while: for the limit at least, and at most
/// half as long again.
///
/// It is the first handler of its pipeline, where everything that is sent passes as bytes: whole answers, which the
/// connection takes at once however long they are, and streams, whose writes wait while too much is not sent. Without it, a
/// client that does not read would keep the memory of its answers, and requests that it has sent behind them, for ever.
final class WriteTimeout: ChannelOutboundHandler, RemovableChannelHandler {
    typealias OutboundIn = IOData
    typealias OutboundOut = IOData

    /// Half the time in which some of the bytes must be sent; see `check`.
    private let turn: TimeAmount
    /// The number of bytes that were written so far, sent or not.
    private var written = 0
    /// The number of bytes that were sent at the last check, and the number of checks since the first that found so many.
    private var (sent, stalledTurns) = (0, 0)
    /// `nil` while nothing waits to be sent.
    private var timer: Scheduled<Void>?

    /// - Parameter limit: the time in which some of the bytes that wait must be sent.
    init(_ limit: Duration) {
        turn = .nanoseconds(Int64(limit / 2 / .nanoseconds(1)))
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        written += unwrapOutboundIn(data).readableBytes
        context.write(data, promise: promise)
        guard timer == nil else { return }
        (sent, stalledTurns) = (-1, 0)
        start(context.channel)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        timer?.cancel()
        timer = nil
    }

    private func start(_ channel: any Channel) {
        timer = channel.eventLoop.assumeIsolated().scheduleTask(in: turn) { [self] in check(channel) }
    }

    /// Ends the connection if nothing was sent in the last two turns.
    private func check(_ channel: any Channel) {
        timer = nil
        guard channel.isActive, let waiting = try? channel.syncOptions?.getOption(.bufferedWritableBytes), waiting > 0
        else { return }
        let sentNow = written - waiting
        stalledTurns = sentNow == sent ? stalledTurns + 1 : 0
        sent = sentNow
        if stalledTurns == 2 { channel.close(promise: nil) } else { start(channel) }
    }
}
