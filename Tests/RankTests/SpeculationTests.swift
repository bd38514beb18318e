import DeepSeekV32
import Inference
import KVCache
import Modeling
import Models
import Parallelism
import TestSupport
import Testing

/// Random weights draft badly, so most requests may sample from only three tokens: then drafts are often accepted, and
/// often rejected.
@Suite(.timeLimit(.minutes(15))) struct `Speculative decoding` {
    private struct Answer: Equatable {
        var tokens: [TokenLogProbs] = []
        var reason: FinishReason?
        var speculation = SpeculationCount()
        var cached = 0
    }

    @inline(never)
    private static func engine(
        _ name: String, of model: (any Model)? = nil, drafts: Int,
        _ change: (inout EngineConfiguration) -> Void = { _ in }
    ) throws -> Engine {
        var configuration = EngineConfiguration()
        configuration.pageSize = 4
        configuration.chunkedPrefillSize = 16
        configuration.maxTotalTokens = 600
        configuration.drafts = drafts
        change(&configuration)
        return Engine(try model ?? Golden(name).directory.load(drafts: drafts > 0), configuration)
    }

    /// Returns requests that are greedy and sampled, restricted and not, with penalties, stop tokens and minimum
    /// numbers of tokens.
    private static func requests(_ golden: Golden, count: Int = 6) -> [GenerationRequest] {
        (0..<count).map { index in
            var sampling = SamplingParameters()
            sampling.temperature = index % 3 == 0 ? 0 : 1.2
            sampling.seed = UInt64(index)
            sampling.maxNewTokens = 10 + 3 * index
            if index > 0 { sampling.logitBias = [7: 40, 9: 40, 30: 40] }
            if index % 4 == 2 { sampling.frequencyPenalty = 0.3 }
            if index % 4 == 3 { sampling.repetitionPenalty = 1.3 }
            if index % 2 == 1 {
                sampling.stopTokens = [30]
                sampling.minNewTokens = 3 + index
            }
            let own = (0..<index * 3).map { Int32(($0 * 31 + index * 17) % 200) }
            return GenerationRequest(
                prompt: golden.prompt + own, sampling: sampling, logProbs: LogProbOptions(topCount: 3))
        }
    }

    @inline(never)
    private static func answer(_ generation: Generation) async -> Answer {
        var answer = Answer()
        for await event in generation.events {
            switch event {
            case .token(let token): answer.tokens.append(token)
            case .finished(let reason, let usage):
                (answer.reason, answer.speculation, answer.cached) = (reason, usage.speculation, usage.cachedTokens)
            case .promptLogProbs, .failed: Issue.record("\(event)")
            }
        }
        return answer
    }

    /// Counts the drafts of all requests together.
    @inline(never)
    private static func answers(_ engine: Engine, _ requests: [GenerationRequest]) async throws -> [Answer] {
        let generations = try requests.map { try engine.submit($0) }
        var answers: [Answer] = []
        for generation in generations { answers.append(await answer(generation)) }
        return answers
    }

    private static let layouts = [
        "one", "cp4 interleave", "cp4 ep4 zigzag alltoall", "tp2 dense2", "dp2", "pp2", "pp2 cp2 tp2 ep4 dense2",
        "cp4 dcp4", "cp2 tp2 dcp2:4",
    ]

    @Test(arguments: Golden.draftingCases, layouts)
    func `does not change a bit of the text, in any layout`(name: String, notation: String) async throws {
        for drafts in [1, 3] { try await Self.compare(name, notation, drafts: drafts) }
    }

    @inline(never)
    private static func compare(_ name: String, _ notation: String, drafts: Int) async throws {
        let golden = try Golden(name)
        let plain = try Self.engine(name, drafts: 0) { $0.prefixCache = false }
        let layout = try ParallelConfiguration(notation: notation, for: golden.directory.description.parallelShape)
        let drafting = try Self.engine(name, drafts: drafts) { $0.parallel = layout }
        defer {
            plain.stop()
            drafting.stop()
        }
        let requests = Self.requests(golden)
        let expected = try await Self.answers(plain, requests)
        for round in 0..<2 {
            let found = try await Self.answers(drafting, requests)
            for index in requests.indices {
                #expect(found[index].tokens == expected[index].tokens, "request \(index), round \(round)")
                #expect(found[index].reason == expected[index].reason, "request \(index), round \(round)")
            }
        }
        let count = drafting.status().speculation
        #expect(count.accepted > 10 && count.accepted < count.drafted, "\(count)")
        #expect(drafting.checkInvariants() == [])
        #expect(drafting.status().usedPages == 0)
    }

    @Test(arguments: CacheType.plain) func `does not change it with any cache, nor when pages are short`(
        type: CacheType
    ) async throws {
        let golden = try Golden("v32-drafts")
        let plain = try Self.engine("v32-drafts", drafts: 0) { $0.cacheType = type }
        let model = HeldModel(try golden.directory.load(drafts: true))
        let preempting = try Self.engine("v32-drafts", of: model, drafts: 2) {
            $0.cacheType = type
            $0.maxTotalTokens = 164
            $0.prefixCache = false
        }
        defer {
            plain.stop()
            preempting.stop()
        }
        var requests = Self.requests(golden, count: 8)
        for index in requests.indices { requests[index].sampling.maxNewTokens! += 20 }
        let expected = try await Self.answers(plain, requests)
        let found = try await model.answers(of: preempting, to: requests)
        #expect(found.map(\.tokens) == expected.map(\.tokens))
        #expect(preempting.status().preemptions > 0)
        #expect(preempting.status().speculation.accepted > 0)
        #expect(preempting.checkInvariants() == [])
    }

    @Test(arguments: Golden.draftingCases)
    func `drafts the same tokens in every layout, and after a prefix found in the cache`(name: String) async throws {
        let golden = try Golden(name)
        // Each request runs alone, so that no other request has the pages that a draft needs. The later ones begin like
        // the first.
        let requests = Self.requests(golden) + Self.requests(golden)
        var expected: [SpeculationCount] = []
        for (round, notation) in (["one"] + Self.layouts).enumerated() {
            let layout = try ParallelConfiguration(
                notation: notation, for: golden.directory.description.parallelShape)
            let engine = try Self.engine(name, drafts: 3) {
                $0.parallel = layout
                $0.prefixCache = round > 0
            }
            defer { engine.stop() }
            var found: [Answer] = []
            for request in requests { found.append(try await Self.answers(engine, [request])[0]) }
            if round == 0 { expected = found.map(\.speculation) }
            #expect(found.map(\.speculation) == expected, "\(notation)")
            #expect(found.dropFirst().allSatisfy { round == 0 || $0.cached > 0 })
        }
        #expect(expected.contains { $0.accepted > 0 })
    }

    @Test func `needs a model that can draft`() throws {
        let model = try Golden("v3").directory.load()
        var configuration = EngineConfiguration()
        configuration.drafts = 1
        let problems = configuration.validate(for: model)
        #expect(problems.count == 1 && problems[0].contains("--speculative-num-steps"))
    }
}

@Suite struct `A chunk that ends in draft tokens` {
    private static func chunk(_ drafts: [Int32], _ change: (inout SamplingParameters) -> Void = { _ in })
        -> StepPlan.Chunk
    {
        var parameters = SamplingParameters()
        parameters.minNewTokens = 2
        parameters.stopTokens = [1]
        change(&parameters)
        return StepPlan.Chunk(
            request: 0, tokens: [5] + drafts, start: 10, pages: [0],
            sample: StepPlan.Sample(parameters: parameters, position: 11, generated: [4], minTokensRemaining: 2),
            speculation: .init(drafted: drafts.count))
    }

    @Test func `samples at its last known token and at every draft`() {
        #expect(Self.chunk([6, 7]).sampledRows == 0..<3)
        #expect(Self.chunk([]).sampledRows == 0..<1)
        #expect(Self.chunk([6, 7]).outputRows == [0, 1, 2])
    }

    @Test func `accepts drafts up to the first that differs from the sampled token`() {
        let chunk = Self.chunk([6, 7])
        #expect(chunk.acceptedCount([6, 7, 8]) == 3)
        #expect(chunk.acceptedCount([6, 9, 8]) == 2)
        #expect(chunk.acceptedCount([5, 7, 8]) == 1)
        #expect(chunk.acceptedCount([6, nil, 8]) == 2)
        #expect(chunk.acceptedCount([nil, 7, 8]) == 1)
    }

    @Test func `samples after a draft as if the draft had been sampled`() {
        let chunk = Self.chunk([6, 7]) { $0.presencePenalty = 1 }
        #expect((0..<3).map { chunk.sample(at: $0).position } == [11, 12, 13])
        #expect((0..<3).map { chunk.sample(at: $0).generated } == [[4], [4, 6], [4, 6, 7]])
        #expect((0..<3).map { chunk.sample(at: $0).forbidden } == [[1], [1], []])
        #expect(Self.chunk([6]).sample(at: 1).generated == [4], "nothing asks for it")
    }
}
