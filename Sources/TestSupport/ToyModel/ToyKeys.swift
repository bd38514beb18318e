import KVCache
import Tensors

/// The key sets of the toy model's layers.
enum ToyKeys {
    /// The keys of a row's window, by their indices in a layer.
    static let window = 0
    /// What the compressor keeps of each token of an entry that is not complete: F32, whatever the cache's type.
    static let inputs = 1
    static let entries = 2

    /// The lanes of `window` and `entries`; only entries that are selected have an index lane.
    static let latent = 0
    static let rotary = 1
    static let index = 2

    /// Tokens of an entry; 0 in layers that own none.
    static func tokensPerEntry(_ kind: ToyLayerKind, longEntry: Int) -> Int {
        switch kind {
        case .window, .reading: 0
        case .selecting, .reusing: 4
        case .long: longEntry
        }
    }

    /// Tokens that an entry is made of: its own, and where entries overlap those of the entry before.
    static func slots(_ kind: ToyLayerKind, longEntry: Int) -> Int {
        let tokens = tokensPerEntry(kind, longEntry: longEntry)
        return kind == .long ? tokens : 2 * tokens
    }

    static func sets(_ kind: ToyLayerKind, longEntry: Int, _ type: CacheType) -> [KeySet] {
        var lanes = [
            KeySet.Lane(as: type, width: ToySizes.latent, fp8: .grouped(16)),
            KeySet.Lane(as: type, width: ToySizes.rotary, fp8: .keepsBF16),
        ]
        let window = KeySet("window", lanes, lifetime: .window(tokens: ToySizes.window))
        let tokens = tokensPerEntry(kind, longEntry: longEntry)
        if tokens == 0 { return [window] }
        if kind == .selecting { lanes.append(KeySet.Lane(as: type, width: ToySizes.indexWidth, fp8: .perEntry)) }
        return [
            window,
            KeySet(
                "inputs", [KeySet.Lane(.f32, width: ToySizes.inputs)],
                lifetime: .window(tokens: slots(kind, longEntry: longEntry))),
            KeySet("entries", lanes, tokensPerEntry: tokens, isReadByLaterLayers: kind == .selecting),
        ]
    }
}
