package import Parallelism
package import Tensors

/// Which rows go to which experts, as slots sorted by expert: expert e computes slots `start[e] ..< start[e + 1]`.
package struct ExpertAssignment {
    /// One boundary more than there are experts.
    private let start: Indices
    /// The row each slot computes.
    package let rows: Indices
    /// The router's weight of each slot, `[1, slots]`.
    package let weights: View
    /// The slot of each (row, chosen expert), in the router's order; negative where the expert is not among `experts`.
    package let slots: Indices
    package let count: Int

    /// Sorts (row, expert) pairs by expert, as far as the expert is among `experts`; rows stay in order within one.
    package init(chosen: Indices, weights chosenWeights: View, experts: Range<Int>, of total: Int, _ seat: Seat) {
        let scratch = seat.scratch
        start = scratch.indices(total + 1)
        rows = scratch.indices(chosen.count)
        weights = scratch.rows(1, chosen.count)
        slots = scratch.indices(chosen.count)
        start.fill(0)
        for pair in 0..<chosen.count where experts.contains(Int(chosen[pair])) { start[Int(chosen[pair]) + 1] += 1 }
        for expert in 0..<total { start[expert + 1] += start[expert] }
        count = Int(start[total])
        let mark = scratch.mark()
        defer { scratch.reset(to: mark) }
        let next = scratch.indices(total)
        for expert in 0..<total { next[expert] = start[expert] }
        let perRow = chosenWeights.columns
        for pair in 0..<chosen.count {
            let expert = Int(chosen[pair])
            guard experts.contains(expert) else {
                slots[pair] = -1
                continue
            }
            let slot = next[expert]
            next[expert] = slot + 1
            rows[Int(slot)] = Int32(pair / perRow)
            weights[0, Int(slot)] = chosenWeights[pair / perRow, pair % perRow]
            slots[pair] = slot
        }
    }

    package func range(of expert: Int) -> Range<Int> { Int(start[expert])..<Int(start[expert + 1]) }
}
