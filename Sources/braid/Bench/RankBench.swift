import Foundation
import Inference
import KVCache
import Modeling
import Models
import Parallelism
import Planning
import Tensors

/// A rank bench runs steps on ranks without scheduler or server: a few requests of known tokens, each with its own
/// pages.
final class RankBench {
    private let pool: RankPool
    private let trace: TraceWriter?
    private let prompts: [[Int32]]
    private let pagesPerRequest: Int
    private let pageSize: Int
    /// The number of window pages in the cache; 0 for a model without windows.
    private let windowPages: Int
    /// The maximum number of prompt tokens of a step.
    private let chunk: Int
    /// The number of positions of each prompt that are computed; later positions get copies of their keys.
    private let computedPositions: Int
    private let cost: LayoutCost
    /// The predicted traffic of all steps so far.
    private var predicted: RankTraffic
    private let clock = ContinuousClock()
    private var step = 0

    /// - Parameters:
    ///   - setup: The model and its configuration, made for this many requests and positions.
    ///   - positions: The positions of each request, prompt and generated tokens together.
    ///   - computed: The number of positions of each prompt that are computed, a multiple of the page size; `nil`
    ///     computes all.
    ///   - cache: A cache that other ranks have filled with the same prompts; their keys are equal, whoever computed
    ///     them.
    init(
        _ setup: Setup, requests: Int, promptLength: Int, positions: Int, seed: UInt64, computed: Int? = nil,
        sharing cache: CacheStore? = nil
    ) {
        pool = RankPool(
            setup.model, setup.configuration, processes: setup.job.processes, trace: setup.trace, cache: cache)
        trace = setup.trace
        let parallel = setup.configuration.parallel
        cost = LayoutCost(
            setup.model.description, parallel, format: setup.format, isDivided: pool.processSharding != nil)
        predicted = RankTraffic(ranks: parallel.world)
        pageSize = setup.configuration.pageSize
        windowPages = setup.configuration.scheduler(for: setup.model).windowPages
        pagesPerRequest = (positions + pageSize - 1) / pageSize
        chunk = setup.chunk
        computedPositions = computed ?? promptLength
        prompts = (0..<requests).map { request in
            var generator = SeededGenerator(seed: seed, stream: UInt64(request))
            return generator.tokens(promptLength, vocabularySize: setup.model.vocabularySize)
        }
    }

    deinit {
        pool.stop()
        trace?.close()
    }

    /// Computes the prompt's positions, chunk by chunk; the last row samples a token, as a first token would be.
    /// Positions after the computed ones get copies of their keys.
    ///
    /// - Parameters:
    ///   - samples: False to compute no logits.
    ///   - progress: Receives after each chunk the number of positions that are done.
    /// - Returns: The seconds that the computation took.
    func prefill(
        request: Int, _ positions: Range<Int>, samples: Bool = true, progress: (Int) -> Void = { _ in }
    ) throws -> Double {
        var seconds = 0.0
        var start = positions.lowerBound
        let computed = min(positions.upperBound, computedPositions)
        while start < computed {
            let end = min(start + chunk, computed)
            let tokens = Array(prompts[request][start..<end])
            let isLast = end == positions.upperBound
            seconds += try run([plan(request, tokens, start: start, samples: samples && isLast)]).seconds
            progress(end)
            start = end
        }
        if computed < positions.upperBound { copyKeys(request: request, max(start, computed)..<positions.upperBound) }
        return seconds
    }

    /// Copies the keys of computed pages to the pages of `positions`, repeatedly.
    private func copyKeys(request: Int, _ positions: Range<Int>) {
        let (first, computed) = (request * pagesPerRequest, computedPositions / pageSize)
        for page in positions.lowerBound / pageSize..<(positions.upperBound + pageSize - 1) / pageSize {
            pool.cache.copyPage(first + page % computed, to: first + page)
        }
    }

    /// The measurements of some steps.
    struct Steps {
        /// The seconds of each step.
        var seconds: [Double] = []
        /// The processor time of each step, summed over all threads, including the time in which a rank waits actively.
        var processorSeconds: [Double] = []
        /// The traffic of all steps.
        var traffic: RankTraffic

        mutating func add(_ other: Steps) {
            seconds += other.seconds
            processorSeconds += other.processorSeconds
            traffic.add(other.traffic)
        }
    }

    /// Generates tokens for the first `batch` requests together, each after `length` positions.
    ///
    /// - Parameters:
    ///   - warmup: The number of steps before those that count.
    ///   - samples: False to compute no logits; the steps' tokens are then those of the prompts.
    func decode(batch: Int, length: Int, warmup: Int, steps: Int, samples: Bool = true) throws -> Steps {
        // The first step's input tokens do not matter to its time.
        var tokens = prompts.prefix(batch).map { $0[length - 1] }
        var done = Steps(traffic: traffic)
        for step in 0..<warmup + steps {
            if step == warmup { done = Steps(traffic: traffic) }
            let chunks = tokens.indices.map { plan($0, [tokens[$0]], start: length + step, samples: samples) }
            let outcome = try run(chunks)
            tokens = samples ? outcome.tokens : prompts.prefix(batch).map { $0[step % length] }
            done.seconds.append(outcome.seconds)
            done.processorSeconds.append(outcome.processorSeconds)
        }
        done.traffic = traffic.since(done.traffic)
        return done
    }

    /// The KV cache of the ranks.
    var cache: CacheStore { pool.cache }

    /// The predicted and measured traffic of all steps so far.
    var traffic: RankTraffic {
        var traffic = predicted
        traffic.add(RankTraffic(pool.status))
        return traffic
    }

    private func plan(_ request: Int, _ tokens: [Int32], start: Int, samples: Bool) -> StepPlan.Chunk {
        let end = start + tokens.count
        let first = request * pagesPerRequest
        var sample: StepPlan.Sample?
        if samples {
            var greedy = SamplingParameters()
            greedy.temperature = 0
            sample = StepPlan.Sample(parameters: greedy, position: end)
        }
        let pages = (end + pageSize - 1) / pageSize
        // Window pages are taken in turn, as all requests together have more pages than the windows need.
        let firstWindowPage = windowPages > 0 ? max(start + 1 - cost.format.window, 0) / pageSize : 0
        let windows = windowPages > 0 ? (firstWindowPage..<pages).map { Int32((first + $0) % windowPages) } : []
        return StepPlan.Chunk(
            request: UInt64(request), group: request % cost.parallel.data, tokens: tokens, start: start,
            pages: (first..<first + pages).map { Int32($0) }, windowPages: windows, firstWindowPage: firstWindowPage,
            sample: sample)
    }

    private func run(_ chunks: [StepPlan.Chunk]) throws -> (
        seconds: Double, processorSeconds: Double, tokens: [Int32]
    ) {
        step += 1
        let plan = StepPlan(number: step, chunks: chunks)
        predicted.add(
            RankTraffic(
                predicted: cost, StepRows(pool.rowAssignment(of: plan), cost.format)))
        let (start, processor) = (clock.now, processSeconds())
        let result = try pool.run(plan).result
        let (seconds, processorSeconds) = ((clock.now - start) / .seconds(1), processSeconds() - processor)
        for chunk in result.chunks {
            if let failure = chunk.failure { throw CommandError("request \(chunk.request): \(failure)") }
        }
        return (seconds, processorSeconds, result.chunks.flatMap { $0.sampled.map(\.token) })
    }
}

extension RankBench {
    /// A setup is a model with its configuration, for a benchmark.
    struct Setup: Sendable {
        let name: String
        let model: any Model
        let configuration: EngineConfiguration
        /// The maximum number of prompt tokens of a step.
        let chunk: Int
        let kernels: Kernels.Level
        let trace: TraceWriter?
        let job: Job

        /// The format of the cache.
        var format: CacheFormat { model.cacheFormat(configuration.cacheType, pageSize: configuration.pageSize) }

        /// The instruction-set level and the numerics profile in words.
        var numerics: String { "\(kernels.rawValue) in \(configuration.profile.name)" }

        /// The parallel configuration in words.
        var layout: String {
            let threads = configuration.threadsPerRank
            return "\(configuration.parallel)" + (threads > 1 ? ", \(threads) threads a rank" : "")
        }
    }
}

extension EngineConfiguration {
    /// The number of threads of all ranks together.
    var threads: Int { parallel.world * threadsPerRank }
}

extension EngineOptions {
    /// Loads the model for `requests` requests of `positions` positions each.
    ///
    /// - Throws: `CommandError` if the positions exceed the model's context, the size of the cache or this machine's memory.
    func benchSetup(_ job: Job, requests: Int, positions: Int) throws -> RankBench.Setup {
        let (directory, model, profile) = try load()
        return try benchSetup(
            directory.name, model, profile, job, requests: requests, positions: positions)
    }

    /// Returns the setup of a model that is loaded, as above.
    func benchSetup(
        _ name: String, _ model: any Model, _ profile: NumericsProfile, _ job: Job, requests: Int, positions: Int
    ) throws -> RankBench.Setup {
        var configuration = try engineConfiguration(for: model, profile, job)
        let context = configuration.contextLength ?? model.contextLength
        guard positions <= context else {
            throw CommandError(
                "\(positions) positions are needed, with the generated tokens; the context has \(context)")
        }
        let pageSize = configuration.pageSize
        let tokens = requests * ((positions + pageSize - 1) / pageSize) * pageSize
        let room = configuration.scheduler(for: model).totalPages * pageSize
        if maxTotalTokens != nil || kvCacheMemoryBytes != nil, room < tokens {
            let option = maxTotalTokens == nil ? "--kv-cache-memory-bytes" : "--max-total-tokens"
            throw CommandError("\(option): there is room for \(room) tokens; this needs \(tokens)")
        }
        configuration.maxTotalTokens = tokens
        let problems = configuration.validate(for: model)
        guard problems.isEmpty else {
            throw CommandError(
                problems.map { "\(requests) requests of \(positions) positions: \($0)" }.joined(separator: "\n"))
        }
        let scheduler = configuration.scheduler(for: model)
        let chunk = chunkedPrefillSize == -1 ? scheduler.maxRowsPerStep : chunkedPrefillSize
        return RankBench.Setup(
            name: name, model: model, configuration: configuration,
            chunk: min(chunk, scheduler.maxRowsPerStep), kernels: kernels ?? Kernels.best.level,
            trace: try traceWriter(for: configuration), job: job)
    }
}
