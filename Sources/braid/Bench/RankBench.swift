import Foundation
import Inference
import KVCache
import Modeling
import Models
import Parallelism
import Planning
import Tensors

/// Ranks fed by hand, without scheduler or server: a few requests of known tokens, each with pages of its own.
final class RankBench {
    private let pool: RankPool
    private let trace: TraceWriter?
    private let prompts: [[Int32]]
    private let pagesPerRequest: Int
    private let pageSize: Int
    /// Prompt tokens of a step, at most.
    private let chunk: Int
    /// Of each prompt; later positions are given the keys of these.
    private let computedPositions: Int
    private let cost: LayoutCost
    /// Of all steps so far.
    private var predicted: RankTraffic
    private let clock = ContinuousClock()
    private var step = 0

    /// - Parameters:
    ///   - configuration: one that `Setup.configuration` gave for this many requests and positions.
    ///   - positions: of each request, prompt and generated tokens together.
    ///   - computed: positions of each prompt that are really computed, whole pages; all when `nil`.
    ///   - cache: that of other ranks, whose prompts these go on with. No key depends on who computed it.
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

    /// Computes the prompt's positions, chunk by chunk; the last row chooses a token, as a first token would be. Those
    /// behind the computed ones get copies of these ones' keys.
    ///
    /// - Parameter progress: called after each chunk with the number of positions that are done.
    /// - Returns: seconds.
    func prefill(request: Int, _ positions: Range<Int>, progress: (Int) -> Void = { _ in }) throws -> Double {
        var seconds = 0.0
        var start = positions.lowerBound
        let computed = min(positions.upperBound, computedPositions)
        while start < computed {
            let end = min(start + chunk, computed)
            let tokens = Array(prompts[request][start..<end])
            let isLast = end == positions.upperBound
            seconds += try run([plan(request, tokens, start: start, samples: isLast)]).seconds
            progress(end)
            start = end
        }
        if computed < positions.upperBound { copyKeys(request: request, max(start, computed)..<positions.upperBound) }
        return seconds
    }

    /// Gives positions the keys of computed ones, page by page, again and again.
    private func copyKeys(request: Int, _ positions: Range<Int>) {
        let (first, computed) = (request * pagesPerRequest, computedPositions / pageSize)
        for page in positions.lowerBound / pageSize..<(positions.upperBound + pageSize - 1) / pageSize {
            pool.cache.copyPage(first + page % computed, to: first + page)
        }
    }

    /// What some steps took.
    struct Steps {
        /// Of each step.
        var seconds: [Double] = []
        /// Of each step the time of all processors together, also those on which a rank waits and looks again and again.
        var processorSeconds: [Double] = []
        /// Of all of them.
        var traffic: RankTraffic

        mutating func add(_ other: Steps) {
            seconds += other.seconds
            processorSeconds += other.processorSeconds
            traffic.add(other.traffic)
        }
    }

    /// Generates tokens for the first `batch` requests together, each with `length` positions before.
    ///
    /// - Parameter warmup: steps before those that count.
    func decode(batch: Int, length: Int, warmup: Int, steps: Int) throws -> Steps {
        // What the first step reads does not matter to its time.
        var tokens = prompts.prefix(batch).map { $0[length - 1] }
        var done = Steps(traffic: traffic)
        for step in 0..<warmup + steps {
            if step == warmup { done = Steps(traffic: traffic) }
            let chunks = tokens.indices.map { plan($0, [tokens[$0]], start: length + step, samples: true) }
            let outcome = try run(chunks)
            tokens = outcome.tokens
            done.seconds.append(outcome.seconds)
            done.processorSeconds.append(outcome.processorSeconds)
        }
        done.traffic = traffic.since(done.traffic)
        return done
    }

    /// What the ranks have stored of their rows.
    var cache: CacheStore { pool.cache }

    /// What ranks exchanged in all steps so far.
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
        return StepPlan.Chunk(
            request: UInt64(request), group: request % cost.parallel.data, tokens: tokens, start: start,
            pages: (first..<first + (end + pageSize - 1) / pageSize).map { Int32($0) }, sample: sample)
    }

    private func run(_ chunks: [StepPlan.Chunk]) throws -> (
        seconds: Double, processorSeconds: Double, tokens: [Int32]
    ) {
        step += 1
        let plan = StepPlan(number: step, chunks: chunks)
        predicted.add(
            RankTraffic(
                predicted: cost, StepRows(pool.rowAssignment(of: plan))))
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
    /// A model and how it is run, for a benchmark.
    struct Setup: Sendable {
        let name: String
        let model: any Model
        let configuration: EngineConfiguration
        /// Prompt tokens of a step, at most.
        let chunk: Int
        let kernels: Kernels.Level
        let trace: TraceWriter?
        let job: Job

        /// The format of the cache, with pages of one token.
        var format: CacheFormat { model.cacheFormat(configuration.cacheType, pageSize: 1) }

        /// How the ranks share the work, in words.
        var layout: String {
            let threads = configuration.threadsPerRank
            return "\(configuration.parallel)" + (threads > 1 ? ", \(threads) threads a rank" : "")
        }
    }
}

extension EngineConfiguration {
    /// Of all ranks together.
    var threads: Int { parallel.world * threadsPerRank }
}

extension EngineOptions {
    /// Loads the model for `requests` requests of `positions` positions each.
    ///
    /// - Throws: `CommandError` when the positions are more than the model or the size of the cache allows.
    func benchSetup(_ job: Job, requests: Int, positions: Int) throws -> RankBench.Setup {
        let (directory, model) = try load()
        var configuration = try engineConfiguration(for: model, job)
        let context = configuration.contextLength ?? model.contextLength
        guard positions <= context else {
            throw CommandError(
                "\(positions) positions are needed, with the generated tokens; the context has \(context)")
        }
        let tokens = requests * ((positions + pageSize - 1) / pageSize) * pageSize
        let room = configuration.scheduler(for: model).totalPages * pageSize
        if maxTotalTokens != nil || kvCacheMemoryBytes != nil, room < tokens {
            let option = maxTotalTokens == nil ? "--kv-cache-memory-bytes" : "--max-total-tokens"
            throw CommandError("\(option): there is room for \(room) tokens; this needs \(tokens)")
        }
        configuration.maxTotalTokens = tokens
        let scheduler = configuration.scheduler(for: model)
        let chunk = chunkedPrefillSize == -1 ? scheduler.maxRowsPerStep : chunkedPrefillSize
        return RankBench.Setup(
            name: directory.name, model: model, configuration: configuration,
            chunk: min(chunk, scheduler.maxRowsPerStep), kernels: kernels ?? Kernels.best.level,
            trace: try traceWriter(for: configuration), job: job)
    }
}

extension ModelDirectory {
    /// The directory's own name.
    var name: String {
        path.split(separator: "/").last.map(String.init) ?? path
    }
}
