import NIOCore
import NIOHTTP1
import Routing
import Serving
import Synchronization
import TestSupport
import Testing

/// What a client and a worker see of a router between them.
@Suite(.timeLimit(.minutes(15))) struct `A router` {
    @Test func `sends the client's own bytes, and its headers but those of the connection`() async throws {
        let worker = try await ToyWorker { _ in .json(#"{"text": "hi"}"#, headers: "X-Extra: yes\r\nKeep-Alive: 5\r\n")
        }
        let body = #"{ "prompt":"\u00e9 é",  "temperature":1e0, "unknown":[null], "prompt":"b" }"#
        try await RouterClient.run([worker]) { router async throws in
            let reply = try await router.send(
                "/v1/completions?a=b%20c", body,
                headers: [
                    "X-Custom": "1", "Connection": "keep-alive, X-Secret", "X-Secret": "2", "TE": "trailers",
                    "Authorization": "Bearer k", "Origin": "http://localhost", "X-Request-Id": "id-7",
                ])
            #expect(reply.status == 200 && reply.body == #"{"text": "hi"}"#)
            #expect(reply.headers["x-extra"] == ["yes"] && reply.headers["keep-alive"] == [])
            #expect(reply.headers["x-request-id"] == ["id-7"])
            let sent = try #require(worker.requests.first)
            let head = sent.prefix(sent.count - body.count).lowercased()
            #expect(sent.hasPrefix("POST /v1/completions?a=b%20c HTTP/1.1\r\n") && sent.hasSuffix("\r\n\r\n" + body))
            for field in [
                "x-custom: 1", "authorization: bearer k", "host: \(worker.address.authority)", "x-request-id: id-7",
            ] {
                #expect(head.contains("\r\n\(field)\r\n"), "\(field) is missing in \(head)")
            }
            for field in ["x-secret", "te:", "origin:", "keep-alive"] {
                #expect(!head.contains("\r\n\(field)"), "\(field) has passed")
            }
            #expect(await eventually { router.isIdle })
        }
    }

    @Test func `passes a stream on as it comes`() async throws {
        let worker = try await ToyWorker { _ in .stream("data: one\n\n") }
        try await RouterClient.run([worker]) { router async throws in
            let exchange = try await router.open("/v1/chat/completions", #"{"stream":true}"#)
            try await RouterClient.read(exchange, until: "data: one\n\n")
            #expect(router.workers[0].load.running == 1)
            worker.send(ToyWorker.Answer.chunk("data: two\n\n"))
            try await RouterClient.read(exchange, until: "data: two\n\n")
            worker.send(ToyWorker.Answer.lastChunk)
            #expect(try await RouterClient.rest(of: exchange).body.isEmpty)
            #expect(await eventually { router.isIdle && worker.openCount == 0 })
        }
    }

    @Test(arguments: [true, false])
    func `hangs up on the worker when the client hangs up`(_ hasBegun: Bool) async throws {
        let worker = try await ToyWorker { _ in
            hasBegun ? .stream("data: one\n\n") : ToyWorker.Answer(bytes: "", end: .stays)
        }
        try await RouterClient.run([worker]) { router async throws in
            let exchange = try await router.open("/generate", #"{"text":"a"}"#)
            if hasBegun { try await RouterClient.read(exchange, until: "one") }
            #expect(await eventually { worker.openCount == 1 })
            exchange.close()
            #expect(await eventually { worker.openCount == 0 && router.isIdle })
            #expect(router.workers[0].breaker.state(at: .now) == .closed && worker.requests.count == 1)
        }
    }

    @Test func `hangs up on the client when the worker breaks off, without the end of the answer`() async throws {
        let worker = try await ToyWorker { _ in .stream("data: one\n\n") }
        try await RouterClient.run([worker]) { router async throws in
            let exchange = try await router.open("/generate", #"{"text":"a"}"#)
            try await RouterClient.read(exchange, until: "one")
            try await worker.kill()
            await #expect(throws: UpstreamError.self) { try await RouterClient.rest(of: exchange) }
            #expect(await eventually { router.isIdle })
            #expect(try await router.metric("broken_streams_total") == "1")
        }
    }

    @Test func `lets a worker wait for a client that reads slowly`() async throws {
        // More than the buffers of the system hold for two connections.
        let pieces = 4096
        let worker = try await ToyWorker { _ in
            var answer = ToyWorker.Answer.stream("begin")
            answer.pieces = pieces
            return answer
        }
        try await RouterClient.run([worker]) { router async throws in
            let exchange = try await router.open("/generate", #"{"text":"a"}"#)
            var received = 0
            while received == 0 {
                if case .body(let bytes) = try await exchange.next() { received += bytes.readableBytes }
            }
            // Until nothing has moved for a while. On a slow machine that may be too early, which hides a fault once.
            let before = Mutex((count: -1, same: 0))
            _ = await eventually {
                before.withLock { before in
                    let count = worker.sentPieces
                    before = (count, count == before.count ? before.same + 1 : 0)
                    return before.same > 100
                }
            }
            #expect(worker.sentPieces < pieces, "all 256 MiB are in the router")
            while case .body(let bytes) = try await exchange.next() { received += bytes.readableBytes }
            #expect(received == "begin".utf8.count + pieces * ToyWorker.pieceBytes)
            #expect(await eventually { router.isIdle })
        }
    }

    @Test func `passes answers about the request itself`() async throws {
        let worker = try await ToyWorker { request in
            request.hasSuffix("bad")
                ? .json(#"{"error":{"code":"invalid_json"}}"#, status: "400 Bad Request")
                : .json("odd", status: "503 Service Unavailable")
        }
        let other = try await ToyWorker { _ in .json("{}") }
        other.setReady(.json("", status: "503 Service Unavailable"))
        try await RouterClient.run([worker, other], RouterClient.configuration { $0.pool.policy = .cacheAware }) {
            router in
            let reply = try await router.send("/v1/chat/completions", "{bad")
            #expect(reply.status == 400 && reply.code == "invalid_json")
            let odd = try await router.send("/v1/chat/completions", "{}")
            #expect(odd.status == 503 && odd.body == "odd")
            #expect(worker.requests.count == 2 && other.requests.isEmpty)
        }
    }

    @Test func `bounds bodies, and asks for its key`() async throws {
        let worker = try await ToyWorker { _ in .json("{}") }
        let configuration = RouterClient.configuration { configuration in
            configuration.server.apiKeys = ["outer"]
            configuration.workerKey = "inner"
            configuration.server.maxBodyBytes = 1024
        }
        try await RouterClient.run([worker], configuration) { router async throws in
            #expect(try await router.send("/generate", "{}").status == 401)
            #expect(try await router.send("/generate", "{}", headers: ["authorization": "Bearer inner"]).status == 401)
            let key: HTTPHeaders = ["authorization": "Bearer outer"]
            let large = #"{"text":"\#(String(repeating: "x", count: 2000))"}"#
            #expect(try await router.send("/generate", large, headers: key).status == 413)
            #expect(worker.requests.isEmpty)
            #expect(try await router.send("/generate", "{}", headers: key).status == 200)
            #expect(worker.requests.first?.contains("Bearer inner") == true)
            #expect(worker.requests.first?.contains("outer") == false)
        }
    }

    @Test func `answers no route that it does not know`() async throws {
        let worker = try await ToyWorker { _ in .json("{}") }
        try await RouterClient.run([worker]) { router async throws in
            #expect(try await router.send("/admin", "{}").status == 404)
            #expect(try await router.send("/generate", method: .GET).status == 405)
            #expect(worker.requests.isEmpty)
        }
    }
}
