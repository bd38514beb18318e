import Tensors

/// Says how the ranks of a job share the work, with every degree known.
///
/// The same ranks are divided twice: for attention `data × context × tensor = stageRanks`, for the experts
/// `expert × expertTensor = stageRanks`, or each rank keeps all of them (`replicatesExperts`). There are `pipeline`
/// such stages. `ParallelRequest.resolve` derives legal configurations from a user's options.
package struct ParallelConfiguration: Sendable, Equatable, Hashable, CustomStringConvertible {
    /// In attention, the requests are divided into this many groups.
    package var data: Int
    /// In attention, this many ranks share the rows of a group's prompts.
    package var context: Int
    /// In attention, this many ranks share the heads of a row.
    package var tensor: Int
    /// For experts, this many ranks, or groups of `expertTensor` ranks, have different experts.
    package var expert: Int
    /// For experts, this many ranks share the width of every expert they hold.
    package var expertTensor: Int
    /// The layers are divided into this many stages of consecutive layers.
    package var pipeline: Int
    /// The number of layers of each stage. `nil` divides evenly; the first stages have one more layer if
    /// necessary.
    package var stageLayers: [Int]?
    /// This many ranks share the width of a dense feed-forward and of the shared experts: `tensor`, or 1 if each rank
    /// has all of it for its own rows.
    package var denseTensor: Int
    package var strategy: PartitionStrategy
    package var exchange: ExpertExchangeKind
    /// Assigns keys to ranks, for query-gather attention and KV shards.
    package var kvSharding: KVSharding

    /// Creates a configuration: one rank, except for the given degrees.
    package init(
        data: Int = 1, context: Int = 1, tensor: Int = 1, expert: Int = 1, expertTensor: Int = 1, pipeline: Int = 1,
        stageLayers: [Int]? = nil, denseTensor: Int = 1, strategy: PartitionStrategy = .interleaved,
        exchange: ExpertExchangeKind = .gathered, kvSharding: KVSharding = KVSharding()
    ) {
        self.data = data
        self.context = context
        self.tensor = tensor
        self.expert = expert
        self.expertTensor = expertTensor
        self.pipeline = pipeline
        self.stageLayers = stageLayers
        self.denseTensor = denseTensor
        self.strategy = strategy
        self.exchange = exchange
        self.kvSharding = kvSharding
    }

    /// The number of ranks in one stage, which `--tp-size` counts.
    package var stageRanks: Int { data * context * tensor }

    /// The number of all ranks.
    package var world: Int { stageRanks * pipeline }

    /// The most ranks of any configuration: of a plan, a name, or another process or server. No job has as many, and more
    /// would only make lists of ranks long.
    package static let maxRanks = 4096

    /// The number of all ranks of degrees that another program gave; `nil` if a degree is not positive, or the ranks are more
    /// than `maxRanks`, for attention or for the experts. It cannot overflow.
    package var checkedWorld: Int? {
        guard Self.product([expert, expertTensor, pipeline]) != nil else { return nil }
        return Self.product([data, context, tensor, pipeline])
    }

    private static func product(_ degrees: [Int]) -> Int? {
        degrees.reduce(1) { product, degree in
            guard let product, degree > 0 else { return nil }
            let (ranks, overflow) = product.multipliedReportingOverflow(by: degree)
            return overflow || ranks > maxRanks ? nil : ranks
        }
    }

    /// The grid of ranks for attention.
    package var mesh: Mesh { Mesh([.pipeline: pipeline, .data: data, .context: context, .tensor: tensor]) }

    /// True if every rank computes all the experts of its own rows, so that no rows are exchanged.
    package var replicatesExperts: Bool { expert * expertTensor < stageRanks }

    /// Returns the layers of a stage.
    ///
    /// - Parameter total: the number of the model's layers, at least one per stage; `stageLayers` adds up to it.
    package func layers(ofStage stage: Int, total: Int) -> Range<Int> {
        precondition((0..<pipeline).contains(stage) && total >= pipeline, "stage \(stage) of \(pipeline)")
        guard let stageLayers else {
            let (size, longer) = total.quotientAndRemainder(dividingBy: pipeline)
            let start = stage * size + min(stage, longer)
            return start..<start + size + (stage < longer ? 1 : 0)
        }
        precondition(
            stageLayers.count == pipeline && stageLayers.reduce(0, +) == total,
            "\(stageLayers) for \(total) layers in \(pipeline) stages")
        let start = stageLayers[..<stage].reduce(0, +)
        return start..<start + stageLayers[stage]
    }

    /// Returns true if results are bitwise equal to those of one rank. That requires of every degree that shares a sum
    /// to cut it between the slices in which it is always added (`Kernels.slices`). The slices of a sum over experts
    /// are groups of experts, those of a sum over keys are classes of positions. Data, context and pipeline ranks share
    /// no sum, nor do ranks that keep all experts. Other configurations are equal to rounding.
    package func isBitwiseEqual(for shape: ModelShape) -> Bool {
        let sums =
            [(shape.heads * shape.valueWidth, tensor), (shape.experts, expert), (shape.expertWidth, expertTensor)]
            + shape.feedForwardWidths.map { ($0, denseTensor) }
        return sums.allSatisfy { Kernels.slices(of: $0) % $1 == 0 } && kvSharding.classes != nil
    }

    package var description: String {
        guard world > 1 else { return "one rank" }
        let stages = pipeline > 1 ? ["\(pipeline) stages"] : []
        let stage = stageRanks > 1 ? ["\(Mesh([.data: data, .context: context, .tensor: tensor]))"] : []
        var parts = [
            "\(world) ranks: " + (stages + stage).joined(separator: " × ") + (context > 1 ? ", \(strategy)" : "")
        ]
        if replicatesExperts {
            parts.append("every rank has all experts of its layers")
        } else if stageRanks > 1 {
            let degrees = [(expert, "by expert"), (expertTensor, "by width")].filter { $0.0 > 1 }
            parts.append("experts " + degrees.map { "\($0) \($1)" }.joined(separator: " × ") + ", \(exchange)")
        }
        if kvSharding.ranks > 1 {
            parts.append(
                "keys owned by \(kvSharding.ranks)" + (kvSharding.unit > 1 ? " in runs of \(kvSharding.unit)" : ""))
        }
        if denseTensor != tensor { parts.append("feed-forward whole on every rank") }
        return parts.joined(separator: "; ")
    }
}

/// Says how rows reach the experts they chose. Both kinds are bitwise equal. The raw value is the flag's.
package enum ExpertExchangeKind: String, Sendable, CaseIterable {
    /// Every rank receives all rows and computes its own experts; the partial sums are added.
    case gathered = "none"
    /// Rows are sent only to the ranks of the experts they chose, and those return the outputs.
    case allToAll = "alltoall"
}
