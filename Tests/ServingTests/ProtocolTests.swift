import Foundation
import HTTPTypes
import Hummingbird
import Inference
import JSON
import NIOCore
import ServerTesting
import Serving
import TestSupport
import Testing

/// Tests of invalid requests and unusual connections, byte by byte.
@Suite(.timeLimit(.minutes(15))) struct ProtocolTests {
    private static func live(_ server: ToyServer, _ body: @Sendable (Int) async throws -> Void) async throws {
        try await server.application.listening(body)
    }

    /// Returns everything that a server sends after `request` until it closes the connection.
    private static func answer(_ server: ToyServer, _ request: String) async throws -> String {
        let heard = Heard()
        try await live(server) { port in
            try await RawConnection.open(port: port) { connection in
                try await connection.send(request)
                await heard.set(connection.receive())
            }
        }
        return await heard.text
    }

    private actor Heard {
        var text = ""
        func set(_ text: String) { self.text = text }
    }

    @Test(arguments: [
        "HEAD /nope", "HEAD /v1/completions", "HEAD /health", "HEAD /metrics", "HEAD /v1/models/nope", "HEAD /ready",
    ])
    func `an answer to HEAD has no body`(line: String) async throws {
        var server = ToyServer("x")
        for key in [nil, "secret"] {
            server.configuration.apiKeys = [key].compactMap(\.self)
            let text = try await Self.answer(server, "\(line) HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            #expect(text.hasPrefix("HTTP/1.1 ") && text.hasSuffix("\r\n\r\n"), "\(text)")
            #expect(text.components(separatedBy: "\r\n\r\n").count == 2)
        }
    }

    @Test(arguments: [
        ("", 400), ("Host: a\r\nHost: b\r\n", 400), ("Host: a\r\nno field\r\n", 400),
        ("Host: a\r\nx: \(String(repeating: "x", count: 20_000))\r\n", 431),
    ])
    func `the refusal of a HEAD by its header has no body`(fields: String, status: Int) async throws {
        for method in ["HEAD", "GET"] {
            let text = try await Self.answer(ToyServer("x"), "\(method) /health HTTP/1.1\r\n\(fields)\r\n")
            #expect(text.hasPrefix("HTTP/1.1 \(status) "), "\(text)")
            let parts = text.components(separatedBy: "\r\n\r\n")
            #expect(parts.count == 2 && parts.last?.isEmpty == (method == "HEAD"), "\(text)")
        }
    }

    @Test(arguments: [
        #"{"text":"a"}"#, #"{"text":"a"#,
    ])
    func `a client that closes its sending side has hung up, and gets no status 500`(body: String) async throws {
        let server = ToyServer("x")
        server.engine.isHolding = true
        try await Self.live(server) { port in
            try await RawConnection.open(port: port) { connection in
                try await connection.send(
                    "POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n"
                        + body.padding(toLength: body.hasSuffix("}") ? 20 : 8, withPad: " ", startingAt: 0))
                if body.utf8.count <= 20, body.hasSuffix("}") {
                    #expect(await eventually { server.engine.runningCount == 1 })
                }
                connection.finishSending()
                let text = await connection.receive()
                #expect(
                    !text.contains("HTTP/1.1 5") && !text.contains("HTTP/1.1 200 OK\r\nContent-Type: application/json"))
                #expect(await eventually { connection.isOver })
            }
            #expect(await eventually { server.engine.runningCount == 0 })
        }
    }

    @Test func `an object of very many members is refused at once`() async throws {
        let members = (0..<300_000).map { "\"k\($0)\":0" }.joined(separator: ",")
        let reply = try await ToyServer("x").post("/generate", "{\(members)}")
        #expect(reply.status == 400 && reply.message.contains("more than 65536 members"), "\(reply.message)")
    }

    @Test(arguments: [
        ("POST /generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n", "400"),
        ("POST /generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "400"),
        (
            "POST /generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
            "400"
        ),
        ("POST /generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", "400"),
        ("POST /generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n", "400"),
        ("POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9223372036854775808\r\n\r\n", "400"),
        ("POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", "400"),
        ("GET /health HTTP/1.1\r\n\r\n", "400"), ("GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET /health HTTP/1.1\r\nHost: localhost\r\nX: \(String(repeating: "x", count: 40_000))\r\n\r\n", "431"),
        ("nonsense\r\n\r\n", "400"),
    ])
    func `invalid HTTP is refused with a body that gives the reason`(request: String, status: String) async throws {
        let text = try await Self.answer(ToyServer("x"), request)
        #expect(text.hasPrefix("HTTP/1.1 \(status) "), "\(text.prefix(200))")
        #expect(text.contains(#""code": "invalid_http""#) && text.lowercased().contains("connection: close"))
        #expect(text.components(separatedBy: "HTTP/1.1 ").count == 2 || text.contains("no HTTP/1.1"))
    }

    @Test(arguments: ["/v1/completions", "/health"]) func `a client of HTTP 1_0 gets no chunks and the connection ends`(
        path: String
    ) async throws {
        let body = #"{"model":"toy","prompt":"hi","stream":true}"#
        let request =
            path == "/health"
            ? "GET /health HTTP/1.0\r\n\r\n"
            : "POST \(path) HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
        let text = try await Self.answer(ToyServer("abc"), request)
        #expect(text.hasPrefix("HTTP/1.0 200"), "\(text)")
        #expect(!text.lowercased().contains("transfer-encoding"))
        #expect(path == "/health" ? text.hasSuffix("}") : text.hasSuffix("data: [DONE]\n\n"))
    }

    @Test func `a client of HTTP 1_0 gets no status 100, whatever it expects`() async throws {
        let body = #"{"text":"a"}"#
        let text = try await Self.answer(
            ToyServer("abc"),
            "POST /generate HTTP/1.0\r\nExpect: 100-continue\r\nConnection: keep-alive\r\n"
                + "Content-Length: \(body.utf8.count)\r\n\r\n\(body)")
        #expect(text.hasPrefix("HTTP/1.0 200 OK\r\n") && text.lowercased().contains("connection: close"), "\(text)")
        #expect(text.contains(#""text": "abc""#) && !text.contains("100 Continue"))
    }

    @Test(arguments: [
        "5 \r\nhello\r\n0\r\n\r\n", " 5\r\nhello\r\n0\r\n\r\n", "5\t\r\nhello\r\n0\r\n\r\n",
        "5 ;a=b\r\nhello\r\n0\r\n\r\n", "5\nhello\n0\n\n", "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n0 \r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "+5\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff5\r\nhello\r\n0\r\n\r\n", "5\r\nhelloworld\r\n0\r\n\r\n",
    ])
    func `a chunk whose size others may read differently is refused, and what follows is not read`(
        chunks: String
    ) async throws {
        let server = ToyServer("x")
        let text = try await Self.answer(
            server,
            "POST /generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\(chunks)"
                + "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        #expect(text.hasPrefix("HTTP/1.1 400 ") && text.contains("invalid_http"), "\(text)")
        #expect(text.components(separatedBy: "HTTP/1.1 ").count == 2, "one answer: \(text)")
        #expect(server.engine.received.isEmpty)
    }

    private static let chunkedRequest =
        "POST /generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"

    @Test(arguments: [
        ("5;a=", "x", 400), ("1;", "a;", 400), ("1\r\n{\r\n1;a=\"", "x", 400),
        ("1\r\n{\r\n0\r\nA: ", "x", 431), ("1\r\n{\r\n0\r\n", "A: b\r\n", 431),
    ])
    func `extensions and trailers of a chunked body are refused when they are longer than a header may be`(
        start: String, repeated: String, status: Int
    ) async throws {
        let server = ToyServer("x")
        try await Self.live(server) { port in
            try await RawConnection.open(port: port) { connection in
                try await connection.send(Self.chunkedRequest + start)
                // More than one read may bring with the header, and no end: without a bound the server would wait for it.
                let rest = String(repeating: repeated, count: 256 << 10)
                for _ in 0..<8 { try await connection.send(rest) }
                let text = await connection.receive()
                #expect(text.hasPrefix("HTTP/1.1 \(status) ") && text.contains("invalid_http"), "\(text)")
                #expect(text.components(separatedBy: "HTTP/1.1 ").count == 2, "one answer: \(text)")
            }
        }
        #expect(server.engine.received.isEmpty)
    }

    @Test func `a body in chunks of one byte is read, and so are short extensions`() async throws {
        let body = #"{"text":"a"}"# + String(repeating: " ", count: 20_000)
        let chunks = body.map { "1\r\n\($0)\r\n" }.joined()
        let server = ToyServer("abc")
        try await Self.live(server) { port in
            try await RawConnection.open(port: port) { connection in
                try await connection.send(Self.chunkedRequest + "1;name=value;other\r\n \r\n")
                try await connection.send(chunks + "0\r\nA: b\r\n\r\n")
                #expect(await connection.receive(until: "}}").contains(#""text": "abc""#))
            }
        }
    }

    @Test(arguments: [
        ("http://localhost/health", "localhost", 200), ("HTTP://localhost:80/health?x=/y", "evil.example", 200),
        ("http://127.0.0.1/health", "", 200), ("https://localhost/health", "localhost", 200),
        ("http://evil.example/health", "localhost", 403), ("http://localhost.evil.example/health", "localhost", 403),
        ("http://localhost", "localhost", 200), ("http://localhost?x=1", "localhost", 200),
        ("http://localhost@evil.example/health", "localhost", 400), ("http:///health", "localhost", 400),
        ("ftp://localhost/health", "localhost", 400),
    ])
    func `a target that names a server is its path, and the host in it counts`(
        target: String, host: String, status: Int
    ) async throws {
        for version in ["1.1", "1.0"] {
            let text = try await Self.answer(
                ToyServer("x"), "GET \(target) HTTP/\(version)\r\nHost: \(host)\r\nConnection: close\r\n\r\n")
            #expect(text.prefix { $0 != "\r\n" }.contains(" \(status) "), "\(text.prefix(300))")
            if status == 200, target.contains("/health") { #expect(text.hasSuffix(#"{"status": "ok"}"#)) }
        }
        let withoutHost = try await Self.answer(ToyServer("x"), "GET \(target) HTTP/1.0\r\n\r\n")
        #expect(withoutHost.prefix { $0 != "\r\n" }.contains(" \(status) "), "\(withoutHost.prefix(300))")
    }

    @Test func `a connection is closed whatever the spelling of the request to do so`() async throws {
        let text = try await Self.answer(
            ToyServer("x"), "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Close\r\n\r\n")
        #expect(text.hasPrefix("HTTP/1.1 200"))
    }

    @Test(arguments: [
        "POST /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999999\r\n\r\n",
        "POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999999\r\n\r\n",
        "POST /generate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 999999999999999\r\n\r\n",
        "POST /nope HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
    ])
    func `the rest of a refused request is discarded for a limited time`(request: String) async throws {
        let server = ToyServer("x")
        try await Self.live(server) { port in
            try await RawConnection.open(port: port) { connection in
                try await connection.send(request)
                let answer = await connection.receive(until: "}")
                #expect(answer.contains("HTTP/1.1 4"))
                // Single bytes must not keep the connection open.
                for _ in 0..<100 {
                    do { try await connection.send("x") } catch { break }
                    try await Task.sleep(for: .milliseconds(50))
                }
                _ = await connection.receive()
                #expect(connection.isOver)
            }
        }
    }

    @Test func `a body that will be refused gets no status 100`() async throws {
        let text = try await Self.answer(
            ToyServer("x"),
            "POST /generate HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 99999999999\r\n\r\n"
        )
        #expect(text.hasPrefix("HTTP/1.1 413"), "\(text)")
    }

    @Test(arguments: [
        ("POST /generate", "Content-Length: 14", 401), ("POST /generate", "Transfer-Encoding: chunked", 401),
        ("POST /nope", "Authorization: Bearer key\r\nContent-Length: 14", 404),
        ("POST /health", "Authorization: Bearer key\r\nContent-Length: 14", 405),
        ("POST /generate", "Authorization: Bearer key\r\nContent-Length: 99999999999", 413),
        ("POST /generate", "Authorization: Bearer key\r\nContent-Type: text/plain\r\nContent-Length: 14", 415),
    ])
    func `a request that is refused by its header gets its answer in place of status 100, and the connection ends`(
        line: String, fields: String, status: Int
    ) async throws {
        var server = ToyServer("x")
        server.configuration.apiKeys = ["key"]
        // The client sends no body: an answer that waits for it would not come, nor would the end of the connection.
        let text = try await Self.answer(
            server, "\(line) HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\(fields)\r\n\r\n")
        #expect(text.hasPrefix("HTTP/1.1 \(status) ") && text.hasSuffix("}"), "\(text)")
        #expect(text.lowercased().contains("connection: close"), "\(text)")
        #expect(text.components(separatedBy: "HTTP/1.1 ").count == 2, "one answer: \(text)")
    }

    @Test func `a client that has sent its body gets no status 100`() async throws {
        let body = #"{"text":"a"}"#
        let text = try await Self.answer(
            ToyServer("abc"),
            "POST /generate HTTP/1.1\r\nHost: localhost\r\nExpect: 100-Continue\r\nConnection: close\r\n"
                + "Content-Length: \(body.utf8.count)\r\n\r\n\(body)")
        #expect(text.hasPrefix("HTTP/1.1 200 OK\r\n") && text.contains(#""text": "abc""#), "\(text)")
    }

    @Test func `idle connections are closed for new ones`() async throws {
        var server = ToyServer("x")
        server.configuration.maxConnections = 8
        server.configuration.maxConnectionsPerAddress = 8
        try await Self.live(server) { port in
            try await Self.nested(20, port: port) {
                let health = try await Self.get("/health", port)
                #expect(health.hasPrefix("HTTP/1.1 200"))
            }
        }
    }

    @Test func `a slow reader does not lose the rest of an answer to new connections`() async throws {
        // The ids of the text take 6 MiB, more than the buffers of a connection hold.
        let body = #"{"prompt":"\#(String(repeating: "word ", count: 1 << 18))"}"#
        var server = ToyServer("x")
        server.configuration.maxConnections = 8
        server.configuration.maxConnectionsPerAddress = 8
        try await Self.live(server) { port in
            try await RawConnection.open(port: port, isDeaf: true) { connection in
                try await connection.post("/tokenize", body)
                let isAnswered = await eventually {
                    (try? await Self.get("/metrics", port))?.contains(#"route="/tokenize",status="200"} 1"#) == true
                }
                #expect(isAnswered)
                try await Self.nested(20, port: port) {}
                connection.startListening()
                let answer = await connection.receive(until: "]}")
                let head = try #require(answer.range(of: "\r\n\r\n"))
                let length = try #require(answer.firstMatch(of: /(?i)content-length: ([0-9]+)/)?.1)
                #expect(answer[head.upperBound...].utf8.count == Int(length))
            }
        }
    }

    /// Opens connections without requests, then runs `body`.
    private static func nested(
        _ count: Int, port: Int, _ body: @escaping @Sendable () async throws -> Void
    ) async throws {
        if count == 0 { return try await body() }
        try await RawConnection.open(port: port) { _ in try await nested(count - 1, port: port, body) }
    }

    private static func get(_ path: String, _ port: Int) async throws -> String {
        let heard = Heard()
        try await RawConnection.open(port: port) { connection in
            try await connection.send("GET \(path) HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            await heard.set(connection.receive())
        }
        return await heard.text
    }

    @Test func `a request whose client disconnects is counted with status 499`() async throws {
        let server = ToyServer("x")
        server.engine.isHolding = true
        try await Self.live(server) { port in
            try await RawConnection.open(port: port) { connection in
                try await connection.send(
                    "POST /generate HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n")
                #expect(await connection.receive(until: "100 Continue").contains("100 Continue"))
                try await connection.send("{")
            }
            try await RawConnection.open(port: port) { connection in
                try await connection.post("/v1/completions", #"{"model":"toy","prompt":"a"}"#)
                #expect(await eventually { server.engine.runningCount == 1 })
            }
            #expect(await eventually { server.engine.abortedCount == 1 })
            let page = Heard()
            for _ in 0..<200 {
                try await RawConnection.open(port: port) { connection in
                    try await connection.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    await page.set(connection.receive())
                }
                if await page.text.components(separatedBy: #"status="499""#).count == 3 { break }
                try await Task.sleep(for: .milliseconds(10))
            }
            let text = await page.text
            #expect(text.contains(#"route="/generate",status="499"} 1"#), "\(text)")
            #expect(text.contains(#"route="/v1/completions",status="499"} 1"#))
            #expect(!text.contains(#"status="500""#) && !text.contains(#"status="503""#))
        }
    }
}

@Suite struct `Pages of other origins` {
    private func origin(_ text: String) -> HTTPFields {
        var fields = HTTPFields()
        fields[.origin] = text
        return fields
    }

    @Test func `change nothing`() async throws {
        let server = ToyServer("x")
        for from in ["http://evil.example", "null", "http://localhost:1"] {
            let reply = try await server.send(.post, "/flush_cache", headers: origin(from))
            #expect(reply.status == 403 && reply.code == "foreign_origin")
            let generate = try await server.send(.post, "/generate", #"{"text":"a"}"#, headers: origin(from))
            #expect(generate.status == 403 && server.engine.received.isEmpty)
        }
        #expect(try await server.send(.get, "/flush_cache").status == 405)
        #expect(try await server.send(.post, "/flush_cache").status == 200)
        var keyed = server
        keyed.configuration.apiKeys = ["k"]
        var fields = origin("http://evil.example")
        fields[.authorization] = "Bearer k"
        #expect(try await keyed.send(.post, "/flush_cache", headers: fields).status == 200)
    }

    @Test func `are the server's own if only the port of Host is missing`() async throws {
        let server = ToyServer("x")
        let name = "http://localhost:\(server.configuration.port)"
        #expect(try await server.send(.post, "/flush_cache", headers: origin(name)).status == 200)
    }

    @Test(arguments: ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
    func `send JSON or nothing`(type: String) async throws {
        var fields = HTTPFields()
        fields[.contentType] = type
        let reply = try await ToyServer("x").send(.post, "/generate", #"{"text":"a"}"#, headers: fields)
        #expect(reply.status == 415 && reply.message.contains("application/json"))
        fields[.contentType] = "application/json; charset=utf-8"
        #expect(try await ToyServer("x").send(.post, "/generate", #"{"text":"a"}"#, headers: fields).status == 200)
        fields[.contentType] = type
        #expect(try await ToyServer("x").send(.post, "/flush_cache", headers: fields).status == 415)
        let unknown = try await ToyServer("x").send(.post, "/v1/files", "x", headers: fields)
        #expect(unknown.status == 404 && unknown.code == "not_found", "\(unknown.text)")
    }

    @Test func `may say application/octet-stream of an empty body, but of no other`() async throws {
        var fields = HTTPFields()
        fields[.contentType] = "application/octet-stream"
        fields[.contentLength] = "0"
        #expect(try await ToyServer("x").send(.post, "/flush_cache", headers: fields).status == 200)
        let body = #"{"text":"a"}"#
        fields[.contentLength] = "\(body.utf8.count)"
        #expect(try await ToyServer("x").send(.post, "/generate", body, headers: fields).status == 415)
        fields[.contentLength] = nil
        #expect(try await ToyServer("x").send(.post, "/flush_cache", headers: fields).status == 415)
    }

    @Test(
        .timeLimit(.minutes(15)),
        arguments: [
            ("localhost", "200"), ("127.0.0.1", "200"), ("[::1]", "200"), ("app.localhost", "200"),
            ("evil.example", "403"), ("127.0.0.1.evil.example", "403"), ("friend.example", "200"),
        ])
    func `may address the server only by its own names`(host: String, status: String) async throws {
        var server = ToyServer("x")
        server.configuration.allowedHosts = ["friend.example"]
        try await server.application.listening { port in
            try await RawConnection.open(port: port) { connection in
                try await connection.send("GET /health HTTP/1.1\r\nHost: \(host):\(port)\r\nConnection: close\r\n\r\n")
                #expect(await connection.receive().hasPrefix("HTTP/1.1 \(status)"))
            }
        }
    }
}
