import JSON
import NIOCore
import NIOHTTP1
import Routing
import ServerTesting
import Serving
import TestSupport
import Testing

/// A router before toy workers, and a client of it that reads as fast as it is told to.
struct RouterClient: Sendable {
    let service: RouterService
    let port: Int

    /// Returns a configuration of tests: checks follow each other fast, and may take long.
    static func configuration(
        _ change: (inout RouterConfiguration) -> Void = { _ in }
    ) -> RouterConfiguration {
        var configuration = RouterConfiguration()
        configuration.server.port = 0
        configuration.pool.policy = .roundRobin
        configuration.checkInterval = .milliseconds(20)
        configuration.checkTimeout = .seconds(60)
        configuration.silenceLimit = nil
        change(&configuration)
        return configuration
    }

    /// Runs `body` with a router, once the first checks of all workers have ended.
    static func run(
        _ workers: [ToyWorker], _ configuration: RouterConfiguration = RouterClient.configuration(),
        _ body: @escaping @Sendable (RouterClient) async throws -> Void
    ) async throws {
        let service = RouterService(configuration)
        _ = service.fleet.set(workers.map { ($0.address, .regular) })
        let checks = Task { await service.checkWorkers() }
        defer { checks.cancel() }
        #expect(await eventually { service.fleet.workers.allSatisfy { $0.health.state != .unknown } })
        try await service.application().listening { port in
            try await body(RouterClient(service: service, port: port))
        }
    }

    struct Reply: Sendable {
        var status = 0
        var headers = HTTPHeaders()
        var body = ""
        var json: JSONValue { (try? JSONValue(parsing: body)) ?? .null }
        var code: String? { json["error"]?["code"]?.string }
    }

    /// Sends a request, and returns the connection on which the answer is read part by part.
    func open(
        _ path: String, _ body: String = "", method: HTTPMethod = .POST, headers: HTTPHeaders = [:]
    ) async throws -> UpstreamExchange {
        var all: HTTPHeaders = ["host": "localhost", "content-length": "\(body.utf8.count)"]
        if method != .GET { all.add(name: "content-type", value: "application/json") }
        all.add(contentsOf: headers)
        return try await UpstreamExchange.open(
            to: ServerAddress(host: "127.0.0.1", port: port),
            HTTPRequestHead(version: .http1_1, method: method, uri: path, headers: all), ByteBuffer(string: body),
            connectTimeout: .seconds(60))
    }

    /// Sends a request and returns the whole answer.
    func send(
        _ path: String, _ body: String = "", method: HTTPMethod = .POST, headers: HTTPHeaders = [:]
    ) async throws -> Reply {
        try await bounded("the answer to \(method) \(path)") {
            try await Self.rest(of: open(path, body, method: method, headers: headers))
        }
    }

    /// Reads an answer to its end.
    static func rest(of exchange: UpstreamExchange) async throws -> Reply {
        var reply = Reply()
        while true {
            switch try await exchange.next() {
            case .head(let head): (reply.status, reply.headers) = (Int(head.status.code), head.headers)
            case .body(let bytes): reply.body += String(buffer: bytes)
            case .end: return reply
            }
        }
    }

    /// Reads an answer until its body contains a text.
    static func read(_ exchange: UpstreamExchange, until text: String) async throws {
        var body = ""
        while !body.contains(text) {
            if case .body(let bytes) = try await exchange.next() { body += String(buffer: bytes) }
        }
    }

    var workers: [RoutedWorker] { service.fleet.workers }

    /// True if no worker has load of this router.
    var isIdle: Bool { workers.allSatisfy { $0.load.running == 0 && $0.load.waitingBytes == 0 } }

    func metric(_ name: String) async throws -> String? {
        try await send("/metrics", method: .GET).body.split(separator: "\n")
            .first { $0.hasPrefix("braid_router_\(name)") }.map { String($0.split(separator: " ").last!) }
    }
}
