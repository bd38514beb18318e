import Foundation
import Grammar
import Inference
import TestSupport
import Testing

struct SamplerTests {
    // MARK: The generator

    @Test func `the generator gives the published answers`() {
        // The vectors are the three lines of philox4x32 with 10 rounds in tests/kat_vectors of Random123.
        #expect(
            CounterGenerator.block(counter: [0, 0, 0, 0], key: [0, 0])
                == [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8])
        let ones = UInt32.max
        #expect(
            CounterGenerator.block(counter: [ones, ones, ones, ones], key: [ones, ones])
                == [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD])
        #expect(
            CounterGenerator.block(
                counter: [0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344], key: [0xA409_3822, 0x299F_31D0])
                == [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1])
    }

    @Test func `a draw is the first 53 bits of the block of its seed and position`() {
        #expect(CounterGenerator(seed: 0).uniform(at: 0) == Double(0x6627_E8D5_E169_C58D >> 11) * 0x1p-53)
        let words = CounterGenerator.block(counter: [7, 2, 0, 0], key: [5, 3])
        let bits = UInt64(words[0]) << 32 | UInt64(words[1])
        #expect(CounterGenerator(seed: 3 << 32 | 5).uniform(at: 2 << 32 | 7) == Double(bits >> 11) * 0x1p-53)
    }

    @Test func `draws are uniform along positions and along seeds`() {
        for alongSeeds in [false, true] {
            var counts = [Int](repeating: 0, count: 64)
            for index in 0..<64_000 {
                let generator = CounterGenerator(seed: alongSeeds ? UInt64(index) : 11)
                let uniform = generator.uniform(at: alongSeeds ? 11 : index)
                #expect(uniform >= 0 && uniform < 1)
                counts[Int(uniform * 64)] += 1
            }
            // With 63 degrees of freedom the statistic is 63 on average, and above 115 once in 20 000 seeds.
            #expect(chiSquare(counts, [Double](repeating: 1.0 / 64, count: 64)) < 115)
        }
    }

    // MARK: Choosing

    @Test func `temperature 0 takes the best token, of equal ones the smaller id`() throws {
        let sample = makeSample { $0.temperature = 0 }
        #expect(try choose([1, 3, 2, 3], sample) == 1)
        #expect(try choose([-5, -.infinity, -4], sample) == 2)
        #expect(try choose([-0.0, 0.0], sample) == 0)
        #expect(try choose([7], sample) == 0)
    }

    @Test(arguments: [0.25, 1, 4] as [Float])
    func `draws follow the tempered distribution`(temperature: Float) throws {
        let row: [Float] = (0..<16).map { Float(($0 * 5) % 16) * 0.3 }
        let weights = row.map { exp(Double($0) / Double(temperature)) }
        let total = weights.reduce(0, +)
        let counts = try drawCounts(row, makeSample { $0.temperature = temperature }, draws: 50_000)
        // With at most 15 degrees of freedom the statistic is 15 on average, and above 45 once in 10 000 seeds.
        #expect(chiSquare(counts, weights.map { $0 / total }) < 45)
    }

    @Test func `draws reach every block of a large vocabulary in proportion`() throws {
        let row = [Float](repeating: 0.5, count: 2_000)
        let counts = try drawCounts(row, makeSample(), draws: 40_000)
        let blocks = (0..<20).map { counts[$0 * 100..<($0 + 1) * 100].reduce(0, +) }
        #expect(chiSquare(blocks, [Double](repeating: 0.05, count: 20)) < 50)
    }

    @Test func `seed and position decide a draw, and the sampler's past does not`() throws {
        let row = randomRow(300, seed: 4)
        var sampler = Sampler(vocabularySize: 300)
        var sample = makeSample {
            $0.seed = 9
            $0.topP = 0.9
            $0.repetitionPenalty = 1.2
            $0.frequencyPenalty = 0.3
        }
        sample.generated = [4, 5, 4]
        sample.prompt = [6, 4]
        sample.position = 17
        let fresh = try choose(row, sample)
        var other = makeSample { $0.topK = 3 }
        for position in 0..<20 {
            other.position = position
            _ = try sampler.choose(row.span, as: other, topLogProbs: 4)
            #expect(try sampler.choose(row.span, as: sample).token == fresh)
        }
        let positions = Set(try (0..<50).map { try chooseAt($0, row, other) })
        #expect(positions.count > 1)
    }

    @Test func `tokens without probability are never drawn`() throws {
        let row: [Float] = [-.infinity, 0, -.infinity, -200, 0, -.infinity]
        let counts = try drawCounts(row, makeSample(), draws: 2_000)
        #expect(counts.enumerated().filter { $0.element > 0 }.map(\.offset) == [1, 4])
    }

    @Test(arguments: [Float.leastNonzeroMagnitude, .leastNormalMagnitude, .greatestFiniteMagnitude])
    func `extreme temperatures choose a token`(temperature: Float) throws {
        let row: [Float] = [-3, 80, 79.9, -.infinity, -80]
        let counts = try drawCounts(row, makeSample { $0.temperature = temperature }, draws: 4_000)
        #expect(counts[3] == 0)
        if temperature < 1 { #expect(counts[1] == 4_000) } else { #expect(counts.filter { $0 > 850 }.count == 4) }
    }

    @Test func `extreme logits choose a token`() throws {
        let largest = Float.greatestFiniteMagnitude
        #expect(try choose([-largest, largest, 0], makeSample()) == 1)
        #expect(try choose([-largest, -largest], makeSample { $0.temperature = 0 }) == 0)
    }

    // MARK: Filters

    @Test(arguments: 1...200) func `filters keep exactly the tokens that a sort would keep`(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        let count = 1 + random.below(random.below(4) == 0 ? 3_000 : 40)
        // Every other row has many equal logits, and some rows have impossible tokens.
        let step: Float = seed % 2 == 0 ? 0.5 : 0
        var row = randomRow(count, seed: seed, step: step)
        if seed % 5 == 0 { for token in row.indices where token % 3 == 1 { row[token] = -.infinity } }
        var sample = makeSample()
        sample.parameters.temperature = [0.3, 1, 2.5][random.below(3)]
        sample.parameters.topK = random.below(2) == 0 ? 1 + random.below(count + 2) : 0
        sample.parameters.topP = random.below(3) == 0 ? 1 : 0.01 + 0.99 * Float(random.unit())
        sample.parameters.minP = random.below(2) == 0 ? Float(random.unit() * random.unit()) : 0
        var sampler = Sampler(vocabularySize: count)
        try sampler.weigh(row.span, as: sample)
        let kept = sampler.weights.indices.filter { sampler.weights[$0] > 0 }
        #expect(kept == keptBySorting(row, sample.parameters), "\(count) tokens, \(sample.parameters)")
        let best = row.max()!
        for token in kept {
            #expect(sampler.weights[token] == exp((row[token] - best) / sample.parameters.temperature))
        }
    }

    @Test func `of equal tokens the smaller ids are kept`() throws {
        let row = [Float](repeating: 1, count: 8)
        #expect(try kept(row) { $0.topK = 3 } == [0, 1, 2])
        #expect(try kept(row) { $0.topP = 0.5 } == [0, 1, 2, 3])
        #expect(try kept(row) { $0.topP = 0.51 } == [0, 1, 2, 3, 4])
        #expect(try kept(row) { $0.minP = 1 } == Array(0..<8))
        #expect(try kept([0, 2, 2, 1, 2]) { $0.topK = 2 } == [1, 2])
        #expect(try kept([0.0, -0.0, 0.0]) { $0.topK = 2 } == [0, 1])
    }

    @Test func `the best token is always kept`() throws {
        let row: [Float] = [0, 1, 5, 2]
        #expect(try kept(row) { $0.topP = .leastNonzeroMagnitude } == [2])
        #expect(try kept(row) { $0.topK = 1 } == [2])
        #expect(try kept(row) { $0.minP = 1 } == [2])
        #expect(try kept(row) { $0.topK = .max } == [0, 1, 2, 3])
    }

    @Test func `top-k tells logits apart that a high temperature makes equally likely`() throws {
        #expect(
            try kept([1, 1.000_001, 1.000_002]) {
                $0.temperature = 1e30
                $0.topK = 2
            } == [1, 2])
    }

    @Test func `top-p counts within what top-k kept`() throws {
        // Of four equal tokens top-k keeps two; one of these is half of them.
        let row: [Float] = [1, 1, 1, 1]
        #expect(
            try kept(row) {
                $0.topK = 2
                $0.topP = 0.5
            } == [0])
    }

    // MARK: Bias and penalties

    @Test func `a bias is added before all else`() throws {
        #expect(
            try choose(
                [1, 2, 3],
                makeSample {
                    $0.temperature = 0
                    $0.logitBias = [0: 2.5, 2: -100]
                }) == 0)
    }

    @Test func `forbidden tokens are not chosen, whatever their bias`() throws {
        var sample = makeSample {
            $0.temperature = 0
            $0.logitBias = [2: 100]
        }
        sample.forbid([2])
        #expect(try choose([1, 2, 3], sample) == 1)
        sample.forbid([0, 1, 2])
        #expect(throws: SamplingFailure.self) { try choose([1, 2, 3], sample) }
    }

    @Test func `penalties change the logits as their formulas say`() throws {
        var sample = makeSample {
            $0.repetitionPenalty = 2
            $0.frequencyPenalty = 0.5
            $0.presencePenalty = 0.25
            $0.logitBias = [1: 1]
        }
        sample.prompt = [0, 4, 4]
        sample.generated = [1, 2, 1]
        let row: [Float] = [2, -2, 4, 1, -1]
        // The prompt changes 2 to 2/2 and -1 to -1·2; generated tokens give (-2+1)·2 - 2·0.5 - 0.25 and 4/2 - 0.5 -
        // 0.25.
        let expected: [Float] = [1, -3.25, 1.25, 1, -2]
        var sampler = Sampler(vocabularySize: 5)
        try sampler.weigh(row.span, as: sample)
        #expect(sampler.weights == expected.map { exp($0 - 1.25) })
    }

    // MARK: Log-probabilities

    @Test func `log-probabilities are of the unmodified distribution`() throws {
        let row = randomRow(700, seed: 3)
        let total = row.map { exp(Double($0)) }.reduce(0, +)
        var sampler = Sampler(vocabularySize: 700)
        var sample = makeSample {
            $0.temperature = 0
            $0.logitBias = [5: 90]
            $0.topK = 1
        }
        sample.forbid([6])
        let chosen = try sampler.choose(row.span, as: sample, topLogProbs: 3)
        #expect(chosen.token == 5)
        #expect(abs(Double(chosen.logProb!) - (Double(row[5]) - log(total))) < 1e-5)
        #expect(try sampler.score(row.span, target: 5, topLogProbs: 3) == chosen)
        var mass = 0.0
        for token in 0..<Int32(700) {
            mass += exp(Double(try sampler.score(row.span, target: token, topLogProbs: 0).logProb!))
        }
        #expect(abs(mass - 1) < 1e-5)
    }

    @Test(arguments: 1...40) func `alternatives are the best tokens, of equal ones the smaller id first`(seed: UInt64)
        throws
    {
        var row = randomRow(300, seed: seed, step: seed % 2 == 0 ? 1 : 0)
        row[7] = -.infinity
        var sampler = Sampler(vocabularySize: 300)
        let sorted = row.indices.sorted { (-row[$0], $0) < (-row[$1], $1) }
        for count in [0, 1, 5, 128, 129, 299] {
            let scored = try sampler.score(row.span, target: 0, topLogProbs: count)
            #expect(scored.top.map { Int($0.token) } == Array(sorted.prefix(count)))
            for alternative in scored.top {
                let alone = try sampler.score(row.span, target: alternative.token, topLogProbs: 0)
                #expect(alternative.logProb == alone.logProb)
            }
        }
    }

    @Test func `what has no probability is no alternative and scores minus infinity`() throws {
        let row: [Float] = [1, -.infinity, 0]
        var sampler = Sampler(vocabularySize: 3)
        let scored = try sampler.score(row.span, target: 1, topLogProbs: 3)
        #expect(scored.logProb == -.infinity)
        #expect(scored.top.map(\.token) == [0, 2])
    }

    @Test func `no log-probabilities come unasked`() throws {
        var sampler = Sampler(vocabularySize: 2)
        #expect(try sampler.choose(([0, 50] as [Float]).span, as: makeSample()) == TokenLogProbs(token: 1))
        #expect(try sampler.score(([0, 50] as [Float]).span, target: 0, topLogProbs: nil) == TokenLogProbs(token: 0))
    }

    // MARK: Failures

    @Test(arguments: [Float.nan, .signalingNaN, .infinity], [0, 2, 4])
    func `a logit that is no number fails the request`(value: Float, place: Int) throws {
        var row: [Float] = [1, 2, 3, 4, 5]
        row[place] = value
        for temperature in [0, 1] as [Float] {
            var sample = makeSample { $0.temperature = temperature }
            sample.forbid([Int32(place)])
            let failure = try #require(throws: SamplingFailure.self) { try choose(row, sample) }
            #expect(failure.description.contains("token \(place) has"))
        }
        var sampler = Sampler(vocabularySize: 5)
        #expect(throws: SamplingFailure.self) { try sampler.score(row.span, target: 1, topLogProbs: 0) }
    }

    @Test func `a row of impossible tokens fails the request`() throws {
        let row = [Float](repeating: -.infinity, count: 3)
        let failure = try #require(throws: SamplingFailure.self) { try choose(row, makeSample()) }
        #expect(failure.description == "the logits leave no token to choose: all are -inf")
    }

    @Test func `a penalty that overflows fails the request`() throws {
        var sample = makeSample { $0.repetitionPenalty = .leastNonzeroMagnitude }
        sample.prompt = [1]
        let failure = try #require(throws: SamplingFailure.self) { try choose([1, 2], sample) }
        #expect(failure.description.contains("with bias, penalties"))
    }

    @Test func `after a failure the sampler works again`() throws {
        var sampler = Sampler(vocabularySize: 3)
        var sample = makeSample { $0.presencePenalty = 1 }
        sample.generated = [1]
        #expect(throws: SamplingFailure.self) { try sampler.choose(([.nan, 0, 0] as [Float]).span, as: sample) }
        try sampler.weigh(([1, 2, 1] as [Float]).span, as: sample)
        #expect(sampler.weights == [1, 1, 1])
    }
}

// MARK: A naive sampler, and small tools

/// Applies the filters by sorting, in Float64, one after the other.
private func keptBySorting(_ row: [Float], _ parameters: SamplingParameters) -> [Int] {
    let best = row.max()!
    let weights = row.map { Double(exp(($0 - best) / parameters.temperature)) }
    var kept = row.indices.sorted { (-row[$0], $0) < (-row[$1], $1) }
    if parameters.topK > 0 { kept = Array(kept.prefix(parameters.topK)) }
    if parameters.topP < 1 {
        let target = Double(parameters.topP) * kept.reduce(0) { $0 + weights[$1] }
        var mass = 0.0
        kept = kept.filter { token in
            defer { mass += weights[token] }
            return mass < target
        }
    }
    return kept.filter { weights[$0] > 0 && weights[$0] >= Double(parameters.minP) }.sorted()
}

private func makeSample(_ adjust: (inout SamplingParameters) -> Void = { _ in }) -> StepPlan.Sample {
    var parameters = SamplingParameters()
    adjust(&parameters)
    return StepPlan.Sample(parameters: parameters, position: 0)
}

private func choose(_ row: [Float], _ sample: StepPlan.Sample) throws -> Int32 {
    var sampler = Sampler(vocabularySize: row.count)
    return try sampler.choose(row.span, as: sample).token
}

private func chooseAt(_ position: Int, _ row: [Float], _ sample: StepPlan.Sample) throws -> Int32 {
    var sample = sample
    sample.position = position
    return try choose(row, sample)
}

private func kept(_ row: [Float], _ adjust: (inout SamplingParameters) -> Void) throws -> [Int] {
    var sampler = Sampler(vocabularySize: row.count)
    try sampler.weigh(row.span, as: makeSample(adjust))
    return sampler.weights.indices.filter { sampler.weights[$0] > 0 }
}

private func drawCounts(_ row: [Float], _ sample: StepPlan.Sample, draws: Int) throws -> [Int] {
    var sampler = Sampler(vocabularySize: row.count)
    var sample = sample
    var counts = [Int](repeating: 0, count: row.count)
    for position in 0..<draws {
        sample.position = position
        counts[Int(try sampler.choose(row.span, as: sample).token)] += 1
    }
    return counts
}

/// Returns Pearson's statistic over the outcomes that are expected at least five times.
private func chiSquare(_ counts: [Int], _ probabilities: [Double]) -> Double {
    let total = Double(counts.reduce(0, +))
    return zip(counts, probabilities).reduce(0) { sum, outcome in
        let expected = outcome.1 * total
        return expected < 5 ? sum : sum + (Double(outcome.0) - expected) * (Double(outcome.0) - expected) / expected
    }
}

/// Returns logits between -6 and 6, in multiples of `step` unless it is 0.
private func randomRow(_ count: Int, seed: UInt64, step: Float = 0) -> [Float] {
    var random = SplitMix64(seed: seed &* 77)
    return (0..<count).map { _ in
        let logit = Float(random.unit() * 12 - 6)
        return step == 0 ? logit : (logit / step).rounded() * step
    }
}

extension SplitMix64 {
    fileprivate mutating func unit() -> Double { Double(next() >> 11) * 0x1p-53 }
}

extension StepPlan.Sample {
    fileprivate mutating func forbid(_ tokens: Set<Int32>) {
        parameters.stopTokens = tokens
        minTokensRemaining = 1
    }
}

@Suite struct MaskedSamplingTests {
    @Test(arguments: [0, 0.7] as [Float])
    func `only allowed tokens are chosen, and their log-probabilities are the model's own`(temperature: Float) throws {
        var sampler = Sampler(vocabularySize: 130)
        let row = (0..<130).map { Float($0 % 17) - Float($0 % 5) }
        var allowed = TokenMask(size: 130)
        for token in [3, 64, 127, 129] as [Int32] { allowed.insert(token) }
        var parameters = SamplingParameters()
        parameters.temperature = temperature
        var chosen: Set<Int32> = []
        for position in 0..<200 {
            let sample = StepPlan.Sample(parameters: parameters, position: position)
            let found = try sampler.choose(row.span, as: sample, allowed: allowed, topLogProbs: 3)
            chosen.insert(found.token)
            #expect(found == (try sampler.score(row.span, target: found.token, topLogProbs: 3)))
        }
        #expect(chosen.isSubset(of: [3, 64, 127, 129]) && (temperature == 0) == (chosen.count == 1))
        // The greedy choice is the best of the allowed tokens.
        if temperature == 0 { #expect(chosen == [Int32([3, 64, 127, 129].max { row[$0] < row[$1] }!)]) }
        #expect(throws: SamplingFailure.self) {
            try sampler.choose(
                row.span, as: StepPlan.Sample(parameters: parameters, position: 0), allowed: TokenMask(size: 130))
        }
    }
}
