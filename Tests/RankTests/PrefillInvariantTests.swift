import DeepSeekV32
import Inference
import KVCache
import Modeling
import Models
import Parallelism
import Tensors
import TestSupport
import Testing

/// The keys and logits of a prefill are the same however its rows are assigned to ranks and cut into chunks and stages.
@Suite(.timeLimit(.minutes(15))) struct `What a prefill leaves behind` {
    static let seed = UInt64.random(in: 0 ... .max)
    static let samples = 30

    /// The results of a prefill that are compared.
    private struct Outcome {
        /// The result of every row's logits, for each request.
        var scores: [UInt64: [TokenLogProbs]] = [:]
        var records = StageRecords()
        /// The bytes of every layer, lane and entry of the cache.
        var cache: [[[[UInt8]]]] = []
    }

    /// A model with prompts for it: a long one, one of a few tokens, and one of a single token, on scattered pages.
    private struct Prompts {
        let model: any Model
        let tokens: [[Int32]]
        let pageSize: Int
        static let pages = 64

        init(_ golden: Golden) throws {
            model = try golden.directory.load()
            pageSize = max(4, model.positionAlignment)
            tokens = [golden.prompt, Array(golden.prompt.reversed().prefix(7)), [golden.prompt[2]]]
        }

        private var hasWindows: Bool { model.cacheFormat(.float32, pageSize: pageSize).window > 0 }

        /// Returns steps that each compute `chunk` more rows of every request.
        func plans(chunk: Int, groups: Int) -> [StepPlan] {
            let steps = (tokens.map(\.count).max()! + chunk - 1) / chunk
            return (0..<steps).map { step in
                StepPlan(number: step, chunks: tokens.indices.compactMap { self.chunk($0, step, chunk, groups) })
            }
        }

        private func chunk(_ request: Int, _ step: Int, _ size: Int, _ groups: Int) -> StepPlan.Chunk? {
            let prompt = tokens[request]
            guard step * size < prompt.count else { return nil }
            let range = step * size..<min(prompt.count, step * size + size)
            // Pages are taken alternately from the end of the cache, so that no request's pages are adjacent.
            let pages = (0..<(range.upperBound + pageSize - 1) / pageSize)
                .map { Int32(Self.pages - 1 - $0 * tokens.count - request) }
            let scored = range.filter { $0 + 1 < prompt.count }
                .map { StepPlan.ScoreRow(row: $0 - range.lowerBound, target: prompt[$0 + 1]) }
            var sampling = SamplingParameters()
            sampling.temperature = 0
            return StepPlan.Chunk(
                request: UInt64(request), group: request % groups, tokens: Array(prompt[range]),
                start: range.lowerBound, pages: pages, windowPages: hasWindows ? pages : [],
                sample: range.upperBound == prompt.count ? .init(parameters: sampling, position: prompt.count) : nil,
                score: scored, topLogProbs: 2)
        }
    }

    /// All steps are submitted at once, so that pipeline stages overlap.
    private func run(
        _ prompts: Prompts, _ parallel: ParallelConfiguration, chunk: Int = .max, cacheType: CacheType = .float32
    ) throws -> Outcome {
        var configuration = EngineConfiguration()
        configuration.pageSize = prompts.pageSize
        configuration.maxTotalTokens = Prompts.pages * prompts.pageSize
        configuration.parallel = parallel
        configuration.cacheType = cacheType
        let pool = RankPool(prompts.model, configuration, recording: Set(Stage.allCases))
        defer { pool.stop() }
        let longest = prompts.tokens.map(\.count).max()!
        let plans = prompts.plans(chunk: min(chunk, longest), groups: parallel.data)
        for plan in plans { pool.submit(plan) }
        var outcome = Outcome()
        for _ in plans {
            let done = try pool.awaitResult()
            outcome.records.merge(done.records)
            for chunk in done.result.chunks {
                outcome.scores[chunk.request, default: []] += chunk.scored + chunk.sampled
            }
        }
        outcome.cache = pool.cache.format.sets.map { set in
            pool.cache.lanes(of: set).map { lane in (0..<lane.entries).map { lane.bytes(ofEntry: $0) } }
        }
        return outcome
    }

    private func expect(_ many: Outcome, equals one: Outcome, _ what: String) {
        let what = "\(what), seed \(Self.seed)"
        #expect(many.scores == one.scores, "\(what)")
        for (key, rows) in one.records.values {
            let same = many.records.values[key] == rows
            #expect(same, "\(what): \(key.stage) of layer \(key.layer) differs")
        }
        #expect(many.records.values.count == one.records.values.count, "\(what)")
        for (layer, lanes) in one.cache.enumerated() {
            for (lane, entries) in lanes.enumerated() {
                let entry = entries.indices.first { many.cache[layer][lane][$0] != entries[$0] }
                #expect(entry == nil, "\(what): layer \(layer), lane \(lane)")
            }
        }
    }

    /// Returns parallel configurations that are bitwise equal to one rank, in random order.
    private func layouts(of shape: ModelShape, ranks: Int, stages: ClosedRange<Int>) -> [ParallelConfiguration] {
        var found: Set<ParallelConfiguration> = []
        for (data, context) in (1...2).flatMap({ data in (1...ranks).map { (data, $0) } }) {
            for tensor in [1, 2, 4] where data * context * tensor * stages.lowerBound <= ranks {
                for (stage, exchange) in stages.flatMap({ stage in ExpertExchangeKind.allCases.map { (stage, $0) } }) {
                    for (expert, strategy) in [nil, 1, 2].flatMap({ expert in
                        PartitionStrategy.allCases.map { (expert, $0) }
                    }) where data * context * tensor * stage <= ranks {
                        var wish = ParallelRequest()
                        wish.attnDPSize = data
                        wish.attnCPSize = context
                        wish.tpSize = data * context * tensor
                        wish.epSize = expert
                        wish.ppSize = stage
                        (wish.exchange, wish.strategy) = (exchange, strategy)
                        if let parallel = try? wish.resolve(for: shape), parallel.isBitwiseEqual(for: shape) {
                            found.insert(parallel)
                        }
                    }
                }
            }
        }
        var draw = SplitMix64(seed: Self.seed)
        return found.sorted { "\($0)" < "\($1)" }.shuffled(using: &draw)
    }

    @Test(arguments: Golden.cases, CacheType.plain)
    func `in the cache and in every stage does not depend on the layout`(name: String, cacheType: CacheType) throws {
        let prompts = try Prompts(Golden(name))
        let one = try run(prompts, ParallelConfiguration(), cacheType: cacheType)
        #expect(one.cache.joined().joined().joined().contains { $0 != 0 })
        let layouts = layouts(of: prompts.model.parallelShape, ranks: 8, stages: 1...1)
        // Each type of cache is tried with other layouts.
        let samples = Self.samples / 2
        let first = samples * CacheType.plain.firstIndex(of: cacheType)!
        #expect(layouts.count > first + samples)
        for parallel in layouts[first..<first + samples] {
            expect(try run(prompts, parallel, cacheType: cacheType), equals: one, "\(name), \(parallel)")
        }
    }

    @Test(arguments: ["v32", "v32-norope-scaling"])
    func `selects the same keys on every layout`(name: String) throws {
        let prompts = try Prompts(Golden(name))
        let one = try run(prompts, ParallelConfiguration())
        for layer in 0..<prompts.model.parallelShape.layers {
            let selected = one.records.rows(.selected, layer: layer)
            #expect(!selected.isEmpty)
            #expect(selected.allSatisfy { Set($0).count == $0.count }, "no key twice")
        }
        for degree in [2, 3, 5, 8, 16, 32] {
            for strategy in PartitionStrategy.allCases {
                let many = try run(prompts, ParallelConfiguration(context: degree, strategy: strategy))
                for layer in 0..<prompts.model.parallelShape.layers {
                    #expect(
                        many.records.rows(.selected, layer: layer) == one.records.rows(.selected, layer: layer),
                        "\(name), layer \(layer), \(strategy) over \(degree)")
                }
                expect(many, equals: one, "\(name), \(strategy) over \(degree)")
            }
        }
    }

    @Test(arguments: Golden.cases) func `does not depend on the chunks`(name: String) throws {
        let prompts = try Prompts(Golden(name))
        let one = try run(prompts, ParallelConfiguration())
        for chunk in [1, 3, 16, 31] {
            expect(try run(prompts, ParallelConfiguration(), chunk: chunk), equals: one, "\(name), chunks of \(chunk)")
        }
        for parallel in layouts(of: prompts.model.parallelShape, ranks: 8, stages: 1...1).prefix(8) {
            for chunk in [5, 32] {
                expect(
                    try run(prompts, parallel, chunk: chunk), equals: one, "\(name), chunks of \(chunk), \(parallel)")
            }
        }
    }

    /// Pipeline stages send rows in the order of their owners; every layer must find each row where its position says.
    @Test(arguments: Golden.cases) func `passes through stages in the order of the rows`(name: String) throws {
        let prompts = try Prompts(Golden(name))
        let one = try run(prompts, ParallelConfiguration())
        let layers = prompts.model.parallelShape.layers
        let layouts = layouts(of: prompts.model.parallelShape, ranks: 8, stages: 2...layers)
        #expect(layouts.contains { $0.context > 1 })
        for (number, parallel) in layouts.prefix(Self.samples).enumerated() {
            // Every other run has several steps in flight.
            let chunk = number % 2 == 0 ? 6 : Int.max
            expect(try run(prompts, parallel, chunk: chunk), equals: one, "\(name), chunks of \(chunk), \(parallel)")
        }
    }
}
