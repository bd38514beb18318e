import Tensors

/// Connects two members in different processes. The receiver acknowledges each message it has read.
final class ProcessLink: PointToPoint {
    private static let depth = Mailbox.depth
    private let other: Int
    /// The number, in the whole job, of the member at the other end.
    private let rank: Int
    private var sent: MessageRing
    private var acknowledgements: MessageRing
    private let processes: Processes
    private let mailboxes: MailboxRegistry
    private let filled: Mailbox
    private let emptied: Mailbox
    private let spins: Int

    init(
        to other: Int, rank: Int, _ channel: UInt64, back: UInt64, _ processes: Processes, _ mailboxes: MailboxRegistry,
        spins: Int
    ) {
        self.other = other
        self.rank = rank
        sent = MessageRing(.rows, epoch: mailboxes.epoch, channel: channel)
        acknowledgements = MessageRing(.rows, epoch: mailboxes.epoch, channel: back)
        self.processes = processes
        self.mailboxes = mailboxes
        self.spins = spins
        filled = mailboxes.mailbox(channel, from: other)
        emptied = mailboxes.mailbox(back, from: other)
    }

    func send(_ rows: View, number: Int) throws(GroupFailure) {
        try mailboxes.alarm.check()
        if number >= Self.depth {
            _ = try message(number - Self.depth, of: emptied)
            emptied.drop(number - Self.depth)
        }
        let message = try Bundle.message(1, columns: rows.columns, number: number, from: rank, &sent) { _ in rows }
        processes.send(message, to: other)
    }

    func receive(into rows: View, number: Int) throws(GroupFailure) {
        guard let bundle = ArrivedBundle(try message(number, of: filled), blocks: 1), bundle.all.rows == rows.rows,
            bundle.columns == rows.columns
        else {
            throw GroupFailure(rank: rank, reason: "process \(other) sent a stage rows of another number or shape")
        }
        rows.transfer(from: bundle.all)
        filled.drop(number)
        processes.send(try acknowledgements.message(number, bodyBytes: 0, from: rank), to: other)
    }

    private func message(_ number: Int, of mailbox: Mailbox) throws(GroupFailure) -> Message {
        let isWaiting = !mailbox.has(number)
        if isWaiting { processes.beginWait() }
        defer { if isWaiting { processes.endWait() } }
        return try mailbox.message(number, spins: spins)
    }
}
