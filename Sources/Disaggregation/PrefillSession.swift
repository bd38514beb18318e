package import Inference
package import KVCache
import Parallelism

/// A prefill session is the prefill server's end of its connection to a decode server: requests come in, keys go out.
/// It has no threads, no clock and no sockets.
///
/// Frames are made only when a connection takes them (`nextFrame`), so what waits to be sent needs no memory besides
/// the cache's pages. Those are kept only for transfers whose receivers have reserved pages, and until the last frame
/// is made.
package struct PrefillSession: Sendable {
    /// Why the session has ended; `nil` while it is in use.
    package private(set) var failure: String?
    /// The largest number of bytes of a frame that has several entries.
    package var maxFrameBytes = 1 << 20
    private var connection: TransferConnection
    private let source: CachePlacement
    private let target: CachePlacement
    private let layers: Range<Int>
    private var transfers: [UInt64: Transfer] = [:]
    private var transferOf: [UInt64: UInt64] = [:]
    private var nextTransfer: UInt64 = 0
    private var plans: [[Int]: TransferPlan] = [:]
    /// The next frame's number on each connection, and the time of the last one.
    private var frames: [[Int]: (next: UInt64, sent: UInt64)] = [:]
    /// The transfer that last sent a frame on each connection: they take turns.
    private var lastServed: [[Int]: UInt64] = [:]
    private let began: UInt64
    private let firstRequest: UInt64
    /// The rooms for which posts to this server wait; `nil` where there are none.
    private let rooms: PrefillRooms?

    private struct Transfer: Sendable {
        let request: UInt64
        let promptCount: Int
        let room: UInt64?
        var group: Int?
        /// One sender for each process, once the decode server has reserved pages.
        var senders: [KVSender] = []
        var hasResult = false
    }

    /// The other parameters are those of the decode server's `DecodeSession`.
    ///
    /// - Parameter firstRequest: the scheduler's identifier of the first transfer's request. No other request may have
    ///   this one or one after it.
    package init(
        _ number: UInt64, from source: CachePlacement, to target: CachePlacement, layers: Range<Int>,
        firstRequest: UInt64, timing: TransferTiming = TransferTiming(), at now: UInt64,
        rooms: PrefillRooms? = nil
    ) {
        self.rooms = rooms
        connection = TransferConnection(session: number, timing, at: now)
        self.firstRequest = firstRequest
        self.source = source
        self.target = target
        self.layers = layers
        began = now
    }

    /// Creates a session that has ended before it began.
    init(endedBecause reason: String, placement: CachePlacement) {
        self.init(0, from: placement, to: placement, layers: 0..<0, firstRequest: .max, at: 0)
        failure = reason
    }

    /// The number of transfers that have not ended.
    package var transferCount: Int { transfers.count }

    /// Returns the messages to send to the decode server since the last call, in order.
    package mutating func takeMessages() -> [[UInt8]] { connection.takeOutbox() }

    /// Returns the scheduler's identifier of a transfer's request.
    private func request(of transfer: UInt64) -> UInt64 { firstRequest + transfer }

    /// Carries out a scheduler's actions about this session's requests, and sends their events. It must be called after every change of the scheduler,
    /// before its next plan is submitted.
    ///
    /// - Returns: the events of requests that are not of this session.
    package mutating func carryOut(_ scheduler: inout Scheduler, _ events: [Scheduler.Event] = []) -> [Scheduler.Event]
    {
        var others: [Scheduler.Event] = []
        for event in events {
            guard let number = transferOf[event.request] else {
                if event.request < firstRequest || event.request >= request(of: nextTransfer) { others.append(event) }
                continue
            }
            switch event.event {
            case .promptLogProbs(let scores): connection.send(.scores(number, scores))
            case .failed(let reason): end(number, reason, isFinal: scheduler.failure == nil)
            case .token, .finished: preconditionFailure("a prefill has no such event: \(event)")
            }
        }
        for action in scheduler.takeTransferActions(of: firstRequest..<request(of: nextTransfer)) { carryOut(action) }
        for number in transfers.keys.sorted() where isSent(number) {
            let request = transfers.removeValue(forKey: number)!.request
            transferOf[request] = nil
            scheduler.finishSending(request)
        }
        return others
    }

    private func isSent(_ number: UInt64) -> Bool {
        let transfer = transfers[number]!
        return transfer.hasResult && !transfer.senders.isEmpty && transfer.senders.allSatisfy(\.isDone)
    }

    private mutating func carryOut(_ action: TransferAction) {
        switch action {
        case .prefillStarted(let id, let group):
            guard let number = transferOf[id] else { return }
            transfers[number]!.group = group
            connection.send(.started(number, group: group))
        case .send(let id, let pages, let progress):
            guard let number = transferOf[id] else { return }
            for process in transfers[number]!.senders.indices {
                transfers[number]!.senders[process].send(from: pages, progress)
            }
        case .pauseSending(let id):
            guard let number = transferOf[id] else { return }
            for process in transfers[number]!.senders.indices { transfers[number]!.senders[process].pause() }
        case .prefilled(let id, let result):
            guard let number = transferOf[id], !transfers[number]!.hasResult else { return }
            transfers[number]!.hasResult = true
            if let room = transfers[number]!.room { rooms?.settle(room) }
            connection.send(.prefilled(number, result))
        case .cancel(let id):
            guard let number = transferOf[id] else { return }
            end(number, "the prefill server has given up the request", isFinal: false)
        case .requestPrefill, .receive: preconditionFailure("an action of a decode server: \(action)")
        }
    }

    private mutating func end(_ number: UInt64, _ reason: String, isFinal: Bool) {
        let transfer = transfers.removeValue(forKey: number)!
        transferOf[transfer.request] = nil
        if let room = transfer.room { rooms?.settle(room) }
        connection.send(.lost(number, reason: reason, isFinal: isFinal))
    }

    // MARK: - What arrives

    /// Applies a message of the decode server.
    @discardableResult
    package mutating func receive(
        message bytes: [UInt8], at now: UInt64, _ scheduler: inout Scheduler
    ) -> [Scheduler.Event] {
        guard failure == nil else { return [] }
        do throws(TransferFailure) {
            guard let message = try connection.read(bytes, at: now) else { return [] }
            try apply(message, &scheduler)
            return carryOut(&scheduler)
        } catch {
            return close(error.description, &scheduler)
        }
    }

    private mutating func apply(_ message: TransferMessage, _ scheduler: inout Scheduler) throws(TransferFailure) {
        switch message {
        case .beat: return
        case .started, .scores, .prefilled, .lost:
            throw TransferFailure("a decode server sends no message of the kind \(message.kind)")
        case .ask(let number, let request):
            guard number == nextTransfer else {
                throw TransferFailure("transfer \(number) follows transfer \(nextTransfer)")
            }
            nextTransfer += 1
            accept(number, request, &scheduler)
        case .ready(let number, let group, let positions, let windowStart):
            guard let transfer = transfers[number] else { return }
            guard transfer.senders.isEmpty, let own = transfer.group, (0..<target.parallel.data).contains(group),
                !positions.isEmpty, positions.upperBound == transfer.promptCount,
                positions.lowerBound % source.format.positionAlignment == 0,
                (positions.lowerBound...positions.upperBound).contains(windowStart)
            else {
                throw TransferFailure("transfer \(number) is ready for \(positions) in data group \(group)")
            }
            start(number, plan(own, group), positions, windowStart)
            scheduler.startSending(transfer.request)
        case .cancel(let number):
            guard let transfer = transfers.removeValue(forKey: number) else { return }
            transferOf[transfer.request] = nil
            if let room = transfer.room { rooms?.settle(room) }
            _ = scheduler.abort(transfer.request)
        case .local(let room): rooms?.settle(room)
        }
    }

    private mutating func accept(_ number: UInt64, _ request: GenerationRequest, _ scheduler: inout Scheduler) {
        var request = request
        request.mode = .prefill
        do throws(EngineError) {
            try scheduler.submit(self.request(of: number), request)
            transfers[number] = Transfer(
                request: self.request(of: number), promptCount: request.prompt.count, room: request.room)
            transferOf[self.request(of: number)] = number
            if let room = request.room { rooms?.ask(room) }
        } catch {
            if let room = request.room { rooms?.settle(room) }
            connection.send(.lost(number, reason: "\(error)", isFinal: false))
        }
    }

    private mutating func start(_ number: UInt64, _ plan: TransferPlan, _ positions: Range<Int>, _ windowStart: Int) {
        var settings = KVSender.Settings(session: connection.session, transfer: number)
        settings.maxBytes = maxFrameBytes
        transfers[number]!.senders = (0..<source.processes).map {
            KVSender(plan, process: $0, positions: positions, windowStart: windowStart, settings)
        }
    }

    private mutating func plan(_ group: Int, _ targetGroup: Int) -> TransferPlan {
        if let plan = plans[[group, targetGroup]] { return plan }
        let plan = TransferPlan(from: source, group: group, to: target, group: targetGroup, layers: layers)
        plans[[group, targetGroup]] = plan
        return plan
    }

    // MARK: - What is sent

    /// The numbers of processes of this server and of the decode server.
    package var processes: (own: Int, other: Int) { (source.processes, target.processes) }

    /// Returns the number of layers, from the first one on, of which the first process has all entries that it keeps of a
    /// step's rows in a data group; see `ServerCaches.storedLayers`.
    package typealias StoredLayers = (_ step: Int, _ group: Int) -> Int

    /// True if more entries of the first process may be sent before a step in flight ends.
    var awaitsLayers: Bool { transfers.values.contains { $0.senders.first?.awaitsLayers ?? false } }

    /// Returns the next frame with entries from a process of this server to one of the decode server; `nil` if there is
    /// none now. Transfers take turns. The frames of such a pair must be packed and numbered in the order in which they are
    /// returned. `carryOut` must follow, which ends transfers whose last frames were returned.
    ///
    /// Entries of other processes than the first one are sent when their step has ended: nobody knows before that how far
    /// their ranks are.
    package mutating func nextUnpackedFrame(
        from process: Int, to receiver: Int, _ storedLayers: StoredLayers
    ) -> UnpackedFrame? {
        guard failure == nil else { return nil }
        let pair = [process, receiver]
        let last = lastServed[pair] ?? 0
        let order = transfers.keys.sorted()
        for number in order.filter({ $0 > last }) + order.filter({ $0 <= last })
        where !transfers[number]!.senders.isEmpty {
            let group = transfers[number]!.group ?? 0
            let frame = transfers[number]!.senders[process].nextFrame(to: receiver) { step in
                process == 0 ? storedLayers(step, group) : 0
            }
            guard let frame else { continue }
            lastServed[pair] = number
            return frame
        }
        return nil
    }

    /// Returns a sign of life for a pair of processes; `nil` while it is not time for one.
    private mutating func beat(from process: Int, to receiver: Int, at now: UInt64) -> KVFrame? {
        let last = frames[[process, receiver]]?.sent ?? began
        guard failure == nil, now >= last + connection.timing.beatInterval else { return nil }
        return numbered(KVFrame(.beat, session: connection.session, sender: process, receiver: receiver), at: now)
    }

    /// Returns the signs of life for which it is time, of all pairs of processes.
    package mutating func beats(at now: UInt64) -> [KVFrame] {
        var beats: [KVFrame] = []
        for process in 0..<source.processes {
            for receiver in 0..<target.processes {
                if let beat = beat(from: process, to: receiver, at: now) { beats.append(beat) }
            }
        }
        return beats
    }

    /// Returns the next frame from a process of this server, which has this cache, to one of the decode server; `nil` if there
    /// is nothing to send now. `carryOut` must follow.
    package mutating func nextFrame(
        from process: Int, _ store: CacheStore, to receiver: Int, at now: UInt64, _ storedLayers: StoredLayers
    ) -> KVFrame? {
        guard let next = nextUnpackedFrame(from: process, to: receiver, storedLayers) else {
            return beat(from: process, to: receiver, at: now)
        }
        var bytes: [UInt8] = []
        guard store.pack(next.entries, into: &bytes) else {
            preconditionFailure("process \(process) does not keep \(next.frame.positions) of \(next.frame.layers)")
        }
        return numbered(next.with(bytes), at: now)
    }

    /// Returns a frame with its sequence number. It must be sent next on the connection of its processes.
    package mutating func numbered(_ frame: KVFrame, at now: UInt64) -> KVFrame {
        let pair = [frame.sender, frame.receiver]
        var frame = frame
        frame.sequence = frames[pair]?.next ?? 0
        frames[pair] = (frame.sequence + 1, now)
        return frame
    }

    // MARK: - Loss

    /// Sends signs of life, and ends the session if the decode server gives none.
    @discardableResult
    package mutating func tick(at now: UInt64, _ scheduler: inout Scheduler) -> [Scheduler.Event] {
        guard failure == nil else { return [] }
        do throws(TransferFailure) {
            try connection.tick(at: now)
            return []
        } catch {
            return close(error.description, &scheduler)
        }
    }

    /// Ends the session and its requests.
    @discardableResult
    package mutating func close(_ reason: String, _ scheduler: inout Scheduler) -> [Scheduler.Event] {
        guard failure == nil else { return [] }
        failure = reason
        let requests = transferOf.keys.sorted()
        for transfer in transfers.values { if let room = transfer.room { rooms?.settle(room) } }
        (transfers, transferOf) = ([:], [:])
        for request in requests { _ = scheduler.abort(request) }
        return carryOut(&scheduler)
    }
}

extension PrefillSession: TransferSession {}
