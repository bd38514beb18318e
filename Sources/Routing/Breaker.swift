/// A breaker keeps requests from a worker that fails them: after some failures in a row it is open for a while, then one
/// request after the other probes the worker until enough have succeeded.
package struct Breaker: Sendable {
    package struct Settings: Sendable, Equatable {
        /// The number of failures in a row that open the breaker; `nil` for a breaker that never opens.
        package var failureThreshold: Int? = 5
        /// The number of probes in a row that must succeed.
        package var successThreshold = 1
        /// The time for which the breaker is open.
        package var openTime = Duration.seconds(5)

        package init() {}
    }

    package enum State: String, Sendable {
        case closed, open
        /// A request may probe the worker, or does.
        case halfOpen = "half_open"
    }

    private let settings: Settings
    private var failures = 0
    private var successes = 0
    /// The time at which the breaker lets a probe through; `nil` while it is closed.
    private var reopens: ContinuousClock.Instant?
    private var isProbing = false

    package init(_ settings: Settings) { self.settings = settings }

    package func state(at now: ContinuousClock.Instant) -> State {
        guard let reopens else { return .closed }
        return now < reopens ? .open : .halfOpen
    }

    /// Returns whether a request may go to the worker.
    package func admits(at now: ContinuousClock.Instant) -> Bool {
        switch state(at: now) {
        case .closed: true
        case .open: false
        case .halfOpen: !isProbing
        }
    }

    /// Records that a request goes to the worker.
    ///
    /// - Returns: whether the request is a probe, whose end is to be told by `release` if by nothing else.
    package mutating func begin(at now: ContinuousClock.Instant) -> Bool {
        guard state(at: now) == .halfOpen else { return false }
        isProbing = true
        return true
    }

    /// Records that a probe has ended, whatever came of it.
    package mutating func release() { isProbing = false }

    package mutating func succeed() {
        failures = 0
        guard reopens != nil else { return }
        successes += 1
        if successes >= settings.successThreshold { (reopens, successes) = (nil, 0) }
    }

    package mutating func fail(at now: ContinuousClock.Instant) {
        guard let threshold = settings.failureThreshold else { return }
        failures += 1
        successes = 0
        if reopens != nil || failures >= threshold { reopens = now.advanced(by: settings.openTime) }
    }
}
