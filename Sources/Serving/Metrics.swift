import Inference
import Synchronization

/// The metrics of the server for `/metrics`: times and responses are measured here, the engine reports its load.
package final class ServerMetrics: Sendable {
    /// A histogram of times in seconds, or of numbers of tokens: the number of observations in each bucket, and their sum.
    package struct Histogram: Sendable {
        let bounds: [Double]
        /// The number of observations in each bucket. The last bucket holds those above all bounds.
        private(set) var counts: [UInt64]
        private(set) var sum = 0.0

        package init(bounds: [Double]) {
            self.bounds = bounds
            counts = Array(repeating: 0, count: bounds.count + 1)
        }

        package mutating func observe(_ duration: Duration) { observe(duration / .seconds(1)) }

        mutating func observe(_ value: Double) {
            counts[bounds.firstIndex { value <= $0 } ?? bounds.count] += 1
            sum += value
        }
    }

    private struct Outcome: Hashable {
        var route: String
        var status: Int
    }

    private struct State {
        var timeToFirstToken = Histogram(bounds: [
            0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640,
        ])
        var interToken = Histogram(bounds: [
            0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.4, 0.8, 1.6, 3.2,
        ])
        var endToEnd = Histogram(bounds: [
            0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560,
        ])
        var promptTokens = Histogram(bounds: tokenBounds)
        var generatedTokens = Histogram(bounds: tokenBounds)
        var outcomes: [Outcome: UInt64] = [:]
        var aborted: UInt64 = 0
        var failed: UInt64 = 0

        private static let tokenBounds: [Double] = [
            1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
            1_000_000,
        ]
    }

    private let state = Mutex(State())

    package init() {}

    func observeFirstToken(after duration: Duration) { state.withLock { $0.timeToFirstToken.observe(duration) } }
    func observeNextToken(after duration: Duration) { state.withLock { $0.interToken.observe(duration) } }
    func observeRequest(of duration: Duration) { state.withLock { $0.endToEnd.observe(duration) } }
    /// Records the lengths of a request that was not aborted.
    func observeLengths(_ usage: Usage) {
        state.withLock {
            $0.promptTokens.observe(Double(usage.promptTokens))
            $0.generatedTokens.observe(Double(usage.completionTokens))
        }
    }
    func countAborted() { state.withLock { $0.aborted += 1 } }
    func countFailed() { state.withLock { $0.failed += 1 } }

    /// Counts a response.
    ///
    /// - Parameter route: the pattern of a route rather than the request's path, so that the number of series is
    ///   bounded.
    func countResponse(route: String, status: Int) {
        state.withLock { $0.outcomes[Outcome(route: route, status: status), default: 0] += 1 }
    }

    /// Returns the page of `/metrics`.
    ///
    /// - Parameters:
    ///   - status: the engine's status; `nil` if no engine is loaded, so that its metrics are left out.
    ///   - transfers: the state of the exchange of keys with another server; `nil` where there is none.
    ///   - prefixStore: the state of the store of prefixes; `nil` where there is none.
    func text(
        model: String, status: EngineStatus?, transfers: TransferStatus? = nil, prefixStore: PrefixStoreStatus? = nil
    ) -> String {
        var page = MetricsPage(model: model)
        state.withLock { Self.write($0, to: &page) }
        if let status { Self.write(status, to: &page) }
        transfers?.write(to: &page)
        prefixStore?.write(to: &page)
        return page.text
    }

    /// Writes what is measured here. The lock is held meanwhile: a copy of the state would share the buckets with the
    /// next observation, which then copies all of them.
    private static func write(_ state: State, to page: inout MetricsPage) {
        page.histogram("time_to_first_token_seconds", "From arrival to the first token.", state.timeToFirstToken)
        page.histogram("inter_token_latency_seconds", "Between tokens of a request.", state.interToken)
        page.histogram("e2e_request_latency_seconds", "From arrival to the last token.", state.endToEnd)
        page.histogram("request_prompt_tokens", "Prompt tokens of a finished request.", state.promptTokens)
        page.histogram("request_generation_tokens", "New tokens of a finished request.", state.generatedTokens)
        page.family("requests_total", "counter", "HTTP responses by route and status.")
        for (outcome, count) in state.outcomes.sorted(by: {
            ($0.key.route, $0.key.status) < ($1.key.route, $1.key.status)
        }) {
            page.sample(
                "requests_total", Double(count), labels: [("route", outcome.route), ("status", String(outcome.status))])
        }
        page.single(
            "aborted_requests_total", "counter", "Generations whose client disconnected, or that a request aborted.",
            Double(state.aborted))
        page.single("failed_requests_total", "counter", "Generations that failed in the engine.", Double(state.failed))
    }

    private static func write(_ status: EngineStatus, to page: inout MetricsPage) {
        let used = status.totalPages == 0 ? 0 : Double(status.usedPages) / Double(status.totalPages)
        let gauges: [(String, String, Double)] = [
            ("num_running_reqs", "Requests being computed.", Double(status.running)),
            ("num_queue_reqs", "Requests waiting.", Double(status.queued)),
            ("token_usage", "Share of the KV pages in use, 0 to 1.", used),
            ("kv_pages_used", "KV pages in use.", Double(status.usedPages)),
            ("kv_pages_free", "KV pages free.", Double(status.freePages)),
            ("cached_pages", "KV pages that only the prefix cache keeps.", Double(status.cachedPages)),
            ("kv_pages", "All KV pages.", Double(status.totalPages)),
            ("kv_page_size_tokens", "Tokens of a KV page.", Double(status.pageSize)),
            (
                "spec_accept_length", "Tokens sampled in a step that verified drafts, on average; 0 before the first.",
                status.speculation.acceptLength ?? 0
            ),
            ("engine_up", "1 while the engine can serve.", status.failure == nil ? 1 : 0),
        ]
        for (name, explanation, value) in gauges { page.single(name, "gauge", explanation, value) }
        writeCounters(of: status, to: &page)
        page.write(status.ranks)
    }

    private static func writeCounters(of status: EngineStatus, to page: inout MetricsPage) {
        let counters: [(String, String, Double)] = [
            ("prompt_tokens_total", "Prompt tokens computed or found in the cache.", Double(status.promptTokens)),
            ("generation_tokens_total", "Tokens generated.", Double(status.generatedTokens)),
            ("busy_seconds_total", "Time in which at least one request was being computed.", status.busySeconds),
            (
                "running_seconds_total", "Time of requests being computed, added up over requests.",
                status.runningSeconds
            ),
            ("preemptions_total", "Requests preempted and computed again.", Double(status.preemptions)),
            ("engine_steps_total", "Forward steps.", Double(status.steps)),
            ("engine_restarts_total", "Restarts of failed ranks.", Double(status.restarts)),
            (
                "prefix_cache_query_tokens_total", "Prompt tokens looked up in the cache.",
                Double(status.cacheLookupTokens)
            ),
            ("prefix_cache_hit_tokens_total", "Prompt tokens found in the cache.", Double(status.cacheHitTokens)),
            ("spec_steps_total", "Steps of requests that verified drafts.", Double(status.speculation.steps)),
            ("spec_draft_tokens_total", "Draft tokens verified.", Double(status.speculation.drafted)),
            ("spec_accepted_tokens_total", "Draft tokens accepted.", Double(status.speculation.accepted)),
        ]
        for (name, explanation, value) in counters { page.single(name, "counter", explanation, value) }
    }
}
