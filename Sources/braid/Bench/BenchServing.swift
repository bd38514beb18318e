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
            token counts are the server's. The key, if the server asks for one, is read from BRAID_API_KEY or \
            OPENAI_API_KEY. The exit status is 1 when no request succeeded.
            """)

    @Option(help: "The interface: /generate (braid, sglang, sglang-native) or /v1/completions (sglang-oai, vllm).")
    var backend = ServingBackend.braid

    @Option(help: "The server, as http://host:port; in place of --host and --port.")
    var baseUrl: String?

    @Option(help: "The server's host.")
    var host = "127.0.0.1"

    @Option(help: "The server's port; default: 30000, for vllm 8000.")
    var port: Int?

    @Option(help: "The model's name; default: the first that /v1/models lists.")
    var model: String?

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

    @Option(help: "Seconds a request may take.")
    var requestTimeout = 3600

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
        if let port, !(1...65535).contains(port) { problems.append("--port: \(port) is not between 1 and 65535") }
        if requestTimeout < 1 { problems.append("--request-timeout: \(requestTimeout) is not positive") }
        if !(0...1000).contains(warmupRequests) {
            problems.append("--warmup-requests: \(warmupRequests) is not between 0 and 1000")
        }
        guard problems.isEmpty else { throw ValidationError(problems.joined(separator: "\n")) }
        _ = try extraMembers()
    }

    func run() async throws {
        let address =
            try baseUrl.map { try ServerAddress(url: $0) }
            ?? ServerAddress(host: host, port: port ?? backend.defaultPort)
        let environment = ProcessInfo.processInfo.environment
        let http = HTTPClient(
            address, apiKey: environment["BRAID_API_KEY"] ?? environment["OPENAI_API_KEY"],
            timeout: .seconds(requestTimeout))
        let server = try await ServerFacts(http, model: model, vocabularySize: vocabSize)
        try server.check(longest: randomInputLen + randomOutputLen)
        let client = ServingClient(http, backend, try options(model: server.model))
        try await warmUp(client, vocabularySize: server.vocabularySize)
        let report = await measure(client, server)
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

    private func measure(_ client: ServingClient, _ server: ServerFacts) async -> ServingReport {
        let (traffic, vocabularySize) = (traffic, server.vocabularySize)
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
            backend: backend, model: server.model, traffic: traffic, concurrencyLimit: maxConcurrency,
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

/// What has to be known of a server before it is loaded.
private struct ServerFacts: Sendable {
    let model: String
    let vocabularySize: Int
    /// `nil` where the server does not say.
    let contextLength: Int?

    /// Asks for what is not given.
    init(_ client: HTTPClient, model: String?, vocabularySize: Int?) async throws {
        let info = try await Self.json("/server_info", client)
        contextLength = info?["context_length"]?.integer
        if let model {
            self.model = model
        } else {
            let list = try await Self.json("/v1/models", client)
            guard let first = list?["data"]?.array?.first?["id"]?.string else {
                throw CommandError("\(client.address)/v1/models lists no model; name one with --model")
            }
            self.model = first
        }
        guard let size = vocabularySize ?? info?["vocab_size"]?.integer, (1...Int(Int32.max)).contains(size) else {
            throw CommandError("\(client.address)/server_info gives no vocabulary size; give it as --vocab-size")
        }
        self.vocabularySize = size
    }

    /// - Returns: `nil` where there is no such route, or what it gives is no JSON.
    private static func json(_ path: String, _ client: HTTPClient) async throws -> JSONValue? {
        let answer = try await client.get(path)
        if answer.status == 404 { return nil }
        guard answer.status == 200 else {
            throw CommandError("\(client.address)\(path): status \(answer.status): \(answer.message)")
        }
        return try? JSONValue(parsing: answer.body)
    }

    /// - Throws: when the longest request could not be served.
    func check(longest: Int) throws {
        guard let contextLength, longest > contextLength else { return }
        throw CommandError(
            "--random-input-len and --random-output-len are \(longest) tokens together; "
                + "the server's context has \(contextLength)")
    }
}
