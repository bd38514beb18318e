import Modeling
import Parallelism
import Tensors

/// The ranks of the last pipeline stage draft the tokens after each chunk with the next-token block.
///
/// Rows stay on their ranks: the rank that owns a row feeds its state to the next-token block, and keeps the states
/// that result. Only sampled tokens are exchanged, so that every rank knows the rows of the next round.
extension RankWorker {
    /// A draft chain collects the draft tokens after one chunk.
    private struct DraftChain {
        /// The chunk's index in the plan.
        let chunk: Int
        /// The rank of the stage that owns the chain's row, and the row's index among the rows of that rank.
        let owner: Int
        var row: Int
        /// The position at which the next draft token would be computed as a row.
        var position: Int
        /// Tells how to sample the next draft token.
        var sample: StepPlan.Sample
        var drafts: [Int32] = []

        mutating func take(_ token: Int32) {
            drafts.append(token)
            sample = sample.following([token])
        }
    }

    /// Runs the next-token block over all rows of a step, so that it has the keys of every token, and drafts tokens
    /// after the last accepted one of each chunk.
    ///
    /// - Parameters:
    ///   - states: The last layer's states of the own rows, `[rows, hidden]`.
    ///   - chosen: The token sampled from each of `assignment.outputs`, over all ranks; `nil` where none was.
    /// - Returns: The draft tokens of each chunk, by its index, on the first rank of the stage; empty on the others.
    func draft(
        behind assignment: RowAssignment, _ step: Step, _ states: View, chosen: [Int32?]
    ) throws(GroupFailure) -> [Int: [Int32]] {
        let choices = choices(of: assignment, chosen)
        var states = drafting(states)
        try model.draft(
            step.with(tokens: following(assignment, choices)), seat, states: states, continues: false)
        var (active, ended) = (chains(behind: assignment, choices), [DraftChain]())
        while !active.isEmpty {
            // From here on `states` has one row per chain, in the order of their owners.
            let counts = assignment.rows.indices.map { rank in active.count { $0.owner == rank } }
            let own = active.filter { $0.owner == seat.stageRank }.map(\.row)
            let final = pick(own, of: states.columns(0..<model.stateWidth))
            let drafted = try readLogits(of: final, counts: counts, sharing: true, areDrafts: true) { logits, index in
                let chain = active[index]
                return try? sampleToken(logits, as: chain.sample, of: assignment.plan.chunks[chain.chunk]).token
            }
            for (index, token) in drafted.enumerated() {
                if let token { active[index].take(token) }
            }
            ended += zip(active, drafted).filter { $1 == nil || !canExtend($0, assignment.plan) }.map(\.0)
            active = zip(active, drafted).filter { $1 != nil && canExtend($0, assignment.plan) }.map(\.0)
            if !active.isEmpty { states = try extend(&active, assignment, from: states) }
        }
        return seat.place(along: .stage) == 0
            ? Dictionary(uniqueKeysWithValues: ended.map { ($0.chunk, $0.drafts) }) : [:]
    }

    /// Returns the model's states with as many columns as the next-token block needs.
    private func drafting(_ states: View) -> View {
        if model.draftStateWidth == states.columns { return states }
        let wide = seat.scratch.rows(states.rows, model.draftStateWidth)
        seat.kernels.copyRows(states, into: wide.columns(0..<states.columns))
        return wide
    }

    /// Returns the tokens sampled from the `sampledRows` of each chunk.
    private func choices(of assignment: RowAssignment, _ chosen: [Int32?]) -> [[Int32?]] {
        var choices = assignment.plan.chunks.map { [Int32?](repeating: nil, count: $0.sampledRows.count) }
        for (output, token) in zip(assignment.outputs.joined(), chosen) {
            let rows = assignment.plan.chunks[output.chunk].sampledRows
            if rows.contains(output.offset) { choices[output.chunk][output.offset - rows.lowerBound] = token }
        }
        return choices
    }

    /// Returns the token after each own row: the next-token block's other input. Where none is known the token is 0,
    /// and the row's result is not used.
    private func following(_ assignment: RowAssignment, _ choices: [[Int32?]]) -> Indices {
        let own = assignment.rows[seat.stageRank]
        let tokens = seat.scratch.indices(own.count)
        for (at, row) in own.enumerated() {
            let chunk = assignment.plan.chunks[row.chunk]
            if chunk.sampledRows.contains(row.offset) {
                tokens[at] = choices[row.chunk][row.offset - chunk.sampledRows.lowerBound] ?? 0
            } else if row.offset + 1 < chunk.tokens.count {
                tokens[at] = chunk.tokens[row.offset + 1]
            } else {
                tokens[at] = chunk.speculation?.next ?? 0
            }
        }
        return tokens
    }

    /// Returns a chain for every chunk that wants drafts, starting at its last accepted row, in the order of the
    /// owners.
    private func chains(behind assignment: RowAssignment, _ choices: [[Int32?]]) -> [DraftChain] {
        assignment.outputs.enumerated().flatMap { rank, outputs in
            outputs.compactMap { output in
                let (chunk, chosen) = (assignment.plan.chunks[output.chunk], choices[output.chunk])
                let counting = chunk.acceptedCount(chosen)
                let isLast = output.offset == chunk.sampledRows.lowerBound + counting - 1
                guard chunk.speculation?.ahead ?? 0 > 0, isLast, !chosen.prefix(counting).contains(nil) else {
                    return nil
                }
                return DraftChain(
                    chunk: output.chunk, owner: rank, row: output.row, position: chunk.start + output.offset + 1,
                    sample: chunk.sample!.following(chosen.prefix(counting).compactMap { $0 }))
            }
        }
    }

    private func canExtend(_ chain: DraftChain, _ plan: StepPlan) -> Bool {
        let chunk = plan.chunks[chain.chunk]
        return chain.drafts.count < chunk.speculation!.ahead && chain.position < chunk.pages.count << pageShift
            && (!hasWindows || chain.position < (chunk.firstWindowPage + chunk.windowPages.count) << pageShift)
    }

    /// Runs the next-token block over its own states and the newest draft token of each chain, and returns the new
    /// states.
    private func extend(_ chains: inout [DraftChain], _ assignment: RowAssignment, from states: View)
        throws(GroupFailure) -> View
    {
        let plan = StepPlan(
            number: assignment.plan.number,
            chunks: chains.map { chain in
                let chunk = assignment.plan.chunks[chain.chunk]
                return StepPlan.Chunk(
                    request: chunk.request, group: chunk.group, tokens: [chain.drafts.last!], start: chain.position,
                    pages: chunk.pages, windowPages: chunk.windowPages, firstWindowPage: chunk.firstWindowPage)
            })
        let rows = assignment.rows.indices.map { rank in
            chains.indices.filter { chains[$0].owner == rank }.map { RowAssignment.Row(chunk: $0, offset: 0) }
        }
        let own = pick(rows[seat.stageRank].map { chains[$0.chunk].row }, of: states)
        seat.begin(rows: rows.map(\.count))
        let extended = RowAssignment(
            plan, rows: rows, seat.configuration, processSharding: assignment.processSharding)
        try model.draft(step(for: extended), seat, states: own, continues: true)
        for rank in rows.indices {
            for (place, row) in rows[rank].enumerated() {
                chains[row.chunk].row = place
                chains[row.chunk].position += 1
            }
        }
        return own
    }
}
