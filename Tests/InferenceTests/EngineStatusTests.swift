import Inference
import KVCache
import Modeling
import Models
import Parallelism
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(15))) struct `The status of an engine` {
    private static func request(newTokens: Int) -> GenerationRequest {
        var sampling = SamplingParameters()
        sampling.maxNewTokens = newTokens
        return GenerationRequest(prompt: [1, 2, 3], sampling: sampling)
    }

    @Test func `has the settings in force, and not only those that were given`() throws {
        let directory = try Golden("v32").directory
        let layers = directory.description.layers.count
        var configuration = EngineConfiguration()
        configuration.parallel = ParallelConfiguration(
            data: 2, context: 1, tensor: 2, expert: 2, expertTensor: 2, pipeline: 2, stageLayers: [layers - 1, 1],
            denseTensor: 2, exchange: .allToAll, kvSharding: KVSharding(ranks: 2, unit: 4, minKeys: 64))
        configuration.maxRunningRequests = 8
        configuration.chunkedPrefillSize = -1
        configuration.maxPrefillTokens = 96
        configuration.cacheType = .bfloat16
        configuration.prefixCache = false
        let engine = Engine(try directory.load(), configuration)
        defer { engine.stop() }
        var expected = EngineSettings()
        expected.parallel = configuration.parallel
        // Without a limit of one request, a step has room for all prompts and for eight that decode.
        (expected.chunkedPrefillSize, expected.maxPrefillTokens) = (104, 96)
        (expected.kvCacheDtype, expected.prefixCache) = ("bfloat16", false)
        #expect(engine.status().settings == expected)
    }

    @Test(arguments: CacheType.plain + CacheType.withFP4Index) func `has the types of keys and of index keys`(
        type: CacheType
    ) throws {
        var configuration = EngineConfiguration()
        configuration.pageSize = 128
        configuration.cacheType = type
        let engine = Engine(try Golden("v4").directory.load(), configuration)
        defer { engine.stop() }
        let settings = engine.status().settings
        #expect(settings.kvCacheDtype == type.keys.rawValue && settings.hasFP4Index == type.hasFP4Index)
    }

    @Test(arguments: CacheType.withFP4Index) func `refuses index keys in FP4 of models that were not made for them`(
        type: CacheType
    ) throws {
        var configuration = EngineConfiguration()
        configuration.cacheType = type
        #expect(
            configuration.validate(for: try Golden("v32").directory.load()) == [
                "--enable-deepseek-v4-fp4-indexer: only models of type deepseek_v4 were made for index keys in FP4, and "
                    + "this one is of type deepseek_v32; leave it out"
            ])
    }

    @Test func `counts the time in which requests ran, and not the time between`() async throws {
        let engine = Engine(try Golden("v32").directory.load(), EngineConfiguration())
        defer { engine.stop() }
        #expect(engine.status().busySeconds == 0 && engine.status().runningSeconds == 0)
        for await _ in try engine.submit(Self.request(newTokens: 4)).events {}
        let first = engine.status()
        #expect(first.busySeconds > 0 && first.runningSeconds == first.busySeconds)

        let start = ContinuousClock.now
        let pause = Duration.milliseconds(300)
        try await Task.sleep(for: pause)
        for await _ in try engine.submit(Self.request(newTokens: 8)).events {}
        let busy = engine.status().busySeconds - first.busySeconds
        let elapsed = (start.duration(to: .now) - pause) / .seconds(1)
        #expect(busy > 0 && busy <= elapsed)
    }

    @Test func `counts the time of each request that runs`() async throws {
        let model = HeldModel(try Golden("v32").directory.load())
        let engine = Engine(model, EngineConfiguration())
        defer { engine.stop() }
        let requests = (0..<3).map { _ in Self.request(newTokens: 8) }
        let answers = try await model.answers(of: engine, to: requests)
        #expect(answers.allSatisfy { $0.failure == nil })
        let status = engine.status()
        #expect(status.runningSeconds > status.busySeconds)
        #expect(status.runningSeconds <= 3 * status.busySeconds + 1e-9)
    }
}
