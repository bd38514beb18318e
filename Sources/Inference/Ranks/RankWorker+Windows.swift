import KVCache
import Modeling
import Parallelism
import Tensors

/// The window entries that this rank exchanges with others.
extension RankWorker {
    /// Returns the window entries that ranks of the data group send each other in a step; none where a rank is alone.
    func windows(_ assignment: RowAssignment) -> [Step.WindowRows] {
        guard hasWindows, seat.degree(Sharding.keys.axes) > 1 else { return [] }
        let leaders = seat.leaders(along: Sharding.keys.axes)
        return format.reaches.map { reach in
            windows(reach, assignment.windowExchange(ofGroup: dataGroup, reach, format), assignment.plan, leaders)
        }
    }

    /// - Parameter leaders: for each rank of the data group, the first one in the same process.
    private func windows(
        _ reach: WindowReach, _ exchange: WindowExchange, _ plan: StepPlan, _ leaders: [Int]
    ) -> Step.WindowRows {
        let place = seat.place(along: Sharding.keys.axes)
        func count(_ runs: [WindowExchange.Run]) -> Int32 { Int32(runs.reduce(0) { $0 + $1.positions.count }) }
        /// Returns the rows of each rank that some rank of a process needs.
        func sent(to leader: Int) -> [[WindowExchange.Run]] {
            exchange.sent(to: leaders.indices.filter { leaders[$0] == leader })
        }
        let isAlone = leaders.allSatisfy { $0 == leaders[place] }
        let arriving = isAlone ? leaders.map { _ in [] } : sent(to: leaders[place])
        let leaving: [[Int32]] = leaders.indices.map {
            leaders[$0] == $0 && $0 != leaders[place]
                ? sent(to: $0)[place].flatMap { slots(of: $0, plan.chunks[$0.chunk]) } : []
        }
        return Step.WindowRows(
            reach, received: indices(exchange.sent(to: [place]).map(count)),
            slots: indices(Array(leaving.joined())),
            counts: indices(leaving.map { Int32($0.count) }), arriving: indices(arriving.map(count)))
    }

    /// Returns the slots of a run's entries.
    private func slots(of run: WindowExchange.Run, _ chunk: StepPlan.Chunk) -> [Int32] {
        run.positions.map { position in
            let (page, place) = position.quotientAndRemainder(dividingBy: format.pageSize)
            return chunk.windowPages[page - chunk.firstWindowPage] * Int32(format.pageSize) + Int32(place)
        }
    }

    private func indices(_ numbers: [Int32]) -> Indices {
        let indices = seat.scratch.indices(numbers.count)
        indices.copy(numbers)
        return indices
    }
}
