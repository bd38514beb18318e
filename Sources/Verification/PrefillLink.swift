import Disaggregation
import Inference
import Modeling
import Parallelism
import Tensors

/// A prefill server, and a session over a link in memory with the server that answers. Time passes only when nothing
/// else happens.
struct PrefillLink {
    private(set) var server: LockStepServer
    private(set) var coverage = TransferCoverage()
    private var sending: PrefillSession
    private var receiving: DecodeSession
    private var session: UInt64 = 0
    private var now: UInt64 = 0
    /// The frames on their way, by sending and receiving process.
    private var frames: [[[[UInt8]]]]
    /// What shall happen to a frame; `none` once it has happened.
    private var fault: LinkFault
    /// True if the fault has happened in this session, which may therefore end.
    private var hasFailed = false
    private var problems: [String] = []
    private var random: SeededGenerator
    private let layers: Range<Int>
    private let decode: CachePlacement
    /// The number of rounds in a row in which nothing happened.
    private var idleRounds = 0

    /// - Parameters:
    ///   - decode: the other server.
    ///   - layers: the layers whose keys are sent.
    init(_ server: LockStepServer, to decode: LockStepServer, layers: Range<Int>, _ fault: LinkFault, seed: UInt64) {
        for server in [server, decode] {
            precondition(
                server.stores.count == server.placement.processes, "the caches of other processes cannot be reached")
        }
        self.server = server
        self.decode = decode.placement
        self.layers = layers
        self.fault = fault
        random = SeededGenerator(seed: seed, stream: 3 << 32)
        frames = Array(
            repeating: Array(repeating: [], count: decode.placement.processes), count: server.placement.processes)
        (sending, receiving) = Self.connect(0, server.placement, decode.placement, layers, at: 0)
    }

    private static func connect(
        _ session: UInt64, _ source: CachePlacement, _ target: CachePlacement, _ layers: Range<Int>, at now: UInt64
    ) -> (PrefillSession, DecodeSession) {
        var policy = PrefillPolicy()
        policy.localPrefillTokens = 0
        var sending = PrefillSession(
            session, from: source, to: target, layers: layers, firstRequest: firstRequest(of: session), at: now)
        sending.maxFrameBytes = maxFrameBytes
        return (sending, DecodeSession(session, from: source, to: target, layers: layers, policy, at: now))
    }

    /// The prompts of a workload need some dozens of such frames.
    private static let maxFrameBytes = 4096

    private static func firstRequest(of session: UInt64) -> UInt64 { (session + 1) << 32 }

    // MARK: - Rounds

    /// Lets both servers submit what they can, waits for one step of each, and carries frames between.
    mutating func round(_ decode: inout LockStepServer, _ records: inout StageRecords) throws(GroupFailure)
        -> [Scheduler.Event]
    {
        var events = exchange(&decode)
        while let plan = decode.scheduler.nextStep() {
            events += exchange(&decode)
            decode.submit(plan)
        }
        events += exchange(&decode)
        while let plan = server.scheduler.nextStep() {
            events += exchange(&decode)
            server.submit(plan)
        }
        var isIdle = !server.isStepInFlight && !decode.isStepInFlight
        // Frames of layers that are stored while the step computes later ones.
        if server.isStepInFlight { server.awaitLayers(Int.random(in: 0...layers.count, using: &random)) }
        if carryFrames(&decode, &events) { isIdle = false }
        if server.isStepInFlight { events += try finishPrefillStep(&decode, &records) }
        if carryFrames(&decode, &events) { isIdle = false }
        if decode.isStepInFlight { events += try decode.finishStep(&records) }
        events += exchange(&decode)
        if isIdle { events += wait(&decode) } else { idleRounds = 0 }
        return events
    }

    /// True if the servers have waited for each other for much longer than either waits for a silent one.
    var isStuck: Bool { idleRounds > 100 }

    /// True if nothing is left to do for the prefill server.
    var isIdle: Bool { server.scheduler.isIdle && sending.transferCount == 0 && receiving.transferCount == 0 }

    private mutating func finishPrefillStep(
        _ decode: inout LockStepServer, _ records: inout StageRecords
    ) throws(GroupFailure) -> [Scheduler.Event] {
        let first = Self.firstRequest(of: session)
        let requests = server.scheduler.inFlight[0].chunks.map(\.request)
        // A row belongs to the request that waits for it. Requests of earlier sessions have none.
        let names = requests.compactMap { request in
            request < first ? nil : receiving.request(of: request - first).map { (request, $0) }
        }
        var computed = StageRecords()
        let events = try server.finishStep(&computed)
        records.merge(computed.renamed(Dictionary(uniqueKeysWithValues: names)))
        _ = sending.carryOut(&server.scheduler, events)
        return exchange(&decode)
    }

    /// Lets both sessions carry out what their schedulers want, and delivers their messages.
    private mutating func exchange(_ decode: inout LockStepServer) -> [Scheduler.Event] {
        var events: [Scheduler.Event] = []
        while true {
            events += receiving.carryOut(&decode.scheduler)
            _ = sending.carryOut(&server.scheduler)
            let (up, down) = (receiving.takeMessages(), sending.takeMessages())
            if up.isEmpty && down.isEmpty { return events }
            for message in up { sending.receive(message: message, at: now, &server.scheduler) }
            for message in down { events += receiving.receive(message: message, at: now, &decode.scheduler) }
        }
    }

    // MARK: - Frames

    /// Puts some frames on the link, and delivers some.
    ///
    /// - Returns: whether there were any with entries.
    private mutating func carryFrames(_ decode: inout LockStepServer, _ events: inout [Scheduler.Event]) -> Bool {
        var isAny = false
        for from in frames.indices {
            for to in frames[from].indices {
                for _ in 0..<Int.random(in: 1...6, using: &random) {
                    let frame = sending.nextFrame(from: from, server.stores[from], to: to, at: now) {
                        server.storedLayers(of: $0, group: $1)
                    }
                    guard let frame else { break }
                    isAny = send(frame, from, to, &decode, &events) || isAny
                    events += exchange(&decode)
                }
                for _ in 0..<min(frames[from][to].count, Int.random(in: 1...6, using: &random)) {
                    let frame = frames[from][to].removeFirst()
                    isAny = true
                    events += receiving.receive(frame: frame, in: to, decode.stores[to], at: now, &decode.scheduler)
                    events += exchange(&decode)
                }
            }
        }
        if receiving.failure != nil || sending.failure != nil { reconnect(&decode, &events) }
        return isAny
    }

    private mutating func send(
        _ sent: KVFrame, _ from: Int, _ to: Int, _ decode: inout LockStepServer, _ events: inout [Scheduler.Event]
    ) -> Bool {
        var frame = sent.bytes
        if sent.kind == .beat {
            frames[from][to].append(frame)
            return false
        }
        coverage.frames += 1
        if isEarly(sent) { coverage.earlyFrames += 1 }
        coverage.bytes += UInt64(sent.payload.count)
        // About the eighth frame, so that small workloads have it too.
        if fault != .none, Int.random(in: 0..<8, using: &random) == 0 {
            let happening = fault
            fault = .none
            hasFailed = true
            switch happening {
            case .none: break
            case .drop: return true
            case .damage:
                let bit = Int.random(in: 0..<8 * frame.count, using: &random)
                frame[bit / 8] ^= 1 << UInt8(bit % 8)
            case .cut: events += receiving.close("the link was cut", &decode.scheduler)
            }
        }
        frames[from][to].append(frame)
        return true
    }

    /// Returns true if a step in flight computes positions of a frame.
    private func isEarly(_ frame: KVFrame) -> Bool {
        let request = Self.firstRequest(of: session) + frame.transfer
        return server.scheduler.inFlight.flatMap(\.chunks)
            .contains { $0.request == request && frame.positions.upperBound > $0.start }
    }

    // MARK: - Loss

    /// Lets a second pass in which nothing happens.
    private mutating func wait(_ decode: inout LockStepServer) -> [Scheduler.Event] {
        idleRounds += 1
        now += TransferTiming().beatInterval
        sending.tick(at: now, &server.scheduler)
        var events = receiving.tick(at: now, &decode.scheduler)
        events += exchange(&decode)
        if receiving.failure != nil || sending.failure != nil { reconnect(&decode, &events) }
        return events
    }

    /// Begins a new session. Frames of the old one may still arrive.
    private mutating func reconnect(_ decode: inout LockStepServer, _ events: inout [Scheduler.Event]) {
        // The decode server would compute the prompts itself, and hide what is wrong.
        if !hasFailed {
            problems.append("a session was lost: \(receiving.failure ?? sending.failure ?? "without a reason")")
        }
        hasFailed = false
        coverage.losses += 1
        events += receiving.close("the session is over", &decode.scheduler)
        sending.close("the session is over", &server.scheduler)
        events += exchange(&decode)
        coverage.lateFrames += UInt64(receiving.lateFrames)
        session += 1
        (sending, receiving) = Self.connect(session, server.placement, self.decode, layers, at: now)
    }

    /// Returns what is left or was found wrong.
    mutating func checkBooks() -> [String] {
        coverage.lateFrames += UInt64(receiving.lateFrames)
        server.checkBooks()
        var problems = problems + server.problems.map { "prefill server: \($0)" }
        if !isIdle { problems.append("transfers are left") }
        return problems
    }
}

/// Transfer coverage counts what prefill servers have sent.
package struct TransferCoverage: Sendable, Equatable {
    package var frames: UInt64 = 0
    /// The number of frames that were sent while a step computed later layers of their positions.
    package var earlyFrames: UInt64 = 0
    /// The bytes of cache entries in the frames.
    package var bytes: UInt64 = 0
    /// The number of sessions that were lost.
    package var losses: UInt64 = 0
    /// The number of frames that arrived after the end of their transfer.
    package var lateFrames: UInt64 = 0

    mutating func add(_ other: TransferCoverage) {
        frames += other.frames
        earlyFrames += other.earlyFrames
        bytes += other.bytes
        losses += other.losses
        lateFrames += other.lateFrames
    }
}
