import Synchronization

/// Ends the request to a worker when the client hangs up, at whatever point it is.
final class HangUp: Sendable {
    private struct State {
        var hasHappened = false
        var action: (@Sendable () -> Void)?
    }

    private let state = Mutex(State())

    /// True if the client has hung up.
    var hasHappened: Bool { state.withLock { $0.hasHappened } }

    /// Sets what is done when the client hangs up, in place of what was set before. It is done at once if it has.
    func setAction(_ action: @escaping @Sendable () -> Void) {
        let isLate = state.withLock { state in
            if !state.hasHappened { state.action = action }
            return state.hasHappened
        }
        if isLate { action() }
    }

    func happen() {
        let action = state.withLock { state in
            defer { state.action = nil }
            state.hasHappened = true
            return state.action
        }
        action?()
    }
}
