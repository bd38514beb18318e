package import Tensors

/// What the cache keeps of a token in each layer: lanes, each with its own width and element type.
///
/// Layers need not be alike, and a lane's entry may stand for several tokens.
package struct CacheFormat: Sendable, Equatable {
    /// What a lane holds.
    package enum LaneKind: String, Sendable, CaseIterable {
        /// MLA's compressed keys and values.
        case latent
        /// The rotary part that all heads share.
        case ropeKey
        /// The lightning indexer's key.
        case indexKey
    }

    package struct Lane: Sendable, Equatable {
        package var kind: LaneKind
        package var dtype: DType
        /// Elements of an entry.
        package var width: Int
        /// Elements that share a scale; only FP8 has scales.
        package var group: Int
        /// How many tokens one entry stands for.
        package var tokensPerEntry: Int

        /// - Parameter group: for FP8; all of an entry when `nil`.
        package init(_ kind: LaneKind, _ dtype: DType, width: Int, group: Int? = nil, tokensPerEntry: Int = 1) {
            self.kind = kind
            self.dtype = dtype
            self.width = width
            self.group = group ?? width
            self.tokensPerEntry = tokensPerEntry
        }

        /// Bytes this lane takes for `tokens` tokens, a multiple of `tokensPerEntry`, scales included.
        package func bytes(forTokens tokens: Int) -> Int {
            tokens / tokensPerEntry * CacheLane.entryBytes(dtype, width: width, group: group)
        }
    }

    /// The lanes of each layer.
    package let layers: [[Lane]]
    /// Tokens of a page, a power of two.
    package let pageSize: Int

    package init(layers: [[Lane]], pageSize: Int) {
        precondition(pageSize > 0 && pageSize & (pageSize - 1) == 0, "a page holds a power of two of tokens")
        precondition(layers.joined().allSatisfy { pageSize % $0.tokensPerEntry == 0 }, "whole entries in a page")
        self.layers = layers
        self.pageSize = pageSize
    }

    package var bytesPerPage: Int { layers.joined().map { $0.bytes(forTokens: pageSize) }.reduce(0, +) }

    /// Bytes of one token in one layer, of layers whose entries stand for one token each.
    package func bytesPerToken(layer: Int) -> Int { layers[layer].reduce(0) { $0 + $1.bytes(forTokens: 1) } }

    /// Bytes of one token in all layers.
    package var bytesPerToken: Double { Double(bytesPerPage) / Double(pageSize) }
}
