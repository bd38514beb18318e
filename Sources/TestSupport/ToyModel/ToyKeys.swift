import KVCache
import Tensors

/// The key sets of the toy model's layers.
enum ToyKeys {
    /// The index of the key set with the window's keys, in every layer.
    static let window = 0
    /// The index of the key set with the compressor's input for each token, in layers that own entries. It is F32 in
    /// every type of cache.
    static let inputs = 1
    static let entries = 2

    /// How an FP8 cache keeps the latent lane.
    static let latentRounding = KeySet.FP8Rounding.grouped(16, .f32)

    /// The lanes of `window` and `entries`. Only layers that select entries have an index lane.
    static let latent = 0
    static let rotary = 1
    static let index = 2

    /// Returns the number of tokens that an entry of the layer covers; 0 if the layer owns no entries.
    static func tokensPerEntry(_ kind: ToyLayerKind, longEntry: Int) -> Int {
        switch kind {
        case .window, .reading: 0
        case .selecting, .reusing: 4
        case .long: longEntry
        }
    }

    /// Returns the number of tokens from which an entry is computed: its own, and those of the previous entry where
    /// entries overlap.
    static func slots(_ kind: ToyLayerKind, longEntry: Int) -> Int {
        let tokens = tokensPerEntry(kind, longEntry: longEntry)
        return kind == .long ? tokens : 2 * tokens
    }

    static func sets(_ kind: ToyLayerKind, longEntry: Int, _ type: CacheType) -> [KeySet] {
        var lanes = [
            KeySet.Lane(as: type, width: ToySizes.latent, fp8: latentRounding),
            KeySet.Lane(as: type, width: ToySizes.rotary, fp8: .keepsBF16),
        ]
        let window = KeySet("window", lanes, lifetime: .window(tokens: ToySizes.window))
        let tokens = tokensPerEntry(kind, longEntry: longEntry)
        if tokens == 0 { return [window] }
        if kind == .selecting { lanes.append(KeySet.Lane(indexAs: type, width: ToySizes.indexWidth)) }
        return [
            window,
            KeySet(
                "inputs", [KeySet.Lane(.f32, width: ToySizes.inputs)],
                lifetime: .window(tokens: slots(kind, longEntry: longEntry))),
            KeySet("entries", lanes, tokensPerEntry: tokens, isReadByLaterLayers: kind == .selecting),
        ]
    }
}
