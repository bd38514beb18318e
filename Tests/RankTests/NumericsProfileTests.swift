import Inference
import Modeling
import Models
import Parallelism
import Tensors
import TestSupport
import Testing
import Verification

@Suite(.timeLimit(.minutes(15))) struct `The BF16 profile` {
    /// Returns the tokens of greedy and sampled requests, with their log-probabilities.
    private static func answers(
        _ name: String, _ profile: NumericsProfile, _ layout: String = "one", threads: Int = 1
    ) async throws -> [[TokenLogProbs]] {
        let golden = try Golden(name)
        let model = try golden.directory.load()
        var configuration = EngineConfiguration(
            smallCache: try ParallelConfiguration(notation: layout, for: model.parallelShape), tokens: 2048,
            alignment: model.positionAlignment)
        configuration.profile = profile
        configuration.chunkedPrefillSize = layout == "one" ? -1 : 13
        configuration.threadsPerRank = threads
        // Small operations are divided too, so that threads have work.
        configuration.tuning.minParallelWork = 1
        let engine = Engine(model, configuration)
        defer { engine.stop() }
        #expect(engine.status().dtype == profile.name)
        let generations = try (0..<4).map { index in
            var sampling = SamplingParameters()
            sampling.temperature = index % 2 == 0 ? 0 : 0.8
            sampling.seed = UInt64(index)
            sampling.maxNewTokens = 8
            return try engine.submit(
                GenerationRequest(
                    prompt: golden.prompt + Array(golden.prompt.prefix(index * 5)), sampling: sampling,
                    logProbs: LogProbOptions(topCount: 4)))
        }
        var answers: [[TokenLogProbs]] = []
        for generation in generations {
            var answer: [TokenLogProbs] = []
            for await event in generation.events {
                switch event {
                case .token(let token): answer.append(token)
                case .finished: break
                case .promptLogProbs, .failed: Issue.record("\(event)")
                }
            }
            answers.append(answer)
        }
        return answers
    }

    @Test(arguments: ["v3", "v32", "v32-fp8", "v4-fp8-fp4"])
    func `gives one rank's bits in every layout, and other log-probabilities than F32`(name: String) async throws {
        let expected = try await Self.answers(name, .bf16)
        for layout in ["cp2", "tp2 dense2", "cp2 ep2 alltoall", "dp2", "pp2", "cp2 tp2 ep4 dense2", "cp2 dcp2"] {
            #expect(try await Self.answers(name, .bf16, layout) == expected, "\(layout)")
        }
        #expect(try await Self.answers(name, .bf16, "cp2 tp2 ep2 etp2", threads: 2) == expected)
        let exact = try await Self.answers(name, .f32)
        let pairs = zip(expected, exact).map { ($0[0], $1[0]) }
        #expect(pairs.contains { $0.logProb != $1.logProb })
        // Some choose another first token, or have rows that select other keys or experts.
        let near = pairs.count { $0.token == $1.token && abs(($0.logProb ?? 0) - ($1.logProb ?? 0)) < 0.05 }
        #expect(near >= 2, "\(pairs)")
    }

    @Test func `is compared with one rank that has it too`() throws {
        let golden = try Golden("v32-fp8")
        let model = try golden.directory.load()
        let measure = Workload.Measure(
            selecting: golden.directory.description.selection?.firstPosition, contextLength: model.contextLength,
            vocabularySize: model.vocabularySize)
        let verification = Verification(model, measure)
        for word in ["f32", "bf16", "f32"] {
            let notation = "cp2 tp2 ep4 dense2 zigzag chunk9 page4 warm mixed threads2 odd-blocks \(word)"
            let candidate = try VerificationCase(notation: notation, for: model.parallelShape)
            #expect(candidate.conditions.profile.rawValue == word && candidate.notation.contains(" \(word)"))
            #expect(try verification.check(candidate) == .equal, "\(word)")
        }
    }
}
