import Disaggregation
import Inference
import KVCache
import Parallelism
import TestSupport

/// A prefill and a decode server that are connected by memory, in a world that delays, drops, repeats, swaps and
/// damages what they send, cuts their connection, and restarts them. Everything follows from a seed.
struct TwoServers {
    let seed: UInt64
    private(set) var prefill: CellServer
    private(set) var decode: CellServer
    private(set) var problems: [String] = []
    /// The unusual situations that have occurred.
    private(set) var seen: Set<String> = []
    private(set) var requests: [UInt64: Outcome] = [:]

    private var random: SplitMix64
    private var now: UInt64 = 0
    private var sending: PrefillSession
    private var receiving: DecodeSession
    private var sessions: UInt64 = 0
    private var links: [Link: [[UInt8]]] = [:]
    private let makePrefill: () -> CellServer
    private let makeDecode: () -> CellServer
    private let layers: Range<Int>
    private let policy: PrefillPolicy
    private let frameBytes: Int
    private var nextID: UInt64 = 0
    private var isHostile: Bool

    /// One direction of a connection: of messages, or of frames between two processes.
    private struct Link: Hashable, Comparable {
        var kind: Kind
        var from = 0
        var to = 0

        enum Kind: Int { case toPrefill, toDecode, frames }

        static func < (a: Link, b: Link) -> Bool {
            (a.kind.rawValue, a.from, a.to) < (b.kind.rawValue, b.from, b.to)
        }
    }

    /// What a client has seen of a request.
    struct Outcome {
        var request: GenerationRequest
        var limit: Int
        var scores: [TokenLogProbs] = []
        var tokens: [TokenLogProbs] = []
        var end: End?

        enum End: Equatable {
            case finished(FinishReason)
            case failed(String)
            /// The server that the client was connected to was restarted.
            case disconnected
        }
    }

    private static let timing: TransferTiming = {
        var timing = TransferTiming()
        timing.beatInterval = 40
        timing.peerTimeout = 400
        return timing
    }()

    init(seed: UInt64) {
        self.seed = seed
        var random = SplitMix64(seed: seed)
        let window = [0, 0, 3, 9][random.below(4)]
        let drafts = random.below(3)
        func make() -> () -> CellServer {
            let division = CellServer.Division.all[random.below(CellServer.Division.all.count)]
            let shards = division.isSharded ? division.parallel.kvSharding.ranks * division.parallel.kvSharding.unit : 1
            let pageSize = max(1 << random.below(4), shards * (window > 0 ? 2 : 1))
            var configuration = SchedulerConfiguration(
                totalPages: (40 + random.below(60)) / pageSize, contextLength: 40, vocabularySize: 30)
            configuration.pageSize = pageSize
            configuration.maxRunningRequests = 1 + random.below(6)
            configuration.maxQueuedRequests = 2 + random.below(10)
            configuration.chunkedPrefillSize = [nil, 2, 5, 9][random.below(4)]
            configuration.maxRowsPerStep = configuration.maxRunningRequests * 4 + random.below(24)
            configuration.maxStepsInFlight = division.parallel.pipeline
            configuration.dataGroups = division.parallel.data
            configuration.groupsShareKeys = division.processes == 1
            configuration.prefixCache = random.below(4) > 0
            configuration.window = window
            let placement = CellServer.placement(division, window: window, pageSize: pageSize)
            let spare = random.below(6)
            return {
                var configuration = configuration
                configuration.drafts = drafts
                configuration.windowPages = configuration.minWindowPages + (window == 0 ? 0 : spare)
                return CellServer(configuration, placement)
            }
        }
        makeDecode = make()
        makePrefill = make()
        prefill = makePrefill()
        decode = makeDecode()
        layers = 0..<(drafts > 0 ? 3 : 2)
        var policy = PrefillPolicy()
        policy.localPrefillTokens = [0, 0, 3][random.below(3)]
        policy.computesLost = random.below(3) > 0
        self.policy = policy
        frameBytes = [1, 30, 200, 4000][random.below(4)]
        isHostile = random.below(4) > 0
        (sending, receiving) = Self.connect(0, prefill, decode, layers, policy, frameBytes, at: 0)
        self.random = random
    }

    private static func connect(
        _ number: UInt64, _ prefill: CellServer, _ decode: CellServer, _ layers: Range<Int>, _ policy: PrefillPolicy,
        _ frameBytes: Int, at now: UInt64
    ) -> (PrefillSession, DecodeSession) {
        var sending = PrefillSession(
            number, from: prefill.placement, to: decode.placement, layers: layers, firstRequest: (number + 1) << 32,
            timing: timing, at: now)
        sending.maxFrameBytes = frameBytes
        let receiving = DecodeSession(
            number, from: prefill.placement, to: decode.placement, layers: layers, policy, timing: timing, at: now)
        return (sending, receiving)
    }

    // MARK: - Events

    mutating func act() {
        now += UInt64(random.below(4))
        switch random.below(24) {
        case 0: submit()
        case 1: abort()
        case 2...7: step(isDecode: true)
        case 8...13: step(isDecode: false)
        case 14...16: pump()
        case 17: tick()
        case 18: disturb()
        default: deliver()
        }
        check()
    }

    /// Lets everything end, without new requests and disturbances.
    mutating func settle() {
        isHostile = false
        for _ in 0..<20_000 {
            if isSettled { break }
            now += 1
            switch random.below(8) {
            case 0...1: step(isDecode: true)
            case 2...3: step(isDecode: false)
            case 4: pump()
            case 5: tick()
            // Up to 16 connections of processes send signs of life, and frames of one entry, faster than one by one.
            default: for _ in 0..<1 + random.below(8) { deliver() }
            }
            check()
        }
        if !isSettled { problems.append("the requests do not end") }
        let transfers = (receiving.transferCount, sending.transferCount)
        if transfers != (0, 0) { problems.append("\(transfers) transfers are left") }
        for (name, server) in [("prefill", prefill), ("decode", decode)] {
            var scheduler = server.scheduler
            if scheduler.status.usedPages != 0 {
                problems.append("\(name): \(scheduler.status.usedPages) pages are used")
            }
            _ = scheduler.flushCache()
            if scheduler.status.freePages != scheduler.configuration.totalPages {
                problems.append("\(name): \(scheduler.status.freePages) pages are free")
            }
        }
    }

    private var isSettled: Bool {
        decode.scheduler.isIdle && prefill.scheduler.isIdle && requests.values.allSatisfy { $0.end != nil }
            && receiving.transferCount == 0 && sending.transferCount == 0
    }

    private mutating func submit() {
        nextID += 1
        let length = 1 + random.below(random.below(2) == 0 ? 30 : 9)
        // Prompts share beginnings, so that prefixes are found on either side.
        var request = GenerationRequest(prompt: (0..<length).map { Int32($0 * 7 % 30) })
        let own = random.below(length + 1)
        for index in own..<length { request.prompt[index] = Int32(random.below(30)) }
        request.sampling.maxNewTokens = min(random.below(8), 40 - length)
        request.sampling.stopTokens = random.below(3) == 0 ? [Int32(random.below(30))] : []
        request.sampling.minNewTokens = min(random.below(3), request.sampling.maxNewTokens!)
        request.priority = random.below(4) == 0 ? random.below(3) - 1 : 0
        request.cacheSalt = random.below(6) == 0 ? "salt" : nil
        if random.below(3) == 0 {
            request.logProbs = LogProbOptions(
                topCount: random.below(3), promptStart: random.below(2) == 0 ? random.below(length) : nil)
        }
        request.mode = random.below(8) == 0 ? .none : .decode
        do throws(EngineError) {
            try decode.scheduler.submit(nextID, request)
            requests[nextID] = Outcome(request: request, limit: request.sampling.maxNewTokens!)
        } catch {
            seen.insert("refusal")
        }
        exchange()
        // The prefill server also has requests of its own, which need its pages.
        if random.below(6) == 0 {
            var request = request
            request.mode = .none
            try? prefill.scheduler.submit(nextID, request)
        }
    }

    private mutating func abort() {
        guard let id = requests.keys.sorted().randomElement(using: &random) else { return }
        record(decode.scheduler.abort(id))
        exchange()
    }

    private mutating func step(isDecode: Bool) {
        let path: WritableKeyPath<TwoServers, CellServer> = isDecode ? \.decode : \.prefill
        switch random.below(3) {
        case 0:
            let plan = self[keyPath: path].scheduler.nextStep()
            exchange()
            if let plan { self[keyPath: path].submit(plan) }
        case 1:
            for _ in 0..<1 + random.below(3) {
                let fails = isHostile && random.below(60) == 0
                if self[keyPath: path].compute(fails: fails) { seen.insert("failure") }
            }
        default:
            guard let result = self[keyPath: path].takeResult() else { return }
            let events = self[keyPath: path].scheduler.finish(result)
            if isDecode { record(events) } else { _ = sending.carryOut(&prefill.scheduler, events) }
            exchange()
        }
    }

    /// Lets both sessions carry out what their schedulers want, and puts their messages on the links.
    private mutating func exchange() {
        record(receiving.carryOut(&decode.scheduler))
        _ = sending.carryOut(&prefill.scheduler)
        links[Link(kind: .toPrefill), default: []] += receiving.takeMessages()
        links[Link(kind: .toDecode), default: []] += sending.takeMessages()
    }

    /// Puts a frame on a link.
    private mutating func pump() {
        let from = random.below(prefill.placement.processes)
        let to = random.below(decode.placement.processes)
        for _ in 0..<1 + random.below(3) {
            guard let frame = nextFrame(from, to) else { break }
            links[Link(kind: .frames, from: from, to: to), default: []].append(frame.bytes)
            seen.insert("frame")
            if isEarly(frame) { seen.insert("early frame") }
        }
        exchange()
    }

    private mutating func nextFrame(_ from: Int, _ to: Int) -> KVFrame? {
        sending.nextFrame(from: from, prefill.stores[from], to: to, at: now) { [prefill] step, _ in
            prefill.storedLayers(of: step)
        }
    }

    /// Returns true if a step in flight computes positions of a frame of this session.
    private func isEarly(_ frame: KVFrame) -> Bool {
        let request = (sessions + 1) << 32 + frame.transfer
        return prefill.scheduler.inFlight.flatMap(\.chunks)
            .contains { $0.request == request && frame.positions.upperBound > $0.start }
    }

    private var busyLinks: [Link] { links.filter { !$0.value.isEmpty }.keys.sorted() }

    private mutating func deliver() {
        guard let link = busyLinks.randomElement(using: &random) else { return }
        let bytes = links[link]!.removeFirst()
        switch link.kind {
        case .toPrefill: sending.receive(message: bytes, at: now, &prefill.scheduler)
        case .toDecode: record(receiving.receive(message: bytes, at: now, &decode.scheduler))
        case .frames:
            let store = decode.stores[link.to]
            record(receiving.receive(frame: bytes, in: link.to, store, at: now, &decode.scheduler))
        }
        exchange()
    }

    private mutating func tick() {
        sending.tick(at: now, &prefill.scheduler)
        record(receiving.tick(at: now, &decode.scheduler))
        exchange()
        // Every connection shows signs of life now and then, however rarely it is chosen.
        for from in 0..<prefill.placement.processes {
            for to in 0..<decode.placement.processes {
                guard let frame = nextFrame(from, to) else { continue }
                links[Link(kind: .frames, from: from, to: to), default: []].append(frame.bytes)
            }
        }
        exchange()
        if receiving.failure != nil || sending.failure != nil { reconnect() }
    }

    /// Starts a new session; what is still on its way in the old one arrives later.
    private mutating func reconnect() {
        record(receiving.close("the connection was lost", &decode.scheduler))
        sending.close("the connection was lost", &prefill.scheduler)
        exchange()
        sessions += 1
        (sending, receiving) = Self.connect(sessions, prefill, decode, layers, policy, frameBytes, at: now)
        seen.insert("new session")
    }

    // MARK: - Disturbances

    private mutating func disturb() {
        guard isHostile else { return }
        switch random.below(24) {
        case 0: cut()
        case 1: restart(isDecode: random.below(2) == 0)
        case 2: now += UInt64(random.below(600))
        default:
            guard random.below(3) == 0, let link = busyLinks.randomElement(using: &random) else { return }
            damage(link)
        }
    }

    private mutating func damage(_ link: Link) {
        var queue = links[link]!
        let index = random.below(queue.count)
        // What was cut short before may have no bytes left.
        if queue[index].isEmpty { return }
        switch random.below(5) {
        case 0: queue.remove(at: index)
        case 1: queue.insert(queue[index], at: index + random.below(queue.count - index) + 1)
        case 2: queue.swapAt(index, random.below(queue.count))
        case 3: queue[index][random.below(queue[index].count)] ^= 1 << UInt8(random.below(8))
        default: queue[index].removeLast(1 + random.below(queue[index].count))
        }
        links[link] = queue
        seen.insert("damage")
    }

    /// Ends the connection; some of what is on its way arrives in the next session.
    private mutating func cut() {
        for link in links.keys.sorted() where random.below(2) == 0 { links[link] = [] }
        if random.below(2) == 0 {
            record(receiving.close("cut", &decode.scheduler))
        } else {
            sending.close("cut", &prefill.scheduler)
        }
        exchange()
        seen.insert("cut")
    }

    private mutating func restart(isDecode: Bool) {
        problems += decode.problems + prefill.problems
        if isDecode {
            decode = makeDecode()
            for id in requests.keys where requests[id]!.end == nil { requests[id]!.end = .disconnected }
            sending.close("the decode server was restarted", &prefill.scheduler)
            sessions += 1
            receiving = DecodeSession(
                sessions, from: prefill.placement, to: decode.placement, layers: layers, policy, timing: Self.timing,
                at: now)
            _ = receiving.close("not connected yet", &decode.scheduler)
        } else {
            prefill = makePrefill()
            sessions += 1
            sending = PrefillSession(
                sessions, from: prefill.placement, to: decode.placement, layers: layers, firstRequest: 1 << 60,
                timing: Self.timing, at: now)
            sending.close("not connected yet", &prefill.scheduler)
        }
        exchange()
        seen.insert("restart")
    }

    // MARK: - Checks

    private mutating func record(_ events: [Scheduler.Event]) {
        for event in events {
            guard var outcome = requests[event.request] else { continue }
            if outcome.end != nil { problems.append("request \(event.request) has an event after its end") }
            switch event.event {
            case .promptLogProbs(let scores): outcome.scores += scores
            case .token(let token): outcome.tokens.append(token)
            case .finished(let reason, _): outcome.end = .finished(reason)
            case .failed(let reason):
                outcome.end = .failed(reason)
                if reason != "NaN", !outcome.tokens.isEmpty {
                    problems.append("request \(event.request) fails after its first token: \(reason)")
                }
                seen.insert(reason == "NaN" ? "failed prefill" : "lost prefill")
            }
            requests[event.request] = outcome
        }
    }

    private mutating func check() {
        for problem in decode.scheduler.checkInvariants() { problems.append("decode: \(problem)") }
        for problem in prefill.scheduler.checkInvariants() { problems.append("prefill: \(problem)") }
    }

    /// Returns everything that is wrong: violated invariants, entries of other requests, and answers that differ from
    /// those of one server.
    mutating func verdict() -> [String] {
        var problems = problems + decode.problems + prefill.problems
        let model = HashModel(vocabularySize: 30)
        for (id, outcome) in requests.sorted(by: { $0.key < $1.key }) {
            let alone = model.answer(outcome.request, limit: outcome.limit)
            if case .finished(let reason) = outcome.end, reason != .abort {
                if outcome.tokens != alone.tokens || outcome.scores != alone.scores || reason != alone.reason {
                    problems.append("request \(id) has another answer: \(outcome.tokens.count) tokens")
                }
                seen.insert("answer")
            } else if !alone.tokens.starts(with: outcome.tokens) || !alone.scores.starts(with: outcome.scores) {
                problems.append("request \(id) has the beginning of another answer")
            }
        }
        if receiving.lateFrames > 0 { seen.insert("late frame") }
        return problems
    }
}
