import ArgumentParser
import JSON
import Routing
import Tokenization

/// The command loads a running server as a client, and measures what its users would see.
struct BenchServing: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serving",
        abstract: "Sends random prompts to a running server and measures throughput and latencies.",
        discussion: """
            Options and results are those of SGLang's bench_serving. Prompts are token ids, or text for chats; the server's \
            /tokenize and /detokenize convert them, so no tokenizer is needed. Token counts are the server's. The exit \
            status is 1 when no request succeeded.
            """)

    @Option(
        help: """
            The interface: /generate (braid, sglang, sglang-native), /v1/completions (sglang-oai, vllm, openai) or \
            /v1/chat/completions (sglang-oai-chat, vllm-chat, openai-chat).
            """)
    var backend = ServingBackend.braid

    @OptionGroup(title: "Server") var server: ServerOptions

    @OptionGroup(title: "Requests") var bench: ServingBenchOptions

    @Option(
        help: "Token ids of the vocabulary; default: what /server_info says.",
        transform: Parsing.count(1...Parsing.maxTokens))
    var vocabSize: Int?

    @Flag(help: "Ask for whole answers; then only their latency can be measured.")
    var disableStream = false

    @Option(help: "A JSON object whose members are added to each request.")
    var extraRequestBody: String?

    @Flag(help: "Ask for /health twenty times a second meanwhile, and report how long that takes.")
    var probeHealth = false

    func validate() throws {
        if let vocabSize, !(1...Int(Int32.max)).contains(vocabSize) {
            throw ValidationError("--vocab-size: \(vocabSize) is not between 1 and \(Int32.max)")
        }
        _ = try extraMembers()
    }

    func run() async throws {
        try OutputFile.ofResults(bench.outputFile)?.check()
        let http = try server.client(defaultPort: backend.defaultPort)
        let facts = try await ServerFacts(http, model: server.model)
        let vocabularySize = try vocabularySize(facts, http.address)
        let prompts = try await prompts(http, vocabularySize: vocabularySize)
        let longest =
            prompts.map { $0.tokens.count + $0.maxNewTokens }.max() ?? bench.randomInputLen + bench.randomOutputLen
        try facts.check(
            longest: longest,
            bench.datasetName == .shareGPT ? "--dataset-path" : "--random-input-len and --random-output-len")
        let client = ServingClient(http, backend, try options(model: facts.model))
        let probe = HealthProbe(http)
        let probing = probeHealth ? Task { try await probe.run() } : nil
        defer { probing?.cancel() }
        var report = try await bench.measure(
            backend: backend.rawValue, model: facts.model, vocabularySize: vocabularySize, prompts: prompts
        ) {
            await client.send($0, maxTokens: $1)
        }
        probing?.cancel()
        if let health = try await probing?.value { report.health = health }
        try bench.write(report)
    }

    /// Returns the prompts to send; empty for random ones that need no text.
    private func prompts(_ http: HTTPClient, vocabularySize: Int) async throws -> [ServingPrompt] {
        let texts = EvalServer(http)
        if bench.datasetName == .shareGPT, let path = bench.datasetPath {
            return try await ShareGPT(path: path, seed: bench.seed)
                .prompts(bench.numPrompts, outputTokens: bench.sharegptOutputLen, texts)
        }
        guard backend.isChat else { return [] }
        var prompts: [ServingPrompt] = []
        for arrival in bench.traffic.arrivals {
            var prompt = bench.traffic.randomPrompt(
                number: arrival.number, tokens: arrival.inputTokens, vocabularySize: vocabularySize)
            prompt.text = try await texts.text(of: prompt.tokens.map { Int($0) })
            prompt.maxNewTokens = arrival.outputTokens
            prompts.append(prompt)
        }
        return prompts
    }

    private func vocabularySize(_ facts: ServerFacts, _ address: ServerAddress) throws -> Int {
        guard let size = vocabSize ?? facts.vocabularySize, (1...Int(Int32.max)).contains(size) else {
            throw CommandError("\(address)/server_info gives no vocabulary size; give it as --vocab-size")
        }
        return size
    }

    private func options(model: String) throws -> ServingBackend.Options {
        var options = ServingBackend.Options(model: model)
        options.streams = !disableStream
        options.ignoresEndOfText = !bench.disableIgnoreEos
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
