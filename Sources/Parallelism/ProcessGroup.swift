package import Tensors

/// Exchanges rows between some ranks. It only moves bytes.
///
/// All members take part in the same collectives in the same order. One collective is in flight at a time: between
/// `start` and `finish` a rank may compute what does not need the result. Views given to `start` stay valid and
/// unchanged until `finish` returns. A transport never adds: kernels add the received rows, in a fixed order
/// (`Seat.cross`).
package protocol ProcessGroup: AnyObject {
    /// This member's index, `0 ..< size`.
    var place: Int { get }
    var size: Int { get }
    /// True if members have memory that others cannot access.
    var spansProcesses: Bool { get }
    /// For each member, the first member in the same process, which stands for that process in `Collective.deliver`.
    var leaders: [Int] { get }
    /// The number of bytes that are reserved for the rows that this member contributes to collectives.
    var sendBufferBytes: Int { get }

    /// Contributes this member's part and returns without waiting for the others.
    ///
    /// - Throws: `GroupFailure` once any rank of the job has failed, or if there is no memory for the rows.
    func start(_ collective: Collective) throws(GroupFailure)

    /// Waits until the collective in flight is complete.
    ///
    /// - Throws: `GroupFailure` if a rank fails meanwhile.
    func finish() throws(GroupFailure)

    /// Sends rows to the member after this one. It waits only if it is several sends ahead of the receiver.
    func send(_ rows: View) throws(GroupFailure)

    /// Receives the next rows from the member before this one; their shapes must agree.
    func receive(into rows: View) throws(GroupFailure)
}

/// An operation of all members together. Rows of different members have the same number of columns.
package enum Collective {
    /// No member continues before all have arrived. All of them then see what each wrote to shared memory before.
    case barrier
    /// `whole` becomes the members' parts, one after the other; `counts` are their numbers of rows.
    case allGather(part: View, counts: Indices, whole: View)
    /// `parts` holds `counts[0]` rows for the first member, then `counts[1]` for the second, ….
    ///
    /// `received` becomes the rows that the first member sent here, then those of the second, …, and `receivedCounts`
    /// the number of rows from each. Further rows of `received` are unchanged.
    case allToAll(parts: View, counts: Indices, received: View, receivedCounts: Indices)
    /// A barrier at which every process stores the rows of all members, its own included, in its own memory;
    /// `counts` are their numbers of rows. One member of a process calls `store` with rows; it returns false if they
    /// cannot be stored. No member continues before all rows are stored. If all members share memory, nothing needs to
    /// be stored.
    case share(part: View, counts: Indices, store: (HostRows) -> Bool)

    /// A barrier at which members send rows to some of the other processes, which store them in their memory. `parts`
    /// holds `counts[0]` rows for the process of the first member, …; a process's rows are counted for its leader only,
    /// and none for the sender's own process. `arriving` holds the number of rows that each member sends to this process.
    /// One member of a process calls `store` with rows; it returns false if they cannot be stored. No member continues
    /// before all rows for its process are stored. If all members share memory, nothing is sent.
    case deliver(parts: View, counts: Indices, arriving: Indices, store: (HostRows) -> Bool)

    /// Traps if a member contradicts itself.
    func check(place: Int, size: Int) {
        switch self {
        case .barrier: break
        case .allGather(let part, let counts, _), .share(let part, let counts, _):
            precondition(
                counts.count == size && counts[place] == part.rows, "\(part.rows) rows were announced otherwise")
        case .allToAll(_, let counts, _, let receivedCounts), .deliver(_, let counts, let receivedCounts, _):
            precondition(counts.count == size && receivedCounts.count == size, "a count for each of \(size) members")
        }
    }
}

extension ProcessGroup {
    /// Calls `start` and `finish` with nothing in between.
    package func run(_ collective: Collective) throws(GroupFailure) {
        try start(collective)
        try finish()
    }
}

/// The set of a job's ranks, from which groups are formed.
package protocol RankWorld: AnyObject, Sendable {
    /// The alarm that is raised when a rank fails, which ends every wait.
    var alarm: Alarm { get }

    /// Returns a rank's membership in the group of all ranks that give the same `ranks` and the same `purpose`. Only
    /// the rank's own thread may call and use it.
    func group(of rank: Int, among ranks: [Int], purpose: Int) -> any ProcessGroup
}

/// Says why a collective did not complete: a rank has failed, and no rank waits for it any more.
package struct GroupFailure: Error, Sendable, Equatable, CustomStringConvertible {
    /// The number, within the whole job, of the rank that failed.
    package let rank: Int
    package let reason: String

    package init(rank: Int, reason: String) {
        self.rank = rank
        self.reason = reason
    }

    package var description: String { "rank \(rank) failed: \(reason)" }
}
