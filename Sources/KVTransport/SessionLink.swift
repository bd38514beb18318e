package import Disaggregation
import NIOCore
package import Synchronization

/// A link whose messages go over a TCP connection and whose frames have a channel of their own, so that they never delay a
/// message. The event loop of the connection delivers all events.
package final class SessionLink: TransferLink {
    private let messages: RecordConnection
    private let frames: any FrameChannel
    private let traffic: TransferTraffic
    private let state = Mutex(State())
    /// The bytes of frames, and of messages, that were sent and not yet taken by the system.
    private let queuedFrames = Atomic(0)
    private let queuedMessages = Atomic(0)
    private let isClosing = Atomic(false)

    private struct State {
        var receive: (@Sendable (TransferLinkEvent) -> Void)?
        /// Why this server ends the link. The other one may react before it has ended here.
        var closing: String?
        /// Why the link has ended; `nil` while it is in use.
        var end: String?
    }

    /// A record of the first connection is a message, or the reason why the other server ends the link.
    private enum Kind: UInt8 { case message, end }

    /// The bytes of frames on their way from which on the link is not writable.
    package static let limit = 4 << 20
    /// The longest message: scores of a step's prompt tokens, or a prompt of millions of tokens.
    private static let maxMessage = 32 << 20
    /// More bytes of messages do not wait: the other server has stopped reading.
    private static let maxQueuedMessages = 256 << 20
    private static let maxReason = 1024
    /// The time that the connection of messages has to end after the channel of frames.
    private static let patience = TimeAmount.seconds(1)

    /// - Precondition: One event loop serves messages and frames.
    init(_ messages: RecordConnection, frames: any FrameChannel, _ traffic: TransferTraffic) {
        precondition(messages.eventLoop === frames.eventLoop, "a link has one event loop")
        self.messages = messages
        self.frames = frames
        self.traffic = traffic
        messages.bounds = RecordConnection.Bounds(record: Self.maxMessage)
    }

    /// Ends when the link has ended.
    var closeFuture: EventLoopFuture<Void> { messages.channel.closeFuture }

    /// Why the link has ended; `nil` while it is in use.
    package var failure: String? { state.withLock { $0.end } }

    package func open(_ receive: @escaping @Sendable (TransferLinkEvent) -> Void) {
        messages.eventLoop.execute { [self] in
            let end = state.withLock { state in
                if state.end == nil { state.receive = receive }
                return state.end
            }
            if let end { return receive(.closed(end)) }
            messages.deliver { [self] event in take(event) }
            frames.deliver { [self] event in take(frame: event) }
        }
    }

    private func take(frame event: RecordConnection.Event) {
        switch event {
        case .ended(let reason):
            // The connection of messages says why, if the other server has ended the link.
            frames.eventLoop.scheduleTask(in: Self.patience) { [weak self] in self?.end(reason) }
        case .record(let bytes):
            traffic.received.add(UInt64(bytes.count), ordering: .relaxed)
            deliver(.frame(bytes))
        }
    }

    private func take(_ event: RecordConnection.Event) {
        switch event {
        case .ended(let reason): end(reason)
        case .record(let bytes):
            let body = bytes.dropFirst()
            switch bytes.first.flatMap(Kind.init) {
            case .message: deliver(.message(Array(body)))
            case .end: end(TransferFailure(String(decoding: body.prefix(Self.maxReason), as: UTF8.self)).description)
            case nil: close("a record of kind \(bytes.first ?? 0)")
            }
        }
    }

    private func deliver(_ event: TransferLinkEvent) {
        state.withLock { $0.receive }?(event)
    }

    package func send(message: [UInt8]) {
        let waiting = queuedMessages.add(message.count, ordering: .relaxed).newValue
        if waiting > Self.maxQueuedMessages { return close("the other server reads no messages") }
        messages.send([Kind.message.rawValue] + message).whenComplete { [self] _ in
            queuedMessages.subtract(message.count, ordering: .relaxed)
        }
    }

    package var isWritable: Bool {
        queuedFrames.load(ordering: .acquiring) < Self.limit && !isClosing.load(ordering: .relaxed)
    }

    package func send(frame: [UInt8]) {
        // A channel may be faster than the connection that tells of the end.
        if isClosing.load(ordering: .relaxed) { return }
        queuedFrames.add(frame.count, ordering: .acquiringAndReleasing)
        frames.send(frame).whenSuccess { [self] in
            traffic.sent.add(UInt64(frame.count), ordering: .relaxed)
            let queued = queuedFrames.subtract(frame.count, ordering: .acquiringAndReleasing)
            if queued.oldValue >= Self.limit, queued.newValue < Self.limit { deliver(.writable) }
        }
    }

    package func setReadsFrames(_ reads: Bool) { frames.setReads(reads) }

    package func close(_ reason: String) {
        if isClosing.exchange(true, ordering: .relaxed) { return }
        state.withLock { $0.closing = reason }
        messages.send([Kind.end.rawValue] + reason.utf8.prefix(Self.maxReason))
        // Never on the caller's stack, which may hold a lock.
        messages.eventLoop.execute { [self] in end(reason) }
    }

    /// Ends the link, on its event loop.
    private func end(_ reason: String) {
        let (reason, receive): (String?, (@Sendable (TransferLinkEvent) -> Void)?) = state.withLock { state in
            guard state.end == nil else { return (nil, nil) }
            let receive = state.receive
            state.receive = nil
            state.end = state.closing ?? reason
            return (state.end, receive)
        }
        guard let reason else { return }
        isClosing.store(true, ordering: .relaxed)
        messages.deliver(to: nil)
        frames.deliver(to: nil)
        messages.close()
        frames.close()
        receive?(.closed(reason))
    }
}

/// The bytes of frames that a server has exchanged, in all sessions.
package final class TransferTraffic: Sendable {
    package let sent = Atomic<UInt64>(0)
    package let received = Atomic<UInt64>(0)

    package init() {}
}
