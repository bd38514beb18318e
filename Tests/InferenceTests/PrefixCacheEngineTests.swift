import Inference
import Modeling
import Models
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(15))) struct `An engine with a prefix cache` {
    /// The outcome of one request.
    private struct Answer: Equatable {
        var tokens: [TokenLogProbs] = []
        var prompt: [TokenLogProbs] = []
        var reason: FinishReason?
    }

    @inline(never)
    private static func answer(_ engine: Engine, _ request: GenerationRequest) async throws -> (Answer, cached: Int) {
        var answer = Answer()
        var cached = -1
        for await event in try engine.submit(request).events {
            switch event {
            case .promptLogProbs(let scores): answer.prompt += scores
            case .token(let token): answer.tokens.append(token)
            case .finished(let reason, let usage):
                answer.reason = reason
                cached = usage.cachedTokens
            case .failed(let message): Issue.record("failed: \(message)")
            }
        }
        return (answer, cached)
    }

    @inline(never)
    private static func engine(_ name: String, _ change: (inout EngineConfiguration) -> Void = { _ in }) throws
        -> Engine
    {
        var configuration = EngineConfiguration()
        let model = try Golden(name).directory.load()
        configuration.pageSize = max(4, model.positionAlignment)
        change(&configuration)
        return Engine(model, configuration)
    }

    /// Returns requests with the same beginning, greedy and sampled, with log-probabilities of prompt and answer.
    private static func requests(_ golden: Golden) -> [GenerationRequest] {
        (0..<6).map { index in
            var sampling = SamplingParameters()
            sampling.temperature = index % 2 == 0 ? 0 : 0.8
            sampling.seed = UInt64(index)
            sampling.maxNewTokens = 6 + index
            let own = (0..<index * 3).map { Int32(($0 * 31 + index * 17) % 200) }
            let options = LogProbOptions(topCount: 5, promptStart: index == 4 ? golden.prompt.count : nil)
            return GenerationRequest(prompt: golden.prompt + own, sampling: sampling, logProbs: options)
        }
    }

    @Test(arguments: Golden.cases) func `gives the same bits warm and cold`(name: String) async throws {
        let golden = try Golden(name)
        let cold = try Self.engine(name) { $0.prefixCache = false }
        let warm = try Self.engine(name) { $0.chunkedPrefillSize = 16 }
        defer {
            cold.stop()
            warm.stop()
        }
        for round in 0..<2 {
            for (index, request) in Self.requests(golden).enumerated() {
                let (expected, none) = try await Self.answer(cold, request)
                let (found, cached) = try await Self.answer(warm, request)
                #expect(found == expected, "request \(index) in round \(round)")
                #expect(none == 0)
                #expect(round + index == 0 ? cached == 0 : cached > 0, "request \(index) in round \(round)")
            }
        }
        #expect(cold.status().cachedPages == 0)
        #expect(warm.status().cacheHitTokens > 0)
        #expect(warm.status().usedPages == 0)
        #expect(warm.checkInvariants() == [])
    }

    @Test func `a salt keeps requests apart, and a flush forgets`() async throws {
        let golden = try Golden("v32")
        let engine = try Self.engine("v32")
        defer { engine.stop() }
        var request = Self.requests(golden)[0]
        let (first, _) = try await Self.answer(engine, request)
        request.cacheSalt = "another"
        let (salted, cached) = try await Self.answer(engine, request)
        #expect(salted == first)
        #expect(cached == 0)
        let pages = engine.status().cachedPages
        #expect(pages > 0)
        #expect(try await engine.flushCache() == pages)
        #expect(engine.status().freePages == engine.status().totalPages)
        let (again, found) = try await Self.answer(engine, request)
        #expect(again == first)
        #expect(found == 0)
    }
}
