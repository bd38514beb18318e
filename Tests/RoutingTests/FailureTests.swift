import Routing
import Testing

@Suite struct `Failures of workers` {
    private static let start = ContinuousClock.now
    private static func after(_ seconds: Int) -> ContinuousClock.Instant { start.advanced(by: .seconds(seconds)) }

    @Test func `five failures in a row open a breaker, after five seconds one probe closes it`() {
        var breaker = Breaker(Breaker.Settings())
        for _ in 0..<4 { breaker.fail(at: Self.start) }
        breaker.succeed()
        for _ in 0..<4 { breaker.fail(at: Self.start) }
        #expect(breaker.state(at: Self.start) == .closed)
        breaker.fail(at: Self.start)
        #expect(breaker.state(at: Self.after(4)) == .open && !breaker.admits(at: Self.after(4)))
        #expect(breaker.state(at: Self.after(5)) == .halfOpen && breaker.admits(at: Self.after(5)))
        #expect(breaker.begin(at: Self.after(5)) == true)
        #expect(!breaker.admits(at: Self.after(5)), "a second probe")
        breaker.succeed()
        breaker.release()
        #expect(breaker.state(at: Self.after(5)) == .closed)
    }

    @Test func `a probe that fails opens the breaker again, and one that is given up lets the next one through`() {
        var breaker = Breaker(Breaker.Settings())
        for _ in 0..<5 { breaker.fail(at: Self.start) }
        #expect(breaker.begin(at: Self.after(5)) == true)
        breaker.release()
        #expect(breaker.begin(at: Self.after(6)) == true)
        breaker.fail(at: Self.after(6))
        breaker.release()
        #expect(breaker.state(at: Self.after(10)) == .open && breaker.state(at: Self.after(11)) == .halfOpen)
    }

    @Test func `a breaker may need several probes, or never open`() {
        var settings = Breaker.Settings()
        settings.successThreshold = 2
        var breaker = Breaker(settings)
        for _ in 0..<5 { breaker.fail(at: Self.start) }
        for isLast in [false, true] {
            #expect(breaker.begin(at: Self.after(5)) == true)
            breaker.succeed()
            breaker.release()
            #expect((breaker.state(at: Self.after(5)) == .closed) == isLast)
        }
        settings.failureThreshold = nil
        var never = Breaker(settings)
        for _ in 0..<1000 { never.fail(at: Self.start) }
        #expect(never.admits(at: Self.start))
    }

    @Test func `two missed checks take a worker out, loading and draining are no failures`() {
        var health = WorkerHealth(WorkerHealth.Settings(), now: Self.start)
        #expect(health.state == .unknown)
        health.record(.notReady("loading"), at: Self.after(1))
        #expect(health.state == .notReady && health.reason == "loading" && health.lastAnswer == Self.after(1))
        health.record(.ready, at: Self.after(2))
        health.record(.missed("late"), at: Self.after(3))
        #expect(health.state == .ready && health.lastAnswer == Self.after(2))
        health.record(.missed("late"), at: Self.after(4))
        #expect(health.state == .unreachable && health.reason == "late")
        health.record(.ready, at: Self.after(5))
        #expect(health.state == .ready && health.reason == nil)
    }

    @Test func `a refused connection takes a worker out at once`() {
        var health = WorkerHealth(WorkerHealth.Settings(), now: Self.start)
        health.record(.ready, at: Self.start)
        health.recordRefusedConnection("refused")
        #expect(health.state == .unreachable)
        health.record(.ready, at: Self.after(1))
        #expect(health.state == .ready)
    }

    @Test func `retries are a tenth of the requests, beside a hundred that are saved up`() {
        var budget = RetryBudget()
        #expect((0..<200).count { _ in budget.take() } == 100)
        for _ in 0..<105 { budget.countRequest() }
        #expect((0..<200).count { _ in budget.take() } == 10)
        for _ in 0..<100_000 { budget.countRequest() }
        #expect((0..<200).count { _ in budget.take() } == 100)
    }

    private static func refusal(_ status: Int, _ body: String, _ retryAfter: String? = nil) -> Refusal? {
        Refusal(status: status, body: Array(body.utf8), retryAfter: retryAfter)
    }

    @Test func `what Braid's servers say to all requests is a refusal, which another worker may answer`() {
        #expect(Self.refusal(429, "anything", "7") == Refusal(.full, "status 429", retryAfter: 7))
        for code in ["loading", "shutting_down"] {
            #expect(Self.refusal(503, #"{"error":{"code":"\#(code)"}}"#)?.kind == .notReady)
        }
        #expect(Self.refusal(502, #"{"error":{"code":"engine_failed"}}"#)?.kind == .failed)
        #expect(Self.refusal(503, #"{"error":{"code":"prefill_lost"}}"#)?.kind == .prefillLost)
        #expect(Self.refusal(503, #"{"error":{"code":"no_worker_available"}}"#)?.kind == .full)
        let anthropic = #"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#
        #expect(Self.refusal(503, anthropic)?.kind == .notReady)
    }

    @Test(arguments: [
        (200, "{}"), (400, #"{"error":{"code":"loading"}}"#), (500, #"{"error":{"code":"engine_failed"}}"#), (503, ""),
        (503, "<html>"), (503, #"{"error":{"code":"other"}}"#), (503, #"{"error":7}"#), (502, #"{"error":{"code":7}}"#),
    ])
    func `everything else is an answer for the client`(_ status: Int, _ body: String) {
        #expect(Self.refusal(status, body) == nil)
    }

    @Test(arguments: ["-1", "1e3", "99999999999999999999", "Wed, 21 Oct 2026 07:28:00 GMT", ""])
    func `a time to wait that is no small number is left out`(_ value: String) {
        #expect(Self.refusal(429, "", value)?.retryAfter == nil)
    }

    @Test(arguments: [
        "http://127.0.0.1:30001", "http://[::1]:5", "http://worker.example", "http://host:1/a/b/",
    ])
    func `an address is an http URL`(_ url: String) throws {
        #expect(try ServerAddress(url).port > 0)
    }

    @Test(arguments: [
        "http://h:1/v1", "http://h:1/v1/", "http://h:1//v1", "http://h:1", "http://h:1/",
    ])
    func `and has no version of an interface`(_ url: String) throws {
        #expect(try ServerAddress(url).description == "http://h:1")
        #expect(try ServerAddress("http://h:1/a/v1").description == "http://h:1/a")
        #expect(try ServerAddress("http://h:1/av1").description == "http://h:1/av1")
    }

    @Test(arguments: [
        "", "127.0.0.1:30001", "https://host", "http://", "http://host:0", "http://host:99999", "http://a%0d%0ab:1/",
        "http://ho st", "file:///etc/passwd", "ftp://host",
    ])
    func `and nothing else`(_ url: String) {
        #expect(throws: ServerAddress.Problem.self) { try ServerAddress(url) }
    }
}
