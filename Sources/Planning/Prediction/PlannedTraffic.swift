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

    /// The positions of each step of a prompt.
    package var chunks: [Range<Int>] {
        stride(from: firstPosition, to: input, by: chunk).map { $0..<min($0 + chunk, input) }
    }

    /// The number of keys that a row of the middle of an answer sees.
    package var decodeContext: Int { input + output / 2 }
}
