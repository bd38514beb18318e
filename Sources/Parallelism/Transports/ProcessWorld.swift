/// The set of a job's ranks as one of its processes sees them: ranks here share memory, others exchange messages.
package final class ProcessWorld: RankWorld {
    private let processes: Processes
    private let placement: Placement
    private let mailboxes: MailboxRegistry
    /// The groups whose ranks are all in this process.
    private let threads: ThreadWorld
    private let hubs = HubRegistry<SpanningHub>()

    /// Creates the ranks of an epoch.
    ///
    /// - Parameter epoch: a number that all processes agree on, larger than any before; ranks of earlier epochs are
    ///   over.
    package init(_ processes: Processes, _ placement: Placement, epoch: UInt64) {
        precondition(placement.processes == processes.count, "\(placement.processes) of \(processes.count) processes")
        self.processes = processes
        self.placement = placement
        mailboxes = processes.open(epoch, placement)
        threads = ThreadWorld(spins: processes.hasSpareCores(placement), alarm: mailboxes.alarm)
    }

    package var alarm: Alarm { mailboxes.alarm }

    package func group(of rank: Int, among ranks: [Int], purpose: Int) -> any ProcessGroup {
        let owners = ranks.map { placement.process(of: $0) }
        guard let place = ranks.firstIndex(of: rank), owners[place] == processes.process else {
            preconditionFailure("rank \(rank) is not of process \(processes.process), or not in \(ranks)")
        }
        if Set(owners).count == 1 { return threads.group(of: rank, among: ranks, purpose: purpose) }
        let hub = hubs.hub(purpose, ranks) {
            SpanningHub(ranks, owners: owners, Channel(purpose, ranks), processes, mailboxes, spins: threads.spins)
        }
        return SpanningGroup(hub, place: place)
    }
}

/// Computes the number by which processes identify the messages of a group.
struct Channel {
    private(set) var number: UInt64 = 0xcbf2_9ce4_8422_2325

    init(_ purpose: Int, _ ranks: [Int]) {
        for value in [purpose, ranks.count] + ranks { mix(value) }
    }

    /// Returns the channel from one place to the next, or that of the acknowledgements.
    func pointToPoint(from place: Int, isBack: Bool) -> UInt64 {
        var channel = self
        channel.mix(isBack ? -2 - place : 1 + place)
        return channel.number
    }

    /// Mixes a value into the number by FNV-1a.
    private mutating func mix(_ value: Int) {
        for shift in stride(from: 0, to: 64, by: 8) {
            number = (number ^ UInt64(truncatingIfNeeded: value >> shift) & 0xff) &* 0x100_0000_01b3
        }
    }
}
