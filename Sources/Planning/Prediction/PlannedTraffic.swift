/// What clients send, as far as it decides how fast they are answered.
package struct PlannedTraffic: Sendable, Equatable {
    /// Tokens of a prompt.
    package var input: Int
    /// New tokens of an answer.
    package var output: Int
    /// Requests computed at the same time, all data groups together.
    package var concurrency: Int
    /// The fraction of a prompt whose keys the prefix cache has.
    package var prefixHitRate: Double
    /// Prompt tokens of one request computed in one step.
    package var chunk: Int
    /// Draft tokens of a decode step, and the probability that one is accepted if those before it were.
    package var drafts: Int
    package var acceptanceRate: Double

    package init(
        input: Int, output: Int, concurrency: Int = 1, prefixHitRate: Double = 0, chunk: Int = 16_384,
        drafts: Int = 0, acceptanceRate: Double = 0
    ) {
        precondition(input > 0 && output > 0 && concurrency > 0 && chunk > 0 && drafts >= 0, "no traffic")
        precondition((0...1).contains(prefixHitRate) && (0...1).contains(acceptanceRate), "rates are from 0 to 1")
        self.input = input
        self.output = output
        self.concurrency = concurrency
        self.prefixHitRate = prefixHitRate
        self.chunk = chunk
        self.drafts = drafts
        self.acceptanceRate = acceptanceRate
    }

    /// Tokens that a decode step yields on average: one, and those drafts which are accepted.
    package var tokensPerStep: Double {
        (0..<drafts).reduce((sum: 1.0, chance: 1.0)) { state, _ in
            let chance = state.chance * acceptanceRate
            return (state.sum + chance, chance)
        }.sum
    }

    /// Returns the probability that gives a number of tokens per step: the inverse of `tokensPerStep`. What no probability
    /// gives is taken for the nearest that one does.
    package static func acceptanceRate(drafts: Int, tokensPerStep wanted: Double) -> Double {
        var (low, high) = (0.0, 1.0)
        for _ in 0..<52 {
            let middle = (low + high) / 2
            let traffic = PlannedTraffic(input: 1, output: 1, drafts: drafts, acceptanceRate: middle)
            if traffic.tokensPerStep < wanted { low = middle } else { high = middle }
        }
        return drafts == 0 ? 0 : high
    }

    /// The first position that is computed: a prompt's last token always is.
    package var firstPosition: Int { min(Int(Double(input) * prefixHitRate), input - 1) }

    /// A chunk of a prompt that stands for `count` chunks around it, itself included.
    package struct SampledChunk: Sendable, Equatable {
        package var positions: Range<Int>
        package var count: Int
    }

    /// Predictions compute at most so many chunks.
    static let maxSampledChunks = 128

    /// The chunks that predictions compute: all of them, or, where those are very many, the middle one of each of as many
    /// parts of the prompt as are allowed. The last chunk, which may be shorter, always stands for itself alone. Times grow
    /// so evenly along a prompt that the middle one takes what its part takes on average.
    package var sampledChunks: [SampledChunk] {
        let first = firstPosition
        let last = (input - first - 1) / chunk
        func positions(_ number: Int) -> Range<Int> {
            first + number * chunk..<min(first + (number + 1) * chunk, input)
        }
        let parts = min(last, Self.maxSampledChunks - 1)
        return (0..<parts).map { part in
            let (begin, end) = (last * part / parts, last * (part + 1) / parts)
            return SampledChunk(positions: positions((begin + end - 1) / 2), count: end - begin)
        } + [SampledChunk(positions: positions(last), count: 1)]
    }

    /// The number of keys that a row of the middle of an answer sees.
    package var decodeContext: Int { input + output / 2 }
}
