package import Inference
import Synchronization

/// The rooms of a prefill server. A router like SGLang's posts a request to a prefill and to a decode server, and gives both
/// the same number, the room. The post to the prefill server ends when the decode server's prompt is computed, without a
/// token, because the router passes on the decode server's answer.
package final class PrefillRooms: Sendable {
    private let state = Mutex(State())

    private struct State {
        /// The rooms whose prompts are being computed.
        var asked: Set<UInt64> = []
        /// The rooms that were settled last, and in which order: the decode server may be faster than the post.
        var settled: Set<UInt64> = []
        var order: [UInt64] = []
        var waiting: [UInt64: [UInt64: Waiter]] = [:]
        var waiters: UInt64 = 0
    }

    private struct Waiter: Sendable {
        let events: AsyncStream<GenerationEvent>.Continuation
        let promptTokens: Int

        func finish() { end(.finished(.length, Usage(promptTokens: promptTokens, completionTokens: 0))) }

        func end(_ event: GenerationEvent) {
            events.yield(event)
            events.finish()
        }
    }

    /// The number of settled rooms that are remembered. The two posts of a request come at almost the same time.
    package static let remembered = 8192

    package init() {}

    /// The number of posts that wait.
    package var waiterCount: Int { state.withLock { $0.waiting.values.reduce(0) { $0 + $1.count } } }

    /// A decode server has asked for a room's prompt.
    func ask(_ room: UInt64) { state.withLock { _ = $0.asked.insert(room) } }

    /// A room's prompt is computed, or will not be: the decode server computes it, or its request has ended.
    package func settle(_ room: UInt64) {
        let waiting = state.withLock { state in
            state.asked.remove(room)
            if state.settled.insert(room).inserted { state.order.append(room) }
            if state.order.count > 2 * Self.remembered {
                state.settled.subtract(state.order.prefix(Self.remembered))
                state.order.removeFirst(Self.remembered)
            }
            return state.waiting.removeValue(forKey: room) ?? [:]
        }
        for waiter in waiting.values { waiter.finish() }
    }

    /// Returns a generation of no engine, which ends without a token when a room is settled. It fails if no decode server
    /// asks for the room's prompt in time.
    package func generation(for room: UInt64, promptTokens: Int, askedWithin limit: Duration) -> Generation {
        let (events, continuation) = AsyncStream.makeStream(of: GenerationEvent.self)
        let waiter = Waiter(events: continuation, promptTokens: promptTokens)
        let number: UInt64? = state.withLock { state in
            if state.settled.contains(room) { return nil }
            state.waiters += 1
            state.waiting[room, default: [:]][state.waiters] = waiter
            return state.waiters
        }
        guard let number else {
            waiter.finish()
            return Generation(id: 0, events: events)
        }
        let timer = Task { [self] in
            guard (try? await Task.sleep(for: limit)) != nil, !isAsked(room), remove(number, from: room) else { return }
            waiter.end(.failed("no decode server has asked for the prompt of bootstrap_room \(room) within \(limit)"))
        }
        continuation.onTermination = { [weak self] _ in
            timer.cancel()
            _ = self?.remove(number, from: room)
        }
        return Generation(id: 0, events: events)
    }

    private func isAsked(_ room: UInt64) -> Bool { state.withLock { $0.asked.contains(room) } }

    /// - Returns: whether the waiter was there.
    private func remove(_ waiter: UInt64, from room: UInt64) -> Bool {
        state.withLock { state in
            let found = state.waiting[room]?.removeValue(forKey: waiter)
            if state.waiting[room]?.isEmpty ?? false { state.waiting[room] = nil }
            return found != nil
        }
    }
}
