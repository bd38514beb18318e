package import Inference
import Parallelism
import Synchronization

/// A decode endpoint connects an engine to prefill servers: requests in mode `decode` get the keys of their prompts from
/// one of them. Without a session, or when it is lost, the engine computes them as its `PrefillPolicy` says.
package final class DecodeEndpoint: TransferPartner {
    private let card: ServerCard
    private let policy: PrefillPolicy
    private let timing: TransferTiming
    private let maxPlacingBytes: Int
    /// One for each prefill server.
    private let slots: [Slot]
    /// The ids that the prefill servers told last, also of those whose sessions have ended.
    private let engines: Mutex<[String?]>

    private typealias Slot = SessionSlot<DecodeSession>

    /// - Parameters:
    ///   - card: the engine's card.
    ///   - servers: the number of prefill servers.
    ///   - maxPlacingBytes: the number of bytes on their way to other processes of this server from which on frames are not
    ///     read. The sessions with the prefill servers have equal shares of it.
    package init(
        _ card: ServerCard, _ policy: PrefillPolicy = PrefillPolicy(), servers: Int = 1,
        timing: TransferTiming = TransferTiming(), maxPlacingBytes: Int = 8 << 20
    ) {
        self.maxPlacingBytes = maxPlacingBytes
        var policy = policy
        policy.servers = servers
        self.card = card
        self.policy = policy
        self.timing = timing
        engines = Mutex(Array(repeating: nil, count: servers))
        slots = (0..<servers).map { _ in
            Slot(
                DecodeSession(
                    endedBecause: "there is no prefill server yet", placement: card.placement,
                    layers: card.receivedLayers, policy))
        }
    }

    /// Begins a session with a prefill server, and ends the one before with the same server.
    ///
    /// - Parameters:
    ///   - number: a number that no other session of the two servers has.
    ///   - source: the prefill server's card.
    ///   - server: the index of the prefill server.
    ///   - engine: the engine whose partner this is.
    /// - Throws: if the servers cannot exchange keys, or the engine has stopped.
    package func begin(
        _ number: UInt64, from source: ServerCard, server: Int = 0, over link: any TransferLink, for engine: Engine
    ) throws(TransferFailure) {
        try TransferFailure.check(ServerCard.differences(prefill: source, decode: card))
        let slot = slots[server]
        let flow = PlacementFlow(of: link, limit: max(1, maxPlacingBytes / slots.count))
        let work = Slot.Work(
            threadName: "braid decode", interval: timing.beatInterval / 4,
            perform: { [weak slot] number, engine in
                slot?.exchange(number, engine) { session, scheduler, _ in
                    let now = TransferTiming.now()
                    if flow.isPaused { session.framesAreNotRead(at: now) }
                    return session.tick(at: now, &scheduler)
                }
            },
            receive: { [weak slot] event, number, engine in
                if let slot { Self.receive(event, slot, flow, number, engine) }
            })
        try slot.begin(number, over: link, for: engine, work) { now in
            DecodeSession(
                number, from: source.placement, to: card.placement, layers: card.receivedLayers, policy,
                timing: timing, at: now)
        }
        engines.withLock { $0[server] = source.engine }
    }

    /// Returns the index of the prefill server that has told an id.
    package func server(ofEngine id: String) -> Int? { engines.withLock { $0.firstIndex(of: id) } }

    /// The number of transfers that have not ended.
    package var transferCount: Int { slots.reduce(0) { $0 + $1.transferCount } }

    /// Why there is no session; `nil` while there is one.
    package var failure: String? {
        let failures = slots.map(\.failure)
        return failures.contains(nil) ? nil : failures.first ?? nil
    }

    /// Why there is no session with a prefill server; `nil` while there is one.
    package func failure(of server: Int) -> String? { slots[server].failure }

    package var computesPrompts: Bool { true }

    package func carryOut(_ scheduler: inout Scheduler, _ events: [Scheduler.Event]) -> [Scheduler.Event] {
        var events = events
        while true {
            let actions = scheduler.takeTransferActions()
            for action in actions {
                let server = server(for: action)
                if case .requestPrefill(let id, _, _, _) = action { scheduler.prefillIsAsked(id, of: server) }
                events += slots[server].carryOut(&scheduler) { session, scheduler in
                    session.carryOut(action, &scheduler)
                }
            }
            // An engine that has failed or was stopped ends its sessions.
            if scheduler.failure != nil { for slot in slots { events += slot.carryOut(&scheduler) { _, _ in [] } } }
            if actions.isEmpty { return events }
        }
    }

    /// It never asks for this: it sends no keys.
    package func keysAreStored() {}

    /// Returns the index of the server whose session carries out an action. A prefill is asked for at the server that the
    /// request names, or else at the one that has the fewest to compute for this one. A server that has lost a prefill is
    /// asked for it again only if it is the only one.
    private func server(for action: TransferAction) -> Int {
        guard case .requestPrefill(_, let request, _, let attempt) = action else {
            return slots.firstIndex { $0.hasTransfer(of: action.request) } ?? 0
        }
        let connected = slots.indices.filter { slots[$0].failure == nil }
        let named = request.prefillServer
        if attempt == 1, let named, connected.contains(named) { return named }
        let others = attempt > 1 && connected.count > 1 ? connected.filter { $0 != named } : connected
        return others.min { slots[$0].transferCount < slots[$1].transferCount } ?? 0
    }

    private static func receive(
        _ event: TransferLinkEvent, _ slot: Slot, _ flow: PlacementFlow, _ number: UInt64, _ engine: Engine
    ) {
        guard case .frame(let bytes) = event else { return }
        // The checksum is computed outside of the engine's lock.
        do throws(KVFrame.Failure) {
            let frame = try KVFrame(bytes)
            slot.exchange(number, engine) { session, scheduler, caches in
                session.receive(frame, in: frame.receiver, at: TransferTiming.now(), &scheduler) { bytes, entries in
                    let (count, isRemote) = (bytes.count, frame.receiver > 0)
                    if isRemote { flow.begin(count) }
                    return caches.place(bytes, as: entries, in: frame.receiver) { if isRemote { flow.end(count) } }
                }
            }
        } catch {
            slot.close("a frame cannot be read: \(error)", number, engine)
        }
    }
}

/// Counts the bytes that are on their way to the caches of other processes. While they are many, a link's frames are not
/// read, so that they take little memory however slow these processes are.
private final class PlacementFlow: Sendable {
    private let state = Mutex((bytes: 0, isPaused: false))
    private let setReadsFrames: @Sendable (Bool) -> Void
    private let limit: Int

    /// - Parameter limit: the number of bytes from which on frames are not read; they are read again from half of it on.
    init(of link: any TransferLink, limit: Int) {
        self.limit = limit
        // The link has what receives its events, and that has this.
        setReadsFrames = { [weak link] reads in link?.setReadsFrames(reads) }
    }

    /// True while frames are not read.
    var isPaused: Bool { state.withLock { $0.isPaused } }

    func begin(_ bytes: Int) {
        state.withLock { state in
            state.bytes += bytes
            guard !state.isPaused, state.bytes >= limit else { return }
            state.isPaused = true
            setReadsFrames(false)
        }
    }

    func end(_ bytes: Int) {
        state.withLock { state in
            state.bytes -= bytes
            guard state.isPaused, state.bytes <= limit / 2 else { return }
            state.isPaused = false
            setReadsFrames(true)
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
