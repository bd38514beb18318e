import ArgumentParser
import Foundation
import Synchronization
import Tokenization

/// A client that loads a running server and measures what its users would see.
struct BenchServing: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serving",
        abstract: "Sends random prompts to a running server and measures throughput and latencies.",
        discussion: """
            Options and results are those of SGLang's bench_serving. Prompts are token ids, so no tokenizer is needed; \
            token counts are the server's. The exit status is 1 when no request succeeded.
            """)

    @Option(help: "The interface: /generate (braid, sglang, sglang-native) or /v1/completions (sglang-oai, vllm).")
    var backend = ServingBackend.braid

    @OptionGroup(title: "Server") var server: ServerOptions

    @Option(help: "Which prompts to send: random token ids.")
    var datasetName = Dataset.random

    @Option(help: "Requests to send.")
    var numPrompts = 1000

    @Option(name: [.customLong("random-input-len"), .customLong("random-input")], help: "Tokens of a prompt, at most.")
    var randomInputLen = 1024

    @Option(name: [.customLong("random-output-len"), .customLong("random-output")], help: "New tokens, at most.")
    var randomOutputLen = 1024

    @Option(help: "Lengths lie between this part of the most and the most; 1 makes all equal.")
    var randomRangeRatio = 0.0

    @Option(help: "Requests a second, as a Poisson process; inf sends all at once.")
    var requestRate = Double.infinity

    @Option(help: "Requests that run at the same time, at most.")
    var maxConcurrency: Int?

    @Option(help: "Requests sent before, one after the other, that are not counted.")
    var warmupRequests = 1

    @Option(help: "The seed of lengths, prompts and arrival times.")
    var seed: UInt32 = 1

    @Option(help: "Token ids of the vocabulary; default: what /server_info says.")
    var vocabSize: Int?

    @Flag(help: "Ask for whole answers; then only their latency can be measured.")
    var disableStream = false

    @Flag(help: "Let generations end where the model ends them.")
    var disableIgnoreEos = false

    @Option(help: "A JSON object whose members are added to each request.")
    var extraRequestBody: String?

    @Option(help: "Append the results to this file, as one line of JSON.")
    var outputFile: String?

    @Flag(help: "List every request in --output-file.")
    var outputDetails = false

    enum Dataset: String, ExpressibleByArgument, CaseIterable { case random }

    func validate() throws {
        var problems = traffic.validate()
        if let maxConcurrency, maxConcurrency < 1 {
            problems.append("--max-concurrency: \(maxConcurrency) is not positive")
        }
        if let vocabSize, !(1...Int(Int32.max)).contains(vocabSize) {
            problems.append("--vocab-size: \(vocabSize) is not between 1 and \(Int32.max)")
        }
        if !(0...1000).contains(warmupRequests) {
            problems.append("--warmup-requests: \(warmupRequests) is not between 0 and 1000")
        }
        guard problems.isEmpty else { throw ValidationError(problems.joined(separator: "\n")) }
        _ = try extraMembers()
    }

    func run() async throws {
        let http = try server.client(defaultPort: backend.defaultPort)
        let facts = try await ServerFacts(http, model: server.model)
        let vocabularySize = try vocabularySize(facts, http.address)
        try facts.check(longest: randomInputLen + randomOutputLen, "--random-input-len and --random-output-len")
        let client = ServingClient(http, backend, try options(model: facts.model))
        try await warmUp(client, vocabularySize: vocabularySize)
        let report = await measure(client, model: facts.model, vocabularySize: vocabularySize)
        print(report.text)
        for failure in report.failures.prefix(5) { note("\(failure.count) × \(failure.reason)") }
        if let outputFile { try appendLine(report.json(details: outputDetails).pythonText, to: outputFile) }
        if report.completed == 0 { throw ExitCode(1) }
    }

    private func warmUp(_ client: ServingClient, vocabularySize: Int) async throws {
        for number in 0..<warmupRequests {
            let prompt = traffic.prompt(number: -1 - number, tokens: randomInputLen, vocabularySize: vocabularySize)
            let outcome = await client.send(prompt, maxTokens: min(randomOutputLen, 32))
            if let error = outcome.error { throw CommandError("the first request failed: \(error)") }
        }
    }

    private func vocabularySize(_ facts: ServerFacts, _ address: ServerAddress) throws -> Int {
        guard let size = vocabSize ?? facts.vocabularySize, (1...Int(Int32.max)).contains(size) else {
            throw CommandError("\(address)/server_info gives no vocabulary size; give it as --vocab-size")
        }
        return size
    }

    private func measure(_ client: ServingClient, model: String, vocabularySize: Int) async -> ServingReport {
        let traffic = traffic
        let answers = AnswerCount()
        let progress = Task { await showProgress(answers) }
        let (outcomes, seconds) = await client.run(traffic.arrivals, concurrency: maxConcurrency ?? numPrompts) {
            traffic.prompt(number: $0.number, tokens: $0.inputTokens, vocabularySize: vocabularySize)
        } onAnswer: {
            answers.value.add(1, ordering: .relaxed)
        }
        progress.cancel()
        await progress.value
        return ServingReport(
            backend: backend, model: model, traffic: traffic, concurrencyLimit: maxConcurrency,
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

    private var traffic: ServingTraffic {
        var traffic = ServingTraffic()
        traffic.requests = numPrompts
        traffic.inputLength = randomInputLen
        traffic.outputLength = randomOutputLen
        traffic.rangeRatio = randomRangeRatio
        traffic.rate = requestRate
        traffic.seed = seed
        return traffic
    }

    private func options(model: String) throws -> ServingBackend.Options {
        var options = ServingBackend.Options(model: model)
        options.streams = !disableStream
        options.ignoresEndOfText = !disableIgnoreEos
        options.extra = try extraMembers()
        return options
    }

    private func extraMembers() throws -> [JSONMember] {
        guard let extraRequestBody else { return [] }
        do {
            guard let members = try JSONValue(parsing: extraRequestBody).object else {
                throw ValidationError("--extra-request-body is not a JSON object; write for example {\"top_p\": 0.9}")
            }
            return members
        } catch let error as JSONError {
            throw ValidationError("--extra-request-body: \(error)")
        }
    }
}

extension ServingBackend: ExpressibleByArgument {}

/// How many answers are complete, for who watches.
private final class AnswerCount: Sendable {
    let value = Atomic(0)
}
