import Inference
package import KVCache
package import Modeling
package import Parallelism
package import Planning
package import Tensors

/// A layout report describes what the ranks of a parallel configuration hold, compute and exchange; `text`, `json` and
/// `drawing` present it.
package struct LayoutReport: Sendable {
    /// The example is a prompt, one for each data group, that shows how rows are assigned to ranks.
    package struct Example: Sendable {
        package let tokens: Int
        /// The number of tokens computed in one step.
        package let chunk: Int

        package init(tokens: Int, chunk: Int) {
            precondition(tokens > 0 && chunk > 0, "a prompt of \(tokens) tokens in chunks of \(chunk)")
            self.tokens = tokens
            self.chunk = min(chunk, tokens)
        }
    }

    /// One rank's part of the model and of the example.
    package struct Rank: Sendable {
        package let share: RankShare
        package let coordinates: [(axis: Axis, place: Int)]
        /// The number of rows of the example that the rank owns.
        package fileprivate(set) var rows = 0
        /// The rank's part of the attention of its data group's prompt: the fraction of pairs of a row and a key it
        /// sees, times the fraction of heads.
        package fileprivate(set) var causalWork = 0.0
        /// The bytes that the rank receives from others for the example.
        package fileprivate(set) var received = 0.0
        package fileprivate(set) var weightBytes = 0.0
    }

    package static let maxTokens = 262_144

    package let name: String
    package let model: ModelDescription
    package let parallel: ParallelConfiguration
    /// The number of threads that share the work of each rank.
    package let threadsPerRank: Int
    package let cost: LayoutCost
    package let cacheType: CacheType
    /// The numerics profile that `--dtype auto` takes.
    package let profile: NumericsProfile
    package let example: Example
    package private(set) var ranks: [Rank]
    /// The coordinate on the context axis of the owner of each token of one prompt.
    package let owners: [Int]
    /// The bytes of the model's weights in memory: as stored, or in F32 where they are widened.
    package private(set) var weightBytes = 0
    /// The bytes that the process may use.
    package let memory: Int
    private let steps: [StepRows]

    /// - Parameter weightBytes: Returns the bytes of weights in memory.
    package init(
        _ name: String, _ model: ModelDescription, _ parallel: ParallelConfiguration,
        threadsPerRank: Int = 1, cacheType: CacheType = .float32, profile: NumericsProfile = .f32,
        format: CacheFormat, example: Example, memory: Int, weightBytes: (LayerDescription.Weights) throws -> Int
    ) rethrows {
        self.name = name
        self.model = model
        self.parallel = parallel
        self.threadsPerRank = threadsPerRank
        self.cacheType = cacheType
        self.profile = profile
        self.example = example
        self.memory = memory
        cost = LayoutCost(model, parallel, format: format)
        let assignments = Self.assignments(example, parallel, alignment: format.positionAlignment)
        steps = assignments.map { StepRows($0, format) }
        owners = Self.owners(example, assignments, parallel)
        let mesh = parallel.mesh
        ranks = (0..<parallel.world).map { rank in
            Rank(
                share: RankShare(model, parallel, rank: rank),
                coordinates: [.pipeline, .data, .context, .tensor].map { ($0, mesh.coordinate(of: rank, on: $0)) })
        }
        addWork(assignments)
        for placed in model.weights {
            let bytes = try weightBytes(placed.weights)
            if !model.isRepeated(placed) { self.weightBytes += bytes }
            for rank in ranks.indices {
                ranks[rank].weightBytes += Double(bytes) * ranks[rank].share.fraction(of: placed)
            }
        }
    }

    private static func assignments(
        _ example: Example, _ parallel: ParallelConfiguration, alignment: Int
    ) -> [RowAssignment] {
        stride(from: 0, to: example.tokens, by: example.chunk).map { start in
            let rows = min(example.chunk, example.tokens - start)
            let isLast = start + rows == example.tokens
            let sample = StepPlan.Sample(parameters: SamplingParameters(), position: example.tokens)
            let chunks = (0..<parallel.data).map { group in
                StepPlan.Chunk(
                    request: UInt64(group), group: group, tokens: Array(repeating: 0, count: rows), start: start,
                    pages: [], sample: isLast ? sample : nil)
            }
            return RowAssignment(
                StepPlan(number: start / example.chunk, chunks: chunks), parallel, alignment: alignment)
        }
    }

    private static func owners(_ example: Example, _ assignments: [RowAssignment], _ parallel: ParallelConfiguration)
        -> [Int]
    {
        var owners = Array(repeating: 0, count: example.tokens)
        for assignment in assignments {
            for rank in 0..<parallel.context * parallel.tensor {
                for row in assignment.rows[rank] {
                    owners[assignment.plan.chunks[row.chunk].start + row.offset] = rank / parallel.tensor
                }
            }
        }
        return owners
    }

    private mutating func addWork(_ assignments: [RowAssignment]) {
        let pairs = Double(example.tokens) * Double(example.tokens + 1) / 2
        for rank in ranks.indices {
            let stageRank = rank % parallel.stageRanks
            let together = parallel.ranks(around: stageRank, along: .tensor)
            let heads = Double(ranks[rank].share.heads.count) / Double(model.parallelShape.heads)
            for (assignment, rows) in zip(assignments, steps) {
                ranks[rank].rows += assignment.rows[stageRank].count
                for row in together.flatMap({ assignment.rows[$0] }) {
                    ranks[rank].causalWork +=
                        Double(assignment.plan.chunks[row.chunk].start + row.offset + 1) * heads / pairs
                }
                ranks[rank].received += cost.bytes(ofRank: rank, rows).reduce(0) { $0 + $1.bytes }
            }
        }
    }

    // MARK: - Rates

    /// Returns the bytes that one collective moves, over all ranks of a stage, for each unit of the transfer: a token
    /// of the example, a row of logits, a DCP row or a gathered key. The transfer's condition is taken to hold.
    package func bytesPerUnit(_ transfer: Transfer) -> Double {
        switch transfer.unit {
        case .token: bytes(transfer, steps) / Double(example.tokens * parallel.data)
        case .output: bytes(transfer, steps) / Double(parallel.data)
        case .dcpRow: bytes(transfer, [dcpRow])
        case .gatheredKey: Double((transfer.ranks - 1) * transfer.bytesPerRow)
        }
    }

    private func bytes(_ transfer: Transfer, _ steps: [StepRows]) -> Double {
        steps.reduce(0.0) { sum, rows in
            var rows = rows
            rows.maxPosition = rows.maxPosition.map { _ in .max }
            return sum + (0..<parallel.stageRanks).reduce(0) { $0 + cost.bytes(transfer, stageRank: $1, rows) }
        }
    }

    /// A step with one DCP row that has many keys before it.
    private var dcpRow: StepRows {
        let nobody = Array(repeating: 0, count: parallel.stageRanks)
        var rows = StepRows(owned: nobody, outputs: nobody, maxPosition: nobody)
        rows.owned[0] = 1
        rows.dcpRows[0] = 1
        rows.maxDCPPosition[0] = .max
        return rows
    }

    // MARK: - Memory

    /// The bytes of one token's keys in all layers.
    package var cacheBytesPerToken: Int { cost.cacheBytes(ofLayers: 0..<model.layers.count) }

    /// Returns the bytes of these that a rank writes, on average over the example's tokens: those of its rows, in its
    /// layers.
    package func cacheBytesPerToken(of rank: Rank) -> Double {
        Double(cost.cacheBytes(ofLayers: rank.share.layers) * rank.rows) / Double(example.tokens * parallel.data)
    }

    /// The number of tokens whose keys fit into memory beside the weights, which a process maps once for all its ranks;
    /// `Int.max` where layers keep the keys of a window only.
    package var capacity: Int {
        let rest = max(memory - weightBytes, 0)
        return cacheBytesPerToken > 0 ? rest / cacheBytesPerToken : rest > 0 ? .max : 0
    }

    /// True if the configuration is bitwise equal to one rank.
    package var isBitwiseEqual: Bool { parallel.isBitwiseEqual(for: model.parallelShape) }
}
