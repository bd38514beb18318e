import Tensors

/// How one stage's ranks share the work, every degree known.
///
/// The same ranks are divided twice: for attention `data × context × tensor = stageRanks`, for the experts
/// `expert × expertTensor = stageRanks`, or each rank keeps all of them (`replicatesExperts`). There are `pipeline`
/// such stages. `ParallelRequest.resolve` makes legal ones out of what a user gave.
package struct ParallelConfiguration: Sendable, Equatable, Hashable, CustomStringConvertible {
    /// Attention: groups of requests.
    package var data: Int
    /// Attention: ranks that share the rows of a group's prompts.
    package var context: Int
    /// Attention: ranks that share the heads of a row.
    package var tensor: Int
    /// Experts: ranks, or groups of `expertTensor` ranks, with different experts.
    package var expert: Int
    /// Experts: ranks that share the width of every expert they hold.
    package var expertTensor: Int
    /// Stages of consecutive layers.
    package var pipeline: Int
    /// Layers of each stage; `nil` for an even split, the first stages one layer longer where it does not divide.
    package var stageLayers: [Int]?
    /// Ranks that share the width of a plain feed-forward and of the shared experts: 1, where each rank has all of it
    /// for its own rows, or `tensor`.
    package var denseTensor: Int
    package var strategy: PartitionStrategy
    package var exchange: ExpertExchangeKind
    /// Whose keys are whose where queries go to the keys.
    package var kvSharding: KVSharding

    /// One rank, and whatever is given otherwise.
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

    /// The ranks of one stage: what `--tp-size` counts.
    package var stageRanks: Int { data * context * tensor }

    /// All ranks.
    package var world: Int { stageRanks * pipeline }

    /// The ranks as attention sees them.
    package var mesh: Mesh { Mesh([.pipeline: pipeline, .data: data, .context: context, .tensor: tensor]) }

    /// Whether every rank computes all the experts of its own rows: nothing is exchanged then.
    package var replicatesExperts: Bool { expert * expertTensor < stageRanks }

    /// The layers of a stage.
    ///
    /// - Parameter total: the layers of the model, at least one a stage; what `stageLayers` adds up to.
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

    /// Whether results have the bits one rank gives: where every degree that shares a sum cuts it between the slices
    /// in which it is always added (`Kernels.slices`). A sum over experts has groups of experts for slices, one
    /// over keys classes of positions. Data, context and stages share no sum, nor do ranks that keep all experts. Other
    /// layouts agree to rounding.
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

/// How rows and the experts they chose come together. Both give the same bits. The raw value is the flag's.
package enum ExpertExchangeKind: String, Sendable, CaseIterable {
    /// Every rank gets all rows and computes the experts it has; the partial sums are added.
    case gathered = "none"
    /// Rows travel to the ranks of the experts they chose, and the outputs travel back.
    case allToAll = "alltoall"
}
