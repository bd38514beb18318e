import Inference
import Modeling
import Models
import Parallelism
import Synchronization
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(15))) struct `An engine's ranks` {
    /// The audit runs under the engine's lock, so `status` must return while it runs.
    @Test func `are asked without the engine's lock`() async throws {
        let found = Mutex<(engine: Engine?, steps: [UInt64])>((nil, []))
        var configuration = EngineConfiguration()
        configuration.pageSize = 4
        configuration.checksInvariants = true
        let engine = Engine(
            try Golden("v32").directory.load(), configuration,
            audit: { _ in
                let steps = found.withLock { $0.engine }?.status().steps
                found.withLock { $0.steps.append(steps ?? .max) }
                return []
            })
        found.withLock { $0.engine = engine }
        defer {
            engine.stop()
            found.withLock { $0.engine = nil }
        }
        var sampling = SamplingParameters()
        sampling.maxNewTokens = 4
        for await _ in try engine.submit(GenerationRequest(prompt: [1, 2, 3], sampling: sampling)).events {}
        #expect(found.withLock { $0.steps } == [1, 2, 3, 4])
        #expect(engine.status().steps == 4)
    }

    @Test func `own what each owner of keys has of all requests together`() {
        var draw = SplitMix64.printed()
        for _ in 0..<300 {
            let sharding = KVSharding(ranks: 1 + draw.below(9), unit: 1 + draw.below(5))
            let lengths = (0..<draw.below(12)).map { _ in draw.below(200) }
            let naive = (0..<sharding.ranks).map { rank in
                lengths.reduce(0) { $0 + sharding.count(of: $1, for: rank) }
            }
            #expect(sharding.counts(of: lengths) == naive)
        }
    }

    @Test func `tell what they did, by their places`() async throws {
        var configuration = EngineConfiguration()
        configuration.pageSize = 4
        configuration.parallel = ParallelConfiguration(context: 2, expert: 2, pipeline: 2)
        let engine = Engine(try Golden("v32").directory.load(), configuration)
        defer { engine.stop() }
        #expect(engine.status().ranks.map(\.rows) == [0, 0, 0, 0])
        #expect(engine.status().layout == "\(configuration.parallel)")
        var sampling = SamplingParameters()
        sampling.maxNewTokens = 4
        let prompt = (0..<21).map { Int32($0) }
        for await _ in try engine.submit(GenerationRequest(prompt: prompt, sampling: sampling)).events {}

        let ranks = engine.status().ranks
        #expect(ranks.map(\.rank) == [0, 1, 2, 3])
        #expect(
            ranks.map { $0.coordinates.map(\.axis) }
                == Array(repeating: ["pipeline", "data", "context", "tensor"], count: 4))
        #expect(
            ranks.map { $0.coordinates.map(\.place) } == [[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [1, 0, 1, 0]])
        // Every token but the last is a row of one rank in each stage.
        #expect(ranks[0].rows + ranks[1].rows == 24)
        #expect(ranks[2].rows + ranks[3].rows == 24)
        for rank in ranks {
            #expect(rank.steps == 4)
            #expect(rank.busySeconds > 0)
            #expect(rank.collectiveSeconds > 0)
            let names = rank.operations.map(\.name)
            #expect(names.contains("keys"))
            #expect(names.contains("stage") == (rank.rank >= 2), "only what is received is counted")
            for operation in rank.operations {
                #expect(operation.calls > 0)
                #expect((0...operation.seconds * 1.000001).contains(operation.skewSeconds), "\(operation)")
            }
        }
        // In each stage and collective some rank waited least, step by step.
        #expect(ranks.contains { $0.operations.contains { $0.skewSeconds > 0 } })
    }
}
