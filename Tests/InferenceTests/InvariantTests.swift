import Inference
import Modeling
import Models
import Parallelism
import Synchronization
import TestSupport
import Testing

/// These tests use engines that check their invariants after every step.
@Suite(.timeLimit(.minutes(15))) struct `The scheduler's invariants` {
    static let layouts = [
        ParallelConfiguration(), ParallelConfiguration(context: 2, kvSharding: KVSharding(ranks: 2, minKeys: 1)),
        ParallelConfiguration(pipeline: 2), ParallelConfiguration(data: 2, context: 2, expert: 4),
    ]

    /// The cache has twenty pages of four tokens, and the requests together need many more; chunks have three tokens.
    @inline(never)
    private static func engine(
        _ parallel: ParallelConfiguration, of model: (any Model)? = nil,
        audit: @escaping @Sendable (Scheduler) -> [String] = { $0.checkInvariants() }
    ) throws -> Engine {
        var configuration = EngineConfiguration()
        configuration.pageSize = 4
        configuration.maxTotalTokens = 80
        configuration.chunkedPrefillSize = 3
        configuration.checksInvariants = true
        configuration.parallel = parallel
        return Engine(try model ?? Golden("v32").directory.load(), configuration, audit: audit)
    }

    private static func request(_ index: Int) -> GenerationRequest {
        var sampling = SamplingParameters()
        sampling.seed = UInt64(index)
        sampling.maxNewTokens = 4 + index % 9
        // Every third prompt begins like others, which have left their pages in the prefix cache.
        let shift = index % 3 == 0 ? 0 : index
        let prompt = (0..<(6 + index * 11 % 45)).map { Int32(($0 * 7 + shift * 13) % 256) }
        return GenerationRequest(prompt: prompt, sampling: sampling)
    }

    @Test(arguments: layouts)
    @inline(never)
    func `hold after every step under preemption, aborts and eviction`(parallel: ParallelConfiguration) async throws {
        let audits = Mutex(0)
        let model = HeldModel(try Golden("v32").directory.load())
        let engine = try Self.engine(parallel, of: model) { scheduler in
            audits.withLock { $0 += 1 }
            let status = scheduler.status
            let sum = status.freePages + status.cachedPages + status.usedPages
            return scheduler.checkInvariants()
                + (sum == status.totalPages ? [] : ["\(sum) of \(status.totalPages) pages"])
        }
        defer { engine.stop() }
        var round = 0
        // Readers that abort requests early may leave too few for a preemption; further rounds then bring one.
        while round < 3 || (engine.status().preemptions == 0 && round < 50) {
            let requests = (0..<16).map { Self.request(round * 16 + $0) }
            // Every fourth request is aborted: some before the first chunk, some between chunks, some while decoding.
            let readers = try requests.enumerated().map { index, request in
                let generation = try engine.submit(request)
                return Task {
                    if index % 4 == 1 { return String?.none }
                    var failure: String?
                    for await event in generation.events {
                        if case .failed(let reason) = event { failure = reason }
                        if index % 4 == 3, case .token = event { break }
                    }
                    return failure
                }
            }
            if round == 0 { model.letGo() }
            for reader in readers { #expect(await reader.value == nil, "\(parallel)") }
            round += 1
        }
        await engine.drain()
        let status = engine.status()
        #expect(status.failure == nil)
        #expect(status.preemptions > 0 && audits.withLock { $0 } >= Int(status.steps))
        #expect(status.cachedPages > 0 && status.freePages + status.cachedPages == status.totalPages)
        #expect(status.ranks.allSatisfy { $0.ownedTokens == 0 })
    }

    @Test @inline(never)
    func `end service with an error that names the violation`() async throws {
        let engine = try Self.engine(ParallelConfiguration()) { scheduler in
            scheduler.status.steps < 3 ? [] : ["page 5 of [1] has 2 owners"]
        }
        let ended = await outcomes(engine)
        #expect(ended.contains { $0.failure != nil })
        let failures = ended.compactMap(\.failure)
        #expect(failures.allSatisfy { $0.contains("after step 3 (--check-invariants): page 5 of [1] has 2 owners") })
        #expect(throws: EngineError.self) { try engine.submit(Self.request(0)) }
        var reasons = engine.failures.makeAsyncIterator()
        #expect(await reasons.next()?.reason.contains("page 5") == true)
        // The next scheduler begins with all pages free.
        #expect(engine.checkInvariants() == [] && engine.status().freePages == 20)
        engine.stop()
    }

    @Test @inline(never)
    func `say what each rank owns`() async throws {
        let parallel = ParallelConfiguration(
            context: 4, expert: 4, kvSharding: KVSharding(ranks: 4, unit: 2, minKeys: 1))
        let engine = try Self.engine(parallel)
        defer { engine.stop() }
        var sampling = SamplingParameters()
        sampling.maxNewTokens = 40
        let generation = try engine.submit(GenerationRequest(prompt: Array(0..<23), sampling: sampling))
        for await event in generation.events {
            guard case .token = event else { continue }
            let status = engine.status()
            #expect(status.keyOwners == 4 && status.keyUnit == 2)
            #expect(status.ranks.map(\.keyOwner) == [0, 1, 2, 3])
            let owned = status.ranks.map(\.ownedTokens)
            #expect(status.running == 0 || owned.reduce(0, +) >= 23 && owned.max()! - owned.min()! <= 2)
        }
    }
}
