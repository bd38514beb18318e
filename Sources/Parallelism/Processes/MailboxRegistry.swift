import Synchronization

/// Holds the mailboxes for the messages that other processes send to one set of ranks. The ranks here or the first
/// message creates a mailbox, whichever comes first.
final class MailboxRegistry: Sendable {
    let epoch: UInt64
    let alarm: Alarm
    private let mailboxes = Mutex<[Key: Mailbox]>([:])

    private struct Key: Hashable {
        let channel: UInt64
        let process: Int
    }

    init(epoch: UInt64, announce: @escaping @Sendable (GroupFailure) -> Void) {
        self.epoch = epoch
        alarm = Alarm(announce: announce)
    }

    func mailbox(_ channel: UInt64, from process: Int) -> Mailbox {
        mailboxes.withLock { mailboxes in
            let key = Key(channel: channel, process: process)
            let mailbox = mailboxes[key] ?? Mailbox(alarm: alarm)
            mailboxes[key] = mailbox
            return mailbox
        }
    }
}

/// Holds the messages of one channel from one process until they have been read.
///
/// Groups and links send no message before the message `depth` earlier has been read. So the number of waiting messages
/// is bounded, however far one process is ahead of another.
final class Mailbox: Sendable {
    static let depth = 4
    private let slots = Mutex<[Message?]>(Array(repeating: nil, count: depth))
    private let filled: AbortableCounter

    init(alarm: Alarm) { filled = AbortableCounter(period: 1, spins: 0, alarm: alarm) }

    /// Adds a message.
    ///
    /// - Returns: true if it is the next message of the channel; otherwise it is not added.
    func put(_ message: Message) -> Bool {
        let isNext = slots.withLock { slots in
            let slot = Int(message.number) % Self.depth
            guard Int(message.number) == filled.value, slots[slot] == nil else { return false }
            slots[slot] = message
            return true
        }
        if isNext { filled.advance() }
        return isNext
    }

    /// Waits for a message that has not been dropped.
    ///
    /// - Parameter spins: the number of looks before the thread sleeps.
    func message(_ number: Int, spins: Int) throws(GroupFailure) -> Message {
        try filled.wait(for: number + 1, spins: spins)
        return slots.withLock { $0[number % Self.depth]! }
    }

    /// Drops a message, and thereby its memory, once every member here has read it.
    func drop(_ number: Int) { slots.withLock { $0[number % Self.depth] = nil } }

    /// Returns true if a message has arrived.
    func has(_ number: Int) -> Bool { filled.value > number }
}
