package import Tensors

/// Some ranks that exchange rows: how bytes travel, and nothing else.
///
/// All members take part in the same collectives in the same order. One collective is in flight at a time: between
/// `start` and `finish` a rank may compute what does not need the result. Views given to `start` stay valid and
/// unchanged until `finish` returns. Sums are not a transport's business: they are made of rows that travelled, by
/// kernels, in a fixed order (`Seat.cross`).
package protocol ProcessGroup: AnyObject {
    /// This member's place, `0 ..< size`.
    var place: Int { get }
    var size: Int { get }
    /// Whether members have memory that others do not see.
    var spansProcesses: Bool { get }
    /// Bytes that are reserved for what this member brings to collectives.
    var sendBufferBytes: Int { get }

    /// Hands over this member's part and returns without waiting for the others.
    ///
    /// - Throws: `GroupFailure` once any rank of the job has failed, and where there is no memory for the rows.
    func start(_ collective: Collective) throws(GroupFailure)

    /// Waits until the collective in flight is complete.
    ///
    /// - Throws: `GroupFailure` when a rank fails meanwhile.
    func finish() throws(GroupFailure)

    /// Sends rows to the member after this one. Waits only when it is several sends ahead of the receiver.
    func send(_ rows: View) throws(GroupFailure)

    /// Receives the rows that the member before this one sent next; their shapes must agree.
    func receive(into rows: View) throws(GroupFailure)
}

/// What members do together. Rows of different members have equally many columns.
package enum Collective {
    /// Nobody goes on before all have come; what each wrote to shared memory before is visible to all after.
    case barrier
    /// `whole` becomes the members' parts, one after the other; `counts` are their rows.
    case allGather(part: View, counts: Indices, whole: View)
    /// `parts` holds `counts[0]` rows for the first member, then `counts[1]` for the second, ….
    ///
    /// `received` becomes what the first member sent here, then what the second sent, …, and `receivedCounts` how many
    /// rows each sent; rows of `received` behind them are left as they are.
    case allToAll(parts: View, counts: Indices, received: View, receivedCounts: Indices)
    /// A barrier at which every process stores rows of all members, its own among them, in its own memory: `counts` says
    /// how many each brings. One member of a process calls `store` with a row, which returns whether it can be stored, and
    /// nobody goes on before all are. Where all members share memory, nobody has to.
    case share(part: View, counts: Indices, store: (HostRows) -> Bool)

    /// Traps where a member contradicts itself.
    func check(place: Int, size: Int) {
        switch self {
        case .barrier: break
        case .allGather(let part, let counts, _), .share(let part, let counts, _):
            precondition(
                counts.count == size && counts[place] == part.rows, "\(part.rows) rows were announced otherwise")
        case .allToAll(_, let counts, _, let receivedCounts):
            precondition(counts.count == size && receivedCounts.count == size, "a count for each of \(size) members")
        }
    }
}

extension ProcessGroup {
    /// `start` and `finish` with nothing in between.
    package func run(_ collective: Collective) throws(GroupFailure) {
        try start(collective)
        try finish()
    }
}

/// The ranks of a job, and how they meet.
package protocol RankWorld: AnyObject, Sendable {
    /// Raised when a rank fails; ends every wait.
    var alarm: Alarm { get }

    /// A rank's membership in the group of those who give the same ranks and the same purpose. To be called, and used,
    /// by the rank's own thread.
    func group(of rank: Int, among ranks: [Int], purpose: Int) -> any ProcessGroup
}

/// Why a collective did not complete: a rank has failed, and nobody waits for it.
package struct GroupFailure: Error, Sendable, Equatable, CustomStringConvertible {
    /// The rank that failed, by its number in the whole job.
    package let rank: Int
    package let reason: String

    package init(rank: Int, reason: String) {
        self.rank = rank
        self.reason = reason
    }

    package var description: String { "rank \(rank) failed: \(reason)" }
}
