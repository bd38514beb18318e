import Inference
import Modeling
import Models
import Parallelism
import TestSupport
import Testing

/// A cached prefix was computed as other rows of other requests, perhaps on other ranks.
@Suite(.timeLimit(.minutes(15))) struct `A prefix found in the cache gives the same bits` {
    @inline(never)
    private static func engine(_ parallel: ParallelConfiguration, prefixCache: Bool) throws -> Engine {
        var configuration = EngineConfiguration()
        configuration.pageSize = 4
        configuration.chunkedPrefillSize = 8
        configuration.parallel = parallel
        configuration.prefixCache = prefixCache
        return Engine(try Golden("v32").directory.load(), configuration)
    }

    /// Returns the tokens with their log-probabilities, and the cached tokens, of requests with the same beginning that
    /// run together.
    @inline(never)
    private static func answers(_ engine: Engine) async throws -> (tokens: [[TokenLogProbs]], cached: [Int]) {
        let golden = try Golden("v32")
        var tokens: [[TokenLogProbs]] = []
        var cached: [Int] = []
        for _ in 0..<2 {
            let generations = try (0..<4).map { index in
                var sampling = SamplingParameters()
                sampling.temperature = 0.7
                sampling.seed = UInt64(index)
                sampling.maxNewTokens = 8
                let own = (0..<index * 5).map { Int32(($0 * 29 + index) % 200) }
                return try engine.submit(
                    GenerationRequest(
                        prompt: golden.prompt + own, sampling: sampling, logProbs: LogProbOptions(topCount: 4)))
            }
            for generation in generations {
                var answer: [TokenLogProbs] = []
                for await event in generation.events {
                    switch event {
                    case .token(let token): answer.append(token)
                    case .finished(_, let usage): cached.append(usage.cachedTokens)
                    case .promptLogProbs, .failed: Issue.record("\(event)")
                    }
                }
                tokens.append(answer)
            }
        }
        return (tokens, cached)
    }

    @Test(arguments: [
        ParallelConfiguration(), ParallelConfiguration(data: 2), ParallelConfiguration(context: 2),
        ParallelConfiguration(data: 2, context: 2), ParallelConfiguration(pipeline: 2),
        ParallelConfiguration(context: 3, pipeline: 2),
    ])
    func `in every layout`(parallel: ParallelConfiguration) async throws {
        let cold = try Self.engine(ParallelConfiguration(), prefixCache: false)
        let warm = try Self.engine(parallel, prefixCache: true)
        defer {
            cold.stop()
            warm.stop()
        }
        let (expected, none) = try await Self.answers(cold)
        let (found, cached) = try await Self.answers(warm)
        #expect(found == expected)
        #expect(none.allSatisfy { $0 == 0 })
        #expect(cached.suffix(4).allSatisfy { $0 > 0 }, "\(cached)")
        #expect(warm.checkInvariants() == [])
    }
}
