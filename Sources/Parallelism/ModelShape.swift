import Tensors

/// What of a model decides which degrees are legal, and which of those give the bits of one rank.
package struct ModelShape: Sendable, Equatable {
    /// Layers, all together.
    package var layers: Int
    /// Attention heads.
    package var heads: Int
    /// Columns of what one head gives the output projection.
    package var valueWidth: Int
    /// Routed experts of a layer.
    package var experts: Int
    /// Inner columns of one routed expert.
    package var expertWidth: Int
    /// Inner columns of a plain feed-forward.
    package var denseWidth: Int
    /// Inner columns of a layer's shared experts together; 0 without any.
    package var sharedWidth: Int

    package init(
        layers: Int, heads: Int, valueWidth: Int, experts: Int, expertWidth: Int, denseWidth: Int, sharedWidth: Int
    ) {
        precondition(
            layers > 0 && heads > 0 && valueWidth > 0 && experts > 0 && expertWidth > 0 && denseWidth > 0
                && sharedWidth >= 0, "a model without layers, heads, experts or columns")
        self.layers = layers
        self.heads = heads
        self.valueWidth = valueWidth
        self.experts = experts
        self.expertWidth = expertWidth
        self.denseWidth = denseWidth
        self.sharedWidth = sharedWidth
    }

    /// The widths that `denseTensor` ranks share.
    var feedForwardWidths: [Int] { sharedWidth == 0 ? [denseWidth] : [denseWidth, sharedWidth] }

    /// Whether so many ranks can share a sum over `width` columns: evenly, and where the degree is a power of two, in
    /// whole K-slices.
    static func shares(_ width: Int, over ranks: Int) -> Bool {
        width % ranks == 0 && (ranks.nonzeroBitCount > 1 || Kernels.slices(of: width) % ranks == 0)
    }

    /// The expert degrees that `ranks` ranks can have, ascending; the rest of the ranks share each expert's width.
    ///
    /// 1 is always among them: each rank has rows of its own and can keep all experts for those.
    package func expertDegrees(ranks: Int) -> [Int] {
        (1...ranks).filter { degree in
            ranks % degree == 0 && experts % degree == 0
                && (degree == 1 || Self.shares(expertWidth, over: ranks / degree))
        }
    }

    /// The ranks that share each expert's width, of `ranks` with this legal expert degree: 1 where the width cannot be
    /// shared and every rank keeps the experts whole.
    package func expertTensor(expert: Int, ranks: Int) -> Int {
        Self.shares(expertWidth, over: ranks / expert) ? ranks / expert : 1
    }
}
