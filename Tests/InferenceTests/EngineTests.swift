import Foundation
import Inference
import Modeling
import Models
import Parallelism
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(15))) struct `An engine` {
    // If this is inlined, it crashes the optimiser of Swift 6.3.1 in the coroutines that call it.
    @inline(never)
    private static func engine(
        _ name: String = "v32", of model: (any Model)? = nil, _ change: (inout EngineConfiguration) -> Void = { _ in }
    ) throws -> Engine {
        var configuration = EngineConfiguration()
        configuration.pageSize = 4
        change(&configuration)
        return Engine(try model ?? Golden(name).directory.load(), configuration)
    }

    /// Returns requests of different lengths, greedy and sampled, some with prompt scores.
    private static func requests(count: Int = 12) -> [GenerationRequest] {
        (0..<count).map { index in
            var sampling = SamplingParameters()
            sampling.temperature = index % 2 == 0 ? 0 : 0.8
            sampling.seed = UInt64(index)
            sampling.maxNewTokens = 5 + index % 7
            let prompt = (0..<(1 + index * 7 % 60)).map { Int32(($0 * 31 + index * 17) % 256) }
            let logProbs = LogProbOptions(topCount: 3, promptStart: index % 3 == 0 ? 0 : nil)
            return GenerationRequest(prompt: prompt, sampling: sampling, logProbs: logProbs)
        }
    }

    @inline(never)
    private static func together(_ engine: Engine, _ requests: [GenerationRequest]) async throws -> [Answer] {
        let generations = try requests.map { try engine.submit($0) }
        return await answers(generations)
    }

    private static func alone(_ requests: [GenerationRequest]) async throws -> [Answer] {
        let engine = try engine { $0.maxRunningRequests = 1 }
        let answers = try await together(engine, requests)
        engine.stop()
        return answers
    }

    @Test func `gives a request the same bits alone and in a batch`() async throws {
        let requests = Self.requests()
        let alone = try await Self.alone(requests)
        #expect(alone.allSatisfy { $0.finish == .length && !$0.tokens.isEmpty })
        let engine = try Self.engine()
        defer { engine.stop() }
        #expect(try await Self.together(engine, requests) == alone)
        #expect(engine.checkInvariants() == [])
    }

    @Test(arguments: [1, 2, 7, 16, -1])
    func `gives the same bits under any chunk size`(chunk: Int) async throws {
        let requests = Self.requests()
        let engine = try Self.engine { $0.chunkedPrefillSize = chunk }
        defer { engine.stop() }
        #expect(try await Self.together(engine, requests) == Self.alone(requests))
    }

    @Test func `gives the same bits after preemption`() async throws {
        let requests = Self.requests()
        // The longest request fits into twenty pages of four tokens; all of them together do not.
        let model = HeldModel(try Golden("v32").directory.load())
        let engine = try Self.engine(of: model) { $0.maxTotalTokens = 80 }
        defer { engine.stop() }
        #expect(try await model.answers(of: engine, to: requests) == Self.alone(requests))
        #expect(engine.status().preemptions > 0, "the test must preempt something")
        #expect(engine.status().freePages + engine.status().cachedPages == engine.status().totalPages)
    }

    @Test func `frees the pages of a request whose reader disconnects`() async throws {
        let engine = try Self.engine()
        defer { engine.stop() }
        var sampling = SamplingParameters()
        sampling.maxNewTokens = 400
        let endless = GenerationRequest(prompt: [1, 2, 3], sampling: sampling)
        let reader = Task {
            for await event in try engine.submit(endless).events {
                if case .token = event { return }
            }
        }
        try await reader.value
        let other = try await Self.together(engine, [Self.requests()[5]])
        #expect(try await other == Self.alone([Self.requests()[5]]))
        await engine.drain()
        #expect(engine.status().freePages + engine.status().cachedPages == engine.status().totalPages)
        #expect(engine.checkInvariants() == [])
    }

    @Test(arguments: ["v3", "v32", "v32-fp8", "v32-norope-scaling"])
    func `continues a golden prompt as the independent implementation does`(name: String) async throws {
        let golden = try Golden(name)
        let engine = try Self.engine(name)
        defer { engine.stop() }
        var sampling = SamplingParameters()
        sampling.temperature = 0
        sampling.maxNewTokens = golden.continuation.count
        let request = GenerationRequest(prompt: golden.prompt, sampling: sampling, logProbs: LogProbOptions())
        let answer = try await Self.together(engine, [request])[0]
        #expect(answer.tokens.map(\.token) == golden.continuation)
        for (token, expected) in zip(answer.tokens, golden.logProbs) {
            #expect(abs(try #require(token.logProb) - expected) < 1e-4)
        }
    }

    @Test func `drains: running requests end, new ones are refused`() async throws {
        let engine = try Self.engine()
        defer { engine.stop() }
        let generation = try engine.submit(Self.requests()[3])
        async let drained: Void = engine.drain()
        let answer = await answers([generation])[0]
        await drained
        #expect(answer.finish == .length)
        #expect(throws: EngineError.draining) { try engine.submit(Self.requests()[4]) }
    }

    @Test func `lets requests ask for as many alternatives as it is told to, and no more than there are tokens`() {
        let vocabulary = FaultyModel().vocabularySize
        var configuration = EngineConfiguration()
        #expect(configuration.scheduler(for: FaultyModel()).maxTopLogProbs == min(20, vocabulary))
        for (count, expected) in [(0, 0), (3, min(3, vocabulary)), (1 << 20, vocabulary)] {
            configuration.maxTopLogProbs = count
            #expect(configuration.scheduler(for: FaultyModel()).limits.maxTopLogProbs == expected)
        }
    }

    @Test(arguments: [1, 8]) func `has as many threads a rank as is no mistake`(ranks: Int) throws {
        let cores = ProcessInfo.processInfo.activeProcessorCount
        func configuration(_ threads: Int) -> EngineConfiguration {
            var configuration = EngineConfiguration()
            configuration.parallel = ParallelConfiguration(data: ranks)
            configuration.threadsPerRank = threads
            return configuration
        }
        let most = max(1, 8 * cores / ranks)
        #expect(configuration(most).validate(for: FaultyModel()).isEmpty)
        for (threads, nearest) in [(0, 1), (-3, 1), (most + 1, most), (.max, most)] {
            let problem = try #require(configuration(threads).validate(for: FaultyModel()).first)
            #expect(problem.hasPrefix("--threads-per-rank: \(threads) is not between 1 and \(most), "))
            #expect(problem.hasSuffix("the nearest legal value is \(nearest)"))
        }
        #expect(configuration(cores + 1).warning?.contains("share \(cores) cores") == true)
        // One thread a rank: too many ranks share the cores, and too few leave most of them idle.
        let warning = configuration(1).warning
        #expect((warning?.contains("ranks will share") == true) == (ranks > cores))
        #expect((warning?.contains("would use the others") == true) == (2 * ranks <= cores))
        #expect((warning == nil) == (ranks <= cores && 2 * ranks > cores))
    }
}
