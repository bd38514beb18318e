/// What the health checks of a worker have found.
package struct WorkerHealth: Sendable {
    package struct Settings: Sendable, Equatable {
        /// The number of checks in a row without an answer that take a worker out.
        package var failureThreshold = 2
        /// The number of checks in a row that must succeed after that.
        package var successThreshold = 1

        package init() {}
    }

    package enum State: String, Sendable {
        /// No check has ended.
        case unknown
        case ready
        /// The worker answers, and takes no requests: it loads its model, or drains.
        case notReady = "not_ready"
        /// The worker does not answer.
        case unreachable
    }

    /// The result of one check.
    package enum Check: Sendable, Equatable {
        case ready
        case notReady(String)
        case missed(String)
    }

    private let settings: Settings
    package private(set) var state = State.unknown
    /// Why the worker is not ready; `nil` if it is, or nothing is known.
    package private(set) var reason: String?
    /// The time of the worker's last sign of life.
    package private(set) var lastAnswer: ContinuousClock.Instant
    private var misses = 0
    private var hits = 0

    package init(_ settings: Settings, now: ContinuousClock.Instant) {
        self.settings = settings
        lastAnswer = now
    }

    package mutating func record(_ check: Check, at now: ContinuousClock.Instant) {
        switch check {
        case .ready:
            (misses, hits, lastAnswer) = (0, hits + 1, now)
            if state == .unreachable, hits < settings.successThreshold { return }
            (state, reason) = (.ready, nil)
        case .notReady(let reason):
            (misses, hits, lastAnswer) = (0, 0, now)
            (state, self.reason) = (.notReady, reason)
        case .missed(let reason):
            (misses, hits) = (misses + 1, 0)
            if misses >= settings.failureThreshold { (state, self.reason) = (.unreachable, reason) }
        }
    }

    /// Takes the worker out at once, because it refuses connections. The next check that succeeds brings it back.
    package mutating func recordRefusedConnection(_ reason: String) {
        (misses, hits, state, self.reason) = (max(misses, settings.failureThreshold), 0, .unreachable, reason)
    }
}
