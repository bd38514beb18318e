package import Inference
import KVCache
import Synchronization

/// A prefill endpoint connects an engine to a decode server: the engine computes that server's prompts among its own
/// requests, and the endpoint sends their keys.
package final class PrefillEndpoint: TransferPartner {
    private let card: ServerCard
    private let timing: TransferTiming
    private let maxFrameBytes: Int
    private let slot: SessionSlot<PrefillSession>
    /// The number of sessions so far.
    private let sessions = Atomic<UInt64>(0)

    /// - Parameters:
    ///   - card: the engine's card.
    ///   - maxFrameBytes: the largest number of bytes of a frame that has several entries.
    package init(_ card: ServerCard, timing: TransferTiming = TransferTiming(), maxFrameBytes: Int = 1 << 20) {
        self.card = card
        self.timing = timing
        self.maxFrameBytes = maxFrameBytes
        slot = SessionSlot(
            PrefillSession(endedBecause: "no decode server has connected yet", placement: card.placement))
    }

    /// Begins a session, and ends the one before. The parameters are those of `DecodeEndpoint.begin`.
    package func begin(
        _ number: UInt64, to target: ServerCard, over link: any TransferLink, for engine: Engine
    ) throws(TransferFailure) {
        try TransferFailure.check(ServerCard.differences(prefill: card, decode: target))
        let work = SessionSlot<PrefillSession>.Work(
            threadName: "braid prefill", interval: timing.beatInterval / 4,
            perform: { [weak self] in self?.sendFrames($0, $1) }, receive: { [weak self] in self?.receive($0, $1, $2) })
        // The engine numbers its own requests from 1 on, and never reaches 2³².
        let firstRequest = sessions.add(1, ordering: .relaxed).newValue << 32
        try slot.begin(number, over: link, for: engine, work) { now in
            var session = PrefillSession(
                number, from: card.placement, to: target.placement, layers: target.receivedLayers,
                firstRequest: firstRequest, timing: timing, at: now)
            session.maxFrameBytes = maxFrameBytes
            return session
        }
    }

    /// The number of transfers that have not ended.
    package var transferCount: Int { slot.transferCount }

    /// Why there is no session; `nil` while there is one.
    package var failure: String? { slot.failure }

    package var computesPrompts: Bool { false }

    package func carryOut(_ scheduler: inout Scheduler, _ events: [Scheduler.Event]) -> [Scheduler.Event] {
        // Making a frame calls this too, and changes nothing.
        let isNews = scheduler.hasTransferActions
        defer { if isNews { slot.wake() } }
        return slot.carryOut(&scheduler) { session, scheduler in session.carryOut(&scheduler, events) }
    }

    /// Gives a sign of life when it is time, and sends frames while the link takes them.
    private func sendFrames(_ number: UInt64, _ engine: Engine) {
        while let link = slot.link(of: number) {
            let isWritable = link.isWritable
            var frame: KVFrame?
            slot.exchange(number, engine) { session, scheduler, store in
                let now = TransferTiming.now()
                let events = session.tick(at: now, &scheduler)
                if isWritable { frame = session.nextFrame(from: 0, store, to: 0, at: now) }
                return events
            }
            guard let frame else { return }
            // The checksum is computed outside of the engine's lock.
            link.send(frame: frame.bytes)
        }
    }

    private func receive(_ event: TransferLinkEvent, _ number: UInt64, _ engine: Engine) {
        if case .frame = event {
            slot.close("a decode server sends no frames", number, engine)
        } else {
            slot.wake()
        }
    }
}
