import Inference
import KVCache
import TestSupport
import Testing

/// Requests whose prompts a prefix store knows, or knows in part.
struct SchedulerRestoringTests {
    private static func rig(pages: Int = 16, block: Int = 8) -> Rig {
        var rig = Rig(pages: pages)
        rig.scheduler.storedBlock = block
        return rig
    }

    /// Restores the positions up to `end`, and returns whether there were pages for them.
    private static func restore(_ lookup: PrefixLookup, to end: Int, _ rig: inout Rig) -> Bool {
        guard let reached = rig.scheduler.beginRestoring(lookup.request), reached < end,
            rig.scheduler.reserveRestored(lookup.request, to: end),
            let pages = rig.scheduler.restoringPages(of: lookup.request)
        else { return false }
        rig.ranks.restore(reached..<end, of: lookup.prefix, in: pages.pages)
        rig.scheduler.restored(lookup.request, to: end)
        restoreWindow(lookup, before: end, &rig)
        return true
    }

    private static func restoreWindow(_ lookup: PrefixLookup, before end: Int, _ rig: inout Rig) {
        rig.scheduler.restoreWindow(lookup.request, before: end) {
            rig.ranks.restoreWindow(before: end, of: lookup.prefix, in: $0)
            return true
        }
    }

    @Test func `a restored prefix is found at admission, and the rest is computed`() throws {
        var rig = Self.rig()
        let request = makeRequest(22, new: 3)
        try rig.submit(1, request)
        #expect(rig.step() == nil && rig.scheduler.status.queued == 1)
        let lookup = try #require(rig.scheduler.takePrefixLookups().first)
        #expect(
            lookup.prefix == IdentifiedPrefix(tokens: request.prompt[..<16]) && rig.scheduler.takePrefixLookups() == [])
        #expect(Self.restore(lookup, to: 8, &rig) && Self.restore(lookup, to: 16, &rig))
        #expect(rig.scheduler.status.usedPages == 4 && rig.scheduler.checkInvariants() == [])
        rig.scheduler.endRestoring(1)
        #expect(rig.scheduler.status.usedPages == 0 && rig.scheduler.status.cachedPages == 4)
        #expect(rig.runToEnd()[0].chunks[0].start == 16)
        guard case .finished(_, let usage) = rig.transcripts[1]?.end else { throw EngineError.draining }
        #expect(usage.cachedTokens == 16)
        #expect(rig.transcripts[1]?.tokens == rig.soloRun(request).tokens)
    }

    @Test func `a request waits for the store only if the cache lacks a whole block that may be reused`() throws {
        var rig = Self.rig()
        try rig.submit(1, makeRequest(8, new: 1))
        #expect(rig.scheduler.takePrefixLookups() == [] && rig.runToEnd().count == 1)
        try rig.submit(2, makeRequest(9, new: 1))
        // The first request has left these eight positions in the cache.
        #expect(rig.scheduler.takePrefixLookups() == [] && rig.runToEnd().count == 1)
        try rig.submit(3, makeRequest(17, new: 1))
        #expect(rig.scheduler.takePrefixLookups().map(\.request) == [3])
    }

    @Test func `a request that waits for the store holds nobody back, and keeps its precedence`() throws {
        var rig = Self.rig()
        try rig.submit(1, makeRequest(20, new: 2, salt: 1))
        try rig.submit(2, makeRequest(4, new: 2))
        #expect(rows(rig.step()) == [2: 4])
        rig.scheduler.endRestoring(1)
        rig.scheduler.endRestoring(1)
        #expect(rows(rig.step()) == [1: 20, 2: 1])
    }

    @Test func `a prefix that has lost its window needs only the window again`() throws {
        var rig = Rig(pages: 100) {
            $0.window = 4
            $0.maxRunningRequests = 2
            $0.windowPages = $0.minWindowPages
        }
        rig.scheduler.storedBlock = 8
        let request = makeRequest(22, new: 3)
        try rig.submit(1, request)
        let lookup = try #require(rig.scheduler.takePrefixLookups().first)
        #expect(Self.restore(lookup, to: 16, &rig) && rig.scheduler.checkInvariants() == [])
        #expect(rig.scheduler.cachedWindow(of: lookup.prefix, before: 16)?.first == 3)
        #expect(rig.scheduler.cachedWindow(of: lookup.prefix, before: 8) == nil)
        rig.scheduler.endRestoring(1)
        rig.runToEnd()
        // Others need its window pages, but not its pages.
        for id in UInt64(2)..<8 { try rig.submit(id, makeRequest(7, new: 12, salt: Int(id))) }
        rig.runToEnd()
        #expect(rig.scheduler.cachedWindow(of: lookup.prefix, before: 16) == nil)
        #expect(rig.scheduler.cachedPages(of: lookup.prefix).count == 4)
        try rig.submit(8, request)
        #expect(rig.scheduler.takePrefixLookups() == [PrefixLookup(request: 8, prefix: lookup.prefix)])
        let begin = rig.scheduler.beginRestoring(8)
        #expect(try #require(begin) >= 16)
        Self.restoreWindow(PrefixLookup(request: 8, prefix: lookup.prefix), before: 16, &rig)
        rig.scheduler.endRestoring(8)
        #expect(rig.runToEnd()[0].chunks[0].start == 16 && rig.scheduler.checkInvariants() == [])
        #expect(rig.transcripts[8]?.tokens == rig.soloRun(request).tokens)
    }

    @Test func `a prefix that is restored for a data group is used in that group, however busy it is`() throws {
        var rig = Rig(pages: 64) {
            $0.dataGroups = 2
            $0.groupsShareKeys = false
        }
        rig.scheduler.storedBlock = 8
        // Those that wait count for their groups.
        try rig.submit(1, makeRequest(9, new: 2))
        try rig.submit(2, makeRequest(20, new: 4, salt: 1))
        let lookups = rig.scheduler.takePrefixLookups()
        #expect(lookups.map(\.prefix.group) == [0, 1] && lookups[0].prefix.salt == nil)
        #expect(Self.restore(lookups[0], to: 8, &rig) && rig.scheduler.checkInvariants() == [])
        #expect(rig.scheduler.cachedPages(of: lookups[0].prefix).count == 2)
        #expect(rig.scheduler.cachedPages(of: lookups[1].prefix) == [])
        // The first group becomes the busier one while the request waits.
        rig.scheduler.endRestoring(2)
        try rig.submit(3, makeRequest(28, new: 4, salt: 2))
        rig.scheduler.endRestoring(3)
        #expect(rig.step()?.chunks.map(\.group) == [1, 0])
        rig.scheduler.endRestoring(1)
        let chunk = try #require(rig.step()?.chunks.first { $0.request == 1 })
        #expect(chunk.group == 0 && chunk.start == 8)
        rig.runToEnd()
        for (id, request) in [(UInt64(1), makeRequest(9, new: 2)), (3, makeRequest(28, new: 4, salt: 2))] {
            #expect(rig.transcripts[id]?.tokens == rig.soloRun(request).tokens)
        }
    }

    @Test func `a prefix that its data group has in memory is used there, too`() throws {
        var rig = Rig(pages: 64) {
            $0.dataGroups = 2
            $0.groupsShareKeys = false
        }
        rig.scheduler.storedBlock = 8
        try rig.submit(1, makeRequest(9, new: 1))
        rig.scheduler.endRestoring(1)
        rig.runToEnd()
        try rig.submit(2, makeRequest(9, new: 1))
        #expect(rig.scheduler.takePrefixLookups().map(\.request) == [1])
        try rig.submit(3, makeRequest(9, new: 1))
        // The second waits for its own group, which has the prefix, so the third is looked for.
        #expect(rig.scheduler.takePrefixLookups().map(\.prefix.group) == [1])
        rig.scheduler.endRestoring(3)
        #expect(rig.step()?.chunks.map(\.start) == [8, 0])
    }

    @Test func `nothing is preempted for a restored prefix`() throws {
        var rig = Self.rig(pages: 6)
        try rig.submit(1, makeRequest(7, new: 12, salt: 1))
        rig.step()
        try rig.submit(2, makeRequest(22, new: 1))
        let lookup = try #require(rig.scheduler.takePrefixLookups().first)
        #expect(Self.restore(lookup, to: 8, &rig) && Self.restore(lookup, to: 16, &rig) == true)
        rig.step()
        rig.step()
        let hasPages = rig.scheduler.reserveRestored(2, to: 20)
        #expect(!hasPages)
        rig.scheduler.endRestoring(2)
        rig.runToEnd()
        for (id, request) in [(UInt64(1), makeRequest(7, new: 12, salt: 1)), (2, makeRequest(22, new: 1))] {
            #expect(rig.transcripts[id]?.tokens == rig.soloRun(request).tokens)
        }
        #expect(rig.scheduler.status.preemptions == 0)
    }

    @Test func `the store is told of a prefix when it has a block more`() throws {
        var rig = Self.rig()
        rig.scheduler.storedBlock = 8
        let request = makeRequest(7, new: 12)
        try rig.submit(1, request)
        rig.step()
        #expect(rig.scheduler.takeStorablePrefixes() == [])
        rig.runToEnd()
        let text = request.prompt + rig.transcripts[1]!.tokens.map(\.token)
        #expect(rig.scheduler.takeStorablePrefixes() == [IdentifiedPrefix(tokens: text[..<16])])
        var salted = makeRequest(18, new: 1, salt: 3)
        salted.cacheSalt = "a"
        try rig.submit(2, salted)
        rig.scheduler.endRestoring(2)
        rig.step()
        let prefix = IdentifiedPrefix(tokens: salted.prompt[..<16], salt: "a")
        #expect(rig.scheduler.takeStorablePrefixes() == [prefix])
        #expect(rig.scheduler.cachedPages(of: prefix).count == 4)
        #expect(rig.scheduler.cachedPages(of: IdentifiedPrefix(tokens: prefix.tokens)).isEmpty)
    }

    @Test func `requests that wait for the store end with a failure, and with an abort`() throws {
        var rig = Self.rig()
        for id in UInt64(1)...3 { try rig.submit(id, makeRequest(20, new: 2, salt: Int(id))) }
        let lookups = rig.scheduler.takePrefixLookups()
        #expect(Self.restore(lookups[0], to: 8, &rig) && Self.restore(lookups[1], to: 8, &rig))
        rig.abort(1)
        #expect(rig.scheduler.checkInvariants() == [] && rig.scheduler.status.usedPages == 2)
        rig.record(rig.scheduler.fail("ranks failed"))
        #expect(
            rig.transcripts[2]?.end == .failed("ranks failed") && rig.transcripts[3]?.end == .failed("ranks failed"))
        rig.scheduler.restart()
        // What the store still wants of requests that have ended is ignored.
        for lookup in lookups {
            #expect(!Self.restore(lookup, to: 16, &rig))
            rig.scheduler.endRestoring(lookup.request)
        }
        #expect(rig.scheduler.isIdle && rig.scheduler.checkInvariants() == [])
    }

    /// A store that restores any number of blocks, at any time, while requests come, end and are preempted.
    @Test(.timeLimit(.minutes(15)), arguments: (1...60).map { UInt64($0) })
    func `every request gets what it would get alone, and the pages add up`(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        var configuration = random.schedulerConfiguration(tokens: 40)
        configuration.drafts = 0
        configuration.window = [0, configuration.pageSize, max(1, configuration.pageSize / 2)][random.below(3)]
        configuration.windowPages = configuration.minWindowPages + (configuration.window == 0 ? 0 : random.below(4))
        // Ranks of several processes share no keys.
        configuration.groupsShareKeys = random.oneIn(2) && configuration.dividedGroups == nil
        configuration.maxQueuedRequests = 100
        configuration.maxRowsPerStep = configuration.maxRunningRequests + random.below(24)
        var rig = Rig(configuration)
        rig.scheduler.storedBlock = 1 << random.below(4)
        var (requests, lookups): ([UInt64: GenerationRequest], [PrefixLookup]) = ([:], [])
        let slots = configuration.totalPages * configuration.pageSize
        for operation in 0..<1500 {
            switch random.below(8) {
            case 0, 1:
                guard requests.count < 100 else { break }
                // Prompts share beginnings.
                let length = 1 + random.below(min(30, slots - 1))
                var prompt = (0..<length).map { Int32($0 * 7 % 30) }
                if random.oneIn(2) { prompt[random.below(length)] = Int32(random.below(30)) }
                let request = random.request(prompt)
                let id = UInt64(operation)
                do {
                    try rig.submit(id, request)
                    requests[id] = request
                } catch {}
            case 2:
                guard random.oneIn(3), let id = requests.keys.sorted().last, rig.transcripts[id]?.end == nil else {
                    break
                }
                rig.abort(id)
                requests[id] = nil
            case 3, 4:
                guard !lookups.isEmpty else { break }
                let index = random.below(lookups.count)
                let (lookup, unit) = (lookups[index], rig.scheduler.restoredUnit)
                let reached = rig.scheduler.beginRestoring(lookup.request)
                let end = reached.map { $0 / unit * unit + unit } ?? .max
                if end > lookup.prefix.tokens.count || random.oneIn(4) || !Self.restore(lookup, to: end, &rig) {
                    rig.scheduler.endRestoring(lookups.remove(at: index).request)
                }
            default: rig.step()
            }
            lookups += rig.scheduler.takePrefixLookups()
            for prefix in rig.scheduler.takeStorablePrefixes() {
                #expect(prefix.tokens.count % rig.scheduler.storedBlock! == 0 && !prefix.tokens.isEmpty)
            }
            let problems = rig.scheduler.checkInvariants()
            try #require(problems == [], "seed \(seed), operation \(operation)")
        }
        for lookup in lookups { rig.scheduler.endRestoring(lookup.request) }
        rig.runToEnd()
        #expect(rig.scheduler.isIdle && rig.scheduler.status.usedPages == 0)
        for (id, request) in requests {
            let alone = rig.soloRunInCache(request)
            #expect(rig.transcripts[id]?.tokens == alone.tokens && rig.transcripts[id]?.scores == alone.scores)
        }
    }
}
