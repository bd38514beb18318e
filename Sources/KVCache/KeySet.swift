package import Tensors

/// Keys of one kind that a layer stores: an entry for every `tokensPerEntry` consecutive tokens, each with its part in
/// every lane.
///
/// An entry is complete when the last of its tokens is, so the row of that token stores it, and rows before that do not
/// see it. A set of one token per entry is the plain case: every row stores an entry and sees it.
package struct KeySet: Sendable, Equatable {
    /// What messages call it.
    package let name: String
    package let lanes: [Lane]
    /// Consecutive tokens that an entry stands for, a power of two.
    package let tokensPerEntry: Int
    package let lifetime: Lifetime
    /// Whether layers behind the one that owns the set read it, too.
    package let isReadByLaterLayers: Bool

    /// How long entries are kept, and so which of them rows see.
    package enum Lifetime: Sendable, Hashable {
        /// As long as their request, and then while the prefix cache knows them. A row sees all that are complete.
        case request
        /// While a row to come may see them: a row sees the entries of the last `tokens` tokens, its own among them. Such
        /// entries are few, so every process has all of them, also where processes divide the others. Besides keys it is
        /// what a sequence's state is kept in: what a compressor has of the tokens of an open entry, for one.
        case window(tokens: Int)
    }

    package init(
        _ name: String, _ lanes: [Lane], tokensPerEntry: Int = 1, lifetime: Lifetime = .request,
        isReadByLaterLayers: Bool = false
    ) {
        precondition(!lanes.isEmpty, "the key set \(name) has no lanes")
        precondition(
            tokensPerEntry > 0 && tokensPerEntry & (tokensPerEntry - 1) == 0,
            "an entry of \(name) stands for \(tokensPerEntry) tokens, which is no power of two")
        if case .window(let tokens) = lifetime {
            precondition(tokens > 0 && tokensPerEntry == 1, "a window of \(tokens) entries of one token each")
        }
        self.lifetime = lifetime
        self.name = name
        self.lanes = lanes
        self.tokensPerEntry = tokensPerEntry
        self.isReadByLaterLayers = isReadByLaterLayers
    }

    /// Tokens whose entries a row sees, where it does not see all of them.
    package var window: Int? { if case .window(let tokens) = lifetime { tokens } else { nil } }

    /// Bytes of an entry in all lanes, scales included.
    package var bytesPerEntry: Int { lanes.reduce(0) { $0 + $1.bytesPerEntry } }

    /// Elements of an entry in all lanes.
    package var width: Int { lanes.reduce(0) { $0 + $1.width } }
}

extension KeySet {
    /// A part of every entry that is stored as one array: an element type, a width, and how many elements share a scale.
    ///
    /// A lane is named by its index in its set; the model that made the set knows what it means.
    package struct Lane: Sendable, Equatable {
        package let dtype: DType
        /// Elements of an entry.
        package let width: Int
        /// Elements that share a scale; only FP8 has scales.
        package let group: Int

        /// - Parameter group: elements that share a scale, for FP8; all of an entry when `nil`.
        package init(_ dtype: DType, width: Int, group: Int? = nil) {
            self.dtype = dtype
            self.width = width
            self.group = group ?? width
        }

        /// A lane in a cache of a type that users name.
        ///
        /// - Parameter rounding: what becomes of it in an FP8 cache; the others round all lanes alike.
        package init(as type: CacheType, width: Int, fp8 rounding: FP8Rounding) {
            switch (type, rounding) {
            case (.float32, _): self.init(.f32, width: width)
            case (.bfloat16, _), (.fp8, .keepsBF16): self.init(.bf16, width: width)
            case (.fp8, .grouped(let group)): self.init(.fp8, width: width, group: group)
            case (.fp8, .perEntry): self.init(.fp8, width: width)
            }
        }

        /// Bytes of an entry, scales included.
        package var bytesPerEntry: Int { CacheLane.entryBytes(dtype, width: width, group: group) }

        /// 32-bit words that hold an entry.
        package var wordsPerEntry: Int {
            (bytesPerEntry + MemoryLayout<Int32>.size - 1) / MemoryLayout<Int32>.size
        }
    }

    /// How an FP8 cache keeps a lane.
    package enum FP8Rounding: Sendable, Equatable {
        /// So many consecutive elements share a scale.
        case grouped(Int)
        /// All elements of an entry share a scale.
        case perEntry
        /// The lane is small, or its values are too different in size: it stays BF16.
        case keepsBF16
    }
}

/// Names a key set: the layer that owns it, and its index among that layer's sets.
package struct KeySetID: Sendable, Hashable {
    package let layer: Int
    package let index: Int

    package init(layer: Int, _ index: Int = 0) {
        self.layer = layer
        self.index = index
    }
}
