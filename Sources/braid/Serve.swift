import ArgumentParser
import Foundation
import Grammar
import Inference
import Modeling
import Models
import NIOCore
import NIOPosix
import Serving
import Tokenization

/// The command runs the HTTP server.
struct Serve: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serves a model over HTTP: OpenAI's routes, /generate, /metrics.",
        discussion: "Listens on this machine only unless --host says otherwise. SIGTERM drains, a second one ends.")

    @OptionGroup var engineOptions: EngineOptions

    @Option(help: "The address to listen on.")
    var host = "127.0.0.1"

    @Option(help: "The port; 0 lets the system choose.", transform: Parsing.count(0...65_535))
    var port = 30000

    @Option(help: "The key that every route but /health asks for. Also read from BRAID_API_KEY.")
    var apiKey: String?

    @Option(help: "The name requests give as `model`; default: the directory's name.")
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

    @Option(help: "A name of this machine that requests may use where no key is asked for; repeatable.")
    var allowedHost: [String] = []

    mutating func run() async throws {
        let job = try engineOptions.join()
        if plan == .auto { try choosePlan(job) }
        if job.count > 1, restartOnFailure {
            throw CommandError(
                "--restart-on-failure: not with \(job.count) processes, which only mpirun can start; "
                    + "let Scripts/supervise or systemd do it")
        }
        let command = self
        let options = engineOptions
        try await job.run(
            { try options.load().model }, grammars: { GrammarCache(try Self.vocabulary(options, for: $0).grammar) },
            lead: { try await command.serve(job) })
    }

    private mutating func choosePlan(_ job: Job) throws {
        if job.count > 1 {
            throw CommandError(
                "--plan auto: not with \(job.count) processes, of which each sees its own cores only; give sizes, such as "
                    + "those that braid plan prints")
        }
        guard engineOptions.parallel.isDefault else {
            throw CommandError("--plan auto chooses the ranks: leave out their sizes, or leave out --plan")
        }
        let chosen = try AutomaticLayout(
            modelPath: engineOptions.modelPath, cache: engineOptions.kvCacheDtype,
            chunk: engineOptions.chunkedPrefillSize > 0 ? engineOptions.chunkedPrefillSize : 32_768)
        engineOptions.parallel = chosen.options
        for reason in chosen.reasons { note(reason) }
    }

    private func serve(_ job: Job) async throws {
        let url = URL(fileURLWithPath: engineOptions.modelPath)
        var server = ServerConfiguration(servedModelName: servedModelName ?? url.lastPathComponent)
        server.host = host
        server.port = port
        server.apiKey = apiKey ?? ProcessInfo.processInfo.environment["BRAID_API_KEY"]
        server.allowedHosts = allowedHost
        server.drainTimeout = .seconds(drainTimeout)
        let problems = server.validate()
        guard problems.isEmpty else { throw CommandError(problems.joined(separator: "\n")) }

        // Problems of the options are reported before anything is started.
        try Self.check(directory: engineOptions.modelPath)
        try Self.check(host: server.host, port: server.port)

        // Listen first: /health answers while the weights are mapped, /ready when they are in place.
        let slot = ModelSlot()
        let (configuration, options, parsers, restarts) = (server, engineOptions, parsers, restartOnFailure)
        Traps.setRestartsProcess(restarts)
        let loading = Task { () throws -> (engine: Engine, trace: TraceWriter?) in
            do {
                let (service, engine, trace) = try Self.service(options, parsers, job, restartsOnFailure: restarts)
                slot.fill(with: service)
                note("ready: \(configuration.servedModelName)")
                return (engine, trace)
            } catch {
                slot.fail("\(error)")
                throw error
            }
        }
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask {
                let end = try await Serving.serve(configuration: configuration, slot: slot)
                if case .cutShort(let reason) = end { throw CommandError("requests were cut short: \(reason)") }
            }
            tasks.addTask {
                // The command ends if the model cannot be loaded, or ranks fail for good.
                let (engine, trace) = try await loading.value
                defer { trace?.close() }
                engine.answerForAllThreads()
                for await failure in engine.failures { try await Self.end(after: failure) }
                // The server has stopped the engine and ends soon.
                try await Task.sleep(for: .seconds(Self.secondsToEnd))
            }
            defer { tasks.cancelAll() }
            try await tasks.next()
        }
        if let problem = try? await loading.value.trace?.problem { throw CommandError(problem) }
    }

    /// Checks that `path` is a directory.
    ///
    /// - Throws: an error of one line if it is not.
    private static func check(directory path: String) throws {
        var isDirectory: ObjCBool = false
        if unsafe FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) {
            if isDirectory.boolValue { return }
            throw CommandError(
                path.lowercased().hasSuffix(".gguf")
                    ? "--model-path: \(path) is a GGUF file, which is not read; give the directory of the released checkpoint"
                    : "--model-path: \(path) is a file; give the directory with config.json and the weights")
        }
        let words = path.split(separator: "/", omittingEmptySubsequences: false)
        if words.count == 2, words.allSatisfy({ !$0.isEmpty && !$0.hasPrefix(".") }) {
            throw CommandError(
                "--model-path: there is no directory \(path); if it is a name on Hugging Face, download it first: "
                    + "hf download \(path) --local-dir DIRECTORY, and give DIRECTORY")
        }
        throw CommandError("--model-path: there is no directory \(path)")
    }

    /// Checks that the server can listen on an address.
    ///
    /// - Throws: an error of one line if it cannot.
    private static func check(host: String, port: Int) throws {
        guard port != 0 else { return }
        do {
            let channel = try ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .bind(host: host, port: port).wait()
            try channel.close().wait()
        } catch let error as IOError where error.errnoCode == EADDRINUSE {
            throw CommandError("--port: \(host):\(port) is taken by another program; choose another port")
        } catch let error as IOError where error.errnoCode == EACCES {
            throw CommandError("--port: \(host):\(port) may not be used by this user; choose a port from 1024 on")
        } catch {
            throw CommandError("--host: cannot listen on \(host):\(port): \(error)")
        }
    }

    /// Ends the command after a moment in which the error responses, which are already written, reach the clients.
    private static func end(after failure: EngineFailure) async throws {
        if !failure.isTrap { Traps.setRestartsProcess(false) }
        note("the engine has failed: \(failure.reason)")
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

    private static func service(
        _ options: EngineOptions, _ parsers: ParserOptions, _ job: Job, restartsOnFailure: Bool
    ) throws -> (TextService, Engine, TraceWriter?) {
        let (directory, model) = try options.load()
        var configuration = try options.engineConfiguration(for: model, job)
        configuration.restartsOnFailure = restartsOnFailure
        let (tokenizer, vocabulary) = try vocabulary(options, for: model)
        try parsers.check(tokenizer)
        var defaults = SamplingDefaults()
        if let temperature = directory.generation.temperature { defaults.temperature = temperature }
        if let topP = directory.generation.topP { defaults.topP = topP }
        if let topK = directory.generation.topK { defaults.topK = topK }
        let trace = try options.traceWriter(for: configuration)
        let engine = Engine(
            model, configuration, processes: job.processes, grammars: GrammarCache(vocabulary), trace: trace, log: note)
        let service = TextService(
            engine: engine, tokenizer: tokenizer, defaults: defaults, endOfText: Set(directory.generation.endTokens))
        return (service, engine, trace)
    }

    /// Returns the tokenizer of a model, and its vocabulary in the form that grammars need.
    private static func vocabulary(
        _ options: EngineOptions, for model: any Model
    ) throws -> (tokenizer: Tokenizer, grammar: GrammarVocabulary) {
        let tokenizer = try Tokenizer(directory: URL(fileURLWithPath: options.modelPath))
        guard tokenizer.vocabularySize <= model.vocabularySize else {
            throw CommandError(
                "tokenizer.json has \(tokenizer.vocabularySize) ids, config.json a vocabulary of "
                    + "\(model.vocabularySize): they belong to different models")
        }
        return (tokenizer, GrammarVocabulary(tokenizer, size: model.vocabularySize))
    }
}
