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

    @OptionGroup(title: "Listening") var listen: ListenOptions

    @Option(help: "The key that workers get in place of the client's; default: the client's.")
    var workerApiKey: String?

    @OptionGroup(title: "Limits") var limits: RouterLimits

    @OptionGroup var settings: ConfigurationOptions

    mutating func run() async throws {
        if settings.print(self, named: "router") { return }
        listen.startLog()
        let configuration = try routerConfiguration()
        let workers = try workerOptions.workers(of: configuration)
        try listen.check()
        for line in LaunchLine.current?.startLines ?? [] { note(line) }
        listen.warnIfOpen(configuration.server)
        let service = RouterService(configuration)
        for change in service.fleet.set(workers) { note(change) }
        if workers.isEmpty { note("there are no workers yet; POST /workers adds one") }
        try await serve(service)
    }

    private func serve(_ service: RouterService) async throws {
        let (options, configuration) = (workerOptions, service.configuration)
        let end = try await service.serve(
            onListening: { _ in note("ready: router") },
            onReload: { Self.reread(options, configuration, service.fleet) })
        if case .cutShort(let reason) = end { throw CommandError("requests were cut short: \(reason)") }
    }

    /// Reads the workers file again. Workers that `POST /workers` has added stay only if the file names them.
    private static func reread(_ options: WorkerOptions, _ configuration: RouterConfiguration, _ fleet: Fleet) {
        guard let path = options.workersFile else {
            return Log.write(.warning, "SIGHUP: there is no --workers-file to read again")
        }
        do {
            let changes = fleet.set(try options.workers(of: configuration))
            Log.write(.notice, "\(path): " + (changes.isEmpty ? "no change" : changes.joined(separator: ", ")))
        } catch {
            Log.write(.error, "the workers stay as they are: \(error)")
        }
    }

    private func routerConfiguration() throws -> RouterConfiguration {
        var configuration = RouterConfiguration()
        listen.apply(to: &configuration.server)
        configuration.pool.policy = policy
        configuration.workerKey = workerApiKey
        limits.apply(to: &configuration)
        let problems = configuration.validate()
        guard problems.isEmpty else { throw CommandError(problems.joined(separator: "\n")) }
        return configuration
    }
}

extension RoutingPolicy: ExpressibleByArgument {}
