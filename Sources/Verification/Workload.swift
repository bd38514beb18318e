package import Inference

/// A workload is a set of requests, to be served together by one rank and by many; it is a function of its parameters
/// alone.
package struct Workload: Sendable {
    /// The kind of a workload tells what it exercises.
    package enum Kind: String, Sendable, CaseIterable {
        /// One long prompt, scored as a whole.
        case long
        /// Many requests of a few tokens, with fewer rows than ranks in most steps.
        case short
        /// Short and long prompts, greedy and sampled, scored and not.
        case mixed
        /// Requests with priorities that need more pages than the cache has, so that they wait, are preempted and
        /// computed again.
        case preemption
    }

    package let kind: Kind
    /// The requests; the first is submitted with identifier 1.
    package let requests: [GenerationRequest]
    /// For each request, one with the same beginning and another continuation.
    package let warmupRequests: [GenerationRequest]

    /// The measure of a workload are the model's sizes that it depends on.
    package struct Measure: Sendable {
        /// The number of tokens in the longest prompts: more than a row selects, if the model selects keys.
        package var longestPrompt: Int
        package var contextLength: Int
        package var vocabularySize: Int

        package init(longestPrompt: Int, contextLength: Int, vocabularySize: Int) {
            precondition(longestPrompt > 0 && vocabularySize > 0, "prompts of no tokens")
            self.longestPrompt = longestPrompt
            self.contextLength = contextLength
            self.vocabularySize = vocabularySize
        }

        /// Creates the measure for a model whose rows attend to all keys of at most `keys` tokens and select among those
        /// of more; `nil` if they attend to all.
        ///
        /// - Parameter entry: The number of tokens of the longest entries; prompts complete two of them.
        package init(selecting keys: Int?, entry: Int = 1, contextLength: Int, vocabularySize: Int) {
            let wanted = max(keys.map { $0 + $0 / 4 + 8 } ?? 68, entry > 1 ? 2 * entry + entry / 8 + 3 : 0)
            self.init(
                longestPrompt: max(1, min(wanted, contextLength - Workload.maxNewTokensOfMix)),
                contextLength: contextLength, vocabularySize: vocabularySize)
        }
    }

    /// The maximum number of new tokens of a request.
    package static let maxNewTokensOfMix = 12
    /// Limits, roughly, the logits that are recorded for a workload, in elements.
    private static let logitBudget = 1 << 22

    /// - Parameter reuse: True if prompts are scored only from their second third on. Scored rows are always computed,
    ///   so the rest can be found in the prefix cache.
    package init(_ kind: Kind, _ measure: Measure, seed: UInt64, reuse: Bool = false) {
        self.kind = kind
        var random = SeededGenerator(seed: seed, stream: UInt64(Kind.allCases.firstIndex(of: kind)! + 1))
        let lengths = Self.lengths(kind, longest: measure.longestPrompt, &random)
        let scored = max(1, Self.logitBudget / measure.vocabularySize / lengths.count)
        requests = lengths.enumerated().map { number, length in
            var request = Self.request(number, of: kind, length: length, scored: scored, measure, &random)
            if reuse, let start = request.logProbs?.promptStart {
                request.logProbs?.promptStart = max(start, length * 2 / 3)
            }
            return request
        }
        warmupRequests = requests.enumerated().map { number, request in
            let count = request.prompt.count
            let own = random.tokens(max(1, count / 4), vocabularySize: measure.vocabularySize)
            var warmupRequest = GenerationRequest(prompt: request.prompt.prefix(count - own.count) + own)
            warmupRequest.sampling.temperature = 0
            warmupRequest.sampling.maxNewTokens = min(3 + number % 3, measure.contextLength - count)
            return warmupRequest
        }
    }

    /// Returns the number of tokens that the cache needs for the workload, and with `.shared` also for
    /// `warmupRequests`.
    package func totalTokens(pageSize: Int, _ prefix: PrefixUse = .cold) -> Int {
        let all = prefix == .shared ? requests + warmupRequests : requests
        let needs = all.map { request in
            (request.prompt.count + request.sampling.maxNewTokens! + pageSize - 1) / pageSize * pageSize
        }
        // For preemption: one and a half times the largest request, and a page of growth.
        return kind == .preemption ? needs.max()! * 3 / 2 + pageSize : needs.reduce(0, +) + pageSize
    }

    private static func lengths(_ kind: Kind, longest: Int, _ random: inout SeededGenerator) -> [Int] {
        func upTo(_ most: Int) -> Int { Int.random(in: 1...max(most, 1), using: &random) }
        switch kind {
        case .long: return [longest]
        case .short: return [1, min(2, longest)] + (0..<5).map { _ in upTo(min(6, longest)) }
        case .mixed: return [upTo(longest), 1, longest, upTo(min(8, longest)), longest - upTo((longest + 3) / 4) + 1]
        case .preemption: return (0..<4).map { _ in upTo(longest) } + [longest]
        }
    }

    private static func request(
        _ number: Int, of kind: Kind, length: Int, scored: Int, _ measure: Measure, _ random: inout SeededGenerator
    ) -> GenerationRequest {
        var sampling = SamplingParameters()
        sampling.seed = random.next()
        if number % 2 == 0 {
            sampling.temperature = 0
        } else {
            sampling.temperature = 0.8
            sampling.topP = 0.9
            sampling.repetitionPenalty = number % 4 == 1 ? 1.1 : 1
            sampling.frequencyPenalty = number % 4 == 3 ? 0.5 : 0
            // With only a few likely tokens, drafts are accepted often, whatever the weights.
            if number % 4 == 3 {
                for token in random.tokens(3, vocabularySize: measure.vocabularySize) { sampling.logitBias[token] = 50 }
            }
        }
        let wanted = kind == .preemption ? maxNewTokensOfMix - number % 3 : 3 + number % 3
        sampling.maxNewTokens = max(0, min(wanted, measure.contextLength - length))
        // Some score the whole prompt, some its end, some nothing.
        let isScored = kind == .long || number % 3 != 1
        let start = max(0, length - scored, number % 3 == 2 ? length / 2 : 0)
        let top = min(2, measure.vocabularySize)
        return GenerationRequest(
            prompt: random.tokens(length, vocabularySize: measure.vocabularySize), sampling: sampling,
            logProbs: LogProbOptions(topCount: top, promptStart: isScored ? start : nil),
            priority: kind == .preemption ? number / 2 % 2 : 0)
    }
}
