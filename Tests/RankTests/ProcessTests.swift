import DeepSeekV32
import Foundation
import Inference
import KVCache
import Modeling
import Models
import Parallelism
import TestSupport
import Testing
import Verification

/// These tests simulate processes in one process: each has a cache of its own, and they exchange messages.
@Suite(.timeLimit(.minutes(15))) struct `Ranks in several processes` {
    /// Returns the verdicts on some cases whose ranks are divided among `processes` processes, and their coverage.
    private static func verdicts(
        _ notations: [String], of name: String = "v32", processes count: Int
    ) throws -> ([Verification.Verdict], RunCoverage) {
        let (model, measure) = try model(name)
        return try verdictsInProcesses(notations, of: model, measure, processes: count)
    }

    private static func model(_ name: String) throws -> (any Model, Workload.Measure) {
        let golden = try Golden(name)
        let model = try golden.directory.load(drafts: Golden.draftingCases.contains(name))
        return (
            model,
            Workload.Measure(
                selecting: golden.directory.description.selection?.firstPosition,
                entry: golden.directory.description.longestEntry,
                contextLength: model.contextLength, vocabularySize: model.vocabularySize)
        )
    }

    @Test(arguments: [2, 3, 4]) func `give one rank's bits`(processes: Int) throws {
        let notations = [
            "cp2 ep2 interleave gathered chunk-1 long", "cp4 ep4 zigzag alltoall chunk5 mixed",
            "cp2 tp2 ep4 dense2 interleave gathered chunk7 preemption", "dp2 cp2 ep4 alltoall chunk5 preemption",
            "dp4 ep4 gathered chunk-1 preemption", "pp2 cp2 ep2 zigzag gathered chunk7 mixed",
            "cp4 ep4 dcp4 interleave gathered chunk7 mixed", "cp16 ep8 etp2 interleave gathered chunk7 mixed",
        ]
        let (found, _) = try Self.verdicts(notations, processes: processes)
        for (notation, verdict) in zip(notations, found) { #expect(verdict == .equal, "\(notation)") }
    }

    /// A model with windows and compressed entries sends those of its windows' entries and compressors' inputs that others read.
    @Test(arguments: [("v4", 128), ("v4-drafts", 4)], [2, 4])
    func `give one rank's bits of a model with compressed entries`(model: (name: String, page: Int), processes: Int)
        throws
    {
        let notations = [
            "cp4 ep4 zigzag alltoall chunk41 mixed", "cp2 tp2 ep4 dense2 interleave gathered chunk7 preemption",
            "pp2 cp2 ep2 contiguous gathered chunk91 warm mixed", "dp2 cp2 ep4 alltoall chunk5 fp8_e4m3 preemption",
            "cp16 ep8 etp2 interleave gathered chunk-1 long", "cp8 ep8 dcp8 interleave gathered chunk-1 fp8_e4m3 long",
            "cp4 tp2 ep8 dense2 dcp8 zigzag gathered chunk61 bfloat16 warm mixed",
            "dp2 cp4 ep8 dcp4:2 alltoall chunk131 mixed bf16",
            "pp2 cp4 ep4 dcp4 zigzag gathered chunk7 shared preemption",
        ].map { "\($0) page\(model.page)" + (model.name == "v4-drafts" ? " draft2" : "") }
        let (found, coverage) = try Self.verdicts(notations, of: model.name, processes: processes)
        for (notation, verdict) in zip(notations, found) { #expect(verdict == .equal, "\(notation)") }
        #expect(coverage.dcpChunks > 0 && coverage.cachedTokens > 0)
    }

    /// A sample of all layouts and conditions, another one in each run.
    @Test(arguments: ["v4", "v4-drafts"], [2, 4])
    func `give one rank's bits of such a model in any case`(name: String, processes: Int) throws {
        let (model, measure) = try Self.model(name)
        let seed = UInt64.random(in: 0 ... .max)
        let layouts = LayoutMatrix(model.parallelShape, maxRanks: 16, minKeys: [1, measure.longestPrompt / 2]).layouts
            .filter { $0.isBitwiseEqual(for: model.parallelShape) && $0.world % processes == 0 }
        let conditions = ServingConditions.all(
            longestPrompt: measure.longestPrompt, canDraft: model.canDraft, alignment: model.positionAlignment)
        let cases = VerificationPlan(layouts, conditions, limit: Self.sampleSize, seed: seed).cases.map(\.notation)
        let (found, _) = try verdictsInProcesses(cases, of: model, measure, processes: processes)
        #expect(!cases.isEmpty && found.count == cases.count)
        for (notation, verdict) in zip(cases, found) { #expect(verdict == .equal, "\(notation), seed \(seed)") }
    }

    /// The number of cases of a sample: `BRAID_SAMPLE` where that is set.
    private static let sampleSize = ProcessInfo.processInfo.environment["BRAID_SAMPLE"].flatMap(Int.init) ?? 8

    @Test(arguments: [2, 4, 8]) func `give one rank's bits where each keeps only what its ranks own`(processes: Int)
        throws
    {
        let layouts = [
            "cp8 ep8 dcp8 interleave gathered", "cp4 tp2 ep8 dense2 dcp8 zigzag gathered",
            "dp2 cp4 ep8 dcp4:2 alltoall", "pp2 cp4 ep4 dcp4 zigzag gathered", "cp8 ep8 dcp4 interleave gathered",
            "cp8 ep8 dcp2:4 interleave gathered",
        ]
        let conditions = [
            "chunk-1 long", "chunk5 warm mixed", "chunk7 shared draft3 preemption", "chunk7 fp8_e4m3 warm draft1 mixed",
            "chunk-1 bfloat16 page64 preemption",
        ]
        let notations = layouts.flatMap { layout in conditions.map { "\(layout) \($0)" } }
        let (found, coverage) = try Self.verdicts(notations, of: "v32-drafts", processes: processes)
        for (notation, verdict) in zip(notations, found) { #expect(verdict == .equal, "\(notation)") }
        #expect(coverage.dcpChunks > 0 && coverage.cachedTokens > 0 && coverage.speculation.accepted > 0)
    }

    /// The first process may leave while its ranks are within a step. From then on it sends nothing, so that what the
    /// other ranks wait for never comes: neither to those that were told to end after the step, nor to those that were not.
    @Test(arguments: [true, false]) func `leave with a first process that breaks off its last step`(isStopped: Bool)
        throws
    {
        let golden = try Golden("v32")
        let model = try golden.directory.load()
        let transports = InMemoryTransport.network(2)
        defer { for transport in transports { transport.leave() } }
        var configuration = EngineConfiguration(smallCache: ParallelConfiguration(context: 2))
        configuration.processes = 2
        let chunk = StepPlan.Chunk(request: 1, tokens: Array(golden.prompt.prefix(8)), start: 0, pages: [0, 1])
        let pool = try onEveryRank(of: 2) { [configuration] process -> RankPool? in
            let processes = Processes(transports[process])
            guard process == 0 else {
                try RankFollower(model, processes).run()
                return nil
            }
            transports[0].damage { $0.kind == .rows ? Message(.heartbeat, body: []) : $0 }
            let pool = RankPool(model, configuration, processes: processes)
            pool.submit(StepPlan(number: 0, chunks: [chunk]))
            while processes.heartbeat(of: 1).isEmpty { Thread.sleep(forTimeInterval: 0.01) }
            if isStopped {
                Thread.detachNewThread { pool.stop() }
                // A process that waits for its ranks to end says nothing of them.
                while !processes.heartbeat(of: 1).isEmpty { Thread.sleep(forTimeInterval: 0.01) }
            }
            #expect(pool.failure == nil)
            RankFollower.dismiss(processes)
            return pool
        }[0]!
        pool.world.alarm.raise(GroupFailure(rank: 0, reason: "the test is over"))
        pool.stop()
    }

    @Test func `refuse index keys in FP4 of a model that was not made for them`() throws {
        let models = try ["v4", "v32"].map { try Golden($0).directory.load() }
        let transports = InMemoryTransport.network(2)
        defer { for transport in transports { transport.leave() } }
        var configuration = EngineConfiguration(smallCache: ParallelConfiguration(context: 2))
        configuration.processes = 2
        configuration.pageSize = 128
        configuration.cacheType = CacheType(.bfloat16, hasFP4Index: true)
        let pool = try onEveryRank(of: 2) { [configuration] process -> RankPool? in
            let processes = Processes(transports[process])
            guard process == 1 else { return RankPool(models[0], configuration, processes: processes) }
            let failure = try #require(throws: GroupFailure.self) { try RankFollower(models[1], processes).run() }
            #expect(failure.reason.contains("--enable-deepseek-v4-fp4-indexer: only models of type deepseek_v4"))
            return nil
        }[0]!
        pool.world.alarm.raise(GroupFailure(rank: 0, reason: "the test is over"))
        pool.stop()
    }

    @Test func `say how little memory is too little for a page`() throws {
        let model = try Golden("v32").directory.load()
        var configuration = EngineConfiguration()
        configuration.parallel = ParallelConfiguration(context: 4)
        configuration.parallel.kvSharding = KVSharding(ranks: 4)
        for processes in [1, 2, 4] {
            configuration.processes = processes
            configuration.cacheBytesPerRank = 1
            let problem = try #require(configuration.validate(for: model).first)
            let nearest = try #require(problem.split(separator: " ").last.flatMap { Int($0) })
            configuration.cacheBytesPerRank = nearest
            #expect(configuration.validate(for: model) == [], "\(processes) processes")
            configuration.cacheBytesPerRank = nearest - 1
            #expect(configuration.validate(for: model) == [problem.replacing(" 1 hold", with: " \(nearest - 1) hold")])
        }
    }

    /// Two ranks in two processes hold twice the tokens of one rank, with the same memory each.
    @Test func `hold as many times the tokens as there are owners`() throws {
        let model = try Golden("v32").directory.load()
        func tokens(owners: Int, processes: Int, ranks: Int, _ change: (inout EngineConfiguration) -> Void = { _ in })
            -> Int
        {
            var configuration = EngineConfiguration()
            configuration.parallel = ParallelConfiguration(context: ranks)
            configuration.parallel.kvSharding = KVSharding(ranks: owners)
            configuration.processes = processes
            configuration.cacheBytesPerRank = 10_000_000
            change(&configuration)
            #expect(configuration.validate(for: model) == [])
            let scheduler = configuration.scheduler(for: model)
            return scheduler.totalPages * scheduler.pageSize
        }
        let one = tokens(owners: 1, processes: 1, ranks: 1)
        #expect(one > 1000)
        for owners in [2, 4, 8] {
            let page = 64 * owners
            #expect(abs(tokens(owners: owners, processes: owners, ranks: owners) - owners * one) < page)
            #expect(abs(tokens(owners: owners, processes: 1, ranks: owners) - owners * one) < page)
            #expect(abs(tokens(owners: owners, processes: 2, ranks: 8) - max(4, owners == 8 ? 8 : 4) * one) < 64 * 8)
        }
        #expect(tokens(owners: 1, processes: 4, ranks: 4) == one, "each keeps all")
        #expect(abs(tokens(owners: 4, processes: 4, ranks: 4) { $0.pageSize = 2 } - one) < 64, "pages do not divide")
    }
}
