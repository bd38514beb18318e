package import NIOCore
import Synchronization

/// Detects that a client has closed its side of a connection, even while its request is being answered.
///
/// A client that closes only its sending side counts as disconnected, since HTTP clients do not do that while they
/// wait.
package final class HangUpHandler: ChannelInboundHandler, RemovableChannelHandler, Sendable {
    package typealias InboundIn = NIOAny

    private struct State {
        var isGone = false
        var nextWatch = 0
        var actions: [Int: @Sendable () -> Void] = [:]
    }

    private let state = Mutex(State())

    package init() {}

    /// A registration of an action for when the client hangs up; dropping it removes the action.
    package final class Watch: Sendable {
        private let handler: HangUpHandler
        private let number: Int

        fileprivate init(handler: HangUpHandler, number: Int) {
            self.handler = handler
            self.number = number
        }

        deinit { handler.forget(number) }
    }

    /// Calls `action` when the client hangs up, or at once if it already has.
    func watch(_ action: @escaping @Sendable () -> Void) -> Watch {
        let (number, isGone) = state.withLock { state in
            state.nextWatch += 1
            if !state.isGone { state.actions[state.nextWatch] = action }
            return (state.nextWatch, state.isGone)
        }
        if isGone { action() }
        return Watch(handler: self, number: number)
    }

    private func forget(_ number: Int) {
        state.withLock { _ = $0.actions.removeValue(forKey: number) }
    }

    private func hangUp() {
        let actions = state.withLock { state in
            state.isGone = true
            defer { state.actions = [:] }
            return state.actions
        }
        for action in actions.values { action() }
    }

    package func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .inputClosed = event as? ChannelEvent { hangUp() }
        context.fireUserInboundEventTriggered(event)
    }

    package func channelInactive(context: ChannelHandlerContext) {
        hangUp()
        context.fireChannelInactive()
    }
}
