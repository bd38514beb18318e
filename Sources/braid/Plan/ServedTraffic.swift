package import Planning

/// What a server's metrics say of its requests since it started: means, for histograms and counters keep no more.
package struct ServedTraffic: Sendable, Equatable {
    /// The mean of a number of observations.
    package struct Mean: Sendable, Equatable {
        package let value: Double
        package let count: Int
    }

    /// From a request's arrival to its first token, in seconds.
    package let firstToken: Mean
    /// Between tokens of a request, in seconds.
    package let perToken: Mean
    /// Tokens of a finished request.
    package let prompt: Mean
    package let answer: Mean
    /// The mean number of running requests while there was any.
    package let concurrency: Double
    /// Tokens generated in a second in which a request ran.
    package let throughput: Double
    /// The part of prompts whose keys the prefix cache had.
    package let hitRate: Double
    /// Tokens of a step that verified drafts; 1 where none did.
    package let tokensPerStep: Double
    package let preemptions: Int

    /// Means of fewer requests are chance.
    package static let minRequests = 5

    /// - Throws: `CommandError` saying which metric is missing or impossible, or how many requests there were.
    package init(_ page: MetricsText) throws {
        func amount(_ name: String) throws -> Double {
            let value: Double?
            do throws(MetricsText.Problem) {
                value = try page.amount("braid_" + name)
            } catch {
                throw CommandError("--compare: \(error.description.printableLine)")
            }
            guard let value else {
                throw CommandError(
                    "--compare: /metrics has no braid_\(name); the server must be a Braid of version 0.1.0 or later whose "
                        + "model is loaded")
            }
            return value
        }
        func mean(_ name: String, atLeast least: Int, _ what: String) throws -> Mean {
            let (sum, count) = (try amount(name + "_sum"), try amount(name + "_count"))
            guard count >= Double(least) else {
                throw CommandError(
                    "--compare: the server has seen \(Int(count)) \(what), and a mean needs \(least); send more, such as "
                        + "braid bench serving --base-url URL")
            }
            guard count < Self.maxAmount, sum < Self.maxAmount else {
                throw CommandError("--compare: braid_\(name) of /metrics cannot be true: \(sum) of \(count)")
            }
            return Mean(value: sum / count, count: Int(count))
        }
        func ratio(_ dividend: String, _ divisor: String) throws -> Double? {
            let (dividend, divisor) = (try amount(dividend), try amount(divisor))
            return divisor > 0 ? dividend / divisor : nil
        }
        prompt = try mean("request_prompt_tokens", atLeast: Self.minRequests, "finished requests")
        answer = try mean("request_generation_tokens", atLeast: Self.minRequests, "finished requests")
        firstToken = try mean("time_to_first_token_seconds", atLeast: Self.minRequests, "first tokens")
        perToken = try mean("inter_token_latency_seconds", atLeast: Self.minRequests, "further tokens")
        guard let concurrency = try ratio("running_seconds_total", "busy_seconds_total"),
            let throughput = try ratio("generation_tokens_total", "busy_seconds_total")
        else { throw CommandError("--compare: by braid_busy_seconds_total of /metrics no request has ever run") }
        (self.concurrency, self.throughput) = (concurrency, throughput)
        hitRate = min(try ratio("prefix_cache_hit_tokens_total", "prefix_cache_query_tokens_total") ?? 0, 1)
        tokensPerStep = 1 + (try ratio("spec_accepted_tokens_total", "spec_steps_total") ?? 0)
        preemptions = Int(min(try amount("preemptions_total"), Self.maxAmount))
        try check()
    }

    /// Refuses what no server has measured, so that arithmetic on it cannot overflow.
    private func check() throws {
        let tokens = 1...Double(Parsing.maxTokens / 2)
        let seconds = Double.leastNonzeroMagnitude...Double(Parsing.maxSeconds)
        let impossible = [
            ("prompts of \(prompt.value) tokens", tokens.contains(prompt.value)),
            ("answers of \(answer.value) tokens", tokens.contains(answer.value)),
            ("\(concurrency) requests at a time", concurrency <= Double(Parsing.maxRanks)),
            ("first tokens after \(firstToken.value) s", seconds.contains(firstToken.value)),
            ("\(perToken.value) s a token", seconds.contains(perToken.value)),
            ("\(throughput) tokens a second", throughput > 0 && throughput < Self.maxAmount),
        ].filter { !$0.1 }.map(\.0)
        guard impossible.isEmpty else {
            throw CommandError(
                "--compare: no prediction is made for \(impossible.joined(separator: ", ")), which are means of /metrics; "
                    + "send requests that generate tokens to a server that was just started")
        }
    }

    /// Sums and counts beyond this are no measurements.
    private static let maxAmount = 1e15

    /// The same traffic for a prediction: the nearest whole numbers.
    package func planned(_ engine: ServedEngine) -> PlannedTraffic {
        PlannedTraffic(
            input: Int(prompt.value.rounded()), output: Int(answer.value.rounded()),
            concurrency: max(Int(concurrency.rounded()), 1), prefixHitRate: hitRate, chunk: engine.chunk,
            drafts: engine.drafts,
            acceptanceRate: PlannedTraffic.acceptanceRate(drafts: engine.drafts, tokensPerStep: tokensPerStep))
    }
}
