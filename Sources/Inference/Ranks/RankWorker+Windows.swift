import KVCache
import Modeling
import Parallelism
import Tensors

/// The window entries that this rank exchanges with others.
extension RankWorker {
    /// Returns the window entries that ranks of the data group send each other in a step; none where a rank is alone.
    ///
    /// - Parameter entries: the entries that own rows store, for each group of key sets.
    func windows(_ assignment: RowAssignment, _ entries: [Step.EntryRows]) -> [Step.WindowRows] {
        let size = seat.degree(Sharding.keys.axes)
        guard hasWindows, size > 1, let group = format.groups.firstIndex(where: \.isWindow) else { return [] }
        let leaders = seat.leaders(along: Sharding.keys.axes)
        return format.reaches.map { reach in
            let sent = assignment.windowRows(ofGroup: dataGroup, reach, format)
            return windows(reach, sent, entries[group].slots, leaders)
        }
    }

    /// - Parameters:
    ///   - sent: the rows that each rank of the data group sends to each other one (`RowAssignment.windowRows`).
    ///   - own: the slots of own rows' entries.
    ///   - leaders: for each rank of the data group, the first one in the same process.
    private func windows(
        _ reach: WindowReach, _ sent: [[[Int32]]], _ own: Indices, _ leaders: [Int]
    ) -> Step.WindowRows {
        let (place, size) = (seat.place(along: Sharding.keys.axes), sent.count)
        /// Returns the rows of a rank that some rank of another process needs, ascending.
        func rows(of sender: Int, for leader: Int) -> [Int32] {
            if leaders[sender] == leader { return [] }
            let needed = (0..<size).filter { leaders[$0] == leader }.map { sent[sender][$0] }
            return needed.count == 1 ? needed[0] : Set(needed.joined()).sorted()
        }
        let parts = (0..<size).map { leaders[$0] == $0 ? rows(of: place, for: $0) : [] }
        return Step.WindowRows(
            reach, received: indices(sent.map { Int32($0[place].count) }),
            slots: indices(parts.joined().map { own[Int($0)] }), counts: indices(parts.map { Int32($0.count) }),
            arriving: indices((0..<size).map { Int32(rows(of: $0, for: leaders[place]).count) }))
    }

    private func indices(_ numbers: [Int32]) -> Indices {
        let indices = seat.scratch.indices(numbers.count)
        indices.copy(numbers)
        return indices
    }
}
