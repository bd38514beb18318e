package import Inference
import Parallelism

/// A decode endpoint connects an engine to a prefill server: requests in mode `decode` get the keys of their prompts
/// from there. Without a session, or when it is lost, the engine computes them as its `PrefillPolicy` says.
package final class DecodeEndpoint: TransferPartner {
    private let card: ServerCard
    private let policy: PrefillPolicy
    private let timing: TransferTiming
    private let slot: SessionSlot<DecodeSession>

    /// - Parameter card: the engine's card.
    package init(
        _ card: ServerCard, _ policy: PrefillPolicy = PrefillPolicy(), timing: TransferTiming = TransferTiming()
    ) {
        self.card = card
        self.policy = policy
        self.timing = timing
        slot = SessionSlot(
            DecodeSession(
                endedBecause: "there is no prefill server yet", placement: card.placement, layers: card.receivedLayers,
                policy))
    }

    /// Begins a session, and ends the one before.
    ///
    /// - Parameters:
    ///   - number: a number that no other session of the two servers has.
    ///   - source: the prefill server's card.
    ///   - engine: the engine whose partner this is.
    /// - Throws: if the servers cannot exchange keys, or the engine has stopped.
    package func begin(
        _ number: UInt64, from source: ServerCard, over link: any TransferLink, for engine: Engine
    ) throws(TransferFailure) {
        try TransferFailure.check(ServerCard.differences(prefill: source, decode: card))
        let work = SessionSlot<DecodeSession>.Work(
            threadName: "braid decode", interval: timing.beatInterval / 4,
            perform: { [weak slot] number, engine in
                slot?.exchange(number, engine) { session, scheduler, _ in
                    session.tick(at: TransferTiming.now(), &scheduler)
                }
            }, receive: { [weak self] in self?.receive($0, $1, $2) })
        try slot.begin(number, over: link, for: engine, work) { now in
            DecodeSession(
                number, from: source.placement, to: card.placement, layers: card.receivedLayers, policy,
                timing: timing, at: now)
        }
    }

    /// The number of transfers that have not ended.
    package var transferCount: Int { slot.transferCount }

    /// Why there is no session; `nil` while there is one.
    package var failure: String? { slot.failure }

    package var computesPrompts: Bool { true }

    package func carryOut(_ scheduler: inout Scheduler, _ events: [Scheduler.Event]) -> [Scheduler.Event] {
        slot.carryOut(&scheduler) { session, scheduler in events + session.carryOut(&scheduler) }
    }

    private func receive(_ event: TransferLinkEvent, _ number: UInt64, _ engine: Engine) {
        guard case .frame(let bytes) = event else { return }
        // The checksum is computed outside of the engine's lock.
        do throws(KVFrame.Failure) {
            let frame = try KVFrame(bytes)
            slot.exchange(number, engine) { session, scheduler, store in
                session.receive(frame, in: 0, store, at: TransferTiming.now(), &scheduler)
            }
        } catch {
            slot.close("a frame cannot be read: \(error)", number, engine)
        }
    }
}

extension TransferFailure {
    /// Throws a failure that lists differences, if there are any.
    package static func check(_ differences: [Handshake.Difference]) throws(TransferFailure) {
        if differences.isEmpty { return }
        let list = differences.map {
            "\($0.name): \($0.values[0]) at the prefill server, \($0.values[1]) at the decode server"
        }
        throw TransferFailure("the servers cannot exchange keys: " + list.joined(separator: "; "))
    }
}

extension TransferTiming {
    /// Returns the milliseconds of a monotonic clock.
    static func now() -> UInt64 { Meter.now() / 1_000_000 }
}
