import Synchronization

/// Where what other processes send to one set of ranks arrives: made by whichever comes first, the ranks here or a
/// message for them.
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

/// The messages of one channel from one process, until they have been read.
///
/// Nobody sends a message before the one `depth` before it has been read: that is what groups and links see to. So what
/// waits here is bounded, however far one process is ahead of another.
final class Mailbox: Sendable {
    static let depth = 4
    private let slots = Mutex<[Message?]>(Array(repeating: nil, count: depth))
    private let filled: AbortableCounter

    init(alarm: Alarm) { filled = AbortableCounter(period: 1, spins: 0, alarm: alarm) }

    /// - Returns: whether it is the message that comes next.
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

    /// Waits for a message that nobody has dropped.
    ///
    /// - Parameter spins: how often to look before going to sleep.
    func message(_ number: Int, spins: Int) throws(GroupFailure) -> Message {
        try filled.wait(for: number + 1, spins: spins)
        return slots.withLock { $0[number % Self.depth]! }
    }

    /// Forgets a message that came, and gives back its memory: everybody here has read it.
    func drop(_ number: Int) { slots.withLock { $0[number % Self.depth] = nil } }

    /// Whether a message has come.
    func has(_ number: Int) -> Bool { filled.value > number }
}
