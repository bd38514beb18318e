import Foundation
import Synchronization

/// One end of a link between two servers in one process.
package final class MemoryLink: TransferLink {
    private let inbox: Inbox
    private let other: Inbox
    /// The number of frames after which the link ends.
    private let lastFrame: Int
    private let sentFrames = Atomic(0)

    /// Creates both ends.
    ///
    /// - Parameters:
    ///   - limit: the number of bytes of frames on their way from which on an end is not writable.
    ///   - lastFrame: the number of frames after which the link ends, as if a cable were pulled; `nil` for never.
    package static func pair(limit: Int = 4 << 20, lastFrame: Int? = nil) -> (MemoryLink, MemoryLink) {
        let (one, other) = (Inbox(limit), Inbox(limit))
        return (
            MemoryLink(one, other, lastFrame: lastFrame ?? .max), MemoryLink(other, one, lastFrame: lastFrame ?? .max)
        )
    }

    private init(_ inbox: Inbox, _ other: Inbox, lastFrame: Int) {
        self.inbox = inbox
        self.other = other
        self.lastFrame = lastFrame
    }

    package func open(_ receive: @escaping @Sendable (TransferLinkEvent) -> Void) {
        Thread.detachNewThread { [inbox, other] in
            while true {
                let (event, isWritableAgain) = inbox.take()
                if isWritableAgain { other.put(.writable) }
                receive(event)
                if case .closed = event { return }
            }
        }
    }

    package func send(message: [UInt8]) { other.put(.message(message)) }

    package var isWritable: Bool { other.isWritable }

    package func send(frame: [UInt8]) {
        other.put(.frame(frame))
        if sentFrames.add(1, ordering: .relaxed).newValue == lastFrame { close("the link was cut") }
    }

    package func setReadsFrames(_ reads: Bool) { inbox.setReadsFrames(reads) }

    package func close(_ reason: String) {
        inbox.put(.closed(reason))
        other.put(.closed(reason))
    }
}

/// What is on its way to one end of a link.
private final class Inbox: Sendable {
    private let state = Mutex(State())
    private let filled = DispatchSemaphore(value: 0)
    /// Is signalled when frames are read again.
    private let resumed = DispatchSemaphore(value: 0)
    private let limit: Int

    private struct State {
        var events: [TransferLinkEvent] = []
        var frameBytes = 0
        var isClosed = false
        var readsFrames = true

        /// True if the next event is a frame that is not to be read now.
        var waits: Bool {
            guard !readsFrames, !isClosed, case .frame = events.first else { return false }
            return true
        }
    }

    init(_ limit: Int) { self.limit = limit }

    var isWritable: Bool { state.withLock { $0.frameBytes < limit && !$0.isClosed } }

    func put(_ event: TransferLinkEvent) {
        let isTaken = state.withLock { state in
            if state.isClosed { return false }
            switch event {
            case .frame(let bytes): state.frameBytes += bytes.count
            case .closed: state.isClosed = true
            case .message, .writable: break
            }
            state.events.append(event)
            return true
        }
        if isTaken { filled.signal() }
        if case .closed = event { resumed.signal() }
    }

    func setReadsFrames(_ reads: Bool) {
        state.withLock { $0.readsFrames = reads }
        resumed.signal()
    }

    /// Waits for the next event. `isWritableAgain` is true if it leaves the link writable, which it was not.
    func take() -> (TransferLinkEvent, isWritableAgain: Bool) {
        filled.wait()
        while state.withLock({ $0.waits }) { resumed.wait() }
        return state.withLock { state in
            let event = state.events.removeFirst()
            guard case .frame(let bytes) = event else { return (event, false) }
            let wasWritable = state.frameBytes < limit
            state.frameBytes -= bytes.count
            return (event, !wasWritable && state.frameBytes < limit)
        }
    }
}
