import ArgumentParser
import Foundation
import Routing
import Serving

/// The command runs a router before several servers.
struct RouterCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "router",
        abstract: "Spreads requests over several servers.",
        discussion: """
            Clients use the router as if it were one server. A conversation goes to the server that has computed its \
            beginning, unless another one has so much less to do that starting anew is faster. Listens on this machine \
            only unless --host says otherwise. Options of SGLang's router are accepted (Docs/options.md).
            """)

    @OptionGroup(title: "Workers") var workerOptions: WorkerOptions

    @Option(
        name: [.customLong("policy"), .customLong("decode-policy")],
        help: """
            How a server is chosen: cache_aware (least work, of which a known beginning is none), power_of_two (fewer \
            requests of two), round_robin, random.
            """)
    var policy = RoutingPolicy.cacheAware

    @Option(help: "The address to listen on.")
    var host = "127.0.0.1"

    @Option(help: "The port; 0 lets the system choose.", transform: Parsing.count(0...65_535))
    var port = 30000

    @Option(
        help: """
            The key that clients must send; every route asks for it but /health. Lists of processes do not show \
            BRAID_API_KEY.
            """)
    var apiKey: String?

    @Option(help: "The key that workers get in place of the client's; default: the client's.")
    var workerApiKey: String?

    @OptionGroup(title: "Limits") var limits: RouterLimits

    @Option(
        help: "How long running requests may go on after SIGTERM: seconds, or 90s, 5m, 1h.",
        transform: Parsing.seconds(0...86_400))
    var drainTimeout = 60

    @Option(help: "A name of this machine that requests may use where no key is asked for; repeatable.")
    var allowedHost: [String] = []

    @Option(help: "An origin whose web pages may use this router, such as https://app.example, or *; repeatable.")
    var corsAllowOrigin: [String] = []

    @Flag(help: "Let /ready, /ping and /metrics need no API key.")
    var openMonitoring = false

    @Option(help: "The least level of lines in the log: trace, debug, info, notice, warning, error, critical.")
    var logLevel = Log.Level.info

    @Option(help: "The form of lines in the log: text, or json with time, level and message.")
    var logFormat = Log.Format.text

    @Flag(help: "Write a line for each request into the log: method, path, status, time and the client's address.")
    var accessLog = false

    @Option(help: "A file with options, as for serve.")
    var config: String?

    @Flag(help: "Print every option with its value and where that comes from, as such a file, and end.")
    var printConfig = false

    mutating func run() async throws {
        if printConfig {
            guard let options = CommandOptions.command(named: ["router"]) else { return }
            let settings = LaunchLine.current?.settings ?? []
            for line in EffectiveConfiguration(of: self, options, settings).lines { print(line) }
            return
        }
        Log.start(level: logLevel, format: logFormat)
        let configuration = try routerConfiguration()
        let workers = try workerOptions.workers()
        try Serve.check(host: host, port: port)
        for line in LaunchLine.current?.startLines ?? [] { note(line) }
        if apiKey == nil, !configuration.server.isLocal {
            Log.write(
                .warning, "--host: whoever reaches \(host):\(port) is served, without a key; --api-key asks for one")
        }
        let service = RouterService(configuration)
        for change in service.fleet.set(workers) { note(change) }
        if workers.isEmpty { note("there are no workers yet; POST /workers adds one") }
        try await serve(service)
    }

    private func serve(_ service: RouterService) async throws {
        let options = workerOptions
        let end = try await service.serve(
            onListening: { _ in note("ready: router") }, onReload: { Self.reread(options, service.fleet) })
        if case .cutShort(let reason) = end { throw CommandError("requests were cut short: \(reason)") }
    }

    /// Reads the workers file again. Workers that `POST /workers` has added stay only if the file names them.
    private static func reread(_ options: WorkerOptions, _ fleet: Fleet) {
        guard let path = options.workersFile else {
            return Log.write(.warning, "SIGHUP: there is no --workers-file to read again")
        }
        do {
            let changes = fleet.set(try options.workers())
            Log.write(.notice, "\(path): " + (changes.isEmpty ? "no change" : changes.joined(separator: ", ")))
        } catch {
            Log.write(.error, "the workers stay as they are: \(error)")
        }
    }

    private func routerConfiguration() throws -> RouterConfiguration {
        var configuration = RouterConfiguration()
        configuration.server.host = host
        configuration.server.port = port
        configuration.server.apiKey = apiKey
        configuration.server.allowedHosts = allowedHost
        configuration.server.corsOrigins = corsAllowOrigin
        configuration.server.opensMonitoring = openMonitoring
        configuration.server.logsAccess = accessLog
        configuration.server.drainTimeout = .seconds(drainTimeout)
        configuration.pool.policy = policy
        configuration.workerKey = workerApiKey
        limits.apply(to: &configuration)
        let problems = configuration.validate()
        guard problems.isEmpty else { throw CommandError(problems.joined(separator: "\n")) }
        return configuration
    }
}

extension RoutingPolicy: ExpressibleByArgument {}
