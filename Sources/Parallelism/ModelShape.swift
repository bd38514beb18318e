import Tensors

/// What of a model decides which degrees are legal.
package struct ModelShape: Sendable, Equatable {
    /// Attention heads.
    package var heads: Int
    /// Routed experts of a layer.
    package var experts: Int
    /// Inner columns of one routed expert.
    package var expertWidth: Int
    /// Inner columns of a plain feed-forward.
    package var denseWidth: Int

    package init(heads: Int, experts: Int, expertWidth: Int, denseWidth: Int) {
        precondition(
            heads > 0 && experts > 0 && expertWidth > 0 && denseWidth > 0, "a model without heads, experts or columns")
        self.heads = heads
        self.experts = experts
        self.expertWidth = expertWidth
        self.denseWidth = denseWidth
    }

    /// Whether so many ranks can share a sum over `width` columns: evenly, and where the degree is a power of two, in
    /// whole K-slices.
    static func shares(_ width: Int, over ranks: Int) -> Bool {
        width % ranks == 0 && (ranks.nonzeroBitCount > 1 || Kernels.slices(of: width) % ranks == 0)
    }

    /// The expert degrees that `ranks` ranks can have, ascending; the rest of the ranks share each expert's width.
    ///
    /// - Parameter mayReplicate: whether every rank has rows of its own, so that without a legal split each of them can
    ///   keep all experts, which counts as degree 1.
    func expertDegrees(ranks: Int, mayReplicate: Bool) -> [Int] {
        (1...ranks).filter { degree in
            ranks % degree == 0 && experts % degree == 0
                && (Self.shares(expertWidth, over: ranks / degree) || degree == 1 && mayReplicate)
        }
    }
}
