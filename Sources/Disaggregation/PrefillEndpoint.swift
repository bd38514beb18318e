import Dispatch
package import Inference
import Synchronization

/// A prefill endpoint connects an engine to decode servers: the engine computes their prompts among its own requests, and
/// the endpoint sends the keys. Each decode server has a session of its own.
package final class PrefillEndpoint: TransferPartner {
    private let card: ServerCard
    private let timing: TransferTiming
    private let maxFrameBytes: Int
    private let state = Mutex(State())
    /// The rooms of prompts that this server's own clients wait for.
    package let rooms = PrefillRooms()

    private typealias Slot = SessionSlot<PrefillSession>

    private struct State {
        /// The sessions by their numbers. Those that have ended stay until the scheduler knows.
        var slots: [UInt64: Slot] = [:]
        /// The number of sessions so far.
        var begun: UInt64 = 0
        /// Why there is no session.
        var lastFailure = "no decode server has connected yet"
    }

    /// The largest number of decode servers at a time.
    package static let maxSessions = 64

    /// - Parameters:
    ///   - card: the engine's card.
    ///   - maxFrameBytes: the largest number of bytes of a frame that has several entries.
    package init(_ card: ServerCard, timing: TransferTiming = TransferTiming(), maxFrameBytes: Int = 1 << 20) {
        self.card = card
        self.timing = timing
        self.maxFrameBytes = maxFrameBytes
    }

    /// Why no other session can begin; `nil` if one can.
    package var refusal: String? {
        sessionCount < Self.maxSessions ? nil : "it computes prompts for \(Self.maxSessions) decode servers already"
    }

    /// Begins a session beside those that there are.
    ///
    /// - Parameters:
    ///   - number: a number that no other session of the two servers has.
    ///   - target: the decode server's card.
    ///   - engine: the engine whose partner this is.
    /// - Throws: if the servers cannot exchange keys, there are too many sessions, or the engine has stopped.
    package func begin(
        _ number: UInt64, to target: ServerCard, over link: any TransferLink, for engine: Engine
    ) throws(TransferFailure) {
        try TransferFailure.check(ServerCard.differences(prefill: card, decode: target))
        if let refusal { throw TransferFailure(refusal) }
        let slot = Slot(PrefillSession(endedBecause: "it has not begun", placement: card.placement))
        let bell = DispatchSemaphore(value: 0)
        let packing = FramePacking(processes: card.placement.processes, bell)
        let work = Slot.Work(
            threadName: "braid prefill", interval: timing.beatInterval / 4, bell: bell,
            perform: { [weak self, weak slot] number, engine in
                if let self, let slot { sendFrames(of: slot, packing, number, engine) }
            },
            receive: { [weak slot] event, number, engine in
                guard let slot else { return }
                if case .frame = event {
                    slot.close("a decode server sends no frames", number, engine)
                } else {
                    slot.wake()
                }
            })
        try slot.begin(number, over: link, for: engine, work) { now in
            // From here on, under the engine's lock, the session has begun, and `carryOut` finds it.
            let begun = state.withLock { state in
                state.slots[number] = slot
                state.begun += 1
                return state.begun
            }
            // The engine numbers its own requests from 1 on, and never reaches 2³².
            var session = PrefillSession(
                number, from: card.placement, to: target.placement, layers: target.receivedLayers,
                firstRequest: begun << 32, timing: timing, at: now, rooms: rooms)
            session.maxFrameBytes = maxFrameBytes
            return session
        }
    }

    private var slots: [Slot] { state.withLock { $0.slots.sorted { $0.key < $1.key }.map(\.value) } }

    /// The number of sessions.
    package var sessionCount: Int { slots.count { $0.failure == nil } }

    /// The number of transfers that have not ended.
    package var transferCount: Int { slots.reduce(0) { $0 + $1.transferCount } }

    /// Why there is no session; `nil` while there is one.
    package var failure: String? {
        let failures = slots.map(\.failure)
        if failures.contains(nil) { return nil }
        return failures.last ?? state.withLock { $0.lastFailure }
    }

    package var computesPrompts: Bool { false }

    package func carryOut(_ scheduler: inout Scheduler, _ events: [Scheduler.Event]) -> [Scheduler.Event] {
        // Making a frame calls this too, and changes nothing.
        let isNews = scheduler.hasTransferActions
        let slots = state.withLock { $0.slots }
        var events = events
        for (number, slot) in slots {
            events = slot.carryOut(&scheduler) { session, scheduler in session.carryOut(&scheduler, events) }
            if isNews { slot.wake() }
            guard let failure = slot.failure else { continue }
            state.withLock { state in
                state.slots[number] = nil
                state.lastFailure = failure
            }
        }
        // What is left is of sessions that have ended.
        _ = scheduler.takeTransferActions()
        return events
    }

    package func keysAreStored() { for slot in slots { slot.wake() } }

    /// Gives signs of life when it is time, has frames packed while the link takes them, and sends those that are packed.
    private func sendFrames(of slot: Slot, _ packing: FramePacking, _ number: UInt64, _ engine: Engine) {
        while let link = slot.link(of: number) {
            let isWritable = link.isWritable
            let packed = packing.takePacked()
            var frames: [KVFrame] = []
            slot.exchange(number, engine) { session, scheduler, caches in
                let now = TransferTiming.now()
                let events = session.tick(at: now, &scheduler)
                frames = packed.map { session.numbered($0, at: now) }
                if isWritable {
                    packing.fill(from: &session, caches)
                    frames += session.beats(at: now)
                }
                return events
            }
            // Checksums are computed outside of the engine's lock.
            for frame in frames { link.send(frame: frame.bytes) }
            if frames.isEmpty, !packing.hasPacked { return }
        }
    }
}
