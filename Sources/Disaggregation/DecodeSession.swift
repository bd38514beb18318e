package import Inference
package import KVCache
import Parallelism

/// A decode session is the decode server's end of its connection to a prefill server. It carries out the scheduler's
/// actions, and tells the scheduler what becomes of them. It has no threads, no clock and no sockets: bytes and times
/// come in, bytes go out.
///
/// A transfer is a request's prefill, numbered within the session. If it is lost, because the prefill server refuses or
/// fails, or the session ends, the request is resolved by `PrefillPolicy`: its prefill goes on here with the keys that
/// have arrived, is asked for again, or the request fails before its first token. Answers do not depend on which,
/// because no key depends on who computes it.
///
/// Frames of transfers that have ended are skipped: their pages may belong to other requests.
package struct DecodeSession: Sendable {
    /// Why the session has ended; `nil` while it is in use. An ended session still resolves requests.
    package private(set) var failure: String?
    /// The number of frames that arrived after the end of their transfers, or twice.
    package private(set) var lateFrames = 0
    private var connection: TransferConnection
    private let source: CachePlacement
    private let target: CachePlacement
    private let layers: Range<Int>
    private let policy: PrefillPolicy
    private var transfers: [UInt64: Transfer] = [:]
    /// The transfer of each request.
    private var transferOf: [UInt64: UInt64] = [:]
    private var nextTransfer: UInt64 = 0
    private var plans: [Groups: TransferPlan] = [:]
    /// The number of the next frame from each process of the prefill server to each process of this one.
    private var nextFrames: [Pair: UInt64] = [:]
    /// The last time at which a frame of any process arrived, or frames were not read.
    private var framesHeard: UInt64

    private struct Groups: Hashable {
        let source: Int
        let target: Int
    }

    private struct Pair: Hashable {
        let sender: Int
        let receiver: Int
    }

    private struct Transfer: Sendable {
        let request: UInt64
        /// The number of times in a row that the request's prefill was asked for.
        let attempt: Int
        /// The data group of the prefill server, once it has begun.
        var group: Int?
        /// One receiver for each process, once pages are reserved.
        var receivers: [KVReceiver] = []
        var result: PrefillResult?

        var reached: Int { receivers.map(\.reached).min() ?? 0 }
    }

    /// - Parameters:
    ///   - number: a number that no other session of the two servers has.
    ///   - source: the placement of the prefill server's cache.
    ///   - target: the placement of this server's cache.
    ///   - layers: the layers whose keys are sent.
    package init(
        _ number: UInt64, from source: CachePlacement, to target: CachePlacement, layers: Range<Int>,
        _ policy: PrefillPolicy = PrefillPolicy(), timing: TransferTiming = TransferTiming(), at now: UInt64
    ) {
        connection = TransferConnection(session: number, timing, at: now)
        self.source = source
        self.target = target
        self.layers = layers
        self.policy = policy
        framesHeard = now
    }

    /// Creates a session that has ended before it began.
    init(
        endedBecause reason: String, placement: CachePlacement, layers: Range<Int>, _ policy: PrefillPolicy
    ) {
        self.init(0, from: placement, to: placement, layers: layers, policy, at: 0)
        failure = reason
    }

    /// The number of transfers that have not ended.
    package var transferCount: Int { transfers.count }

    func hasTransfer(of request: UInt64) -> Bool { transferOf[request] != nil }

    /// Returns the scheduler's identifier of a transfer's request; `nil` if there is no such transfer or it has ended.
    package func request(of transfer: UInt64) -> UInt64? { transfers[transfer]?.request }

    /// Returns the messages to send to the prefill server since the last call, in order.
    package mutating func takeMessages() -> [[UInt8]] { connection.takeOutbox() }

    /// Carries out a scheduler's actions until there are none left. It must be called after every change of the
    /// scheduler, before its next plan is submitted. Where there are several sessions, `DecodeEndpoint` chooses one for
    /// each action instead.
    package mutating func carryOut(_ scheduler: inout Scheduler) -> [Scheduler.Event] {
        var events: [Scheduler.Event] = []
        while true {
            let actions = scheduler.takeTransferActions()
            if actions.isEmpty { return events }
            for action in actions { events += carryOut(action, &scheduler) }
        }
    }

    /// Carries out one action of the scheduler.
    mutating func carryOut(_ action: TransferAction, _ scheduler: inout Scheduler) -> [Scheduler.Event] {
        switch action {
        case .requestPrefill(let id, let request, let missing, let attempt):
            return ask(id, request, missing: missing, attempt, &scheduler)
        case .receive(let id, let reservation):
            guard let number = transferOf[id], let group = transfers[number]?.group else {
                return scheduler.prefillLost(id, .local(reached: reservation.positions.lowerBound))
            }
            let plan = plan(Groups(source: group, target: reservation.group))
            transfers[number]!.receivers = (0..<target.processes).map {
                KVReceiver(plan, process: $0, reservation)
            }
            connection.send(
                .ready(
                    number, group: reservation.group, positions: reservation.positions,
                    windowStart: reservation.windowStart))
        case .cancel(let id):
            if let number = endTransfer(of: id) { connection.send(.cancel(number)) }
        case .prefillStarted, .send, .pauseSending, .prefilled:
            preconditionFailure("an action of a prefill server: \(action)")
        }
        return []
    }

    private mutating func ask(
        _ id: UInt64, _ request: GenerationRequest, missing: Int, _ attempt: Int, _ scheduler: inout Scheduler
    ) -> [Scheduler.Event] {
        // The prefill server has no grammars; a short prompt is computed in less time than is needed to ask for it.
        if missing <= policy.localPrefillTokens || request.grammar != nil {
            if let room = request.room, failure == nil { connection.send(.local(room: room)) }
            return scheduler.prefillLost(id, .local(reached: 0))
        }
        guard failure == nil else { return scheduler.prefillLost(id, withoutOthers(reached: 0)) }
        let number = nextTransfer
        nextTransfer += 1
        transfers[number] = Transfer(request: id, attempt: attempt)
        transferOf[id] = number
        connection.send(.ask(number, request))
        return []
    }

    private mutating func plan(_ groups: Groups) -> TransferPlan {
        if let plan = plans[groups] { return plan }
        let plan = TransferPlan(from: source, group: groups.source, to: target, group: groups.target, layers: layers)
        plans[groups] = plan
        return plan
    }

    private mutating func endTransfer(of id: UInt64) -> UInt64? {
        guard let number = transferOf.removeValue(forKey: id) else { return nil }
        transfers[number] = nil
        return number
    }

    // MARK: - What arrives

    /// Applies a message of the prefill server.
    package mutating func receive(
        message bytes: [UInt8], at now: UInt64, _ scheduler: inout Scheduler
    ) -> [Scheduler.Event] {
        guard failure == nil else { return [] }
        do throws(TransferFailure) {
            guard let message = try connection.read(bytes, at: now) else { return [] }
            return try apply(message, &scheduler)
        } catch {
            return close(error.description, &scheduler)
        }
    }

    private mutating func apply(
        _ message: TransferMessage, _ scheduler: inout Scheduler
    ) throws(TransferFailure) -> [Scheduler.Event] {
        switch message {
        case .beat: return []
        case .ask, .ready, .cancel, .local:
            throw TransferFailure("a prefill server sends no message of the kind \(message.kind)")
        case .started(let number, let group):
            guard let transfer = transfers[number] else { return [] }
            guard transfer.group == nil, (0..<source.parallel.data).contains(group) else {
                throw TransferFailure("transfer \(number) has started in data group \(group)")
            }
            transfers[number]!.group = group
            scheduler.prefillStarted(transfer.request)
            return []
        case .scores(let number, let scores):
            guard let transfer = transfers[number] else { return [] }
            try check(scores, scheduler)
            return scheduler.takePrefillScores(transfer.request, scores)
        case .prefilled(let number, let result):
            guard let transfer = transfers[number] else { return [] }
            try check(result.token.map { [$0] } ?? [], scheduler)
            let known = 0..<Int32(scheduler.limits.vocabularySize)
            guard transfer.result == nil, result.drafts.allSatisfy(known.contains), result.cachedTokens >= 0 else {
                throw TransferFailure("transfer \(number) has a second result, or drafts out of range")
            }
            transfers[number]!.result = result
            return completed(number, &scheduler)
        case .lost(let number, let reason, let isFinal):
            guard let transfer = transfers[number] else { return [] }
            _ = endTransfer(of: transfer.request)
            let recovery =
                isFinal
                ? PrefillRecovery.fail(reason, reached: transfer.reached)
                : recovery(of: transfer)
            return scheduler.prefillLost(transfer.request, recovery)
        }
    }

    private func check(_ scores: [TokenLogProbs], _ scheduler: Scheduler) throws(TransferFailure) {
        let known = 0..<Int32(scheduler.limits.vocabularySize)
        guard scores.allSatisfy({ known.contains($0.token) && $0.top.allSatisfy { known.contains($0.token) } }) else {
            throw TransferFailure("a token is not in the vocabulary of \(known.upperBound)")
        }
    }

    /// Places a frame that has arrived in a process of this server.
    package mutating func receive(
        frame bytes: [UInt8], in process: Int, _ store: CacheStore, at now: UInt64, _ scheduler: inout Scheduler
    ) -> [Scheduler.Event] {
        do throws(KVFrame.Failure) {
            return receive(try KVFrame(bytes), in: process, at: now, &scheduler) { store.unpack($0, as: $1) }
        } catch {
            return close("process \(process) cannot read a frame: \(error)", &scheduler)
        }
    }

    /// Places a frame that has arrived for a process of this server, and was read already.
    ///
    /// - Parameter write: writes the bytes of some entries into the process's cache, and returns whether it could.
    package mutating func receive(
        _ frame: KVFrame, in process: Int, at now: UInt64, _ scheduler: inout Scheduler,
        _ write: ([UInt8], [CacheEntries]) -> Bool
    ) -> [Scheduler.Event] {
        guard failure == nil else { return [] }
        let pair = Pair(sender: frame.sender, receiver: process)
        guard frame.session == connection.session else {
            lateFrames += 1
            return []
        }
        guard frame.receiver == process, (0..<target.processes).contains(process),
            (0..<source.processes).contains(frame.sender)
        else {
            return close(
                "process \(process) received a frame of process \(frame.sender) for process \(frame.receiver)",
                &scheduler)
        }
        let next = nextFrames[pair] ?? 0
        guard frame.sequence == next else {
            if frame.sequence < next {
                lateFrames += 1
                return []
            }
            return close("frame \(next) of process \(frame.sender) is missing before \(frame.sequence)", &scheduler)
        }
        nextFrames[pair] = next + 1
        framesHeard = now
        if frame.kind == .beat { return [] }
        guard let transfer = transfers[frame.transfer], !transfer.receivers.isEmpty else {
            lateFrames += 1
            return []
        }
        if let problem = transfers[frame.transfer]!.receivers[process].place(frame, write) {
            return close("a frame of transfer \(frame.transfer) is refused: \(problem)", &scheduler)
        }
        return completed(frame.transfer, &scheduler)
    }

    private mutating func completed(_ number: UInt64, _ scheduler: inout Scheduler) -> [Scheduler.Event] {
        guard let transfer = transfers[number], let result = transfer.result, !transfer.receivers.isEmpty,
            transfer.receivers.allSatisfy(\.isComplete)
        else { return [] }
        _ = endTransfer(of: transfer.request)
        return scheduler.received(
            transfer.request, result, windowStart: transfer.receivers.compactMap(\.windowStart).max() ?? 0)
    }

    // MARK: - Loss

    /// Records that frames are not read at this time, so that the prefill server is not silent if none arrives. While they
    /// are not read, it must be called before each `tick`.
    package mutating func framesAreNotRead(at now: UInt64) { framesHeard = now }

    /// Sends signs of life, and ends the session if the prefill server gives none: no messages, or no frames of any of its
    /// processes, which share a connection.
    package mutating func tick(at now: UInt64, _ scheduler: inout Scheduler) -> [Scheduler.Event] {
        guard failure == nil else { return [] }
        do throws(TransferFailure) {
            try connection.tick(at: now)
        } catch {
            return close(error.description, &scheduler)
        }
        guard !connection.isSilent(since: framesHeard, at: now) else {
            return close("the prefill server was silent: it has sent no frames for \(now - framesHeard) ms", &scheduler)
        }
        return []
    }

    /// Ends the session, and resolves its requests.
    package mutating func close(_ reason: String, _ scheduler: inout Scheduler) -> [Scheduler.Event] {
        guard failure == nil else { return [] }
        failure = reason
        let lost = transfers.sorted { $0.key < $1.key }.map(\.value)
        (transfers, transferOf) = ([:], [:])
        var events: [Scheduler.Event] = []
        for transfer in lost {
            events += scheduler.prefillLost(transfer.request, recovery(of: transfer))
        }
        return events
    }

    /// Returns what becomes of a request whose transfer is lost.
    private func recovery(of transfer: Transfer) -> PrefillRecovery {
        let canAsk = failure == nil || policy.servers > 1
        if canAsk, transfer.attempt < policy.maxAttempts { return .again(reached: transfer.reached) }
        return withoutOthers(reached: transfer.reached)
    }

    /// Returns what becomes of a request whose prefill no other server is asked for.
    private func withoutOthers(reached: Int) -> PrefillRecovery {
        policy.computesLost
            ? .local(reached: reached)
            : .fail("the prefill server was lost: \(failure ?? "it refuses")", reached: reached)
    }
}

extension DecodeSession: TransferSession {}

/// The rules by which a decode server resolves where a prompt is computed.
package struct PrefillPolicy: Sendable, Equatable {
    /// A prompt of which the prefix cache lacks at most this many tokens is computed by the decode server.
    package var localPrefillTokens = 512
    /// The largest number of times in a row that a request's prefill is asked for.
    package var maxAttempts = 2
    /// The number of prefill servers: a prefill that one of them has lost is asked for at another one.
    package var servers = 1
    /// True if the decode server computes what is missing of a lost prefill; otherwise the request fails.
    package var computesLost = true

    package init() {}
}
