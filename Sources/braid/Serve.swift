import ArgumentParser
import Checkpoints
import Foundation
import Grammar
import Inference
import Modeling
import Models
import NIOCore
import NIOPosix
import Serving
import Tensors
import Tokenization

/// The command runs the HTTP server.
struct Serve: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serves a model over HTTP: OpenAI's routes, /generate, /metrics.",
        discussion: """
            `braid serve MODEL` is `braid serve --model-path MODEL`. Listens on this machine only unless --host says \
            otherwise. SIGTERM drains, a second one ends. Options may also be in a file (--config) and in the \
            environment, as BRAID_PAGE_SIZE; those of SGLang's and vLLM's servers are accepted (Docs/options.md).
            """)

    @OptionGroup var engineOptions: EngineOptions

    @OptionGroup(title: "Tokenizer") var tokenizerOptions: TokenizerOptions

    @Option(help: "The address to listen on.")
    var host = "127.0.0.1"

    @Option(help: "The port; 0 lets the system choose.", transform: Parsing.count(0...65_535))
    var port = 30000

    @Option(
        help: """
            The key that every route asks for but /health and the files of the page. Lists of processes do not show \
            BRAID_API_KEY.
            """)
    var apiKey: String?

    @Option(help: "The name requests give as `model`; default: the model's.")
    var servedModelName: String?

    @Option(
        help: "How long running requests may go on after SIGTERM: seconds, or 90s, 5m, 1h.",
        transform: Parsing.seconds(0...86_400))
    var drainTimeout = 60

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

    @Option(help: "A name of this machine that requests may use where no key is asked for; repeatable.")
    var allowedHost: [String] = []

    @Option(
        name: [.customLong("random-seed"), .customLong("seed")],
        help: "The seed of requests that give none, each in turn; default: a random one for each.")
    var randomSeed: UInt64?

    @Option(
        help: """
            Where sampling parameters come from that a request does not give: model (generation_config.json) or openai \
            (temperature 1, nothing cut off).
            """)
    var samplingDefaults = SamplingSource.model

    @Option(help: "The least level of lines in the log: trace, debug, info, notice, warning, error, critical.")
    var logLevel = Log.Level.info

    @Option(help: "The form of lines in the log: text, or json with time, level and message.")
    var logFormat = Log.Format.text

    @Flag(help: "Write a line for each request into the log: method, path, status, time and the client's address.")
    var accessLog = false

    @Option(
        help: """
            A file with options, as YAML lines such as page-size: 64 or a JSON object. The environment (BRAID_PAGE_SIZE) \
            and the command line come before it.
            """)
    var config: String?

    @Flag(help: "Print every option with its value and where that comes from, as such a file, and end.")
    var printConfig = false

    @Option(help: "An origin whose web pages may use this server, such as https://app.example, or *; repeatable.")
    var corsAllowOrigin: [String] = []

    @Flag(help: "Let /ready, /ping and /metrics need no API key.")
    var openMonitoring = false

    @Flag(help: "Serve no page at /, on which people chat with the model and watch the ranks.")
    var disablePage = false

    enum SamplingSource: String, ExpressibleByArgument, CaseIterable { case model, openai }

    mutating func run() async throws {
        if printConfig { return printConfiguration() }
        Log.start(level: logLevel, format: logFormat)
        do {
            try await start()
        } catch let error where logFormat == .json && !(error is ExitCode) {
            Log.write(.critical, Self.message(for: error))
            throw ExitCode(1)
        }
    }

    private func printConfiguration() {
        guard let options = CommandOptions.command(named: ["serve"]) else { return }
        let settings = LaunchLine.current?.settings ?? []
        for line in EffectiveConfiguration(of: self, options, settings).lines { print(line) }
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
        let chosen = try AutomaticLayout(
            engineOptions.directory(), cache: engineOptions.kvCacheDtype,
            chunk: chunk > 0 ? min(chunk, EngineConfiguration.maxRows) : EngineConfiguration.maxRows)
        engineOptions.parallel = chosen.options
        return chosen.reasons
    }

    private func serve(_ job: Job, planned reasons: [String]) async throws {
        // Whatever can be refused is refused before anything is printed or a connection is accepted.
        let directory = try engineOptions.directory()
        var server = try serverConfiguration(directory)
        let transfers = try disaggregation.plan(environment: ProcessInfo.processInfo.environment)
        let loaded = try loadedService(directory, job)
        if let transfers { try check(transfers, loaded.configuration) }
        if server.hasPage { server.drawing = LayoutDrawing(directory, loaded.configuration) }
        let configuration = server
        for line in (LaunchLine.current?.startLines ?? []) + reasons + loaded.startLines { note(line) }
        if apiKey == nil, !configuration.isLocal {
            Log.write(
                .warning, "--host: whoever reaches \(host):\(port) is served, without a key; --api-key asks for one")
        }

        // /health answers as soon as the server listens, /ready when weights are read (--preload) and ranks run.
        let slot = ModelSlot()
        let restarts = restartOnFailure
        Traps.setRestartsProcess(restarts)
        let starting = Task { () throws -> Engine in
            do {
                let (service, engine) = try loaded.start(job, restartsOnFailure: restarts, transfers)
                slot.fill(with: service)
                return engine
            } catch {
                slot.fail("\(error)")
                throw error
            }
        }
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
                defer { loaded.trace?.close() }
                engine.answerForAllThreads()
                for await failure in engine.failures { try await Self.end(after: failure) }
                // The server has stopped the engine and ends soon.
                try await Task.sleep(for: .seconds(Self.secondsToEnd))
            }
            defer { tasks.cancelAll() }
            try await tasks.next()
        }
        if let problem = loaded.trace?.problem { throw CommandError(problem) }
    }

    /// Maps the weights and checks the options of the engine.
    private func loadedService(_ directory: ModelDirectory, _ job: Job) throws -> LoadedService {
        var loaded = try LoadedService(engineOptions, tokenizerOptions, parsers, directory, job)
        if samplingDefaults == .openai { loaded.defaults = SamplingDefaults() }
        loaded.defaults.seed = randomSeed
        return loaded
    }

    /// Returns the configuration of the HTTP server, after checking that it can listen.
    private func serverConfiguration(_ directory: ModelDirectory) throws -> ServerConfiguration {
        var server = ServerConfiguration(servedModelName: servedModelName ?? directory.name)
        server.host = host
        server.port = port
        server.apiKey = apiKey
        server.allowedHosts = allowedHost
        server.logsAccess = accessLog
        server.corsOrigins = corsAllowOrigin
        server.opensMonitoring = openMonitoring
        server.hasPage = !disablePage
        server.model = ServedModel(directory: directory.path)
        server.drainTimeout = .seconds(drainTimeout)
        let problems = server.validate()
        guard problems.isEmpty else { throw CommandError(problems.joined(separator: "\n")) }
        try Self.check(host: server.host, port: server.port)
        return server
    }

    /// Checks what a server exchanges with another one against the rest of the options.
    private func check(_ transfers: DisaggregationOptions.Plan, _ configuration: EngineConfiguration) throws {
        if transfers.secret.isEmpty, apiKey != nil {
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
        try Self.check(host: host, port: port, ("--disaggregation-host", "--disaggregation-bootstrap-port"))
    }

    /// Checks that the server can listen on an address.
    ///
    /// - Parameter options: the options of the host and the port.
    /// - Throws: an error of one line if it cannot.
    static func check(
        host: String, port: Int, _ options: (host: String, port: String) = ("--host", "--port")
    ) throws {
        guard port != 0 else { return }
        do {
            let channel = try ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .bind(host: host, port: port).wait()
            try channel.close().wait()
        } catch let error as IOError where error.errnoCode == EADDRINUSE {
            throw CommandError("\(options.port): \(host):\(port) is taken by another program; choose another port")
        } catch let error as IOError where error.errnoCode == EACCES {
            throw CommandError(
                "\(options.port): \(host):\(port) may not be used by this user; choose a port from 1024 on")
        } catch {
            throw CommandError(
                "\(options.host): cannot listen on \(host):\(port): \(error.reason); give an address of this machine, such as "
                    + "127.0.0.1, or 0.0.0.0 for all of them")
        }
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
