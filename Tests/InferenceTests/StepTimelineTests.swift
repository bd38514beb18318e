import Inference
import Modeling
import Models
import Parallelism
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(15))) struct `An engine's timeline` {
    private static let prompt = (0..<21).map { Int32($0) }

    private static func generate(_ engine: Engine, _ tokens: Int) async throws {
        var sampling = SamplingParameters()
        sampling.maxNewTokens = tokens
        for await _ in try engine.submit(GenerationRequest(prompt: prompt, sampling: sampling)).events {}
    }

    @Test func `is of the step after it was asked for, and of no other`() async throws {
        var configuration = EngineConfiguration()
        configuration.pageSize = 4
        configuration.prefixCache = false
        configuration.parallel = ParallelConfiguration(context: 2, expert: 2, pipeline: 2)
        let model = try Golden("v32").directory.load()
        let engine = Engine(model, configuration)
        defer { engine.stop() }
        try await Self.generate(engine, 2)
        #expect(engine.timeline() == nil, "nobody had asked")
        // Two steps are not traced within half a second.
        try await Task.sleep(for: .milliseconds(600))
        // The next step is the third one: the prompt of this request.
        try await Self.generate(engine, 3)
        let timeline = try #require(engine.timeline())
        #expect(timeline.step == 2 && timeline.requests == 1)
        #expect(timeline.ranks.map(\.rank) == [0, 1, 2, 3])
        #expect(timeline.ranks[0].rows + timeline.ranks[1].rows == 21)
        #expect(timeline.ranks[2].rows + timeline.ranks[3].rows == 21)
        for rank in timeline.ranks {
            #expect(!rank.isCut && rank.spans.first?.name == "step" && rank.spans.first?.number == 2)
            #expect(rank.spans.allSatisfy { $0.begin + $0.length <= timeline.nanoseconds })
            #expect(rank.spans.map(\.begin) == rank.spans.map(\.begin).sorted())
            let layers = configuration.parallel.layers(ofStage: rank.rank / 2, total: model.parallelShape.layers)
            #expect(rank.spans.filter { $0.name == "layer" }.map(\.number) == Array(layers))
            #expect(rank.spans.count { $0.name == "keys" } == layers.count)
        }
        #expect(timeline.ranks.flatMap(\.spans).map(\.begin).min() == 0)
        // The question that returned it has the next step traced.
        try await Self.generate(engine, 1)
        #expect(engine.timeline()?.step == 5)
        let rows = engine.status().ranks.map(\.lastRows)
        #expect(rows[0] + rows[1] == 21 && rows[2] + rows[3] == 21)
    }
}
