import NIOCore
import NIOHTTP1
import Routing
import TestSupport
import Testing

/// Workers that refuse, fail, are full, or come and go.
@Suite(.timeLimit(.minutes(15))) struct `A router before workers that fail` {
    private static let loading = ToyWorker.Answer.json(
        #"{"error":{"code":"loading"}}"#, status: "503 Service Unavailable")
    private static let full = ToyWorker.Answer.json(
        #"{"error":{"code":"rate_limit_exceeded"}}"#, status: "429 Too Many Requests", headers: "Retry-After: 7\r\n")

    /// A router that notices silence within a few seconds, and has time for the checks of a worker that answers.
    private static let impatient = RouterClient.configuration { configuration in
        configuration.checkTimeout = .seconds(1)
        configuration.silenceLimit = .seconds(2)
    }

    @Test func `sends a request that one refuses to another one`() async throws {
        for answer in [Self.loading, Self.full, ToyWorker.Answer(bytes: "", end: .breaksOff)] {
            let bad = try await ToyWorker { _ in answer }
            let good = try await ToyWorker { _ in .json(#"{"text":"good"}"#) }
            try await RouterClient.run([bad, good]) { router async throws in
                for _ in 0..<4 {
                    #expect(try await router.send("/generate", #"{"text":"a"}"#).body == #"{"text":"good"}"#)
                }
                #expect(!bad.requests.isEmpty && good.requests.count == 4)
                #expect(await eventually { router.isIdle })
            }
        }
    }

    @Test func `sends the requests of a worker that is killed to the others`() async throws {
        let workers = [
            try await ToyWorker { _ in ToyWorker.Answer(bytes: "", end: .stays) },
            try await ToyWorker { _ in .json(#"{"text":"good"}"#) },
        ]
        try await RouterClient.run(workers) { router async throws in
            try await withThrowingTaskGroup(of: RouterClient.Reply.self) { asking in
                for _ in 0..<8 { asking.addTask { try await router.send("/generate", #"{"text":"a"}"#) } }
                #expect(await eventually { workers[0].openCount == 4 })
                try await workers[0].kill()
                for try await reply in asking { #expect(reply.body == #"{"text":"good"}"#) }
            }
            #expect(workers[1].requests.count == 8)
            #expect(await eventually { router.workers[0].health.state == .unreachable && router.isIdle })
            // Nothing is sent to it any more.
            #expect(try await router.send("/generate", "{}").status == 200)
            #expect(workers[0].requests.count == 4)
        }
    }

    @Test func `lets a request that ends connections do so twice, and no third time`() async throws {
        let workers = try await [0, 1, 2, 3].asyncMap { _ in
            try await ToyWorker { _ in ToyWorker.Answer(bytes: "", end: .breaksOff) }
        }
        try await RouterClient.run(workers, RouterClient.configuration { $0.maxRetries = 10 }) { router async throws in
            let reply = try await router.send("/generate", #"{"text":"a"}"#)
            #expect(reply.status == 503 && reply.code == "no_worker_available")
            #expect(workers.map(\.requests.count).reduce(0, +) == 2)
        }
    }

    @Test func `says 503 and when to ask again if all are full`() async throws {
        let workers = try await [0, 1].asyncMap { _ in try await ToyWorker { _ in Self.full } }
        try await RouterClient.run(workers) { router async throws in
            let reply = try await router.send("/v1/completions", #"{"prompt":"a"}"#)
            #expect(reply.status == 503 && reply.headers["retry-after"] == ["7"])
            #expect(workers.allSatisfy { $0.requests.count == 1 })
            #expect(router.workers.allSatisfy { $0.breaker.state(at: .now) == .closed }, "full is no failure")
        }
    }

    @Test func `sends nothing to a worker that loads, and says so if there is no other one`() async throws {
        let worker = try await ToyWorker { _ in .json("{}") }
        worker.setReady(Self.loading)
        try await RouterClient.run([worker]) { router async throws in
            #expect(try await router.send("/ready", method: .GET).status == 503)
            let reply = try await router.send("/generate", #"{"text":"a"}"#)
            #expect(reply.status == 503 && reply.headers["retry-after"] == ["1"] && worker.requests.isEmpty)
            worker.setReady(.json(#"{"status":"ready"}"#))
            #expect(await eventually { router.workers[0].health.state == .ready })
            #expect(try await router.send("/ready", method: .GET).status == 200)
            #expect(try await router.send("/generate", #"{"text":"a"}"#).status == 200)
        }
    }

    @Test func `leaves no request with a worker that gives no sign of life`() async throws {
        let worker = try await ToyWorker { _ in .stream("data: one\n\n") }
        try await RouterClient.run([worker], Self.impatient) { router async throws in
            let exchange = try await router.open("/generate", #"{"text":"a"}"#)
            worker.setReady(ToyWorker.Answer(bytes: "", end: .stays))
            // Where the checks before have taken too long already, the request was refused.
            let reply = try? await RouterClient.rest(of: exchange)
            #expect(reply == nil || reply?.status == 503)
            #expect(await eventually { worker.openCount == 0 && router.isIdle })
            #expect(await eventually { router.workers[0].health.reason?.contains("no answer within") == true })
        }
    }

    @Test func `lets no request wait for a removed worker that gives no sign of life`() async throws {
        let worker = try await ToyWorker { _ in .stream("data: one\n\n") }
        try await RouterClient.run([worker], Self.impatient) { router async throws in
            let exchange = try await router.open("/generate", #"{"text":"a"}"#)
            #expect(await eventually { worker.requests.count == 1 })
            #expect(router.service.fleet.remove(worker.address))
            worker.setReady(ToyWorker.Answer(bytes: "", end: .stays))
            _ = try? await RouterClient.rest(of: exchange)
            #expect(await eventually { worker.openCount == 0 })
        }
    }

    @Test(arguments: [": wait\n\n", ":\n:\n\n: ", "\r\n"])
    func `sends a stream that has only comments to another worker when its own is lost`(opening: String) async throws {
        let lost = try await ToyWorker { _ in .stream(opening, .breaksOff) }
        let stream = ToyWorker.Answer.stream("data: good\n\n").bytes + ToyWorker.Answer.lastChunk
        let good = try await ToyWorker { _ in ToyWorker.Answer(bytes: stream) }
        try await RouterClient.run([lost, good]) { router async throws in
            var bodies: Set<String> = []
            for _ in 0..<4 {
                let reply = try await router.send("/generate", #"{"text":"a","stream":true}"#)
                #expect(reply.status == 200)
                bodies.insert(reply.body)
            }
            let separated = opening.hasSuffix(" ") ? opening + "\n" : opening
            #expect(bodies.isSubset(of: ["data: good\n\n", separated + "data: good\n\n"]))
            #expect(bodies.contains(separated + "data: good\n\n") && !lost.requests.isEmpty)
            #expect(await eventually { router.isIdle })
            #expect(try await router.metric("broken_streams_total") == "0")
        }
    }

    @Test(arguments: ["data: one\n\n", ": wait\n\ndata: o", "event"])
    func `sends no stream that has an event to another worker`(opening: String) async throws {
        let lost = try await ToyWorker { _ in .stream(opening, .breaksOff) }
        try await RouterClient.run([lost]) { router async throws in
            let other = try await ToyWorker { _ in .stream("data: good\n\n", .breaksOff) }
            try router.service.fleet.add(other.address, .regular)
            await #expect(throws: UpstreamError.self) { try await router.send("/generate", #"{"text":"a"}"#) }
            #expect(other.requests.isEmpty)
        }
    }

    @Test func `says in the system's words why there is no connection`() async throws {
        let worker = try await ToyWorker { _ in .json("{}") }
        let address = worker.address
        try await worker.kill()
        let error = await #expect(throws: UpstreamError.self) {
            try await UpstreamExchange.open(
                to: address, HTTPRequestHead(version: .http1_1, method: .GET, uri: "/"), ByteBuffer(),
                connectTimeout: .seconds(60))
        }
        #expect(error.map { "\($0)" } == "no connection: Connection refused")
    }

    @Test func `lets so many requests through at a time, lets others wait in order, and refuses the rest`() async throws
    {
        let worker = try await ToyWorker { _ in ToyWorker.Answer(bytes: "", end: .stays) }
        try await RouterClient.run(
            [worker], RouterClient.configuration { ($0.maxConcurrentRequests, $0.queueSize) = (1, 1) }
        ) { router async throws in
            let first = try await router.open("/generate", #"{"text":"1"}"#)
            #expect(await eventually { worker.openCount == 1 })
            let second = try await router.open("/generate", #"{"text":"2"}"#)
            while try await router.metric("queued_requests") != "1" { await Task.yield() }
            let third = try await router.send("/generate", #"{"text":"3"}"#)
            #expect(third.status == 429 && third.headers["retry-after"] == ["1"])
            worker.send(ToyWorker.Answer.json("{}").bytes)
            #expect(try await RouterClient.rest(of: first).status == 200)
            #expect(await eventually { worker.requests.count == 2 && worker.openCount == 1 })
            worker.send(ToyWorker.Answer.json("{}").bytes)
            #expect(try await RouterClient.rest(of: second).status == 200)
            #expect(try await router.metric("queued_requests") == "0")
        }
    }

    @Test func `refuses a request that waits too long`() async throws {
        let worker = try await ToyWorker { _ in ToyWorker.Answer(bytes: "", end: .stays) }
        let configuration = RouterClient.configuration { configuration in
            (configuration.maxConcurrentRequests, configuration.queueTimeout) = (1, .milliseconds(300))
        }
        try await RouterClient.run([worker], configuration) { router async throws in
            let first = try await router.open("/generate", #"{"text":"1"}"#)
            #expect(await eventually { worker.openCount == 1 })
            let late = try await router.send("/generate", #"{"text":"2"}"#)
            #expect(late.status == 503 && late.headers["retry-after"] == ["1"])
            #expect(try await router.metric("queued_requests") == "0")
            first.close()
            #expect(await eventually { worker.openCount == 0 && router.isIdle })
            #expect(worker.requests.count == 1)
        }
    }

    @Test func `gives up the place of a waiting request whose client hangs up`() async throws {
        let worker = try await ToyWorker { _ in ToyWorker.Answer(bytes: "", end: .stays) }
        let configuration = RouterClient.configuration { $0.maxConcurrentRequests = 1 }
        try await RouterClient.run([worker], configuration) { router async throws in
            let first = try await router.open("/generate", #"{"text":"1"}"#)
            #expect(await eventually { worker.openCount == 1 })
            let second = try await router.open("/generate", #"{"text":"2"}"#)
            while try await router.metric("queued_requests") != "1" { await Task.yield() }
            second.close()
            while try await router.metric("queued_requests") != "0" { await Task.yield() }
            first.close()
            #expect(await eventually { worker.openCount == 0 && router.isIdle })
            #expect(worker.requests.count == 1)
        }
    }
}

extension Sequence {
    func asyncMap<Mapped>(_ map: (Element) async throws -> Mapped) async rethrows -> [Mapped] {
        var mapped: [Mapped] = []
        for element in self { mapped.append(try await map(element)) }
        return mapped
    }
}
