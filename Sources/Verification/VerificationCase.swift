import Inference
package import KVCache
package import Parallelism

/// One run of a verification: a layout, and the conditions under which it serves.
package struct VerificationCase: Sendable, Hashable {
    package var layout: ParallelConfiguration
    package var conditions: ServingConditions

    package init(_ layout: ParallelConfiguration, _ conditions: ServingConditions = ServingConditions()) {
        self.layout = layout
        self.conditions = conditions
    }

    /// What `init(notation:for:)` makes this case of again, such as
    /// `cp4 ep4 dcp4:2 zigzag alltoall chunk29 page16 fp8_e4m3 warm draft0 mixed threads2 odd-blocks`.
    package var notation: String {
        ([layout.notation] + ServingConditions.axes.map { $0.word(conditions) }).joined(separator: " ")
    }

    /// Conditions that are not named are those of `ServingConditions()`.
    ///
    /// - Throws: `NotationError` where the words make no case for this shape.
    package init(notation: String, for shape: ModelShape) throws(NotationError) {
        var conditions = ServingConditions()
        var layout: [Substring] = []
        for word in notation.split(separator: " ") {
            var isRead = false
            for axis in ServingConditions.axes where !isRead { isRead = try axis.read(word, &conditions) }
            if !isRead { layout.append(word) }
        }
        self.init(try ParallelConfiguration(notation: layout.joined(separator: " "), for: shape), conditions)
    }
}

/// Everything besides the layout in which cases differ. None of it may change an answer, but the cache's type.
package struct ServingConditions: Sendable, Hashable {
    /// Prompt tokens of a request in one step, at most; -1 for whole prompts.
    package var chunk = -1
    /// Tokens of a page.
    package var pageSize = 16
    /// Compared with one rank whose cache is of the same type.
    package var cacheType = CacheType.float32
    package var prefix = PrefixUse.cold
    /// Tokens guessed behind each request; the rank it is compared with guesses none.
    package var drafts = 0
    package var mix = Workload.Kind.mixed
    /// Threads that share the work inside each rank.
    package var threads = 1
    /// Of kernels: as their level has them, or others (`Tuning`).
    package var blocks = BlockSizes.usual

    package init() {}

    /// One word of a case's name for each condition, in this order. A new condition is a property, a line here, and its
    /// values in `all`.
    package static let axes = [
        ConditionAxis("chunk", \.chunk, legal: "-1 for whole prompts or 1 to 32768") {
            $0 == -1 || (1...32_768).contains($0)
        },
        ConditionAxis("page", \.pageSize, legal: "a power of two up to 65536") {
            (1...65_536).contains($0) && $0 & ($0 - 1) == 0
        },
        ConditionAxis("cache", \.cacheType),
        ConditionAxis("prefix", \.prefix),
        ConditionAxis("draft", \.drafts, legal: "from 0 to 15") { (0...15).contains($0) },
        ConditionAxis("mix", \.mix),
        ConditionAxis("threads", \.threads, legal: "from 1 to 64") { (1...64).contains($0) },
        ConditionAxis("blocks", \.blocks),
    ]

    /// All combinations worth trying with prompts of so many tokens.
    ///
    /// - Parameters:
    ///   - canDraft: whether the model can.
    ///   - alignment: what the model's pages are multiples of.
    package static func all(
        longestPrompt: Int, cacheTypes: [CacheType] = CacheType.allCases, canDraft: Bool = false,
        alignment: Int = 1, threads: [Int] = [1, 2]
    ) -> [ServingConditions] {
        [ServingConditions()]
            .with(\.chunk, chunks(longestPrompt: longestPrompt))
            .with(\.pageSize, pageSizes(alignment: alignment))
            .with(\.cacheType, cacheTypes)
            .with(\.prefix, PrefixUse.allCases)
            .with(\.drafts, canDraft ? [0, 1, 3] : [0])
            .with(\.mix, Workload.Kind.allCases)
            .with(\.threads, threads)
            .with(\.blocks, BlockSizes.allCases)
    }

    private static func pageSizes(alignment: Int) -> [Int] {
        let sizes = [1, 4, 16, 64].filter { $0 % alignment == 0 }
        return sizes.count > 1 ? sizes : [alignment, 2 * alignment, 8 * alignment]
    }

    /// Whole prompts, thirds and tenths, none of them round numbers.
    private static func chunks(longestPrompt: Int) -> [Int] {
        var sizes = [-1]
        for size in [longestPrompt / 3 | 1, longestPrompt / 10 | 1] where !sizes.contains(size) { sizes.append(size) }
        return sizes
    }
}

extension [ServingConditions] {
    /// Each of these with each of the values.
    fileprivate func with<Value>(
        _ path: WritableKeyPath<ServingConditions, Value>, _ values: [Value]
    ) -> [ServingConditions] {
        flatMap { conditions in
            values.map { value in
                var copy = conditions
                copy[keyPath: path] = value
                return copy
            }
        }
    }
}

/// Sizes of blocks.
package enum BlockSizes: String, Sendable, CaseIterable {
    case usual = "usual-blocks"
    /// Unlike the usual in every size.
    case odd = "odd-blocks"
}

/// What is in the prefix cache when a mix is served.
package enum PrefixUse: String, Sendable, CaseIterable {
    /// Nothing: there is none.
    case cold
    /// All of the mix: it is served twice, and compared both times.
    case warm
    /// The beginnings of its prompts: requests that go on otherwise are served already, and still.
    case shared
}
