import Inference
package import KVCache
package import Parallelism

/// A verification case is one run of a verification: a parallel configuration, and the conditions under which it
/// serves.
package struct VerificationCase: Sendable, Hashable {
    package var layout: ParallelConfiguration
    package var conditions: ServingConditions

    package init(_ layout: ParallelConfiguration, _ conditions: ServingConditions = ServingConditions()) {
        self.layout = layout
        self.conditions = conditions
    }

    /// The notation from which `init(notation:for:)` makes an equal case, such as `cp4 ep4 dcp4:2 zigzag alltoall
    /// chunk29 page16 fp8_e4m3 warm draft0 mixed threads2 odd-blocks`.
    package var notation: String {
        ([layout.notation] + ServingConditions.axes.map { $0.word(conditions) }).joined(separator: " ")
    }

    /// Reads a case from its notation. Conditions that are not named are those of `ServingConditions()`.
    ///
    /// - Throws: `NotationError` if the words name no case for this shape.
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

/// Serving conditions are everything in which cases differ besides the parallel configuration. None but the cache's
/// type may change an answer.
package struct ServingConditions: Sendable, Hashable {
    /// The maximum number of prompt tokens of a request in one step; -1 computes whole prompts.
    package var chunk = -1
    /// The number of tokens in a page.
    package var pageSize = 16
    /// The type of cached keys, which is also that of the one rank it is compared with.
    package var cacheType = CacheType.float32
    package var prefix = PrefixUse.cold
    /// The number of tokens drafted for each request; the one rank it is compared with drafts none.
    package var drafts = 0
    package var mix = Workload.Kind.mixed
    /// The number of threads that share the work of each rank.
    package var threads = 1
    /// The block sizes of kernels: those of their level, or others (`Tuning`).
    package var blocks = BlockSizes.usual

    package init() {}

    /// The dimensions in the order of a case's notation. A new dimension is a property, a line here, and its values in
    /// `all`.
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

    /// Returns all combinations worth trying with prompts of up to `longestPrompt` tokens.
    ///
    /// - Parameters:
    ///   - canDraft: Whether the model has a next-token block.
    ///   - alignment: The number of tokens that page sizes are multiples of.
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

    /// Returns chunk sizes: whole prompts, and odd numbers near a third and a tenth of the longest prompt.
    private static func chunks(longestPrompt: Int) -> [Int] {
        var sizes = [-1]
        for size in [longestPrompt / 3 | 1, longestPrompt / 10 | 1] where !sizes.contains(size) { sizes.append(size) }
        return sizes
    }
}

extension [ServingConditions] {
    /// Returns each of these combinations with each of the values.
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

/// The block sizes of kernels.
package enum BlockSizes: String, Sendable, CaseIterable {
    case usual = "usual-blocks"
    /// Every block size differs from the usual one.
    case odd = "odd-blocks"
}

/// The content of the prefix cache when a workload is served.
package enum PrefixUse: String, Sendable, CaseIterable {
    /// There is no prefix cache.
    case cold
    /// The cache contains the whole workload, which is served twice and compared both times.
    case warm
    /// The cache contains the beginnings of the prompts, from requests that continue differently and still run.
    case shared
}
