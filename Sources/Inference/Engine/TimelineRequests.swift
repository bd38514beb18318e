import Synchronization

/// Decides which steps are traced for clients that ask for the timeline of a step, and keeps the last timeline.
final class TimelineRequests: Sendable {
    private let last = Mutex<StepTimeline?>(nil)
    /// When a step was last asked for, and the least time between two: tracing costs time, and clients may ask often.
    private let asked = Mutex<ContinuousClock.Instant?>(nil)
    private static let interval = Duration.milliseconds(500)
    /// True if the next step is to be traced.
    private let wantsNext = Atomic(false)

    /// Returns the last timeline, and asks for that of the next step unless one was asked for just now.
    func ask() -> StepTimeline? {
        let isDue = asked.withLock { asked in
            guard asked.map({ $0 + Self.interval <= .now }) ?? true else { return false }
            asked = .now
            return true
        }
        if isDue { wantsNext.store(true, ordering: .relaxed) }
        return last.withLock { $0 }
    }

    /// Returns whether the step that is planned now is to be traced, and forgets it.
    func takeNext() -> Bool { wantsNext.exchange(false, ordering: .relaxed) }

    /// Keeps the timeline of a step that was traced.
    func keep(_ timeline: StepTimeline) { last.withLock { $0 = timeline } }
}
