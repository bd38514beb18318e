import ArgumentParser
import Checkpoints
import Foundation
import Grammar
import Inference
import Modeling
import Models
import PrefixStorage
import Serving
import Tensors
import Tokenization

/// The command runs the HTTP server.
struct Serve: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serves a model over HTTP: OpenAI's routes, /generate, /metrics.",
        discussion: """
            `braid serve MODEL` is `braid serve --model-path MODEL`. Listens on this machine only unless --host says \
            otherwise. SIGTERM drains, a second one ends, SIGHUP does nothing. Options may also be in a file (--config) and in the \
            environment, as BRAID_PAGE_SIZE; those of SGLang's and vLLM's servers are accepted (Docs/options.md).
            """)

    @OptionGroup var engineOptions: EngineOptions

    @OptionGroup(title: "Tokenizer") var tokenizerOptions: TokenizerOptions

    @OptionGroup(title: "Listening") var listen: ListenOptions

    @Option(
        parsing: .upToNextOption,
        help: """
            The name requests give as `model`; default: the model's. Several are all accepted, and answers have the first.
            """)
    var servedModelName: [String] = []

    @Flag(
        help: """
            When ranks fail, start new ones and go on serving; requests that ran get an error. Default: end with an \
            exit status that is not 0.
            """)
    var restartOnFailure = false

    @Option(
        help: """
            auto: measure this machine's cores, choose the ranks that are predicted to serve most tokens a second, and say \
            why. Instead of sizes; for one process.
            """)
    var plan: AutomaticLayout.Choice?

    @OptionGroup var parsers: ParserOptions

    @OptionGroup(title: "Disaggregation") var disaggregation: DisaggregationOptions

    @OptionGroup(title: "Prefix cache on disk") var prefixStore: PrefixStoreOptions

    @Option(
        name: [.customLong("random-seed"), .customLong("seed")],
        help: "The seed of requests that give none, each in turn; default: a random one for each.",
        transform: Parsing.seed())
    var randomSeed: UInt64?

    @Option(
        help: """
            Where sampling parameters come from that a request does not give: model (generation_config.json) or openai \
            (temperature 1, nothing cut off).
            """)
    var samplingDefaults = SamplingSource.model

    @Option(
        help: """
            Alternatives of each token that a request may ask for with their log-probabilities, at most; -1: all tokens. \
            Default: 20.
            """,
        transform: Parsing.count(-1...Parsing.maxTokens))
    var maxLogprobs = RequestLimits().maxTopLogProbs

    @OptionGroup var settings: ConfigurationOptions

    @Flag(help: "Serve no page at /, on which people chat with the model and watch the ranks.")
    var disablePage = false

    enum SamplingSource: String, ExpressibleByArgument, CaseIterable { case model, openai }

    mutating func run() async throws {
        if settings.print(self, named: "serve") { return }
        listen.startLog()
        await outliveHangUps()
        do {
            try await start()
        } catch let error where listen.logFormat == .json && !(error is ExitCode) {
            let message = Self.message(for: error)
            Log.write(.critical, LaunchLine.current?.withOrigins(message) ?? message)
            throw ExitCode(1)
        }
    }

    private mutating func start() async throws {
        let job = try engineOptions.join()
        let reasons = try plan == .auto ? choosePlan(job) : []
        if job.count > 1, restartOnFailure {
            throw CommandError(
                "--restart-on-failure: not with \(job.count) processes, which only mpirun can start; "
                    + "let Scripts/supervise or systemd do it")
        }
        let command = self
        let (options, tokenizer) = (engineOptions, tokenizerOptions)
        try await job.run(
            { try options.load().model },
            grammars: { model in
                GrammarCache(
                    try tokenizer.vocabulary(options.directory(), size: model.vocabularySize).grammar)
            },
            lead: { try await command.serve(job, planned: reasons) })
    }

    /// Chooses the ranks, and returns the reasons, a line each.
    private mutating func choosePlan(_ job: Job) throws -> [String] {
        if job.count > 1 {
            throw CommandError(
                "--plan auto: not with \(job.count) processes, of which each sees its own cores only; give sizes, such as "
                    + "those that braid plan prints")
        }
        guard engineOptions.parallel.isDefault else {
            throw CommandError("--plan auto chooses the ranks: leave out their sizes, or leave out --plan")
        }
        let chunk = engineOptions.chunkedPrefillSize
        let directory = try engineOptions.directory()
        let chosen = try AutomaticLayout(
            directory, cache: engineOptions.cacheType(in: engineOptions.profile(of: directory, nil)),
            chunk: chunk > 0 ? min(chunk, EngineConfiguration.maxRows) : EngineConfiguration.maxRows)
        let numa = engineOptions.parallel.numa
        engineOptions.parallel = chosen.options
        engineOptions.parallel.numa = numa
        return chosen.reasons
    }

    private func serve(_ job: Job, planned reasons: [String]) async throws {
        // Whatever can be refused is refused before anything is printed or a connection is accepted.
        let directory = try engineOptions.directory()
        var server = try serverConfiguration(directory)
        let transfers = try disaggregation.plan(environment: ProcessInfo.processInfo.environment)
        let loaded = try loadedService(directory, job)
        if let transfers { try check(transfers, loaded.configuration) }
        let store = try prefixStore.settings(
            for: loaded.model, loaded.configuration, disaggregation.disaggregationMode
        ).map(loaded.openStore)
        if server.hasPage { server.drawing = LayoutDrawing(directory, loaded.configuration) }
        let configuration = server
        let storeLines = store.map { [PrefixStoreOptions.startLine(of: $0.status)] } ?? []
        for line in (LaunchLine.current?.startLines ?? []) + reasons + loaded.startLines + storeLines { note(line) }
        listen.warnIfOpen(configuration)

        // /health answers as soon as the server listens, /ready when weights are read (--preload) and ranks run.
        let slot = ModelSlot(memory: configuration.requestMemory)
        let restarts = restartOnFailure
        Traps.setRestartsProcess(restarts)
        let starting = Task { () throws -> Engine in
            do {
                let (service, engine) = try loaded.start(job, restartsOnFailure: restarts, transfers, store)
                slot.fill(with: service)
                return engine
            } catch {
                slot.fail("\(error)")
                throw error
            }
        }
        try await Self.serve(configuration, slot, until: starting, trace: loaded.trace)
        if store?.finishWriting(within: Self.secondsToWrite) == false {
            note("prefix cache on disk: the last prompts are not all written after \(Int(Self.secondsToWrite)) seconds")
        }
        if let problem = loaded.trace?.problem { throw CommandError(problem) }
    }

    /// Answers requests until the server is told to end, or the engine cannot be started or fails for good.
    private static func serve(
        _ configuration: ServerConfiguration, _ slot: ModelSlot, until starting: Task<Engine, any Error>,
        trace: TraceWriter?
    ) async throws {
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask {
                let end = try await Serving.serve(configuration: configuration, slot: slot) { _ in
                    // A start that fails is reported below.
                    Task { if (try? await starting.value) != nil { note("ready: \(configuration.servedModelName)") } }
                }
                if case .cutShort(let reason) = end { throw CommandError("requests were cut short: \(reason)") }
            }
            tasks.addTask {
                // The command ends if weights cannot be read, or ranks fail for good.
                let engine = try await starting.value
                defer { trace?.close() }
                engine.answerForAllThreads()
                for await failure in engine.failures { try await Self.end(after: failure) }
                // The server has stopped the engine and ends soon.
                try await Task.sleep(for: .seconds(Self.secondsToEnd))
            }
            defer { tasks.cancelAll() }
            try await tasks.next()
        }
    }

    /// The value of `--max-logprobs`; the engine has no more than its vocabulary has tokens.
    private var maxTopLogProbs: Int { maxLogprobs < 0 ? Parsing.maxTokens : maxLogprobs }

    /// Maps the weights and checks the options of the engine.
    private func loadedService(_ directory: ModelDirectory, _ job: Job) throws -> LoadedService {
        var loaded = try LoadedService(engineOptions, tokenizerOptions, parsers, directory, job)
        loaded.configuration.maxTopLogProbs = maxTopLogProbs
        if samplingDefaults == .openai { loaded.dropDefaults() }
        loaded.defaults.seed = randomSeed
        return loaded
    }

    /// Returns the configuration of the HTTP server, after checking that it can listen.
    private func serverConfiguration(_ directory: ModelDirectory) throws -> ServerConfiguration {
        var server = ServerConfiguration(servedModelName: servedModelName.first ?? directory.name)
        server.otherModelNames = Array(servedModelName.dropFirst())
        listen.apply(to: &server)
        server.requests.maxTopLogProbs = maxTopLogProbs
        server.hasPage = !disablePage
        server.model = ServedModel(directory: directory.path)
        let problems = server.validate()
        guard problems.isEmpty else { throw CommandError(problems.joined(separator: "\n")) }
        try listen.check()
        return server
    }

    /// Checks what a server exchanges with another one against the rest of the options.
    private func check(_ transfers: DisaggregationOptions.Plan, _ configuration: EngineConfiguration) throws {
        if transfers.secret.isEmpty, !listen.apiKey.isEmpty {
            throw CommandError(
                "--disaggregation-secret-file: with --api-key the other server needs a secret too, or whoever is on this "
                    + "machine goes around the key; make one with: openssl rand -hex 32 > secret")
        }
        guard case .prefill(let host, let port) = transfers.role else { return }
        if !configuration.prefixCache {
            throw CommandError(
                "--disable-radix-cache: not for a prefill server, which keeps computed prompts in that cache until the "
                    + "decode server has room for them")
        }
        try DisaggregatedEngine.listeningAddress(host, port).check()
    }

    /// Ends the command after a moment in which the error responses, which are already written, reach the clients.
    private static func end(after failure: EngineFailure) async throws {
        if !failure.isTrap { Traps.setRestartsProcess(false) }
        Log.write(.error, "the engine has failed: \(failure.reason)")
        // The failure may prevent an orderly end, so a thread enforces it.
        Thread.detachNewThread {
            Thread.sleep(forTimeInterval: secondsToEnd)
            Traps.endProcess()
        }
        try await Task.sleep(for: .seconds(1))
        if failure.isTrap { Traps.endProcess() }
        throw CommandError(failure.reason)
    }

    private static let secondsToEnd = 4.0
    /// The seconds in which the last prompts may be written to disk when the server ends.
    private static let secondsToWrite = 10.0
}

extension Log.Level: ExpressibleByArgument {
    /// Reads a level by any of the names that Python's servers have.
    package init?(argument: String) {
        switch argument.lowercased() {
        case "warn": self = .warning
        case "fatal": self = .critical
        case let name: self.init(rawValue: name)
        }
    }
}

extension Log.Format: ExpressibleByArgument {}
