package import Inference
import KVCache
import Parallelism
import Synchronization

/// A decode endpoint connects an engine to a prefill server: requests in mode `decode` get the keys of their prompts
/// from there. Without a session, or when it is lost, the engine computes them as its `PrefillPolicy` says.
package final class DecodeEndpoint: TransferPartner {
    private let card: ServerCard
    private let policy: PrefillPolicy
    private let timing: TransferTiming
    private let state: Mutex<State>

    private struct State {
        var session: DecodeSession
        var number: UInt64?
        var link: (any TransferLink)?

        /// Sends what the session wants to send. A session that has ended ends its link.
        mutating func flush() {
            for message in session.takeMessages() { link?.send(message: message) }
            guard let failure = session.failure else { return }
            link?.close(failure)
            link = nil
        }
    }

    /// - Parameter card: the engine's card.
    package init(
        _ card: ServerCard, _ policy: PrefillPolicy = PrefillPolicy(), timing: TransferTiming = TransferTiming()
    ) {
        self.card = card
        self.policy = policy
        self.timing = timing
        state = Mutex(State(session: .ended(card, policy)))
    }

    /// Begins a session, and ends the one before.
    ///
    /// - Parameters:
    ///   - number: a number that no other session of the two servers has.
    ///   - source: the prefill server's card.
    ///   - engine: the engine whose partner this is.
    /// - Throws: if the servers cannot exchange keys.
    package func begin(
        _ number: UInt64, from source: ServerCard, over link: any TransferLink, for engine: Engine
    ) throws(TransferFailure) {
        try TransferFailure.check(ServerCard.differences(prefill: source, decode: card))
        engine.exchange { scheduler, _ in
            state.withLock { state in
                let events = state.session.close("a new session begins", &scheduler)
                state.flush()
                state.session = DecodeSession(
                    number, from: source.placement, to: card.placement, layers: card.receivedLayers, policy,
                    timing: timing, at: TransferTiming.now())
                (state.number, state.link) = (number, link)
                return events
            }
        }
        link.open { [weak self, weak engine] event in
            if let engine { self?.receive(event, number, engine) }
        }
        _ = Pacer("braid decode", every: timing.beatInterval / 4) { [weak self, weak engine] in
            guard let self, let engine else { return false }
            exchange(number, engine) { session, scheduler, _ in session.tick(at: TransferTiming.now(), &scheduler) }
            return state.withLock { $0.number == number && $0.link != nil }
        }
    }

    /// The number of transfers that have not ended.
    package var transferCount: Int { state.withLock { $0.session.transferCount } }

    /// Why there is no session; `nil` while there is one.
    package var failure: String? { state.withLock { $0.session.failure } }

    package var computesPrompts: Bool { true }

    package func carryOut(_ scheduler: inout Scheduler, _ events: [Scheduler.Event]) -> [Scheduler.Event] {
        state.withLock { state in
            defer { state.flush() }
            return events + state.session.carryOut(&scheduler)
        }
    }

    private func receive(_ event: TransferLinkEvent, _ number: UInt64, _ engine: Engine) {
        switch event {
        case .message(let bytes):
            exchange(number, engine) { session, scheduler, _ in
                session.receive(message: bytes, at: TransferTiming.now(), &scheduler)
            }
        case .frame(let bytes):
            // The checksum is computed outside of the engine's lock.
            do throws(KVFrame.Failure) {
                let frame = try KVFrame(bytes)
                exchange(number, engine) { session, scheduler, store in
                    session.receive(frame, in: 0, store, at: TransferTiming.now(), &scheduler)
                }
            } catch {
                close("a frame cannot be read: \(error)", number, engine)
            }
        case .writable: break
        case .closed(let reason): close(reason, number, engine)
        }
    }

    private func close(_ reason: String, _ number: UInt64, _ engine: Engine) {
        exchange(number, engine) { session, scheduler, _ in session.close(reason, &scheduler) }
    }

    /// Calls `body` with the session, if it is still the one with this number.
    private func exchange(
        _ number: UInt64, _ engine: Engine,
        _ body: (inout DecodeSession, inout Scheduler, CacheStore) -> [Scheduler.Event]
    ) {
        engine.exchange { scheduler, store in
            state.withLock { state in
                guard state.number == number else { return [] }
                defer { state.flush() }
                return body(&state.session, &scheduler, store)
            }
        }
    }
}

extension DecodeSession {
    /// Returns a session that has ended, which resolves requests without a prefill server.
    fileprivate static func ended(_ card: ServerCard, _ policy: PrefillPolicy) -> DecodeSession {
        DecodeSession(
            endedBecause: "there is no prefill server yet", placement: card.placement, layers: card.receivedLayers,
            policy)
    }
}

extension TransferFailure {
    /// Throws a failure that lists differences, if there are any.
    static func check(_ differences: [Handshake.Difference]) throws(TransferFailure) {
        if differences.isEmpty { return }
        let list = differences.map { "\($0.name): \($0.values[0]) at the prefill server, \($0.values[1]) here" }
        throw TransferFailure("the servers cannot exchange keys: " + list.joined(separator: "; "))
    }
}

extension TransferTiming {
    /// Returns the milliseconds of a monotonic clock.
    static func now() -> UInt64 { Meter.now() / 1_000_000 }
}
