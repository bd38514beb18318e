package import KVCache
import Tensors

/// The kinds of layers, by the entries that rows attend to besides the keys of the last tokens.
package enum LayerKind: String, Sendable, Equatable, CaseIterable {
    /// Rows attend to the keys of a window of tokens and to nothing else.
    case slidingWindow = "sliding_attention"
    /// Compressed sparse attention (CSA): an entry for every four tokens, made of those and the four tokens before, of
    /// which an indexer selects some.
    case compressedSparse = "compressed_sparse_attention"
    /// Heavily compressed attention (HCA): an entry for every 128 tokens, all of which rows attend to.
    case heavilyCompressed = "heavily_compressed_attention"

    /// The number of tokens that an entry covers (`compress_ratios`); 0 if there are no entries.
    package var tokensPerEntry: Int {
        switch self {
        case .slidingWindow: 0
        case .compressedSparse: 4
        case .heavilyCompressed: 128
        }
    }

    /// The number of halves of a compressor's projections: in overlapping entries, the first half is used by the next
    /// entry, and the second by the token's own.
    var halves: Int { self == .compressedSparse ? 2 : 1 }

    /// The number of tokens from which an entry is computed.
    var slots: Int { halves * tokensPerEntry }
}

/// The indices of the key sets of a layer, and of the lanes in them.
package enum KeySets {
    /// The keys of a window of tokens, in every layer.
    package static let window = 0
    /// The compressor's input for each token, in layers with entries. It is F32 in every type of cache.
    package static let inputs = 1
    /// The compressed entries.
    package static let entries = 2

    /// The lanes of `window` and `entries`. A key is also the value: first the part that is not rotated, then the
    /// rotary part.
    package static let latent = 0
    package static let rotary = 1
    /// The index key, in `entries` of layers with an indexer.
    package static let index = 2

    /// The lanes of `inputs`: values, then gates, of the attention's compressor and of the indexer's.
    package static let attentionInputs = 0
    package static let indexInputs = 1
}

extension DeepSeekV4Configuration {
    /// How an FP8 cache keeps the part of a key that is not rotated: as the model is served elsewhere, where a key of
    /// 448 + 64 elements has 584 bytes.
    static let latentRounding = KeySet.FP8Rounding.grouped(64, .e8m0)

    /// Returns the cache format: the key sets of each layer (`KeySets`).
    ///
    /// - Parameter drafts: true to include the key sets of the next-token block, after those of the layers.
    package func cacheFormat(_ type: CacheType, pageSize: Int, drafts: Bool = false) -> CacheFormat {
        CacheFormat(
            layers: (0..<layers + (drafts ? 1 : 0)).map { keySets(kind(ofLayer: $0), type) }, pageSize: pageSize)
    }

    private func keySets(_ kind: LayerKind, _ type: CacheType) -> [KeySet] {
        var lanes = [
            KeySet.Lane(as: type, width: headWidth - ropeWidth, fp8: Self.latentRounding),
            KeySet.Lane(as: type, width: ropeWidth, fp8: .keepsBF16),
        ]
        let keys = KeySet("window", lanes, lifetime: .window(tokens: window))
        if kind == .slidingWindow { return [keys] }
        var inputs = [KeySet.Lane(.f32, width: 2 * kind.halves * headWidth)]
        if kind == .compressedSparse {
            lanes.append(KeySet.Lane(indexAs: type, width: indexer.width))
            inputs.append(KeySet.Lane(.f32, width: 2 * kind.halves * indexer.width))
        }
        return [
            keys,
            KeySet(
                "compressor inputs", inputs, lifetime: .window(tokens: kind.slots), readEvery: kind.tokensPerEntry),
            KeySet("entries", lanes, tokensPerEntry: kind.tokensPerEntry),
        ]
    }
}
