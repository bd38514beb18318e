package import Tensors

/// A kind of keys that a layer stores: one entry for every `tokensPerEntry` consecutive tokens, with a part in each of
/// several lanes.
///
/// An entry is complete with the last of its tokens: that token's row stores it, and earlier rows do not see it. With
/// one token per entry, every row stores an entry and sees it.
package struct KeySet: Sendable, Equatable {
    /// The name of the set in messages.
    package let name: String
    package let lanes: [Lane]
    /// The number of consecutive tokens that an entry covers, a power of two.
    package let tokensPerEntry: Int
    package let lifetime: Lifetime
    /// The rows that read a set with a window: every row whose attention a rank computes if it is 1; if it is n, only
    /// those of a rank's own rows that complete an entry of n tokens, which they compute from the window.
    package let readEvery: Int
    /// True if layers after the one that owns the set also read it.
    package let isReadByLaterLayers: Bool

    /// The time for which entries are kept, which also determines the entries that a row sees.
    package enum Lifetime: Sendable, Hashable {
        /// Entries are kept as long as their request, and then as long as the prefix cache keeps their pages. A row
        /// sees all complete entries.
        case request
        /// Entries are kept while a later row may see them: a row sees the entries of the last `tokens` tokens, its own
        /// included. Every process has those that its own rows see and those that the next rows of a request may see
        /// (`CacheFormat.sharedWindows`), even where processes shard the other sets. Such a set can also hold the state of
        /// a sequence, for example a compressor's input for each token of an incomplete entry.
        case window(tokens: Int)
    }

    package init(
        _ name: String, _ lanes: [Lane], tokensPerEntry: Int = 1, lifetime: Lifetime = .request,
        readEvery: Int = 1, isReadByLaterLayers: Bool = false
    ) {
        precondition(!lanes.isEmpty, "the key set \(name) has no lanes")
        precondition(
            tokensPerEntry > 0 && tokensPerEntry & (tokensPerEntry - 1) == 0,
            "an entry of \(name) stands for \(tokensPerEntry) tokens, which is no power of two")
        if case .window(let tokens) = lifetime {
            precondition(tokens > 0 && tokensPerEntry == 1, "a window of \(tokens) entries of one token each")
            precondition((1...tokens).contains(readEvery), "a window of \(tokens) read every \(readEvery) tokens")
        }
        self.lifetime = lifetime
        self.readEvery = readEvery
        self.name = name
        self.lanes = lanes
        self.tokensPerEntry = tokensPerEntry
        self.isReadByLaterLayers = isReadByLaterLayers
    }

    /// The number of tokens whose entries a row sees; `nil` if it sees all complete entries.
    package var window: Int? { if case .window(let tokens) = lifetime { tokens } else { nil } }

    /// The part of the window that a row sees and the rows that read it; `nil` if the set has no window.
    package var reach: WindowReach? { window.map { WindowReach(tokens: $0, readEvery: readEvery) } }

    /// The number of bytes of an entry in all lanes, scales included.
    package var bytesPerEntry: Int { lanes.reduce(0) { $0 + $1.bytesPerEntry } }

    /// The number of elements of an entry in all lanes.
    package var width: Int { lanes.reduce(0) { $0 + $1.width } }
}

extension KeySet {
    /// An array with one part of every entry of a key set: its element type, its width, and the number of elements that
    /// share a scale.
    ///
    /// A lane is identified by its index in its set; the model that declares the set gives the indices names.
    package struct Lane: Sendable, Equatable {
        package let dtype: DType
        /// The number of elements of an entry.
        package let width: Int
        /// The number of elements that share a scale; only FP8 and FP4 have scales.
        package let group: Int
        /// The type of the scales; `f32` where there are none.
        package let scaleType: ScaleType

        /// Creates a lane.
        ///
        /// - Parameters:
        ///   - group: the number of elements that share a scale, for FP8 and FP4; all elements of an entry when `nil`.
        ///   - scaleType: the type of the scales, for FP8 and FP4.
        package init(_ dtype: DType, width: Int, group: Int? = nil, scaleType: ScaleType = .f32) {
            self.dtype = dtype
            self.width = width
            self.group = group ?? width
            self.scaleType = scaleType
        }

        /// Creates a lane of other keys than index keys for a cache of the type that users choose.
        ///
        /// - Parameter rounding: how an FP8 cache keeps the lane; caches of other types keep all lanes alike.
        package init(as type: CacheType, width: Int, fp8 rounding: FP8Rounding) {
            switch (type.keys, rounding) {
            case (.float32, _): self.init(.f32, width: width)
            case (.bfloat16, _), (.fp8, .keepsBF16): self.init(.bf16, width: width)
            case (.fp8, .grouped(let group, let scaleType)):
                self.init(.fp8, width: width, group: group, scaleType: scaleType)
            case (.fp8, .perEntry): self.init(.fp8, width: width)
            }
        }

        /// Creates a lane of index keys for a cache of the type that users choose.
        ///
        /// In FP8 all elements of a key share a scale; index keys are rotated (`Kernels.spreadIndex`), so their
        /// magnitudes are similar. In FP4 each 32 elements share one, as DeepSeek-V4's own code rounds index keys: a key of
        /// 128 elements has 64 + 4 bytes.
        package init(indexAs type: CacheType, width: Int) {
            if type.hasFP4Index {
                self.init(.fp4, width: width, group: 32, scaleType: .e8m0)
            } else {
                self.init(as: type, width: width, fp8: .perEntry)
            }
        }

        /// The number of bytes of an entry, scales included.
        package var bytesPerEntry: Int {
            CacheLane.entryBytes(dtype, width: width, group: group, scaleType: scaleType)
        }

        /// The number of 32-bit words that hold an entry.
        package var wordsPerEntry: Int {
            (bytesPerEntry + MemoryLayout<Int32>.size - 1) / MemoryLayout<Int32>.size
        }
    }

    /// The ways in which an FP8 cache keeps a lane.
    package enum FP8Rounding: Sendable, Equatable {
        /// Each group of this many consecutive elements shares a scale.
        case grouped(Int, ScaleType)
        /// All elements of an entry share an F32 scale.
        case perEntry
        /// The lane stays BF16, because it is small or its values differ too much in magnitude.
        case keepsBF16
    }
}

/// The identifier of a key set: the layer that owns it, and its index among that layer's sets.
package struct KeySetID: Sendable, Hashable {
    package let layer: Int
    package let index: Int

    package init(layer: Int, _ index: Int = 0) {
        self.layer = layer
        self.index = index
    }
}
