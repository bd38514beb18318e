/// A transfer link carries messages and frames between the two ends of a session: messages in order, and frames in order.
///
/// Its functions are called under locks: none of them waits, or delivers an event on the caller's thread.
package protocol TransferLink: AnyObject, Sendable {
    /// Starts to deliver what the other end sends, one event at a time and on a thread of the link. It is called once.
    func open(_ receive: @escaping @Sendable (TransferLinkEvent) -> Void)
    /// Queues a message. It does not wait, and does not call the other end.
    func send(message: [UInt8])
    /// True if so few frames are on their way that another should be sent.
    var isWritable: Bool { get }
    /// Queues a frame, as `send(message:)` does.
    func send(frame: [UInt8])
    /// Sets whether frames are read, as they are at first. While they are not, a few still arrive, and the other end soon is
    /// not writable. Messages that follow frames may wait with them.
    func setReadsFrames(_ reads: Bool)
    /// Ends the link. Both ends get `closed` once, unless the link has ended before.
    func close(_ reason: String)
}

package enum TransferLinkEvent: Sendable, Equatable {
    case message([UInt8])
    case frame([UInt8])
    /// The link is writable again.
    case writable
    /// The link has ended. Nothing follows.
    case closed(String)
}
