package import Parallelism

/// One run of a verification: a layout, a chunk size and a mix of requests.
package struct VerificationCase: Sendable, Hashable {
    package var layout: ParallelConfiguration
    /// Prompt tokens of a request in one step, at most; `nil` for whole prompts.
    package var chunk: Int?
    package var mix: BatchMix.Kind

    package init(_ layout: ParallelConfiguration, chunk: Int?, mix: BatchMix.Kind) {
        self.layout = layout
        self.chunk = chunk
        self.mix = mix
    }

    /// What `init(notation:for:)` makes this case of again, such as `cp4 ep4 zigzag alltoall chunk29 mixed`.
    package var notation: String { "\(layout.notation) chunk\(chunk.map(String.init) ?? "-1") \(mix)" }

    /// - Throws: `NotationError` where the words make no case for this shape.
    package init(notation: String, for shape: ModelShape) throws(NotationError) {
        var layout: [Substring] = []
        var (chunk, mix) = (Int?.none, BatchMix.Kind.mixed)
        for word in notation.split(separator: " ") {
            if let kind = BatchMix.Kind.allCases.first(where: { "\($0)" == word }) {
                mix = kind
            } else if word.hasPrefix("chunk") {
                guard let size = Int(word.dropFirst(5)), size == -1 || (1...32_768).contains(size) else {
                    throw NotationError(
                        "'\(word)' is no chunk size; write for example chunk29, or chunk-1 for no limit")
                }
                chunk = size == -1 ? nil : size
            } else {
                layout.append(word)
            }
        }
        let configuration = try ParallelConfiguration(notation: layout.joined(separator: " "), for: shape)
        self.init(configuration, chunk: chunk, mix: mix)
    }
}

/// Which cases a verification runs: all there are, or a sample that has every mesh before it has one twice.
package struct VerificationPlan: Sendable {
    /// In order of the number of ranks.
    package let cases: [VerificationCase]
    /// How many there are to choose from.
    package let total: Int

    /// - Parameters:
    ///   - layouts: all different.
    ///   - limit: cases at most, at least 1.
    ///   - seed: equal seeds choose equal cases.
    package init(
        _ layouts: [ParallelConfiguration], chunks: [Int?], mixes: [BatchMix.Kind] = BatchMix.Kind.allCases, limit: Int,
        seed: UInt64
    ) {
        precondition(limit > 0 && !layouts.isEmpty && !chunks.isEmpty && !mixes.isEmpty)
        let loads = chunks.flatMap { chunk in mixes.map { (chunk, $0) } }
        let total = layouts.count * loads.count
        self.total = total
        func number(_ layout: Int, load: Int) -> Int { layout * loads.count + load }
        var chosen: [Int] = []
        if total <= limit {
            chosen = Array(0..<total)
        } else {
            // Layouts in this order, each with a load of its own; the next round gives each its next load.
            var random = SeededGenerator(seed: seed, stream: 1 << 32)
            let order = Self.alternating(layouts, &random)
            let first = layouts.map { _ in Int.random(in: 0..<loads.count, using: &random) }
            for round in 0..<loads.count where chosen.count < limit {
                chosen += order.prefix(limit - chosen.count).map { number($0, load: (first[$0] + round) % loads.count) }
            }
        }
        cases = chosen.sorted().map { number in
            let load = loads[number % loads.count]
            return VerificationCase(layouts[number / loads.count], chunk: load.0, mix: load.1)
        }
    }

    /// The layouts' numbers: one of each mesh, then another of each, …, chosen at random.
    private static func alternating(
        _ layouts: [ParallelConfiguration], _ random: inout SeededGenerator
    ) -> [Int] {
        var queues: [[Int]] = []
        var places: [Mesh: Int] = [:]
        for (number, layout) in layouts.enumerated() {
            let place = places[layout.mesh] ?? queues.count
            if place == queues.count { queues.append([]) }
            places[layout.mesh] = place
            queues[place].append(number)
        }
        queues = queues.map { $0.shuffled(using: &random) }.shuffled(using: &random)
        let longest = queues.map(\.count).max() ?? 0
        return (0..<longest).flatMap { place in queues.compactMap { place < $0.count ? $0[place] : nil } }
    }

    /// Chunk sizes worth comparing for prompts of so many tokens: none, a third, a tenth, none of them round numbers.
    package static func chunks(longestPrompt: Int) -> [Int?] {
        var sizes: [Int?] = [nil]
        for size in [longestPrompt / 3 | 1, longestPrompt / 10 | 1] where !sizes.contains(size) { sizes.append(size) }
        return sizes
    }
}
