import Hummingbird
import Inference
import NIOCore
import ServerTesting
import Serving
import Synchronization
import TestSupport
import Testing

/// Tests that need a network: connections that break, are slow, stay open or are shut down.
@Suite(.timeLimit(.minutes(15))) struct LiveTests {
    private static let chat = #"{"model":"toy","messages":[{"role":"user","content":"hi"}],"#
    private static let long = String(repeating: "x", count: 4000)

    /// Runs `body` with the port of a running server.
    private static func live(_ server: ToyServer, _ body: @Sendable (Int) async throws -> Void) async throws {
        try await server.application.listening(body)
    }

    @Test(arguments: [true, false])
    func `a client that hangs up before the first token aborts its generations`(_ streams: Bool) async throws {
        let server = ToyServer(Self.long)
        server.engine.isHolding = true
        try await Self.live(server) { port in
            try await RawConnection.open(port: port) { connection in
                try await connection.post("/v1/chat/completions", Self.chat + #""n":2,"stream":\#(streams)}"#)
                #expect(await eventually { server.engine.runningCount == 2 })
            }
            #expect(await eventually { server.engine.abortedCount == 2 })
            #expect(server.engine.status().usedPages == 0)
        }
    }

    @Test func `a client that hangs up in the middle of a stream aborts its generation`() async throws {
        let server = ToyServer { _ in
            ToyTokenizer.tokens(Self.long)
        }
        try await Self.live(server) { port in
            try await RawConnection.open(port: port) { connection in
                try await connection.post("/v1/chat/completions", Self.chat + #""stream":true}"#)
                _ = await connection.receive(until: #""content": "x""#)
                server.engine.isHolding = true
                #expect(server.engine.runningCount + server.engine.finishedCount == 1)
            }
            #expect(await eventually { server.engine.runningCount == 0 })
        }
    }

    @Test func `a hang-up is counted as an abort`() async throws {
        let server = ToyServer(Self.long)
        server.engine.isHolding = true
        try await Self.live(server) { port in
            try await RawConnection.open(port: port) { connection in
                try await connection.post("/generate", #"{"text":"a"}"#)
                #expect(await eventually { server.engine.runningCount == 1 })
            }
            #expect(await eventually { server.engine.abortedCount == 1 })
            // The engine notices before the counter does.
            let expected = #"braid_aborted_requests_total{model_name="toy"} 1"#
            for attempt in 1...200 {
                let page = Mutex("")
                try await RawConnection.open(port: port) { connection in
                    try await connection.send(
                        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    let text = await connection.receive()
                    page.withLock { $0 = text }
                }
                let text = page.withLock { $0 }
                if text.contains(expected) { break }
                #expect(attempt < 200, "\(text)")
                try await Task.sleep(for: .milliseconds(10))
            }
        }
    }

    @Test func `a connection stays open for further requests, also after errors and generations`() async throws {
        let server = ToyServer("abc")
        try await Self.live(server) { port in
            try await RawConnection.open(port: port) { connection in
                for (body, expected) in [
                    (#"{"text":"a"}"#, "200 OK"), ("{", "400 Bad Request"), (#"{"text":"a"}"#, "200 OK"),
                ] {
                    try await connection.post("/generate", body)
                    let reply = await connection.receive(until: "}")
                    #expect(reply.hasPrefix("HTTP/1.1 \(expected)"))
                }
                try await connection.post("/generate", #"{"text":"a","stream":true}"#)
                #expect(await connection.receive(until: "[DONE]").contains(#""text": "abc""#))
            }
        }
    }

    @Test func `a client that expects status 100 before it sends its body gets it`() async throws {
        try await Self.live(ToyServer("abc")) { port in
            try await RawConnection.open(port: port) { connection in
                let body = #"{"text":"a"}"#
                let head = "POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: \(body.utf8.count)\r\n"
                for _ in 0..<2 {
                    try await connection.send(head + "Expect: 100-continue\r\n\r\n")
                    #expect(await connection.receive(until: "\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n")
                    try await connection.send(body)
                    #expect(await connection.receive(until: "}}").hasPrefix("HTTP/1.1 200 OK"))
                }
            }
        }
    }

    @Test func `a body that does not arrive in time is a 408`() async throws {
        var server = ToyServer("abc")
        server.configuration.bodyTimeout = .milliseconds(100)
        try await Self.live(server) { port in
            try await RawConnection.open(port: port) { connection in
                try await connection.send("POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
                #expect(await connection.receive(until: "timeout").hasPrefix("HTTP/1.1 408"))
            }
        }
    }

    @Test func `a header that arrives too slowly ends the connection`() async throws {
        var server = ToyServer("abc")
        server.configuration.idleTimeout = .seconds(1)
        try await Self.live(server) { port in
            try await RawConnection.open(port: port) { connection in
                try await connection.send("POST /generate HTTP/1.1\r\nHost: t")
                #expect(await connection.receive() == "")
                #expect(connection.isOver)
            }
        }
    }

    @Test func `a header over the limit is refused and the connection closed`() async throws {
        let server = ToyServer("abc")
        try await Self.live(server) { port in
            try await RawConnection.open(port: port) { connection in
                let field = String(repeating: "x", count: 20_000)
                try await connection.send("GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: \(field)\r\n\r\n")
                #expect(await connection.receive(until: "invalid_http").hasPrefix("HTTP/1.1 431"))
            }
        }
    }

    @Test func `a chunked body over the limit is refused while it arrives`() async throws {
        var server = ToyServer("abc")
        server.configuration.maxBodyBytes = 2048
        try await Self.live(server) { port in
            try await RawConnection.open(port: port) { connection in
                try await connection.send(
                    "POST /generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
                for _ in 0..<3 {
                    try await connection.send("400\r\n\(String(repeating: "x", count: 1024))\r\n")
                }
                #expect(await connection.receive(until: "request_too_large").hasPrefix("HTTP/1.1 413"))
            }
        }
    }

    @Test func `a client that does not read its stream is disconnected`() async throws {
        // Every event holds the whole text so far, so the stream exceeds the connection's buffers.
        var server = ToyServer { _ in ToyTokenizer.tokens(Self.long) }
        server.engine.holdsAfter = 3999
        server.configuration.writeTimeout = .milliseconds(200)
        try await Self.live(server) { [server] port in
            try await RawConnection.open(port: port, isDeaf: true) { connection in
                try await connection.post(
                    "/generate", #"{"text":"a","stream":true,"sampling_params":{"max_new_tokens":4000}}"#)
                #expect(await eventually { server.engine.abortedCount == 1 })
                connection.startListening()
                let reply = await connection.receive()
                #expect(connection.isOver)
                #expect(!reply.contains("[DONE]"))
            }
        }
    }

    @Test func `a client that does not read whole answers is disconnected`() async throws {
        // The ids of each text take 6 MiB, so that several answers are more than the buffers of a connection hold.
        let body = #"{"prompt":"\#(String(repeating: "word ", count: 1 << 18))"}"#
        var server = ToyServer("x")
        server.configuration.writeTimeout = .milliseconds(200)
        try await Self.live(server) { port in
            try await RawConnection.open(port: port, isDeaf: true) { connection in
                // A connection that the server has closed takes no more requests.
                func isClosed(to request: String) async -> Bool {
                    do { try await connection.post("/tokenize", request) } catch { return true }
                    return false
                }
                var isDisconnected = false
                for _ in 0..<4 where !isDisconnected { isDisconnected = await isClosed(to: body) }
                for _ in 0..<2000 where !isDisconnected {
                    try await Task.sleep(for: .milliseconds(50))
                    isDisconnected = await isClosed(to: "{}")
                }
                #expect(isDisconnected)
            }
        }
    }

    // MARK: - Shutting down

    /// Runs a server as the command does, with stops instead of signals.
    ///
    /// - Parameter end: the expected outcome.
    private static func serving(
        _ server: ToyServer, end: ServerEnd = .drained,
        _ body: @Sendable (Int, AsyncStream<Void>.Continuation) async throws -> Void
    ) async throws {
        var configuration = server.configuration
        configuration.port = 0
        let (stops, stop) = AsyncStream.makeStream(of: Void.self)
        let (ports, port) = AsyncStream.makeStream(of: Int.self)
        let application = buildApplication(configuration: configuration, slot: server.slot) { port.yield($0) }
        try await withThrowingTaskGroup(of: Void.self) { [configuration] group in
            group.addTask {
                let found = try await serve(application, configuration, server.slot, stops: stops)
                #expect(found == end)
            }
            var iterator = ports.makeAsyncIterator()
            try await body(try #require(await iterator.next()), stop)
            // The server must now end without another stop.
            try await group.waitForAll()
        }
    }

    @Test func `a stop lets running requests end and refuses new ones`() async throws {
        let server = ToyServer("abc")
        server.engine.isHolding = true
        try await Self.serving(server) { port, stop in
            try await RawConnection.open(port: port) { running in
                try await running.post("/generate", #"{"text":"a"}"#)
                #expect(await eventually { server.engine.runningCount == 1 })
                stop.yield()
                #expect(await eventually { server.engine.status().isDraining })
                try await RawConnection.open(port: port) { late in
                    try await late.post("/generate", #"{"text":"a"}"#)
                    #expect(await late.receive(until: "shutting_down").hasPrefix("HTTP/1.1 503"))
                }
                server.engine.isHolding = false
                #expect(await running.receive(until: "}}").contains(#""text": "abc""#))
            }
        }
        #expect(server.engine.finishedCount == 1)
        #expect(server.engine.abortedCount == 0)
    }

    @Test func `a second stop ends everything at once, and clients get an error`() async throws {
        let server = ToyServer("abc")
        server.engine.isHolding = true
        let reason = "the server was told to stop a second time"
        try await Self.serving(server, end: .cutShort(reason)) { port, stop in
            try await RawConnection.open(port: port) { running in
                try await running.post("/generate", #"{"text":"a","stream":true}"#)
                #expect(await eventually { server.engine.runningCount == 1 })
                stop.yield()
                #expect(await eventually { server.engine.status().isDraining })
                stop.yield()
                #expect(await eventually { server.engine.abortedCount == 1 })
                #expect(await running.receive().contains(reason), "the stream ends with an error event")
            }
        }
    }

    @Test func `a drain ends after its timeout, and streams end with an error`() async throws {
        var server = ToyServer("abc")
        server.configuration.drainTimeout = .milliseconds(100)
        server.engine.isHolding = true
        let reason = "the server stops, and its time to drain is over (--drain-timeout)"
        try await Self.serving(server, end: .cutShort(reason)) { [server] port, stop in
            try await RawConnection.open(port: port) { running in
                try await running.post("/v1/chat/completions", Self.chat + #""stream":true}"#)
                #expect(await eventually { server.engine.runningCount == 1 })
                stop.yield()
                #expect(await eventually { server.engine.abortedCount == 1 })
                #expect(await running.receive().contains(reason), "the stream ends with an error event")
            }
        }
    }

    @Test func `an idle server stops at once`() async throws {
        try await Self.serving(ToyServer("abc")) { _, stop in stop.yield() }
    }

    @Test func `a port in use is an error, not a hang`() async throws {
        try await Self.serving(ToyServer("abc")) { port, stop in
            var second = ToyServer("abc")
            second.configuration.port = port
            let (stops, _) = AsyncStream.makeStream(of: Void.self)
            await #expect(throws: (any Error).self) {
                try await serve(second.application, second.configuration, second.slot, stops: stops)
            }
            stop.yield()
        }
    }
}
