package import Parallelism

/// A step's rows, dealt to the ranks of a stage: who owns which row. Every row has exactly one owner.
///
/// A pure function of the plan and the configuration, so that ranks never have to tell each other who has what.
package struct Deal: Sendable {
    package let plan: StepPlan
    /// For each rank of the stage its rows, in the order of the plan.
    package let rows: [[Row]]
    /// For each rank of the stage those of its rows whose logits are needed.
    package let outputs: [[Output]]

    /// A row of the plan.
    package struct Row: Sendable, Equatable {
        /// Index among the plan's chunks.
        package let chunk: Int
        /// Index among the chunk's tokens.
        package let offset: Int
    }

    /// A row whose logits are needed.
    package struct Output: Sendable, Equatable {
        /// Index among its owner's rows.
        package let row: Int
        package let chunk: Int
        /// Index among the chunk's output rows.
        package let place: Int
    }

    package init(_ plan: StepPlan, _ configuration: ParallelConfiguration) {
        self.plan = plan
        var rows: [[Row]] = []
        for group in 0..<configuration.data {
            let chunks = plan.chunks.indices.filter { plan.chunks[$0].group == group }
            let all = chunks.flatMap { chunk in
                plan.chunks[chunk].tokens.indices.map { Row(chunk: chunk, offset: $0) }
            }
            let partition = TokenPartition(
                configuration.strategy, lengths: chunks.map { plan.chunks[$0].tokens.count },
                ranks: configuration.context)
            for own in partition.rows {
                // Ranks that share heads own consecutive parts, so that gathering them restores the order.
                for place in 0..<configuration.tensor {
                    let part = own.count * place / configuration.tensor..<own.count * (place + 1) / configuration.tensor
                    rows.append(own[part].map { all[$0] })
                }
            }
        }
        self.rows = rows
        outputs = rows.map { Self.outputs(among: $0, of: plan) }
    }

    private static func outputs(among rows: [Row], of plan: StepPlan) -> [Output] {
        var wanted: [Int: [Int: Int]] = [:]
        return rows.enumerated().compactMap { index, row in
            let places =
                wanted[row.chunk]
                ?? Dictionary(
                    uniqueKeysWithValues: plan.chunks[row.chunk].outputRows.enumerated().map { ($1, $0) })
            wanted[row.chunk] = places
            return places[row.offset].map { Output(row: index, chunk: row.chunk, place: $0) }
        }
    }
}
