import Models
import Parallelism
import Tensors

/// How the ranks of the last stage guess the tokens behind a step's chunks.
///
/// Rows stay where they are: a row's state is fed to the next-token block by the rank that owns the row, and so are the
/// states that come of it. Only chosen tokens go around, so that every rank knows what the next round computes.
extension RankWorker {
    /// The guesses behind one chunk.
    private struct Chain {
        /// Index among the plan's chunks.
        let chunk: Int
        /// The rank of the stage that has its row, and which of that rank's rows it is.
        let owner: Int
        var row: Int
        /// Where the next guess would be computed as a row.
        var position: Int
        /// How the next guess is chosen.
        var sample: StepPlan.Sample
        var guesses: [Int32] = []

        mutating func take(_ token: Int32) {
            guesses.append(token)
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
    func guess(
        behind deal: Deal, _ step: Step, _ states: View, chosen: [Int32?]
    ) throws(GroupFailure) -> [Int: [Int32]] {
        let choices = choices(of: deal, chosen)
        try model.guess(step.with(tokens: following(deal, choices)), seat, states: states)
        var (going, ended) = (chains(behind: deal, choices), [Chain]())
        var states = states
        while !going.isEmpty {
            // From here on there is one row for each chain, in the order of their owners.
            let counts = deal.rows.indices.map { rank in going.count { $0.owner == rank } }
            let own = going.filter { $0.owner == seat.stageRank }.map(\.row)
            let guessed = try readLogits(of: pick(own, of: states), counts: counts, sharing: true) { logits, index in
                try? sampler.choose(logits, as: going[index].sample).token
            }
            for (index, token) in guessed.enumerated() {
                if let token { going[index].take(token) }
            }
            ended += zip(going, guessed).filter { $1 == nil || !canGoOn($0, deal.plan) }.map(\.0)
            going = zip(going, guessed).filter { $1 != nil && canGoOn($0, deal.plan) }.map(\.0)
            if !going.isEmpty { states = try goOn(&going, deal, from: states) }
        }
        return seat.place(along: .stage) == 0
            ? Dictionary(uniqueKeysWithValues: ended.map { ($0.chunk, $0.guesses) }) : [:]
    }

    /// What the choosing rows of each chunk chose.
    private func choices(of deal: Deal, _ chosen: [Int32?]) -> [[Int32?]] {
        var choices = deal.plan.chunks.map { [Int32?](repeating: nil, count: $0.choosingRows.count) }
        for (output, token) in zip(deal.outputs.joined(), chosen) {
            let rows = deal.plan.chunks[output.chunk].choosingRows
            if rows.contains(output.offset) { choices[output.chunk][output.offset - rows.lowerBound] = token }
        }
        return choices
    }

    /// The tokens that follow the own rows. Where nothing is known to follow, nobody will ask what came of the row.
    private func following(_ deal: Deal, _ choices: [[Int32?]]) -> Indices {
        let own = deal.rows[seat.stageRank]
        let tokens = seat.scratch.indices(own.count)
        for (at, row) in own.enumerated() {
            let chunk = deal.plan.chunks[row.chunk]
            if chunk.choosingRows.contains(row.offset) {
                tokens[at] = choices[row.chunk][row.offset - chunk.choosingRows.lowerBound] ?? 0
            } else if row.offset + 1 < chunk.tokens.count {
                tokens[at] = chunk.tokens[row.offset + 1]
            } else {
                tokens[at] = chunk.speculation?.next ?? 0
            }
        }
        return tokens
    }

    /// A chain behind every chunk that wants guesses, from its last row that counts, in the order of their owners.
    private func chains(behind deal: Deal, _ choices: [[Int32?]]) -> [Chain] {
        deal.outputs.enumerated().flatMap { rank, outputs in
            outputs.compactMap { output in
                let (chunk, chosen) = (deal.plan.chunks[output.chunk], choices[output.chunk])
                let counting = chunk.countOfRight(chosen)
                let isLast = output.offset == chunk.choosingRows.lowerBound + counting - 1
                guard chunk.speculation?.ahead ?? 0 > 0, isLast, !chosen.prefix(counting).contains(nil) else {
                    return nil
                }
                return Chain(
                    chunk: output.chunk, owner: rank, row: output.row, position: chunk.start + output.offset + 1,
                    sample: chunk.sample!.following(chosen.prefix(counting).compactMap { $0 }))
            }
        }
    }

    private func canGoOn(_ chain: Chain, _ plan: StepPlan) -> Bool {
        let chunk = plan.chunks[chain.chunk]
        return chain.guesses.count < chunk.speculation!.ahead && chain.position < chunk.pages.count << pageShift
    }

    /// Feeds the block with its own states and guesses.
    private func goOn(_ chains: inout [Chain], _ deal: Deal, from states: View) throws(GroupFailure) -> View {
        let plan = StepPlan(
            number: deal.plan.number,
            chunks: chains.map { chain in
                let chunk = deal.plan.chunks[chain.chunk]
                return StepPlan.Chunk(
                    request: chunk.request, group: chunk.group, tokens: [chain.guesses.last!], start: chain.position,
                    pages: chunk.pages)
            })
        let rows = deal.rows.indices.map { rank in
            chains.indices.filter { chains[$0].owner == rank }.map { Deal.Row(chunk: $0, offset: 0) }
        }
        let own = pick(rows[seat.stageRank].map { chains[$0.chunk].row }, of: states)
        seat.begin(rows: rows.map(\.count))
        let dealt = Deal(plan, rows: rows, seat.configuration, division: deal.division)
        try model.guess(step(for: dealt), seat, states: own)
        for rank in rows.indices {
            for (place, row) in rows[rank].enumerated() {
                chains[row.chunk].row = place
                chains[row.chunk].position += 1
            }
        }
        return own
    }
}
