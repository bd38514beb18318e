/// How one stage's ranks share the work, every degree known.
///
/// The same ranks are divided twice: for attention `data × context × tensor = stageRanks`, for the experts
/// `expert × expertTensor = stageRanks`, or each rank keeps all of them (`replicatesExperts`).
/// `ParallelRequest.resolve` makes legal ones out of what a user gave.
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
    /// Ranks that share the width of a plain feed-forward: 1, where each rank has all of it for its own rows, or
    /// `tensor`.
    package var denseTensor: Int
    package var strategy: PartitionStrategy
    package var exchange: ExpertExchangeKind

    /// One rank, and whatever is given otherwise.
    package init(
        data: Int = 1, context: Int = 1, tensor: Int = 1, expert: Int = 1, expertTensor: Int = 1, pipeline: Int = 1,
        denseTensor: Int = 1, strategy: PartitionStrategy = .interleaved, exchange: ExpertExchangeKind = .gathered
    ) {
        self.data = data
        self.context = context
        self.tensor = tensor
        self.expert = expert
        self.expertTensor = expertTensor
        self.pipeline = pipeline
        self.denseTensor = denseTensor
        self.strategy = strategy
        self.exchange = exchange
    }

    /// The ranks of one stage: what `--tp-size` counts.
    package var stageRanks: Int { data * context * tensor }

    /// All ranks.
    package var world: Int { stageRanks * pipeline }

    /// The ranks as attention sees them.
    package var mesh: Mesh { Mesh([.pipeline: pipeline, .data: data, .context: context, .tensor: tensor]) }

    /// Whether every rank computes all the experts of its own rows: nothing is exchanged then.
    package var replicatesExperts: Bool { expert * expertTensor < stageRanks }

    /// Whether results have the bits one rank gives: only powers of two up to 8 cut a shared sum where its tree
    /// branches. Data and context share no such sum. Other degrees agree to rounding.
    package var keepsBits: Bool {
        [tensor, expert, expertTensor, denseTensor].allSatisfy { $0 <= 8 && $0.nonzeroBitCount == 1 }
    }

    package var description: String {
        guard world > 1 else { return "one rank" }
        var parts = ["\(world) ranks: \(mesh)" + (context > 1 ? ", \(strategy)" : "")]
        if replicatesExperts {
            parts.append("all experts on every rank")
        } else if stageRanks > 1 {
            let degrees = [(expert, "by expert"), (expertTensor, "by width")].filter { $0.0 > 1 }
            parts.append("experts " + degrees.map { "\($0) \($1)" }.joined(separator: " × ") + ", \(exchange)")
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
