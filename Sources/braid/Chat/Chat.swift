import ArgumentParser
import Foundation
import Inference
import JSON
import Modeling
import Models
import Routing
import Serving
import Tokenization

/// The command talks to a model in the terminal.
struct Chat: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Talks to a model in the terminal: one that runs here, or that of a server.",
        discussion: """
            `braid chat MODEL` runs the model in this process, with the options of `braid generate` for its ranks; \
            `braid chat --url http://host:port` talks to a server with OpenAI's routes. Input from a pipe is read line by \
            line. Answers go to standard output, everything else to standard error.
            \(ChatCommand.list)
            """)

    @OptionGroup var engineOptions: EngineOptions

    @OptionGroup(title: "Tokenizer") var tokenizerOptions: TokenizerOptions

    @OptionGroup(title: "Chat format") var parsers: ParserOptions

    @Option(
        name: [.customLong("url"), .customLong("base-url")],
        help: "A server in place of a model, as http://host:port; --model then names its model, by default the first.")
    var url: String?

    @Option(
        help: """
            The key, if the server asks for one. Also read from BRAID_API_KEY and, for a server on this machine, \
            OPENAI_API_KEY.
            """)
    var apiKey: String?

    @Option(help: "The system message.")
    var system: String?

    @Option(help: "Whether the model reasons before it answers: on or off; default: the model's.")
    var think: Switch?

    @Option(
        name: [.customLong("max-new-tokens"), .customLong("max-tokens")],
        help: "New tokens of an answer, at most; default: as many as the context has room for.",
        transform: Parsing.count(1...Parsing.maxTokens))
    var maxNewTokens: Int?

    @Option(
        help: "0 takes the best token each time; default: what the model recommends.", transform: Parsing.number(0...2))
    var temperature: Double?

    @Option(
        help: "Keeps the smallest set of best tokens with this probability; default: what the model recommends.",
        transform: Parsing.number(0...1))
    var topP: Double?

    @Option(help: "The seed of each answer; default: a random one.", transform: Parsing.seed())
    var seed: UInt32?

    enum Switch: String, ExpressibleByArgument, CaseIterable { case on, off }

    func run() async throws {
        guard let url else { return try await runModel() }
        try checkOptions()
        // Clients of OpenAI give the address with this path.
        let address = try ServerAddress(url: url, option: "--url")
        let client = HTTPClient(address, apiKey: address.apiKey(apiKey), timeout: .seconds(Parsing.maxSeconds))
        try await talk(with: try await RemoteChat(client, model: engineOptions.modelPath))
    }

    /// Refuses options of the engine, which a server has already.
    private func checkOptions() throws {
        let own = [
            "--url", "--model-path", "--api-key", "--system", "--think", "--max-new-tokens", "--temperature", "--top-p",
            "--seed",
        ]
        let others = (LaunchLine.current?.settings ?? []).map(\.option.name).filter { !own.contains($0) }
        guard others.isEmpty else {
            throw CommandError(
                "\(others.joined(separator: ", ")): not with --url, whose server runs the model; give it to the server")
        }
    }

    private func runModel() async throws {
        guard apiKey == nil else { throw CommandError("--api-key: only with --url; a model here needs none") }
        let job = try engineOptions.join()
        try await job.run({ try engineOptions.load().model }, lead: { try await chat(job) })
    }

    private func chat(_ job: Job) async throws {
        let directory = try engineOptions.directory()
        let loaded = try LoadedService(engineOptions, tokenizerOptions, parsers, directory, job)
        _ = try loaded.chatFormat.get()
        let (service, engine) = try loaded.start(job, restartsOnFailure: false)
        defer {
            engine.stop()
            loaded.trace?.close()
        }
        try await talk(with: ModelChat(service, model: directory.name))
    }

    private func talk(with backend: some ChatBackend) async throws {
        var settings = ChatSession.Settings()
        settings.system = system
        settings.thinking = think.map { $0 == .on }
        if let maxNewTokens { settings.sampling.append(JSONMember("max_tokens", .integer(maxNewTokens))) }
        if let temperature { settings.sampling.append(JSONMember("temperature", .measured(temperature))) }
        if let topP { settings.sampling.append(JSONMember("top_p", .measured(topP))) }
        if let seed { settings.sampling.append(JSONMember("seed", .integer(Int(seed)))) }
        var loop = ChatLoop(backend, settings)
        try await loop.run()
    }
}
