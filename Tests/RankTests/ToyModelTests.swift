import Inference
import KVCache
import Modeling
import Parallelism
import TestSupport
import Testing
import Verification

/// Tests of a model that uses everything a model with compressed keys needs, over the whole verification matrix; see
/// `ToyModel`.
@Suite(.timeLimit(.minutes(15))) struct `A model with windows, compressed keys and several streams` {
    private static func tokens(_ count: Int, seed: UInt64) -> [Int32] {
        var draw = SplitMix64(seed: seed)
        return (0..<count).map { _ in Int32(draw.below(40)) }
    }

    /// Compares one rank with plain code, because other tests compare only with one rank.
    @Test(arguments: [16, 128]) func `has the logits of its mathematics in plain code`(longEntry: Int) {
        let model = ToyModel(longEntry: longEntry)
        let tokens = Self.tokens(300, seed: 3)
        let expected = ToyReference(model).logits(tokens)
        for chunks in [[.max], [1, 2, 3, 5, 127, 128, 129], [64], [7]] {
            let forward = Forward(model, capacity: 512, pageSize: longEntry, isRecording: false)
            let found = forward.logits(tokens, chunks: chunks)
            let largest = zip(found, expected).flatMap { zip($0, $1).map { abs($0 - $1) } }.max()!
            #expect(largest < 1e-4, "chunks of \(chunks)")
        }
    }

    /// Checks that rows do not change when the scheduler reuses window pages and finds prefixes.
    @Test(arguments: [16, 128], [false, true])
    func `has the same logits when it is served, with pages that are reused`(longEntry: Int, isScarce: Bool) throws {
        let model = ToyModel(longEntry: longEntry)
        var configuration = EngineConfiguration()
        configuration.pageSize = longEntry
        configuration.chunkedPrefillSize = 37
        configuration.maxTotalTokens = 1024
        configuration.maxRunningRequests = 2
        let pool = RankPool(model, configuration, recording: [.logits])
        defer { pool.stop() }
        var settings = configuration.scheduler(for: model)
        #expect(settings.window == max(24, longEntry))
        if isScarce { settings.windowPages = settings.minWindowPages }
        var scheduler = Scheduler(configuration: settings)
        let prompt = Self.tokens(290, seed: 5)
        for (id, prefix) in [(UInt64(1), 290), (2, 270), (3, 280), (4, 290)] {
            var request = GenerationRequest(
                prompt: Array(prompt.prefix(prefix)) + Self.tokens(30, seed: id), sampling: SamplingParameters())
            request.sampling.temperature = 0
            request.sampling.maxNewTokens = 40
            try scheduler.submit(id, request)
            var (records, text) = (StageRecords(), request.prompt)
            while let plan = scheduler.nextStep() {
                let outcome = try pool.run(plan)
                records.merge(outcome.records)
                for event in scheduler.finish(outcome.result) {
                    if case .token(let token) = event.event { text.append(token.token) }
                }
                #expect(scheduler.checkInvariants() == [])
            }
            let forward = Forward(model, capacity: 512, pageSize: longEntry, isRecording: false)
            let expected = forward.logits(text)
            let rows = records.values[StageRecords.Key(layer: .max, stage: .logits)]!
            #expect(rows.count == 40, "one row for each new token")
            for (place, row) in rows { #expect(row == expected[place.position], "request \(id), \(place.position)") }
        }
        if !isScarce { #expect(scheduler.status.cacheHitTokens > 0) }
    }

    /// Compares a sample of cases, and returns what it covered.
    private static func check(
        _ model: ToyModel, _ layouts: [ParallelConfiguration], _ conditions: [ServingConditions], limit: Int,
        seed: UInt64, longestPrompt: Int
    ) throws -> RunCoverage {
        print("toy model with entries of \(model.longEntry): seed \(seed)")
        var settings = Verification.Settings()
        settings.seed = seed
        let measure = Workload.Measure(
            longestPrompt: longestPrompt, contextLength: model.contextLength, vocabularySize: model.vocabularySize)
        let verification = Verification(model, measure, settings)
        for candidate in VerificationPlan(layouts, conditions, limit: limit, seed: seed).cases {
            let verdict = try verification.check(candidate)
            if case .close = verdict, !verification.mustBeEqual(candidate) { continue }
            #expect(verdict == .equal, "long entries of \(model.longEntry), seed \(seed): \(candidate.notation)")
        }
        return verification.coverage
    }

    /// With entries of 16 tokens, pages are small and windows longer than pages; entries of 128 tokens are those of V4.
    @Test(arguments: [16, 128])
    func `is bitwise equal to one rank in every parallel configuration`(longEntry: Int) throws {
        let model = ToyModel(longEntry: longEntry)
        let longestPrompt = longEntry == 16 ? 150 : 290
        let conditions = ServingConditions.all(
            longestPrompt: longestPrompt, canDraft: true, alignment: model.positionAlignment)
        let layouts = LayoutMatrix(model.parallelShape, maxRanks: 8, minKeys: [1, 40]).layouts
        let isEnough = { (covered: RunCoverage) in
            covered.dcpChunks > 0 && covered.cachedTokens > 0 && covered.preemptions > 0
                && covered.speculation.drafted > 0
        }
        let sample = {
            try Self.check(
                model, layouts, conditions, limit: 120, seed: UInt64.random(in: 0..<1 << 32),
                longestPrompt: longestPrompt)
        }
        var covered = try sample()
        // Samples that lack something are rare; further ones then have it.
        for _ in 0..<9 where !isEnough(covered) { covered = try sample() }
        #expect(isEnough(covered), "\(covered)")
    }

    @Test func `keeps the tokens of an entry with one rank under every strategy`() {
        for strategy in PartitionStrategy.allCases {
            let configuration = ParallelConfiguration(context: 2, tensor: 2, strategy: strategy)
            let chunk = StepPlan.Chunk(
                request: 1, tokens: [Int32](repeating: 0, count: 300), start: 70, pages: Array(0..<24))
            let assignment = RowAssignment(StepPlan(number: 0, chunks: [chunk]), configuration, alignment: 16)
            var owners: [Int: Set<Int>] = [:]
            for (rank, rows) in assignment.rows.enumerated() {
                for row in rows { owners[(70 + row.offset) / 16, default: []].insert(rank) }
            }
            #expect(owners.count == 20 && owners.values.allSatisfy { $0.count == 1 }, "\(strategy)")
        }
    }

    /// Each process keeps the entries that its ranks own, and the window entries that its rows see.
    @Test(arguments: [2, 4]) func `is bitwise equal to one rank in several processes`(count: Int) throws {
        let model = ToyModel(longEntry: 16)
        let layouts = [
            "cp4 dcp4 interleave", "cp2 tp2 dcp4 zigzag", "pp2 cp4 dcp4", "cp8 dcp2:4 contiguous", "dp2 cp2",
            "cp4 dcp2:2",
        ]
        let conditions = [
            "chunk-1 page64 long", "chunk37 page64 warm draft1 mixed",
            "chunk15 page64 fp8_e4m3 shared draft3 preemption",
            "chunk51 page16 bfloat16 mixed",
        ]
        let notations = layouts.flatMap { layout in conditions.map { "\(layout) \($0)" } }
        let measure = Workload.Measure(
            longestPrompt: 150, contextLength: model.contextLength, vocabularySize: model.vocabularySize)
        let (found, coverage) = try verdictsInProcesses(notations, of: model, measure, processes: count)
        for (notation, verdict) in zip(notations, found) { #expect(verdict == .equal, "\(notation)") }
        #expect(coverage.dcpChunks > 0 && coverage.cachedTokens > 0 && coverage.preemptions > 0)
    }

    @Test func `says which page sizes hold whole entries`() {
        let model = ToyModel()
        #expect(model.positionAlignment == 128)
        var configuration = EngineConfiguration()
        #expect(
            configuration.validate(for: model) == [
                "--page-size: 64 tokens are no multiple of 128, the tokens of this model's longest cache entry; the nearest "
                    + "legal value is 128"
            ])
        configuration.pageSize = 128
        #expect(configuration.validate(for: model) == [])
    }
}
