import ArgumentParser
import Foundation
import Routing

/// These options belong to every command that talks to a running server.
struct ServerOptions: ParsableArguments, Sendable {
    @Option(help: "The server, as http://host:port; in place of --host and --port.")
    var baseUrl: String?

    @Option(help: "The server's host; http:// before it is allowed, as SGLang's clients have it.")
    var host = "127.0.0.1"

    @Option(
        help: "The server's port; default: 30000 (bench serving --backend vllm: 8000).",
        transform: Parsing.count(1...65_535))
    var port: Int?

    @Option(
        help:
            "The key, if the server asks for one. Also read from BRAID_API_KEY and, for a server on this machine, OPENAI_API_KEY."
    )
    var apiKey: String?

    @Option(help: "The model's name; default: the first that /v1/models lists.")
    var model: String?

    @Option(
        help: "How long a request may take: seconds, or 90s, 5m, 1h.",
        transform: Parsing.seconds(1...Parsing.maxSeconds))
    var requestTimeout = 3600

    /// - Parameter defaultPort: The port if neither a URL nor a port is given.
    func client(defaultPort: Int = 30000) throws -> HTTPClient {
        let name = host.hasPrefix("http://") ? String(host.dropFirst("http://".count)) : host
        let address =
            try baseUrl.map { try ServerAddress(url: $0) } ?? ServerAddress(host: name, port: port ?? defaultPort)
        return HTTPClient(
            address, apiKey: address.apiKey(apiKey), timeout: .seconds(requestTimeout))
    }
}
