import Foundation
package import Grammar

/// A sampling failure describes values that no token can be sampled from. Only their request fails.
package struct SamplingFailure: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String
}

/// A sampler samples tokens from rows of logits, and scores tokens against them. Each rank owns one, because it holds
/// scratch memory: in steady state a sampler allocates only the list of alternatives, where one was requested.
///
/// A result is a function of the row, the parameters and the position alone. It is computed in this order:
/// 1. Log-probabilities are those of the unmodified row: `logit − max − log Σ exp(logit − max)`, with exponentials in
///   Float32, their sum in Float64 (of blocks of 512 ascending ids, then of the blocks), and the result rounded to
///   Float32 once.
/// 2. `logitBias` is added. Then penalties apply as in vLLM: the repetition penalty over prompt and generated tokens,
///   the frequency and presence penalties over generated tokens. Forbidden tokens, and those that a grammar does not
///   allow, become −∞.
/// 3. Temperature 0 takes the largest logit, and of equal ones the smaller id.
/// 4. Otherwise weights are `exp((logit − max) / temperature)`. The `topK` best tokens are kept; of these the smallest
///   set of best ones whose share of *their* weight reaches `topP`; of these the ones with at least `minP` of the best
///   one's weight. "Best" is by logit, and of equal ones by smaller id, so each set is exact.
/// 5. The kept weights are summed by ascending id, and the first token is taken at which the sum exceeds a uniform
///    number of `CounterGenerator` times the whole.
///
/// A logit of −∞ is legal and means that the token cannot be sampled; NaN and +∞ are failures.
package struct Sampler: ~Copyable {
    package let vocabularySize: Int
    /// The weight of each token after the last `weigh`, proportional to its probability; draws use these.
    package internal(set) var weights: [Float]
    /// The logits after bias and penalties.
    var adjusted: [Float]
    /// Scratch memory of `keepBest`: an amount for each value of a digit of 8 bits.
    var buckets: [Double]
    /// The sums of `Self.block` consecutive weights each.
    private var blockSums: [Double]
    /// The number of occurrences of each token; all are 0 between calls.
    private var occurrences: [Int32]

    private static let block = 512

    package init(vocabularySize: Int) {
        self.vocabularySize = vocabularySize
        weights = [Float](repeating: 0, count: vocabularySize)
        adjusted = weights
        buckets = [Double](repeating: 0, count: 256)
        blockSums = [Double](repeating: 0, count: (vocabularySize + Self.block - 1) / Self.block)
        occurrences = [Int32](repeating: 0, count: vocabularySize)
    }

    /// Samples the next token from `logits` `[vocabulary]`. The result contains its log-probability and the
    /// `topLogProbs` most likely alternatives unless `topLogProbs` is `nil`.
    package mutating func choose(
        _ logits: Span<Float>, as sample: StepPlan.Sample, allowed: TokenMask? = nil, topLogProbs: Int? = nil
    ) throws(SamplingFailure) -> TokenLogProbs {
        let token: Int32
        if sample.parameters.temperature == 0 {
            token = Int32(try adjust(logits, as: sample, allowed).index)
        } else {
            try weigh(logits, as: sample, allowed: allowed)
            let generator = CounterGenerator(seed: sample.parameters.seed)
            token = draw(generator.uniform(at: sample.position))
        }
        return try score(logits, target: token, topLogProbs: topLogProbs)
    }

    /// Returns the log-probability of `target`, and the most likely alternatives, from `logits` `[vocabulary]`.
    package mutating func score(
        _ logits: Span<Float>, target: Int32, topLogProbs: Int?
    ) throws(SamplingFailure) -> TokenLogProbs {
        guard let topLogProbs else { return TokenLogProbs(token: target) }
        precondition(logits.count == vocabularySize, "\(logits.count) logits for \(vocabularySize) tokens")
        let maximum = try best(of: logits, "the logits").value
        copy(logits)
        exponentiate(maximum: maximum, temperature: 1)
        let logSum = log(sumWeights())
        func logProb(_ logit: Float) -> Float { Float(Double(logit) - Double(maximum) - logSum) }
        var result = TokenLogProbs(token: target, logProb: logProb(logits[Int(target)]))
        result.top = bestTokens(topLogProbs, of: logits)
        for index in result.top.indices { result.top[index].logProb = logProb(result.top[index].logProb) }
        return result
    }

    /// Performs steps 2 and 4, and fills `weights`.
    package mutating func weigh(
        _ logits: Span<Float>, as sample: StepPlan.Sample, allowed: TokenMask? = nil
    ) throws(SamplingFailure) {
        let parameters = sample.parameters
        let maximum = try adjust(logits, as: sample, allowed).value
        exponentiate(maximum: maximum, temperature: parameters.temperature)
        if parameters.topK > 0, parameters.topK < vocabularySize {
            keepBest(until: Double(parameters.topK), byWeight: false)
        }
        if parameters.topP < 1 { keepBest(until: Double(parameters.topP) * sumWeights(), byWeight: true) }
        if parameters.minP > 0 {
            // The best weight is exp(0) = 1.
            for token in weights.indices where weights[token] < parameters.minP { weights[token] = 0 }
        }
    }

    /// Performs step 2, which fills `adjusted`, and returns the best token.
    private mutating func adjust(
        _ logits: Span<Float>, as sample: StepPlan.Sample, _ allowed: TokenMask?
    ) throws(SamplingFailure) -> (index: Int, value: Float) {
        precondition(logits.count == vocabularySize, "\(logits.count) logits for \(vocabularySize) tokens")
        // The row is checked before anything is added: a NaN must fail even if its token is forbidden.
        let untouched = try best(of: logits, "the logits")
        copy(logits)
        let parameters = sample.parameters
        let repeats = parameters.repetitionPenalty != 1
        let counts = parameters.frequencyPenalty != 0 || parameters.presencePenalty != 0
        if parameters.logitBias.isEmpty && sample.forbidden.isEmpty && !repeats && !counts && allowed == nil {
            return untouched
        }
        for (token, bias) in parameters.logitBias { adjusted[Int(token)] += bias }
        if repeats { penalizeRepetition(sample) }
        if counts { penalizeOccurrence(sample) }
        for token in sample.forbidden { adjusted[Int(token)] = -.infinity }
        if let allowed { forbid(allExcept: allowed) }
        return try best(of: adjusted.span, "the logits with bias, penalties and forbidden tokens")
    }

    private mutating func forbid(allExcept allowed: TokenMask) {
        for (index, word) in allowed.words.enumerated() where word != .max {
            for token in index * 64..<min(index * 64 + 64, vocabularySize) where word >> UInt64(token & 63) & 1 == 0 {
                adjusted[token] = -.infinity
            }
        }
    }

    private mutating func penalizeRepetition(_ sample: StepPlan.Sample) {
        penalizeRepetition(of: sample.prompt, by: sample.parameters.repetitionPenalty)
        penalizeRepetition(of: sample.generated, by: sample.parameters.repetitionPenalty)
        for token in sample.prompt { occurrences[Int(token)] = 0 }
        for token in sample.generated { occurrences[Int(token)] = 0 }
    }

    private mutating func penalizeRepetition(of tokens: [Int32], by penalty: Float) {
        for token in tokens.lazy.map(Int.init) where occurrences[token] == 0 {
            occurrences[token] = 1
            adjusted[token] = adjusted[token] > 0 ? adjusted[token] / penalty : adjusted[token] * penalty
        }
    }

    private mutating func penalizeOccurrence(_ sample: StepPlan.Sample) {
        for token in sample.generated { occurrences[Int(token)] += 1 }
        for token in sample.generated.lazy.map(Int.init) where occurrences[token] > 0 {
            adjusted[token] -= sample.parameters.frequencyPenalty * Float(occurrences[token])
            adjusted[token] -= sample.parameters.presencePenalty
            occurrences[token] = 0
        }
    }

    /// Returns the largest value and the smallest index that has it. Throws if a value is NaN or +∞, or all are −∞.
    private func best(of row: Span<Float>, _ what: String) throws(SamplingFailure) -> (index: Int, value: Float) {
        var index = -1
        var value = -Float.infinity
        for candidate in 0..<row.count {
            // Written so that NaN is caught as well.
            if !(row[candidate] < .infinity) {
                throw SamplingFailure(description: "\(what) are not usable: token \(candidate) has \(row[candidate])")
            }
            if row[candidate] > value {
                value = row[candidate]
                index = candidate
            }
        }
        guard index >= 0 else { throw SamplingFailure(description: "\(what) leave no token to choose: all are -inf") }
        return (index, value)
    }

    private mutating func copy(_ logits: Span<Float>) {
        for token in 0..<vocabularySize { adjusted[token] = logits[token] }
    }

    /// Fills `weights` with step 4's weights of the logits in `adjusted`.
    private mutating func exponentiate(maximum: Float, temperature: Float) {
        // The difference is taken first: then no temperature, however small, makes a finite logit infinite.
        for token in 0..<vocabularySize { weights[token] = exp((adjusted[token] - maximum) / temperature) }
    }

    /// Returns the sum of all weights, and fills `blockSums`.
    private mutating func sumWeights() -> Double {
        var total = 0.0
        for block in blockSums.indices {
            var sum = 0.0
            for token in blockTokens(block) { sum += Double(weights[token]) }
            blockSums[block] = sum
            total += sum
        }
        return total
    }

    /// Performs step 5 with a number in [0, 1).
    private mutating func draw(_ uniform: Double) -> Int32 {
        var target = uniform * sumWeights()
        // Rounding may leave the target at or above every sum; the last token with any weight is then taken.
        var chosen = weights.count - 1
        while weights[chosen] == 0 { chosen -= 1 }
        for block in blockSums.indices {
            guard blockSums[block] <= target else {
                var sum = 0.0
                for token in blockTokens(block) {
                    sum += Double(weights[token])
                    if sum > target { return Int32(token) }
                }
                break
            }
            target -= blockSums[block]
        }
        return Int32(chosen)
    }

    private func blockTokens(_ block: Int) -> Range<Int> {
        block * Self.block..<min((block + 1) * Self.block, vocabularySize)
    }

    /// Returns the best tokens with their *logits*, in descending order, of equal ones the smaller id first. Tokens
    /// with a logit of −∞ are left out.
    private func bestTokens(_ count: Int, of row: Span<Float>) -> [ScoredToken] {
        guard count <= Self.maxInserted else { return sortedTokens(count, of: row) }
        var found: [ScoredToken] = []
        guard count > 0 else { return found }
        found.reserveCapacity(count + 1)
        for token in 0..<row.count where row[token] > (found.count < count ? -.infinity : found[count - 1].logProb) {
            let place = found.firstIndex { $0.logProb < row[token] } ?? found.count
            found.insert(ScoredToken(token: Int32(token), logProb: row[token]), at: place)
            if found.count > count { found.removeLast() }
        }
        return found
    }

    /// The number of best tokens up to which inserting each where it belongs is faster than sorting all.
    private static let maxInserted = 128

    /// Returns what `bestTokens` returns, in a time that hardly depends on `count`.
    private func sortedTokens(_ count: Int, of row: Span<Float>) -> [ScoredToken] {
        var found: [ScoredToken] = []
        for token in 0..<row.count where row[token] > -.infinity {
            found.append(ScoredToken(token: Int32(token), logProb: row[token]))
        }
        found.sort { $0.logProb == $1.logProb ? $0.token < $1.token : $0.logProb > $1.logProb }
        return Array(found.prefix(count))
    }
}
