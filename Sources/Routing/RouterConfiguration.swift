package import Serving

/// The configuration of a router beside that of its HTTP server.
package struct RouterConfiguration: Sendable {
    /// The address, the key that clients send, and the limits of requests and connections.
    package var server = ServerConfiguration(servedModelName: "router")
    package var pool = WorkerPool.Settings()
    /// The key that workers get in place of the client's; `nil` passes the client's on.
    package var workerKey: String?
    /// The number of requests that are with workers at the same time; further ones wait.
    package var maxConcurrentRequests = 1024
    /// The number of requests that wait; further ones are refused.
    package var queueSize = 1024
    package var queueTimeout = Duration.seconds(60)
    /// The number of further workers that a request is sent to while none has begun to answer.
    package var maxRetries = 2
    package var checkInterval = Duration.seconds(1)
    package var checkTimeout = Duration.seconds(2)
    /// The path that tells whether a worker takes requests.
    package var checkPath = "/ready"
    /// The time without a sign of life after which a worker's requests are ended; `nil` lets them wait.
    package var silenceLimit: Duration? = .seconds(10)
    package var connectTimeout = Duration.seconds(5)

    package init() {
        server.hasPage = false
    }

    /// Returns whether an address is that of the router itself, which would then forward requests to itself without end.
    package func isOwn(_ address: ServerAddress) -> Bool {
        guard address.port == server.port, address.port != 0 else { return false }
        let listensEverywhere = ["0.0.0.0", "::"].contains(server.host)
        if address.host == server.host || address.isHere && listensEverywhere { return true }
        // The name stands for both addresses; others of this machine are sockets of their own.
        let names = ["localhost", "127.0.0.1", "::1"]
        return names.contains(address.host) && names.contains(server.host)
            && (address.host == "localhost" || server.host == "localhost")
    }

    /// Returns the problems of this configuration, each with what to do about it.
    package func validate() -> [String] {
        var problems = server.validate()
        if let workerKey, workerKey.isEmpty || !workerKey.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) {
            problems.append(
                "--worker-api-key is empty, or has characters a header cannot carry; use visible ASCII without spaces")
        }
        if !checkPath.hasPrefix("/") || !checkPath.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) {
            problems.append("--health-check-endpoint: '\(checkPath)' is no path; write one such as /ready")
        }
        return problems
    }
}
