import Inference
import TestSupport
import Testing

/// These tests run thousands of random submissions, steps, aborts and failures on small caches.
struct SchedulerPropertyTests {
    /// Half of the seeds are fixed and half differ from run to run, with 10^5 operations each; a failure prints the
    /// seed.
    static let seeds: [UInt64] = (1...50).map { $0 } + (1...50).map { _ in UInt64.random(in: 0 ... .max) }

    @Test(.timeLimit(.minutes(15)), arguments: seeds)
    func `every request gets what it would get alone, and the pages add up`(seed: UInt64) throws {
        var run = RandomRun(seed: seed)
        for operation in 0..<2_000 {
            run.act()
            let problems = run.rig.scheduler.checkInvariants()
            try #require(problems == [], "seed \(seed), operation \(operation)")
        }
        try run.end()
        run.check()
    }

    @Test func `the random runs do reach preemption, aborts in flight, waiting and refusal`() throws {
        var preemptions: UInt64 = 0
        var seen: Set<String> = []
        for seed in Self.seeds.prefix(12) {
            var run = RandomRun(seed: seed)
            for _ in 0..<1_000 { run.act() }
            preemptions += run.rig.scheduler.status.preemptions
            seen.formUnion(run.seen)
        }
        #expect(preemptions > 50)
        let unusual: Set = [
            "abort in flight", "abort", "failure", "overload", "refusal", "waiting", "several steps in flight",
            "two chunks of a prompt in flight", "late result", "end in flight", "an accepted draft", "a rejected draft",
        ]
        #expect(seen == unusual)
    }
}

/// This test runs random operations on one random configuration.
private struct RandomRun {
    let seed: UInt64
    var rig: Rig
    /// The unusual situations that have occurred.
    private(set) var seen: Set<String> = []

    private var random: SplitMix64
    private var requests: [UInt64: GenerationRequest] = [:]
    /// The steps in flight, in the order of their planning; the ranks have computed the first ones.
    private var flights: [(plan: StepPlan, result: StepResult?)] = []
    /// The request that is served first, and the number of plans it has waited for a row.
    private var first: UInt64?
    private var waited = 0
    /// The data group that computes each running request.
    private var groups: [UInt64: Int] = [:]
    private var nextID: UInt64 = 0

    init(seed: UInt64) {
        self.seed = seed
        var random = SplitMix64(seed: seed)
        var configuration = random.schedulerConfiguration(tokens: 30)
        // `PrefixCacheSchedulerTests` does the same with a prefix cache.
        configuration.prefixCache = false
        rig = Rig(configuration)
        self.random = random
    }

    mutating func act() {
        switch random.below(16) {
        case 0..<4: submit()
        case 4: abort()
        default: advance()
        }
    }

    /// Plans a step, computes one, or returns the result of one to the scheduler, whichever is possible.
    private mutating func advance() {
        let isFull = flights.count == rig.scheduler.configuration.maxStepsInFlight
        switch random.below(3) {
        case 0 where !isFull: begin()
        case 1 where flights.contains { $0.result == nil }: compute()
        case _ where flights.first?.result != nil: finish()
        case _ where flights.isEmpty: begin()
        default: compute()
        }
    }

    /// Runs until all requests have ended. The number of steps is bounded generously, so that a livelock fails.
    mutating func end() throws {
        rig.scheduler.drain()
        var steps = 0
        while !rig.scheduler.isIdle {
            advance()
            steps += 1
            try #require(steps < 20_000, "seed \(seed): the requests do not end")
            try #require(rig.scheduler.checkInvariants() == [], "seed \(seed)")
        }
        #expect(rig.scheduler.status.freePages == rig.scheduler.configuration.totalPages, "seed \(seed)")
        #expect(rig.scheduler.nextStep() == nil)
    }

    /// Compares the events of every request with its run alone.
    func check() {
        for (id, request) in requests {
            let got = rig.transcripts[id]!
            let alone = rig.soloRunInCache(request)
            switch got.end {
            case .finished(.abort, let usage):
                #expect(usage == Usage(promptTokens: request.prompt.count, completionTokens: got.tokens.count))
                fallthrough
            case .failed:
                #expect(Array(alone.scores.prefix(got.scores.count)) == got.scores, "seed \(seed), request \(id)")
                #expect(Array(alone.tokens.prefix(got.tokens.count)) == got.tokens, "seed \(seed), request \(id)")
            default:
                #expect(got == alone, "seed \(seed), request \(id)")
            }
        }
    }

    private mutating func submit() {
        nextID += 1
        // Prompts are mostly short and answers long, so that together they outgrow the cache.
        let request = random.request(random.tokens(random.below(random.oneIn(3) ? 30 : 10)))
        do {
            try rig.submit(nextID, request)
            requests[nextID] = request
        } catch EngineError.overloaded {
            seen.insert("overload")
        } catch {
            seen.insert("refusal")
        }
    }

    private mutating func abort() {
        let id = 1 + UInt64(random.below(Int(nextID) + 1))
        let events = rig.scheduler.abort(id)
        let isInFlight = flights.contains { $0.plan.chunks.contains { $0.request == id } }
        if !events.isEmpty { seen.insert(isInFlight ? "abort in flight" : "abort") }
        rig.record(events)
    }

    private mutating func begin() {
        let status = rig.scheduler.status
        let next = rig.scheduler.nextStep()
        if flights.isEmpty {
            #expect((next == nil) == (status.running + status.queued == 0), "seed \(seed): work is left")
        }
        guard let plan = next else { return }
        let (rows, configuration) = (rows(plan), rig.scheduler.configuration)
        #expect(rows.values.reduce(0, +) <= configuration.maxRowsPerStep, "seed \(seed)")
        #expect(plan.chunks.allSatisfy { $0.group < configuration.dataGroups }, "seed \(seed)")
        for chunk in plan.chunks {
            // A request that is computed again may be assigned to another group.
            if chunk.start == 0 { groups[chunk.request] = chunk.group }
            #expect(groups[chunk.request] == chunk.group, "seed \(seed): its keys are in another group")
        }
        if rig.scheduler.status.running > plan.chunks.count { seen.insert("waiting") }
        if !flights.isEmpty { seen.insert("several steps in flight") }
        let others = flights.flatMap(\.plan.chunks)
        for chunk in plan.chunks where others.contains(where: { $0.request == chunk.request }) {
            #expect(chunk.start > 0, "seed \(seed)")
            seen.insert("two chunks of a prompt in flight")
        }
        expectFirstToProgress(plan)
        flights.append((plan, nil))
    }

    /// Checks that the request with the highest precedence does not starve: it may wait for its own steps, for other
    /// steps in flight, and for requests that must be preempted for it.
    private mutating func expectFirstToProgress(_ plan: StepPlan) {
        let live = requests.keys.filter { rig.transcripts[$0]!.end == nil }
        let now = live.min { (-requests[$0]!.priority, $0) < (-requests[$1]!.priority, $1) }
        let isServed = (flights.map(\.plan) + [plan]).contains { $0.chunks.contains { $0.request == now } }
        waited = now == first && !isServed ? waited + 1 : 0
        first = now
        #expect(waited <= 3 * rig.scheduler.configuration.maxStepsInFlight, "seed \(seed): \(now!) waits forever")
    }

    /// Computes the next step, if there is one; ranks compute steps in order, but at any time.
    private mutating func compute() {
        let index = flights.firstIndex { $0.result == nil }!
        flights[index].result = rig.ranks.run(flights[index].plan)
        if index > 0 { seen.insert("late result") }
    }

    private mutating func finish() {
        var result = flights.removeFirst().result!
        for index in result.chunks.indices where random.below(200) == 0 {
            let request = result.chunks[index].request
            result.chunks[index] = StepResult.ChunkResult(request: request, failure: "NaN")
            seen.insert("failure")
            if flights.contains(where: { $0.plan.chunks.contains { $0.request == request } }) {
                seen.insert("end in flight")
            }
        }
        rig.record(rig.scheduler.finish(result))
        let speculation = rig.scheduler.status.speculation
        if speculation.accepted > 0 { seen.insert("an accepted draft") }
        if speculation.accepted < speculation.drafted { seen.insert("a rejected draft") }
    }
}
