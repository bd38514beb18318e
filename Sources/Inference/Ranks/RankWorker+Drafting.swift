import Modeling
import Parallelism
import Tensors

/// How the ranks of the last stage guess the tokens behind a step's chunks.
///
/// Rows stay where they are: a row's state is fed to the next-token block by the rank that owns the row, and so are the
/// states that come of it. Only chosen tokens go around, so that every rank knows what the next round computes.
extension RankWorker {
    /// The guesses behind one chunk.
    private struct DraftChain {
        /// Index among the plan's chunks.
        let chunk: Int
        /// The rank of the stage that has its row, and which of that rank's rows it is.
        let owner: Int
        var row: Int
        /// Where the next guess would be computed as a row.
        var position: Int
        /// How the next guess is chosen.
        var sample: StepPlan.Sample
        var drafts: [Int32] = []

        mutating func take(_ token: Int32) {
            drafts.append(token)
            sample = sample.following([token])
        }
    }

    /// Runs the next-token block over all rows of a step, so that it knows the keys of every token, and guesses on from
    /// the last tokens that count.
    ///
    /// - Parameters:
    ///   - states: of the own rows.
    ///   - chosen: what each of `deal.outputs` chose.
    /// - Returns: the guesses behind each chunk, on one rank of the stage.
    func draft(
        behind assignment: RowAssignment, _ step: Step, _ states: View, chosen: [Int32?]
    ) throws(GroupFailure) -> [Int: [Int32]] {
        let choices = choices(of: assignment, chosen)
        try model.draft(step.with(tokens: following(assignment, choices)), seat, states: states)
        var (active, ended) = (chains(behind: assignment, choices), [DraftChain]())
        var states = states
        while !active.isEmpty {
            // From here on there is one row for each chain, in the order of their owners.
            let counts = assignment.rows.indices.map { rank in active.count { $0.owner == rank } }
            let own = active.filter { $0.owner == seat.stageRank }.map(\.row)
            let drafted = try readLogits(of: pick(own, of: states), counts: counts, sharing: true) { logits, index in
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

    /// What the choosing rows of each chunk chose.
    private func choices(of assignment: RowAssignment, _ chosen: [Int32?]) -> [[Int32?]] {
        var choices = assignment.plan.chunks.map { [Int32?](repeating: nil, count: $0.sampledRows.count) }
        for (output, token) in zip(assignment.outputs.joined(), chosen) {
            let rows = assignment.plan.chunks[output.chunk].sampledRows
            if rows.contains(output.offset) { choices[output.chunk][output.offset - rows.lowerBound] = token }
        }
        return choices
    }

    /// The tokens that follow the own rows. Where nothing is known to follow, nobody will ask what came of the row.
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

    /// A chain behind every chunk that wants guesses, from its last row that counts, in the order of their owners.
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

    /// Feeds the block with its own states and guesses.
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
        let dealt = RowAssignment(plan, rows: rows, seat.configuration, processSharding: assignment.processSharding)
        try model.draft(step(for: dealt), seat, states: own)
        for rank in rows.indices {
            for (place, row) in rows[rank].enumerated() {
                chains[row.chunk].row = place
                chains[row.chunk].position += 1
            }
        }
        return own
    }
}
