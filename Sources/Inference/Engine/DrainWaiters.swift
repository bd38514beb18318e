import Synchronization

/// The callers that wait until an engine has no request left. They have a lock of their own because a thread that trapped
/// may hold the engine's lock forever.
final class DrainWaiters: Sendable {
    private struct State {
        var waiting: [AsyncStream<Never>.Continuation] = []
        var isOver = false
    }

    private let state = Mutex(State())

    /// Adds a caller. Its stream finishes at the next `resume`, or at once after `end`.
    func add() -> AsyncStream<Never> {
        let (stream, waiter) = AsyncStream.makeStream(of: Never.self)
        let isOver = state.withLock { state in
            if !state.isOver { state.waiting.append(waiter) }
            return state.isOver
        }
        if isOver { waiter.finish() }
        return stream
    }

    /// Resumes all callers.
    func resume() {
        let waiting = state.withLock { state in
            defer { state.waiting = [] }
            return state.waiting
        }
        for waiter in waiting { waiter.finish() }
    }

    /// Resumes all callers, and those that come later, because no request runs any more.
    func end() {
        state.withLock { $0.isOver = true }
        resume()
    }
}
