import ArgumentParser
import Connections
import Foundation
import NIOCore
import NIOPosix
import Parallelism
import Serving

/// These options belong to commands that answer HTTP requests: where they listen, who may ask, and what is logged.
struct ListenOptions: ParsableArguments, Sendable {
    @Option(help: "The address to listen on.")
    var host = "127.0.0.1"

    @Option(help: "The port; 0 lets the system choose. Default: 30000.", transform: Parsing.count(0...65_535))
    var port = 30000

    @Option(
        parsing: .upToNextOption,
        help: """
            The key that clients must send; every route asks for it but /health and the files of the page. Several are all \
            valid. Lists of processes do not show BRAID_API_KEY, nor BRAID_API_KEY_2 for a second one.
            """)
    var apiKey: [String] = []

    @Option(
        help: "How long running requests may go on after SIGTERM: seconds, or 90s, 5m, 1h. Default: 60.",
        transform: Parsing.seconds(0...86_400))
    var drainTimeout = 60

    @Option(help: "A name of this machine that requests may use where no key is asked for; repeatable.")
    var allowedHost: [String] = []

    @Option(help: "An origin whose web pages may use this server, such as https://app.example, or *; repeatable.")
    var corsAllowOrigin: [String] = []

    @Flag(help: "Let /ready, /ping and /metrics need no API key.")
    var openMonitoring = false

    @Option(help: "The least level of lines in the log: trace, debug, info, notice, warning, error, critical.")
    var logLevel = Log.Level.info

    @Option(help: "The form of lines in the log: text, or json with time, level and message.")
    var logFormat = Log.Format.text

    @Flag(help: "Write a line for each request into the log: method, path, status, time and the client's address.")
    var accessLog = false

    /// Starts the log. Whoever reads it through a pipe may end without ending the server.
    func startLog() {
        _ = signal(SIGPIPE, SIG_IGN)
        Log.start(level: logLevel, format: logFormat)
    }

    func apply(to server: inout ServerConfiguration) {
        server.host = host
        server.port = port
        server.apiKeys = apiKey
        server.allowedHosts = allowedHost
        server.corsOrigins = corsAllowOrigin
        server.opensMonitoring = openMonitoring
        server.logsAccess = accessLog
        server.drainTimeout = .seconds(drainTimeout)
        server.requestMemory = MemoryBudget.total(of: HostMemory.current.available)
    }

    /// Warns if a server can be reached from other machines and asks for no key.
    func warnIfOpen(_ server: ServerConfiguration) {
        guard apiKey.isEmpty, !server.isLocal else { return }
        Log.write(
            .warning, "--host: whoever reaches \(host):\(port) is served, without a key; --api-key asks for one")
    }

    /// Checks that the server can listen.
    ///
    /// - Throws: an error of one line if it cannot.
    func check() throws { try ListeningAddress(host: host, port: port).check() }
}

/// An address to listen on, with the options that name it.
struct ListeningAddress {
    let host: String
    let port: Int
    var hostOption = "--host"
    var portOption = "--port"

    /// Checks that nothing else listens there, and that this user may.
    ///
    /// - Throws: an error of one line otherwise.
    func check() throws {
        guard port != 0 else { return }
        try explaining {
            let channel = try ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .bind(host: host, port: port).wait()
            try channel.close().wait()
        }
    }

    /// Returns what `listen` returns.
    ///
    /// - Throws: an error of one line that names the option to change if the system refuses the address.
    func explaining<Result>(_ listen: () throws -> Result) throws -> Result {
        do {
            return try listen()
        } catch let error as IOError where error.errnoCode == EADDRINUSE {
            throw CommandError("\(portOption): \(host):\(port) is taken by another program; choose another port")
        } catch let error as IOError where error.errnoCode == EACCES {
            throw CommandError(
                "\(portOption): \(host):\(port) may not be used by this user; choose a port from 1024 on")
        } catch {
            throw CommandError(
                "\(hostOption): cannot listen on \(host):\(port): \(error.connectionReason); give an address of this machine, such "
                    + "as 127.0.0.1, or 0.0.0.0 for all of them")
        }
    }
}
