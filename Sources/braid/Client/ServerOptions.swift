import ArgumentParser
import Foundation

/// The options of every command that talks to a running server.
struct ServerOptions: ParsableArguments, Sendable {
    @Option(help: "The server, as http://host:port; in place of --host and --port.")
    var baseUrl: String?

    @Option(help: "The server's host.")
    var host = "127.0.0.1"

    @Option(help: "The server's port; default: 30000 (bench serving --backend vllm: 8000).")
    var port: Int?

    @Option(help: "The key, if the server asks for one. Also read from BRAID_API_KEY and OPENAI_API_KEY.")
    var apiKey: String?

    @Option(help: "The model's name; default: the first that /v1/models lists.")
    var model: String?

    @Option(help: "Seconds a request may take.")
    var requestTimeout = 3600

    func validate() throws {
        var problems: [String] = []
        if let port, !(1...65535).contains(port) { problems.append("--port: \(port) is not between 1 and 65535") }
        if !(1...31_536_000).contains(requestTimeout) {
            problems.append("--request-timeout: \(requestTimeout) is not between 1 and 31536000 seconds")
        }
        guard problems.isEmpty else { throw ValidationError(problems.joined(separator: "\n")) }
    }

    /// - Parameter defaultPort: where neither an URL nor a port is given.
    func client(defaultPort: Int = 30000) throws -> HTTPClient {
        let address =
            try baseUrl.map { try ServerAddress(url: $0) } ?? ServerAddress(host: host, port: port ?? defaultPort)
        let environment = ProcessInfo.processInfo.environment
        return HTTPClient(
            address, apiKey: apiKey ?? environment["BRAID_API_KEY"] ?? environment["OPENAI_API_KEY"],
            timeout: .seconds(requestTimeout))
    }
}
