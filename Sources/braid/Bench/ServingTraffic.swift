import Foundation
import Inference

/// Serving traffic determines which requests a serving benchmark sends, and when; it is a function of its members
/// alone.
package struct ServingTraffic: Sendable, Equatable {
    package var requests = 1000
    /// The maximum number of tokens of a prompt.
    package var inputLength = 1024
    /// The maximum number of new tokens of a request.
    package var outputLength = 1024
    /// Lengths are distributed uniformly between this fraction of the maximum and the maximum; at 1 all are equal.
    package var rangeRatio = 0.0
    /// The rate of requests per second, as a Poisson process; infinity sends all at once.
    package var rate = Double.infinity
    package var seed: UInt32 = 1

    /// The prompts to send, one after the other and again from the first; empty for random ones.
    package var prompts: [ServingPrompt] = []

    package init() {}

    /// An arrival is one request to be sent.
    package struct Arrival: Sendable, Equatable {
        package var number: Int
        package var inputTokens: Int
        package var outputTokens: Int
        /// The time of sending, in seconds after the first request.
        package var seconds: Double
    }

    /// The requests in the order of their times.
    package var arrivals: [Arrival] {
        var lengths = SeededGenerator(seed: UInt64(seed), stream: 0)
        var times = SeededGenerator(seed: UInt64(seed), stream: 1)
        var seconds = 0.0
        return (0..<requests).map { number in
            if number > 0, rate.isFinite {
                // The gaps of a Poisson process are exponential; 1 - u is never 0.
                seconds -= Foundation.log(1 - Double.random(in: 0..<1, using: &times)) / rate
            }
            if !prompts.isEmpty {
                let prompt = prompts[number % prompts.count]
                return Arrival(
                    number: number, inputTokens: prompt.tokens.count, outputTokens: prompt.maxNewTokens,
                    seconds: seconds)
            }
            return Arrival(
                number: number, inputTokens: length(upTo: inputLength, &lengths),
                outputTokens: length(upTo: outputLength, &lengths), seconds: seconds)
        }
    }

    /// Returns the prompt of a request, which consists of random tokens. Negative numbers give prompts that no request
    /// has, for warming up.
    package func prompt(number: Int, tokens: Int, vocabularySize: Int) -> [Int32] {
        var generator = SeededGenerator(seed: UInt64(seed), stream: UInt64(bitPattern: Int64(number)) &+ 2)
        return generator.tokens(tokens, vocabularySize: vocabularySize)
    }

    /// Returns such a prompt with the maximum number of new tokens.
    func randomPrompt(number: Int, tokens: Int, vocabularySize: Int) -> ServingPrompt {
        let tokens = prompt(number: number, tokens: tokens, vocabularySize: vocabularySize)
        return ServingPrompt(tokens: tokens, maxNewTokens: outputLength)
    }

    private func length(upTo most: Int, _ generator: inout SeededGenerator) -> Int {
        Int.random(in: max(Int(Double(most) * rangeRatio), 1)...most, using: &generator)
    }

    /// The least rate: about a request a day. Times of lower ones would not fit a clock.
    private static let leastRate = 1e-5

    /// Returns all problems, each with its option; empty when the traffic can be generated.
    package func validate() -> [String] {
        var problems: [String] = []
        func check(_ option: String, _ value: Int, _ legal: ClosedRange<Int>) {
            guard !legal.contains(value) else { return }
            problems.append("\(option): \(value) is not between \(legal.lowerBound) and \(legal.upperBound)")
        }
        check("--num-prompts", requests, 1...1_000_000)
        check("--random-input-len", inputLength, 1...100_000_000)
        check("--random-output-len", outputLength, 1...100_000_000)
        if !(0...1).contains(rangeRatio) {
            problems.append("--random-range-ratio: \(rangeRatio) is not between 0 and 1")
        }
        if !(rate >= Self.leastRate) {
            problems.append(
                "--request-rate: \(rate) is not \(Self.leastRate) or more requests a second; inf sends everything at once"
            )
        }
        return problems
    }
}

/// A prompt of a serving benchmark.
package struct ServingPrompt: Sendable, Equatable {
    package var tokens: [Int32]
    /// The text; `nil` if only tokens are known.
    package var text: String?
    /// The new tokens to ask for.
    package var maxNewTokens: Int

    package init(tokens: [Int32], text: String? = nil, maxNewTokens: Int) {
        self.tokens = tokens
        self.text = text
        self.maxNewTokens = maxNewTokens
    }
}
