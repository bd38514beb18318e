import Inference
package import KVCache
package import Parallelism
package import Tensors

/// A verification case is one run of a verification: a parallel configuration, and the conditions under which it
/// serves. Another server may compute its prompts.
package struct VerificationCase: Sendable, Hashable {
    package var layout: ParallelConfiguration
    package var conditions: ServingConditions
    /// The server that computes the prompts; `nil` if there is one server only.
    package var prefill: PrefillServer?

    package init(_ layout: ParallelConfiguration, _ conditions: ServingConditions = ServingConditions()) {
        self.layout = layout
        self.conditions = conditions
    }

    /// The notation from which `init(notation:for:)` makes an equal case, such as `cp4 ep4 dcp4:2 zigzag alltoall
    /// chunk29 page16 fp8_e4m3 warm draft0 mixed threads2 odd-blocks`. Behind the word `from` follows a prefill server, such
    /// as `from pp2 tp2 chunk9 page64 draft0 cached-by-both link-cuts`.
    package var notation: String {
        ([layout.notation] + ServingConditions.axes.map { $0.word(conditions) }).joined(separator: " ")
            + (prefill.map { " from " + $0.notation } ?? "")
    }

    /// Reads a case from its notation. Conditions that are not named are those of `ServingConditions()` and
    /// `PrefillServer(ParallelConfiguration())`.
    ///
    /// - Throws: `NotationError` if the words name no case for this shape.
    package init(notation: String, for shape: ModelShape) throws(NotationError) {
        var conditions = ServingConditions()
        var layout: [Substring] = []
        let words = notation.split(separator: " ")
        let own = words.prefix { $0 != "from" }
        for word in own {
            var isRead = false
            for axis in ServingConditions.axes where !isRead { isRead = try axis.read(word, &conditions) }
            if !isRead { layout.append(word) }
        }
        self.init(try ParallelConfiguration(notation: layout.joined(separator: " "), for: shape), conditions)
        guard own.count < words.count else { return }
        let prefill = try PrefillServer(words: words[(own.count + 1)...], for: shape)
        guard prefill.canServe(conditions) else {
            throw NotationError(
                "draft\(conditions.drafts): the prefill server drafts no tokens, so it has no keys of the next-token "
                    + "block; write draft1 behind 'from' too")
        }
        self.prefill = prefill
    }
}

/// Serving conditions are everything in which cases differ besides the parallel configuration. None but the cache's
/// type and the numerics profile may change an answer.
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
    /// The numerics profile, which is also that of the one rank it is compared with.
    package var profile = NumericsProfile.f32

    package init() {}

    /// The dimensions in the order of a case's notation. A new dimension is a property, a line here, and its values in
    /// `all`.
    package static let axes: [ConditionAxis<ServingConditions>] = [
        ConditionAxis("chunk", \.chunk, legal: legalChunks, isLegal: isLegalChunk),
        ConditionAxis("page", \.pageSize, legal: legalPages, isLegal: isLegalPage),
        ConditionAxis("cache", \.cacheType),
        ConditionAxis("prefix", \.prefix),
        ConditionAxis("draft", \.drafts, legal: "from 0 to 15") { (0...15).contains($0) },
        ConditionAxis("mix", \.mix),
        ConditionAxis("threads", \.threads, legal: "from 1 to 64") { (1...64).contains($0) },
        ConditionAxis("blocks", \.blocks),
        ConditionAxis("profile", \.profile),
    ]

    static let legalChunks = "-1 for whole prompts or 1 to 32768"
    @Sendable static func isLegalChunk(_ size: Int) -> Bool { size == -1 || (1...32_768).contains(size) }
    static let legalPages = "a power of two up to 65536"
    @Sendable static func isLegalPage(_ size: Int) -> Bool { (1...65_536).contains(size) && size & (size - 1) == 0 }

    /// The values that some combinations of conditions have, of the dimensions that a prefill server has too.
    struct Values {
        let chunks: [Int]
        let pageSizes: [Int]
        let drafts: [Int]

        init(_ all: some Sequence<ServingConditions>) {
            func values(_ path: KeyPath<ServingConditions, Int>) -> [Int] {
                Set(all.map { $0[keyPath: path] }).sorted()
            }
            (chunks, pageSizes, drafts) = (values(\.chunk), values(\.pageSize), values(\.drafts))
        }
    }

    /// Returns all combinations worth trying with prompts of up to `longestPrompt` tokens.
    ///
    /// - Parameters:
    ///   - canDraft: True if the model has a next-token block.
    ///   - alignment: The number of tokens that page sizes are multiples of.
    ///   - profiles: The numerics profiles: the first has all combinations, each other one a fifth of them.
    package static func all(
        longestPrompt: Int, cacheTypes: [CacheType] = CacheType.plain, canDraft: Bool = false,
        alignment: Int = 1, threads: [Int] = [1, 2], profiles: [NumericsProfile] = [.f32]
    ) -> [ServingConditions] {
        let all = [ServingConditions()]
            .with(\.chunk, chunks(longestPrompt: longestPrompt))
            .with(\.pageSize, pageSizes(alignment: alignment))
            .with(\.cacheType, cacheTypes)
            .with(\.prefix, PrefixUse.allCases)
            .with(\.drafts, canDraft ? [0, 1, 3] : [0])
            .with(\.mix, Workload.Kind.allCases)
            .with(\.threads, threads)
            .with(\.blocks, BlockSizes.allCases)
        // No dimension has a multiple of five values, so every fifth combination has all pairs of them.
        let fifth = stride(from: 0, to: all.count, by: 5).map { all[$0] }
        return all.with(\.profile, Array(profiles.prefix(1))) + fifth.with(\.profile, Array(profiles.dropFirst()))
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

extension Array {
    /// Returns each of these combinations with each of the values.
    func with<Value>(_ path: WritableKeyPath<Element, Value>, _ values: [Value]) -> [Element] {
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
