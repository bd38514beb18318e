import Serving
import Synchronization

/// The counters of a router, for its `/metrics`.
package final class RouterMetrics: Sendable {
    private struct Answer: Hashable {
        var worker: String
        var status: Int
    }

    private struct Outcome: Hashable {
        var route: String
        var status: Int
    }

    private struct State {
        var answers: [Answer: UInt64] = [:]
        var responses: [Outcome: UInt64] = [:]
        var retries: [Refusal.Kind: UInt64] = [:]
        var brokenStreams: UInt64 = 0
        var firstByte = ServerMetrics.Histogram(bounds: [
            0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640,
        ])
        var overhead = ServerMetrics.Histogram(bounds: [
            0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
        ])
    }

    private let state = Mutex(State())
    /// The maximum number of series of answers: every worker may answer with some hundred statuses.
    private static let maxAnswers = PrefixIndex.maxSlots * 256

    package init() {}

    func countAnswer(of worker: ServerAddress, status: Int) {
        state.withLock { state in
            // Nothing else is forgotten while the page is not read.
            if state.answers.count >= Self.maxAnswers { state.answers = [:] }
            state.answers[Answer(worker: "\(worker)", status: status), default: 0] += 1
        }
    }

    package func countResponse(route: String, status: Int) {
        state.withLock { $0.responses[Outcome(route: route, status: status), default: 0] += 1 }
    }

    func countRetry(_ kind: Refusal.Kind) { state.withLock { $0.retries[kind, default: 0] += 1 } }
    func countBrokenStream() { state.withLock { $0.brokenStreams += 1 } }
    func observeFirstByte(after duration: Duration) { state.withLock { $0.firstByte.observe(duration) } }
    func observeOverhead(of duration: Duration) { state.withLock { $0.overhead.observe(duration) } }

    /// Returns the page of `/metrics`.
    func text(_ fleet: Fleet, _ gate: AdmissionGate.Status) -> String {
        let (workers, routedText) = (fleet.workers, fleet.routedText)
        var page = MetricsPage(model: nil)
        // Answers of a worker that was removed are forgotten, so that workers that come and go take no memory.
        let known = Set(workers.map { "\($0.address)" })
        // Written under the lock: a copy of the state would share its storage with whatever is counted next.
        state.withLock { state in
            state.answers = state.answers.filter { known.contains($0.key.worker) }
            Self.write(state, to: &page)
        }
        Self.write(gate, routedText, to: &page)
        Self.write(workers, to: &page)
        return page.text
    }

    private static func write(_ state: State, to page: inout MetricsPage) {
        page.histogram(
            "router_time_to_first_byte_seconds", "From arrival to the first byte of a worker's answer.", state.firstByte
        )
        page.histogram(
            "router_added_latency_seconds", "From arrival to the choice of a worker, queueing included.", state.overhead
        )
        page.family("router_responses_total", "counter", "HTTP responses by route and status.")
        for (outcome, count) in state.responses.sorted(by: {
            ($0.key.route, $0.key.status) < ($1.key.route, $1.key.status)
        }) {
            page.sample(
                "router_responses_total", Double(count),
                labels: [("route", outcome.route), ("status", String(outcome.status))])
        }
        page.family("router_retries_total", "counter", "Requests sent to one more worker, by the reason.")
        for kind in Refusal.Kind.allCases {
            page.sample(
                "router_retries_total", Double(state.retries[kind] ?? 0), labels: [("reason", kind.rawValue)])
        }
        page.single(
            "router_broken_streams_total", "counter", "Answers that a worker did not finish.",
            Double(state.brokenStreams))
        page.family("router_requests_total", "counter", "Answers of workers by status.")
        for (answer, count) in state.answers.sorted(by: {
            ($0.key.worker, $0.key.status) < ($1.key.worker, $1.key.status)
        }) {
            page.sample(
                "router_requests_total", Double(count),
                labels: [("worker", answer.worker), ("status", String(answer.status))])
        }
    }

    private static func write(
        _ gate: AdmissionGate.Status, _ text: (bytes: Int, matched: Int), to page: inout MetricsPage
    ) {
        page.single("router_running_requests", "gauge", "Requests with workers.", Double(gate.running))
        page.single("router_queued_requests", "gauge", "Requests that wait for others to end.", Double(gate.queued))
        page.single(
            "router_routed_bytes_total", "counter", "Bytes of prompts that were routed.", Double(text.bytes))
        page.single(
            "router_matched_bytes_total", "counter", "Bytes of them that the chosen worker had seen before.",
            Double(text.matched))
    }

    private static func write(_ workers: [RoutedWorker], to page: inout MetricsPage) {
        let now = ContinuousClock.now
        let gauges: [(String, String, (RoutedWorker) -> Double)] = [
            ("router_worker_up", "1 while the worker is ready.", { $0.health.state == .ready ? 1 : 0 }),
            ("router_breaker_open", "1 while the breaker keeps requests away.", { $0.breaker.admits(at: now) ? 0 : 1 }),
            ("router_worker_running_requests", "Requests of this router.", { Double($0.load.running) }),
            ("router_worker_other_requests", "Requests of others, as the worker tells.", { Double($0.load.others) }),
            ("router_worker_waiting_bytes", "Bytes of prompts without an answer.", { Double($0.load.waitingBytes) }),
        ]
        for (name, explanation, value) in gauges {
            page.family(name, "gauge", explanation)
            for worker in workers {
                page.sample(
                    name, value(worker), labels: [("worker", "\(worker.address)"), ("role", worker.role.rawValue)])
            }
        }
    }
}
