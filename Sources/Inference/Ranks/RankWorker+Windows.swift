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
            windows(
                reach, assignment.windowExchange(ofGroup: dataGroup, reach, format), entries[group].slots, leaders)
        }
    }

    /// - Parameters:
    ///   - own: the slots of own rows' entries.
    ///   - leaders: for each rank of the data group, the first one in the same process.
    private func windows(
        _ reach: WindowReach, _ exchange: WindowExchange, _ own: Indices, _ leaders: [Int]
    ) -> Step.WindowRows {
        let place = seat.place(along: Sharding.keys.axes)
        func count(_ runs: [WindowExchange.Run]) -> Int32 { Int32(runs.reduce(0) { $0 + $1.positions.count }) }
        /// Returns the rows of each rank that some rank of a process needs.
        func sent(to leader: Int) -> [[WindowExchange.Run]] {
            exchange.sent(to: leaders.indices.filter { leaders[$0] == leader })
        }
        let isAlone = leaders.allSatisfy { $0 == leaders[place] }
        let arriving = isAlone ? leaders.map { _ in [] } : sent(to: leaders[place])
        let leaving: [[Int]] = leaders.indices.map {
            leaders[$0] == $0 && $0 != leaders[place] ? sent(to: $0)[place].flatMap(\.rows) : []
        }
        return Step.WindowRows(
            reach, received: indices(exchange.sent(to: [place]).map(count)),
            slots: indices(leaving.joined().map { own[$0] }),
            counts: indices(leaving.map { Int32($0.count) }), arriving: indices(arriving.map(count)))
    }

    private func indices(_ numbers: [Int32]) -> Indices {
        let indices = seat.scratch.indices(numbers.count)
        indices.copy(numbers)
        return indices
    }
}
