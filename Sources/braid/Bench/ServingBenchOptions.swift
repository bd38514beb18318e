import ArgumentParser
import Foundation
import JSON
import Synchronization

/// These options belong to benchmarks that serve many requests: which requests, how many at once, and where the results
/// go. Their names and meanings are those of SGLang's bench_serving.
struct ServingBenchOptions: ParsableArguments, Sendable {
    @Option(help: "Which prompts to send: random or random-ids, which are random token ids, or sharegpt.")
    var datasetName = Dataset.random

    @Option(help: "The JSON file of conversations for --dataset-name sharegpt.")
    var datasetPath: String?

    @Option(
        help: "New tokens for each prompt of sharegpt; default: as many as the answer in the file has.",
        transform: Parsing.count(1...Parsing.maxTokens))
    var sharegptOutputLen: Int?

    @Option(help: "Requests to send.", transform: Parsing.count(1...Parsing.maxCount))
    var numPrompts = 1000

    @Option(
        name: [.customLong("random-input-len"), .customLong("random-input")], help: "Tokens of a prompt, at most.",
        transform: Parsing.count(1...Parsing.maxTokens))
    var randomInputLen = 1024

    @Option(
        name: [.customLong("random-output-len"), .customLong("random-output")], help: "New tokens, at most.",
        transform: Parsing.count(1...Parsing.maxTokens))
    var randomOutputLen = 1024

    @Option(
        help: "Lengths lie between this part of the most and the most; 1 makes all equal.",
        transform: Parsing.number(0...1))
    var randomRangeRatio = 0.0

    @Option(help: "Requests a second, as a Poisson process; inf sends all at once.")
    var requestRate = Double.infinity

    @Option(help: "Requests that run at the same time, at most.", transform: Parsing.count(1...Parsing.maxRanks))
    var maxConcurrency: Int?

    @Option(
        help: "Requests sent before, one after the other, that are not counted.",
        transform: Parsing.count(0...Parsing.maxCount))
    var warmupRequests = 1

    @Option(help: "The seed of lengths, prompts and arrival times.", transform: Parsing.seed())
    var seed: UInt32 = 1

    @Flag(help: "Let generations end where the model ends them.")
    var disableIgnoreEos = false

    @Option(help: "Append the results to this file, as one line of JSON.")
    var outputFile: String?

    @Flag(help: "List every request in --output-file.")
    var outputDetails = false

    enum Dataset: String, ExpressibleByArgument, CaseIterable {
        case random
        case randomIDs = "random-ids"
        case shareGPT = "sharegpt"
    }

    func validate() throws {
        var problems = traffic.validate()
        if datasetName == .shareGPT && datasetPath == nil {
            problems.append("--dataset-name sharegpt: give the file of conversations as --dataset-path")
        }
        if let maxConcurrency, maxConcurrency < 1 {
            problems.append("--max-concurrency: \(maxConcurrency) is not positive")
        }
        if !(0...1000).contains(warmupRequests) {
            problems.append("--warmup-requests: \(warmupRequests) is not between 0 and 1000")
        }
        guard problems.isEmpty else { throw ValidationError(problems.joined(separator: "\n")) }
    }

    var traffic: ServingTraffic {
        var traffic = ServingTraffic()
        traffic.requests = numPrompts
        traffic.inputLength = randomInputLen
        traffic.outputLength = randomOutputLen
        traffic.rangeRatio = randomRangeRatio
        traffic.rate = requestRate
        traffic.seed = seed
        return traffic
    }

    /// Sends warm-up requests and then the measured ones, with a progress bar.
    ///
    /// - Parameters:
    ///   - backend: The name of the interface in the report.
    ///   - prompts: The prompts to send; empty for random ones. A warm-up request sends the first.
    ///   - send: Serves a prompt with at most the given number of new tokens. It never throws: a failure is an outcome.
    func measure(
        backend: String, model: String, vocabularySize: Int, prompts: [ServingPrompt] = [],
        send: @escaping @Sendable (ServingPrompt, Int) async -> ServingOutcome
    ) async throws -> ServingReport {
        var traffic = traffic
        traffic.prompts = prompts
        let sent = traffic
        for number in 0..<warmupRequests {
            let prompt =
                prompts.first
                ?? sent.randomPrompt(number: -1 - number, tokens: randomInputLen, vocabularySize: vocabularySize)
            let outcome = await send(prompt, min(prompt.maxNewTokens, randomOutputLen, 32))
            if let error = outcome.error { throw CommandError("the first request failed: \(error)") }
        }
        let answers = AnswerCount()
        let progress = Task { await showProgress(answers) }
        let (outcomes, seconds) = await sent.run(concurrency: maxConcurrency ?? numPrompts) { arrival in
            defer { answers.value.add(1, ordering: .relaxed) }
            let prompt =
                sent.prompts.isEmpty
                ? sent.randomPrompt(
                    number: arrival.number, tokens: arrival.inputTokens, vocabularySize: vocabularySize)
                : sent.prompts[arrival.number % sent.prompts.count]
            return await send(prompt, arrival.outputTokens)
        }
        progress.cancel()
        await progress.value
        return ServingReport(
            backend: backend, model: model, dataset: datasetName.rawValue, traffic: traffic,
            concurrencyLimit: maxConcurrency,
            outcomes: outcomes, duration: seconds)
    }

    private func showProgress(_ answers: AnswerCount) async {
        let bar = ProgressBar("\(numPrompts) requests")
        defer { bar.finish() }
        while !Task.isCancelled {
            bar.update(Double(answers.value.load(ordering: .relaxed)) / Double(numPrompts))
            try? await Task.sleep(for: .milliseconds(200))
        }
    }

    /// Prints a report and appends it to `--output-file`.
    ///
    /// - Throws: An exit status of 1 if no request succeeded.
    func write(_ report: ServingReport) throws {
        print(report.text)
        for failure in report.failures.prefix(5) { note("\(failure.count) × \(failure.reason)") }
        try OutputFile.ofResults(outputFile)?.append(report.json(details: outputDetails).pythonText)
        if report.completed == 0 { throw ExitCode(1) }
    }
}

/// Counts complete answers for the progress bar.
private final class AnswerCount: Sendable {
    let value = Atomic(0)
}
