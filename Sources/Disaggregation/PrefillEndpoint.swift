package import Inference
import KVCache
import Synchronization

/// A prefill endpoint connects an engine to a decode server: the engine computes that server's prompts among its own
/// requests, and the endpoint sends their keys.
package final class PrefillEndpoint: TransferPartner {
    private let card: ServerCard
    private let timing: TransferTiming
    private let maxFrameBytes: Int
    private let state = Mutex(State())

    private struct State {
        var session: PrefillSession?
        var number: UInt64?
        var link: (any TransferLink)?
        /// The number of sessions so far.
        var sessions: UInt64 = 0
        /// The thread that makes frames.
        var pacer: Pacer?

        /// Sends the session's messages. A session that has ended ends its link.
        mutating func flush() {
            for message in session?.takeMessages() ?? [] { link?.send(message: message) }
            guard let failure = session?.failure else { return }
            link?.close(failure)
            link = nil
        }
    }

    /// - Parameters:
    ///   - card: the engine's card.
    ///   - maxFrameBytes: the largest number of bytes of a frame that has several entries.
    package init(_ card: ServerCard, timing: TransferTiming = TransferTiming(), maxFrameBytes: Int = 1 << 20) {
        self.card = card
        self.timing = timing
        self.maxFrameBytes = maxFrameBytes
    }

    /// Begins a session, and ends the one before. The parameters are those of `DecodeEndpoint.begin`.
    package func begin(
        _ number: UInt64, to target: ServerCard, over link: any TransferLink, for engine: Engine
    ) throws(TransferFailure) {
        try TransferFailure.check(ServerCard.differences(prefill: card, decode: target))
        engine.exchange { scheduler, _ in
            state.withLock { state in
                state.session?.close("a new session begins", &scheduler)
                state.flush()
                state.sessions += 1
                // The engine numbers its own requests from 1 on, and never reaches 2³².
                state.session = PrefillSession(
                    number, from: card.placement, to: target.placement, layers: target.receivedLayers,
                    firstRequest: state.sessions << 32, timing: timing, at: TransferTiming.now())
                state.session!.maxFrameBytes = maxFrameBytes
                (state.number, state.link) = (number, link)
            }
            return []
        }
        let pacer = Pacer("braid prefill", every: timing.beatInterval / 4) { [weak self, weak engine] in
            guard let self, let engine else { return false }
            return sendFrames(number, engine)
        }
        state.withLock { if $0.number == number { $0.pacer = pacer } }
        link.open { [weak self, weak engine] event in
            if let engine { self?.receive(event, number, engine) }
        }
    }

    /// The number of transfers that have not ended.
    package var transferCount: Int { state.withLock { $0.session?.transferCount ?? 0 } }

    /// Why there is no session; `nil` while there is one.
    package var failure: String? {
        state.withLock { $0.session == nil ? "no decode server has connected yet" : $0.session!.failure }
    }

    package var computesPrompts: Bool { false }

    package func carryOut(_ scheduler: inout Scheduler, _ events: [Scheduler.Event]) -> [Scheduler.Event] {
        state.withLock { state in
            guard state.session != nil else { return events }
            // Making a frame calls this too, and changes nothing.
            let isNews = scheduler.hasTransferActions
            let others = state.session!.carryOut(&scheduler, events)
            state.flush()
            if isNews { state.pacer?.wake() }
            return others
        }
    }

    /// Sends frames while the link takes them. Returns false if the session is over.
    private func sendFrames(_ number: UInt64, _ engine: Engine) -> Bool {
        exchange(number, engine) { session, scheduler, _ in session.tick(at: TransferTiming.now(), &scheduler) }
        while let link = state.withLock({ $0.number == number ? $0.link : nil }) {
            guard link.isWritable else { return true }
            var frame: KVFrame?
            exchange(number, engine) { session, _, store in
                frame = session.nextFrame(from: 0, store, to: 0, at: TransferTiming.now())
            }
            guard let frame else { return true }
            // The checksum is computed outside of the engine's lock.
            link.send(frame: frame.bytes)
        }
        return false
    }

    private func receive(_ event: TransferLinkEvent, _ number: UInt64, _ engine: Engine) {
        switch event {
        case .message(let bytes):
            exchange(number, engine) { session, scheduler, _ in
                session.receive(message: bytes, at: TransferTiming.now(), &scheduler)
            }
            state.withLock { $0.pacer?.wake() }
        case .frame:
            exchange(number, engine) { session, scheduler, _ in
                session.close("a decode server sends no frames", &scheduler)
            }
        case .writable: state.withLock { $0.pacer?.wake() }
        case .closed(let reason):
            exchange(number, engine) { session, scheduler, _ in session.close(reason, &scheduler) }
        }
    }

    /// Calls `body` with the session, if it is still the one with this number.
    private func exchange(
        _ number: UInt64, _ engine: Engine, _ body: (inout PrefillSession, inout Scheduler, CacheStore) -> Void
    ) {
        engine.exchange { scheduler, store in
            state.withLock { state in
                guard state.number == number, state.session != nil else { return [] }
                body(&state.session!, &scheduler, store)
                state.flush()
                return []
            }
        }
    }
}
