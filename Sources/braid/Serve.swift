import ArgumentParser
import Foundation
import Inference
import Models
import Serving
import Tokenization

/// The HTTP server.
struct Serve: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serves a model over HTTP: OpenAI's routes, /generate, /metrics.",
        discussion: "Listens on this machine only unless --host says otherwise. SIGTERM drains, a second one ends.")

    @OptionGroup var engineOptions: EngineOptions

    @Option(help: "The address to listen on.")
    var host = "127.0.0.1"

    @Option(help: "The port; 0 lets the system choose.")
    var port = 30000

    @Option(help: "The key that every route but /health asks for. Also read from BRAID_API_KEY.")
    var apiKey: String?

    @Option(help: "The name requests give as `model`; default: the directory's name.")
    var servedModelName: String?

    @Option(help: "How many seconds running requests may go on after SIGTERM.")
    var drainTimeout = 60

    func run() async throws {
        let url = URL(fileURLWithPath: engineOptions.modelPath)
        var server = ServerConfiguration(servedModelName: servedModelName ?? url.lastPathComponent)
        server.host = host
        server.port = port
        server.apiKey = apiKey ?? ProcessInfo.processInfo.environment["BRAID_API_KEY"]
        server.drainTimeout = .seconds(drainTimeout)
        let problems = server.validate()
        guard problems.isEmpty else { throw CommandError(problems.joined(separator: "\n")) }

        // Listen first: /health answers while the weights are mapped, /ready when they are in place.
        let slot = ModelSlot()
        let (configuration, options) = (server, engineOptions)
        let loading = Task {
            do {
                slot.fill(with: try Self.service(options))
                note("ready: \(configuration.servedModelName)")
            } catch {
                slot.fail("\(error)")
                throw error
            }
        }
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await serve(configuration: configuration, slot: slot) }
            tasks.addTask {
                // A model that cannot be loaded ends the command; one that was loaded leaves the server running.
                try await loading.value
                while !Task.isCancelled { try? await Task.sleep(for: .seconds(3600)) }
            }
            defer { tasks.cancelAll() }
            try await tasks.next()
        }
    }

    private static func service(_ options: EngineOptions) throws -> TextService {
        let (directory, model) = try options.load()
        let configuration = try options.engineConfiguration(for: model)
        let tokenizer = try Tokenizer(directory: URL(fileURLWithPath: options.modelPath))
        guard tokenizer.vocabularySize <= model.vocabularySize else {
            throw CommandError(
                "tokenizer.json has \(tokenizer.vocabularySize) ids, config.json a vocabulary of "
                    + "\(model.vocabularySize): they belong to different models")
        }
        var defaults = SamplingDefaults()
        if let temperature = directory.generation.temperature { defaults.temperature = temperature }
        if let topP = directory.generation.topP { defaults.topP = topP }
        if let topK = directory.generation.topK { defaults.topK = topK }
        return TextService(
            engine: Engine(model, configuration), tokenizer: tokenizer, defaults: defaults,
            endOfText: Set(directory.generation.endTokens))
    }
}
