import Tensors

/// Holds the sizes of a model that decide which degrees are legal and which of them are bitwise equal to one rank.
package struct ModelShape: Sendable, Equatable {
    /// The number of all layers.
    package var layers: Int
    /// The number of attention heads, or of groups of heads where those are what ranks divide.
    package var heads: Int
    /// The noun that messages use for what `heads` counts.
    package var headsName = "heads"
    /// The number of columns that one head contributes to the output projection's input.
    package var valueWidth: Int
    /// The number of routed experts in a layer.
    package var experts: Int
    /// The number of inner columns of one routed expert.
    package var expertWidth: Int
    /// The number of inner columns of a dense feed-forward.
    package var denseWidth: Int
    /// The number of inner columns of a layer's shared experts together; 0 if there are none.
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

    /// Returns true if this many ranks can share a sum over `width` columns evenly and, if their number is a power of
    /// two, in whole K-slices.
    static func shares(_ width: Int, over ranks: Int) -> Bool {
        width % ranks == 0 && (ranks.nonzeroBitCount > 1 || Kernels.slices(of: width) % ranks == 0)
    }

    /// Returns the legal expert degrees of `ranks` ranks, ascending; the other factor of `ranks` shares each expert's
    /// width.
    ///
    /// 1 is always among them, because each rank has its own rows and can keep all experts for those.
    package func expertDegrees(ranks: Int) -> [Int] {
        (1...ranks).filter { degree in
            ranks % degree == 0 && experts % degree == 0
                && (degree == 1 || Self.shares(expertWidth, over: ranks / degree))
        }
    }

    /// Returns the number of ranks that share each expert's width, for a legal expert degree of `ranks` ranks. It is 1
    /// if the width cannot be shared; then every rank keeps its experts whole.
    package func expertTensor(expert: Int, ranks: Int) -> Int {
        Self.shares(expertWidth, over: ranks / expert) ? ranks / expert : 1
    }
}
