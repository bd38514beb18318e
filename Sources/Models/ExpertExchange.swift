import Parallelism
import Tensors

/// Which rows go to which experts, as slots sorted by expert: expert e computes slots `start[e] ..< start[e + 1]`.
struct ExpertAssignment {
    /// `experts + 1` boundaries.
    let start: Indices
    /// The row each slot computes.
    let rows: Indices
    /// The router's weight of each slot, `[1, slots]`.
    let weights: View
    /// The slot of each (row, chosen expert), in the router's order.
    let slots: Indices

    func range(of expert: Int) -> Range<Int> { Int(start[expert])..<Int(start[expert + 1]) }
    var count: Int { rows.count }
}

/// Brings rows to the experts they chose. On one rank every expert is at home and only the sorting remains.
enum ExpertExchange {
    /// Sorts (row, expert) pairs by expert; rows stay in order within an expert.
    static func dispatch(chosen: Indices, weights: View, experts: Int, _ seat: Seat) -> ExpertAssignment {
        let scratch = seat.scratch
        let assignment = ExpertAssignment(
            start: scratch.indices(experts + 1), rows: scratch.indices(chosen.count),
            weights: scratch.rows(1, chosen.count), slots: scratch.indices(chosen.count))
        assignment.start.fill(0)
        for pair in 0..<chosen.count { assignment.start[Int(chosen[pair]) + 1] += 1 }
        for expert in 0..<experts { assignment.start[expert + 1] += assignment.start[expert] }
        let mark = scratch.mark()
        defer { scratch.reset(to: mark) }
        let next = scratch.indices(experts)
        for expert in 0..<experts { next[expert] = assignment.start[expert] }
        let perRow = weights.columns
        for pair in 0..<chosen.count {
            let slot = next[Int(chosen[pair])]
            next[Int(chosen[pair])] = slot + 1
            assignment.rows[Int(slot)] = Int32(pair / perRow)
            assignment.weights[0, Int(slot)] = weights[pair / perRow, pair % perRow]
            assignment.slots[pair] = slot
        }
        return assignment
    }
}
