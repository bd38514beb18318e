import Inference
import Parallelism
import TestSupport
import Testing

struct PrefixCacheSchedulerTests {
    /// Returns a prompt whose tokens depend only on their index, and on `tail` from index `from` on.
    private static func request(_ count: Int, new: Int? = 2, tail: Int = 0, from: Int = .max) -> GenerationRequest {
        var request = makeRequest(count, new: new)
        for index in request.prompt.indices where index >= from {
            request.prompt[index] = (request.prompt[index] + Int32(tail)) % 50
        }
        return request
    }

    private static func cachedTokens(_ transcript: Transcript?) -> Int? {
        guard case .finished(_, let usage) = transcript?.end else { return nil }
        return usage.cachedTokens
    }

    /// A long request keeps the first group busy, so that an equal prompt is computed in the second.
    @Test(arguments: [true, false])
    func `a group uses another group's pages only if it can read them`(groupsShareKeys: Bool) throws {
        var rig = Rig(pages: 32) {
            $0.dataGroups = 2
            $0.groupsShareKeys = groupsShareKeys
        }
        try rig.submit(1, Self.request(14))
        rig.runToEnd()
        try rig.submit(2, Self.request(20, new: 8, tail: 3, from: 0))
        rig.step()
        try rig.submit(3, Self.request(14))
        let chunk = try #require(rig.step()?.chunks.first { $0.request == 3 })
        #expect(chunk.group == 1)
        #expect(chunk.start == (groupsShareKeys ? 12 : 0))
        rig.runToEnd()
        #expect(rig.scheduler.checkInvariants() == [])
        // A request of the same group finds the pages.
        try rig.submit(4, Self.request(14))
        #expect(rig.step()?.chunks.map(\.start) == [12])
    }

    @Test func `an equal prompt begins after the pages of the first, and gets the same text`() throws {
        var rig = Rig()
        let request = Self.request(14)
        try rig.submit(1, request)
        rig.runToEnd()
        #expect(rig.scheduler.status.cachedPages == 3)
        #expect(rig.scheduler.status.usedPages == 0)
        try rig.submit(2, request)
        let plans = rig.runToEnd()
        #expect(plans[0].chunks[0].start == 12)
        #expect(rig.transcripts[1]?.tokens == rig.transcripts[2]?.tokens)
        #expect(rig.transcripts[2]?.withoutHits == rig.soloRun(request))
        #expect(Self.cachedTokens(rig.transcripts[1]) == 0)
        #expect(Self.cachedTokens(rig.transcripts[2]) == 12)
        #expect(rig.scheduler.status.cacheLookupTokens == 28)
        #expect(rig.scheduler.status.cacheHitTokens == 12)
        #expect(rig.scheduler.status.promptTokens == 28)
    }

    @Test(arguments: [(12, 8), (13, 12), (4, 0), (5, 4)])
    func `the last token of a prompt is computed even if it is known`(count: Int, start: Int) throws {
        var rig = Rig()
        try rig.submit(1, Self.request(16))
        rig.runToEnd()
        try rig.submit(2, Self.request(count))
        #expect(rig.runToEnd()[0].chunks[0].start == start)
        #expect(rig.transcripts[2]?.withoutHits == rig.soloRun(Self.request(count)))
    }

    @Test(arguments: [(0, 0), (1, 0), (4, 0), (5, 4), (8, 4), (9, 8), (13, 12)])
    func `what is needed to score a prompt is computed`(first: Int, start: Int) throws {
        var rig = Rig()
        try rig.submit(1, Self.request(14))
        rig.runToEnd()
        var request = Self.request(14)
        request.logProbs = LogProbOptions(topCount: 2, promptStart: first)
        try rig.submit(2, request)
        #expect(rig.runToEnd()[0].chunks[0].start == start)
        #expect(rig.transcripts[2]?.withoutHits == rig.soloRun(request))
    }

    @Test func `different salts share nothing, equal ones do`() throws {
        var rig = Rig()
        var starts: [Int] = []
        for (id, salt) in [nil, "a", "b", "a", nil].enumerated() {
            var request = Self.request(9)
            request.cacheSalt = salt
            try rig.submit(UInt64(id), request)
            starts.append(rig.runToEnd()[0].chunks[0].start)
            #expect(rig.transcripts[UInt64(id)]?.withoutHits == rig.soloRun(request))
        }
        #expect(starts == [0, 0, 0, 8, 8])
    }

    @Test func `chunks of a prompt are found as soon as they are computed`() throws {
        var rig = Rig { $0.chunkedPrefillSize = 8 }
        try rig.submit(1, Self.request(22))
        rig.step()
        try rig.submit(2, Self.request(22, tail: 5, from: 17))
        let plan = rig.step()
        #expect(plan?.chunks.map(\.start) == [8, 8])
        #expect(plan?.chunks[0].pages.prefix(2) == plan?.chunks[1].pages.prefix(2))
        #expect(plan?.chunks[0].pages[2] != plan?.chunks[1].pages[2], "each writes pages of its own")
        rig.runToEnd()
        #expect(rig.transcripts[1]?.withoutHits == rig.soloRun(Self.request(22)))
        #expect(rig.transcripts[2]?.withoutHits == rig.soloRun(Self.request(22, tail: 5, from: 17)))
    }

    /// The window of the last page border is kept while a request decodes, wherever its text ends.
    @Test(arguments: [0, 1, 4, 6], [5, 7, 8, 9, 10])
    func `a conversation continues after its last answer`(window: Int, new: Int) throws {
        var rig = Rig {
            $0.window = window
            $0.windowPages = window == 0 ? 0 : 2 * $0.minWindowPages
        }
        var request = Self.request(6, new: new)
        for turn in 0..<3 {
            try rig.submit(UInt64(turn), request)
            let start = rig.runToEnd()[0].chunks[0].start
            // The last token of an answer is never an input.
            #expect(start == (turn == 0 ? 0 : (request.prompt.count - 2) / 4 * 4))
            #expect(rig.transcripts[UInt64(turn)]?.withoutHits == rig.soloRun(request))
            request.prompt += rig.transcripts[UInt64(turn)]!.tokens.map(\.token) + [Int32(turn)]
            request.sampling.maxNewTokens = 5
        }
    }

    /// Ranks in several processes send each other only the window before the last page border inside a step, and that
    /// before its end. Of the windows before other borders each has a part, which it sends when a request continues there.
    @Test(arguments: [true, false])
    func `a prefix that ends inside a step is found, and its window is sent once`(isDivided: Bool) throws {
        for (length, cases) in [22: [9: 8, 21: 20], 24: [9: 8, 21: 20, 24: 20]] {
            for (shared, found) in cases {
                var rig = Rig(pages: 32) {
                    $0.chunkedPrefillSize = -1
                    $0.window = 4
                    $0.windowPages = 4 * $0.minWindowPages
                    if isDivided { $0.dividedGroups = .init(ParallelConfiguration(context: 2), alignment: 2) }
                }
                try rig.submit(1, Self.request(length))
                #expect(rig.step()?.chunks.map(\.tokens.count) == [length])
                rig.runToEnd()
                for id in [2, 3] as [UInt64] {
                    // With 24 shared tokens it is the same prompt, whose last token is computed again.
                    let tail = shared == length ? 0 : 3 + Int(id)
                    let request = Self.request(length, tail: tail, from: shared)
                    try rig.submit(id, request)
                    let chunks = rig.runToEnd().map { $0.chunks[0] }
                    #expect(chunks[0].start == found, "\(shared) of \(length) tokens")
                    // Units of two tokens are dealt in turn, and a row after position 8 sees the last three before it.
                    let isSent = isDivided && shared == 9 && id == 2
                    #expect(
                        chunks.map(\.windowSources)
                            == [isSent ? .init(end: 8, ranks: [0, 1]) : nil] + chunks.dropFirst().map { _ in nil })
                    #expect(rig.transcripts[id]?.withoutHits == rig.soloRun(request))
                }
                #expect(rig.scheduler.checkInvariants() == [])
            }
        }
    }

    @Test func `unused pages are taken before any request is preempted`() throws {
        var rig = Rig(pages: 5)
        try rig.submit(1, makeRequest(12, new: 1, salt: 1))
        rig.runToEnd()
        #expect(rig.scheduler.status.cachedPages == 3)
        for id in 2...3 { try rig.submit(UInt64(id), makeRequest(4, new: 5, salt: id)) }
        #expect(rows(rig.step()) == [2: 4, 3: 4], "cached pages count as free")
        rig.runToEnd()
        #expect(rig.scheduler.status.preemptions == 0)
        for id in 2...3 { #expect(rig.transcripts[UInt64(id)] == rig.soloRun(makeRequest(4, new: 5, salt: id))) }
    }

    @Test func `a preempted request finds its pages again if no other request needed them`() throws {
        var rig = Rig(pages: 8) { $0.maxRunningRequests = 1 }
        let request = makeRequest(9, new: 6, salt: 1)
        try rig.submit(1, request)
        for _ in 0..<3 { rig.step() }
        try rig.submit(2, makeRequest(2, new: 2, salt: 2, priority: 1))
        let plans = rig.runToEnd()
        #expect(rig.scheduler.status.preemptions == 1)
        let again = plans.flatMap(\.chunks).first { $0.request == 1 }
        #expect(again?.start == 8)
        #expect(again?.tokens.count == 4)
        #expect(rig.transcripts[1] == rig.soloRun(request), "its own pages are no hits")
        #expect(rig.scheduler.status.cacheHitTokens == 0)
    }

    @Test func `a common prefix is counted once when requests are admitted`() throws {
        var rig = Rig(pages: 8)
        try rig.submit(1, Self.request(17, new: 1))
        rig.runToEnd()
        for id in 2...4 { try rig.submit(UInt64(id), Self.request(18, new: 2, tail: id, from: 16)) }
        #expect(rows(rig.step()) == [2: 2, 3: 2, 4: 2])
        #expect(rig.scheduler.status.usedPages == 7)
        rig.runToEnd()
        #expect(rig.scheduler.status.preemptions == 0)
    }

    @Test func `a flush frees pages that no request uses`() throws {
        var rig = Rig()
        try rig.submit(1, makeRequest(8, new: 1, salt: 1))
        rig.runToEnd()
        try rig.submit(2, makeRequest(8, new: 3, salt: 2))
        rig.step()
        #expect(rig.scheduler.flushCache() == 2)
        #expect(rig.scheduler.checkInvariants() == [])
        #expect(rig.scheduler.status.usedPages == 2)
        #expect(rig.scheduler.status.freePages == 14)
        rig.runToEnd()
        #expect(rig.transcripts[2] == rig.soloRun(makeRequest(8, new: 3, salt: 2)))
        #expect(rig.scheduler.status.cachedPages == 2)
        #expect(rig.scheduler.flushCache() == 2)
        #expect(rig.scheduler.status.freePages == 16)
        #expect(rig.scheduler.flushCache() == 0)
    }

    @Test func `an aborted request leaves what was computed, not what a step still writes`() throws {
        var rig = Rig { $0.chunkedPrefillSize = 8 }
        try rig.submit(1, Self.request(20))
        rig.step()
        let next = rig.scheduler.nextStep()
        let plan = try #require(next)
        rig.abort(1)
        #expect(rig.scheduler.status.cachedPages == 0)
        rig.finish(plan)
        #expect(rig.scheduler.status.cachedPages == 2)
        #expect(rig.scheduler.status.freePages == 14)
    }

    @Test func `what a step in flight computes is not found yet`() throws {
        var rig = Rig {
            $0.chunkedPrefillSize = 8
            $0.maxStepsInFlight = 2
        }
        try rig.submit(1, Self.request(30))
        let plans = (0..<2).compactMap { _ in rig.scheduler.nextStep() }
        #expect(plans.map { $0.chunks[0].start } == [0, 8])
        rig.finish(plans[0])
        try rig.submit(2, Self.request(30))
        let next = rig.scheduler.nextStep()
        let plan = try #require(next)
        #expect(plan.chunks.map(\.start) == [16, 8])
        rig.finish(plans[1])
        rig.finish(plan)
        rig.runToEnd()
        for id in 1...2 { #expect(rig.transcripts[UInt64(id)]?.withoutHits == rig.soloRun(Self.request(30))) }
    }

    @Test(arguments: [1, 6]) func `a failed request leaves nothing more behind`(steps: Int) throws {
        var rig = Rig()
        try rig.submit(1, Self.request(6, new: 9))
        for _ in 1..<steps { rig.step() }
        let next = rig.scheduler.nextStep()
        let plan = try #require(next)
        rig.record(
            rig.scheduler.finish(StepResult(chunks: plan.chunks.map { .init(request: $0.request, failure: "NaN") })))
        #expect(rig.scheduler.checkInvariants() == [])
        // Of the eleven tokens computed before a later failure, the prompt's only full page was already cached.
        #expect(rig.scheduler.status.cachedPages == (steps == 1 ? 0 : 1))
        #expect(rig.scheduler.status.usedPages == 0)
    }

    @Test func `without the cache every page is free after use`() throws {
        var rig = Rig { $0.prefixCache = false }
        for id in 1...2 {
            try rig.submit(UInt64(id), Self.request(9))
            #expect(rig.runToEnd()[0].chunks[0].start == 0)
            #expect(rig.scheduler.status.freePages == 16)
        }
        #expect(rig.scheduler.status.cacheLookupTokens == 0)
    }

    /// Some seeds are fixed and some differ from run to run; the latter run 10^5 operations. A failure prints the seed.
    static let seeds: [UInt64] = (1...12).map { $0 } + (1...20).map { _ in UInt64.random(in: 0 ... .max) }

    @Test(.timeLimit(.minutes(15)), arguments: seeds)
    func `with shared prefixes every request gets what it would get alone`(seed: UInt64) throws {
        var run = SharingRun(seed: seed)
        for operation in 0..<5_000 {
            run.act()
            try #require(run.rig.scheduler.checkInvariants() == [], "seed \(seed), operation \(operation)")
        }
        try run.end()
        run.check()
    }

    @Test func `the random runs do reach hits, eviction, preemption, flushes and several steps in flight`() {
        var seen: [String: Int] = [:]
        for seed in Self.seeds.prefix(12) {
            var run = SharingRun(seed: seed)
            for _ in 0..<3_000 { run.act() }
            seen.merge(run.seen) { $0 + $1 }
            seen["hits", default: 0] += Int(run.rig.scheduler.status.cacheHitTokens)
            seen["preemptions", default: 0] += Int(run.rig.scheduler.status.preemptions)
        }
        let kinds = [
            "hits", "preemptions", "flushed pages", "aborts in flight", "2 steps in flight", "3 steps in flight",
            "shared pages", "full pools", "failures",
        ]
        for kind in kinds { #expect(seen[kind, default: 0] > 50, "\(kind): \(seen)") }
    }
}

extension Transcript {
    /// The events of a run without a cache.
    var withoutHits: Transcript {
        var transcript = self
        if case .finished(let reason, var usage) = end {
            usage.cachedTokens = 0
            transcript.end = .finished(reason, usage)
        }
        return transcript
    }
}

/// This test runs random requests with common beginnings on a small cache, with several steps in flight.
private struct SharingRun {
    let seed: UInt64
    var rig: Rig
    /// Counts how often the situations occurred that the runs are meant to reach.
    private(set) var seen: [String: Int] = [:]

    private var random: SplitMix64
    private var requests: [UInt64: GenerationRequest] = [:]
    /// The steps in flight, with their results once the ranks have computed them. Ranks compute them in order, and
    /// early or late.
    private var inFlight: [(plan: StepPlan, result: StepResult?)] = []
    /// The salt of the request that last wrote each page.
    private var salts: [Int32: String?] = [:]
    private let beginnings: [[Int32]]
    private var nextID: UInt64 = 0

    init(seed: UInt64) {
        self.seed = seed
        var random = SplitMix64(seed: seed)
        rig = Rig(random.schedulerConfiguration(tokens: 40))
        beginnings = (0..<4).map { _ in random.tokens(random.below(30)) }
        self.random = random
    }

    mutating func act() {
        switch random.below(32) {
        case 0..<7: submit()
        case 7..<9: abort()
        case 9 where random.below(4) == 0: note("flushed pages", rig.scheduler.flushCache())
        case 9..<20: begin()
        case 20..<24: compute()
        default: finish()
        }
    }

    /// Runs until all requests have ended. The number of steps is bounded generously, so that a livelock fails.
    mutating func end() throws {
        rig.scheduler.drain()
        var steps = 0
        while !rig.scheduler.isIdle {
            begin()
            if random.below(2) == 0 { finish() }
            steps += 1
            try #require(steps < 20_000, "seed \(seed): the requests do not end")
            try #require(rig.scheduler.checkInvariants() == [], "seed \(seed)")
        }
        let status = rig.scheduler.status
        #expect(status.usedPages == 0, "seed \(seed)")
        #expect(status.freePages + status.cachedPages == status.totalPages, "seed \(seed)")
        #expect(rig.scheduler.flushCache() == status.cachedPages, "seed \(seed)")
        #expect(rig.scheduler.status.freePages == status.totalPages, "seed \(seed)")
    }

    /// Compares the events of every request with its run alone.
    func check() {
        for (id, request) in requests {
            let got = rig.transcripts[id]!
            let alone = rig.soloRunInCache(request)
            if case .finished(_, let usage) = got.end {
                #expect(usage.cachedTokens < request.prompt.count, "seed \(seed), request \(id)")
                #expect(usage.cachedTokens % rig.ranks.pageSize == 0, "seed \(seed), request \(id)")
            }
            switch got.end {
            case .finished(.abort, _), .failed:
                #expect(Array(alone.scores.prefix(got.scores.count)) == got.scores, "seed \(seed), request \(id)")
                #expect(Array(alone.tokens.prefix(got.tokens.count)) == got.tokens, "seed \(seed), request \(id)")
            default:
                #expect(got.withoutHits == alone, "seed \(seed), request \(id)")
            }
        }
    }

    private mutating func note(_ what: String, _ count: Int = 1) { seen[what, default: 0] += count }

    private mutating func submit() {
        nextID += 1
        let request = randomRequest()
        do {
            try rig.submit(nextID, request)
            requests[nextID] = request
        } catch {
            note("refusals")
        }
    }

    private mutating func abort() {
        // The id is one of the last few, or one that does not exist.
        let id = nextID &- UInt64(random.below(8))
        let isInFlight = inFlight.contains { $0.plan.chunks.contains { $0.request == id } }
        let events = rig.scheduler.abort(id)
        if isInFlight && !events.isEmpty { note("aborts in flight") }
        rig.record(events)
    }

    private mutating func begin() {
        guard let plan = rig.scheduler.nextStep() else {
            if inFlight.isEmpty {
                let status = rig.scheduler.status
                #expect(status.running + status.queued == 0, "seed \(seed): work is left")
            }
            return
        }
        inFlight.append((plan, nil))
        note("\(inFlight.count) steps in flight")
        if rig.scheduler.status.freePages == 0 { note("full pools") }
        let pages = plan.chunks.flatMap(\.pages)
        note("shared pages", pages.count - Set(pages).count)
        for chunk in plan.chunks { checkSalts(of: chunk) }
    }

    /// Checks that a request reads only pages that were written under its own salt.
    private mutating func checkSalts(of chunk: StepPlan.Chunk) {
        let salt = requests[chunk.request]!.cacheSalt
        let written = chunk.start / rig.ranks.pageSize
        for (index, page) in chunk.pages.enumerated() {
            if index < written { #expect(salts[page] == .some(salt), "seed \(seed), request \(chunk.request)") }
            salts[page] = .some(salt)
        }
    }

    /// Computes the first step that the ranks have not computed yet.
    private mutating func compute() {
        guard let index = inFlight.firstIndex(where: { $0.result == nil }) else { return }
        inFlight[index].result = rig.ranks.run(inFlight[index].plan)
    }

    private mutating func finish() {
        if inFlight.first?.result == nil { compute() }
        guard !inFlight.isEmpty, var result = inFlight.removeFirst().result else { return }
        for index in result.chunks.indices where random.below(100) == 0 {
            result.chunks[index] = StepResult.ChunkResult(request: result.chunks[index].request, failure: "NaN")
            note("failures")
        }
        rig.record(rig.scheduler.finish(result))
    }

    private mutating func randomRequest() -> GenerationRequest {
        var prompt = beginnings[random.below(beginnings.count)]
        if random.oneIn(3), let id = requests.keys.filter({ rig.transcripts[$0]?.end != nil }).max() {
            // The next prompt continues a conversation.
            prompt = requests[id]!.prompt + rig.transcripts[id]!.tokens.map(\.token)
        } else {
            prompt = Array(prompt.prefix(random.oneIn(2) ? .max : random.below(30)))
        }
        prompt += random.tokens(random.below(6))
        var request = random.request(Array(prompt.prefix(20 + random.below(17))))
        request.cacheSalt = [nil, nil, nil, "a", "b"][random.below(5)]
        return request
    }
}
