import Grammar
import Inference
import KVCache
import Modeling
import Parallelism
import Tensors
import TestSupport
import Testing

extension KnownLists {
    /// Returns the plan that a receiver makes of an update if it knows no earlier plan.
    fileprivate static func plan(of update: PlanUpdate) throws -> StepPlan {
        var lists = KnownLists()
        return try lists.plan(for: update)
    }
}

@Suite struct `Plans sent to other processes` {
    /// Returns a random plan, valid or not.
    private static func plan(_ draw: inout SplitMix64) -> StepPlan {
        func tokens(_ most: Int) -> [Int32] { (0..<draw.below(most + 1)).map { _ in Int32(draw.below(1000)) } }
        let chunks = (0..<draw.below(4)).map { _ in
            var parameters = SamplingParameters()
            parameters.temperature = Float(draw.below(8)) / 8
            parameters.topP = Float(1 + draw.below(8)) / 8
            parameters.topK = draw.below(50)
            parameters.minP = Float(draw.below(8)) / 16
            parameters.frequencyPenalty = Float(draw.below(8)) - 4
            parameters.presencePenalty = Float(draw.below(8)) - 3
            parameters.repetitionPenalty = Float(1 + draw.below(8)) / 4
            parameters.logitBias = Dictionary(tokens(3).map { ($0, Float($0) - 7) }) { $1 }
            parameters.seed = draw.next()
            parameters.maxNewTokens = draw.below(2) == 0 ? nil : draw.below(100)
            parameters.minNewTokens = draw.below(9)
            parameters.stopTokens = Set(tokens(3))
            let sample = StepPlan.Sample(
                parameters: parameters, position: draw.below(5000), generated: tokens(5), prompt: tokens(5),
                minTokensRemaining: draw.below(4), isConstrained: draw.below(2) == 0)
            return StepPlan.Chunk(
                request: draw.next(), group: draw.below(4), tokens: tokens(40), start: draw.below(900),
                pages: tokens(9), windowPages: tokens(4), firstWindowPage: draw.below(5),
                windowSources: draw.below(2) == 0 ? nil : .init(end: draw.below(99), ranks: tokens(3)),
                sample: draw.below(2) == 0 ? nil : sample,
                speculation: draw.below(2) == 0
                    ? nil : .init(drafted: draw.below(3), next: tokens(1).first, ahead: draw.below(4)),
                score: tokens(4).map { .init(row: Int($0), target: $0) },
                topLogProbs: draw.below(2) == 0 ? nil : draw.below(20))
        }
        var plan = StepPlan(number: draw.below(1 << 30), chunks: chunks)
        plan.grammars = (0..<draw.below(3)).map { _ in
            StepPlan.RequestGrammar(request: draw.next(), source: sources[draw.below(sources.count)])
        }
        plan.endedGrammars = (0..<draw.below(3)).map { _ in draw.next() }
        plan.isTraced = draw.below(2) == 0
        return plan
    }

    private static let sources: [GrammarSource] = {
        let tools = [
            ToolCallSource.Tool(name: "f", parameters: "{}", isStrict: true),
            ToolCallSource.Tool(name: "gé", parameters: nil, isStrict: false),
        ]
        let calls = ToolCallSource(
            markup: .glm, tools: tools, isRequired: true, allowsSeveral: false, answerSchema: "true")
        let plain: [GrammarSource] = [
            .jsonObject, .jsonSchema("{\"a\": 1}"), .pattern("a+"), .ebnf("root ::= x"), .choice(["a", ""]),
            .toolCalls(calls),
        ]
        return plain + plain.map { .afterReasoning($0) }
    }()

    @Test func `arrive as they were sent`() throws {
        var draw = SplitMix64.printed()
        for _ in 0..<200 {
            let plan = Self.plan(&draw)
            #expect(try Wire.value(StepPlan.self, in: Wire.bytes(of: plan)) == plan)
        }
    }

    /// A field that is not coded would get its default in other processes, without an error. Whoever adds a field must
    /// extend this test.
    @Test func `have the fields that Wire passes`() {
        func fields(_ value: Any) -> [String] { Mirror(reflecting: value).children.compactMap(\.label) }
        let sample = StepPlan.Sample(parameters: SamplingParameters(), position: 0)
        #expect(
            fields(StepPlan(number: 0, chunks: [])) == ["number", "chunks", "grammars", "endedGrammars", "isTraced"])
        #expect(
            fields(StepPlan.Chunk(request: 0, tokens: [], start: 0, pages: []))
                == [
                    "request", "group", "tokens", "start", "pages", "windowPages", "firstWindowPage", "windowSources",
                    "sample", "speculation", "score", "topLogProbs",
                ])
        #expect(
            fields(sample) == ["parameters", "position", "generated", "prompt", "minTokensRemaining", "isConstrained"])
        #expect(
            fields(SamplingParameters()) == [
                "temperature", "topP", "topK", "minP", "frequencyPenalty", "presencePenalty", "repetitionPenalty",
                "logitBias", "seed", "maxNewTokens", "minNewTokens", "stopTokens",
            ])
        #expect(
            fields(ParallelConfiguration()) == [
                "data", "context", "tensor", "expert", "expertTensor", "pipeline", "stageLayers", "denseTensor",
                "strategy", "exchange", "kvSharding",
            ])
        #expect(
            fields(RankSettings()) == [
                "parallel", "cacheType", "pageSize", "pages", "windowPages", "processSharding", "maxRows", "kernels",
                "profile", "threadsPerRank", "numa", "tuning", "stages",
            ])
        #expect(fields(ProcessKVSharding()) == ["keysPerRow", "pageSize", "gatheredPages", "rows"])
        #expect(
            fields(Tuning()) == [
                "minParallelWork", "spins", "gemvMaxRows", "directKeyMaxHeads", "indexKeyTiles", "indexRowTile",
            ])
    }

    /// Returns plans with requests that grow, are preempted, share prefixes, pause and end, a few in each plan. Some chunks
    /// sample a token, and some requests have penalties.
    private static func plans(_ count: Int, _ draw: inout SplitMix64) -> [StepPlan] {
        var pages: [UInt64: [Int32]] = [:]
        var generated: [UInt64: [Int32]] = [:]
        return (0..<count).map { number in
            let chunks = (0..<draw.below(5)).compactMap { place -> StepPlan.Chunk? in
                let request = UInt64(4 * draw.below(3) + place)
                if draw.below(9) == 0 { pages[request] = nil }
                if draw.below(7) == 0 { pages[request] = Array((pages[request] ?? []).prefix(draw.below(4))) }
                pages[request, default: []] += (0..<draw.below(3)).map { _ in Int32(draw.below(50)) }
                if draw.below(9) == 0 { generated[request] = nil }
                generated[request, default: []] += (0..<draw.below(3)).map { _ in Int32(draw.below(50)) }
                var sample = StepPlan.Sample(parameters: SamplingParameters(), position: 9)
                sample.generated = request % 3 == 0 ? [] : generated[request]!
                sample.prompt = request % 2 == 0 ? [] : [1, Int32(request) + 2]
                return StepPlan.Chunk(
                    request: request, tokens: [1], start: 0, pages: pages[request]!,
                    sample: draw.below(3) == 0 ? nil : sample)
            }
            // Some pauses are so long that both sides have forgotten the request.
            return StepPlan(number: number, chunks: number / 100 % 2 == 0 ? chunks : [])
        }
    }

    @Test func `carry the pages and tokens that are new, and arrive whole`() throws {
        for seed in 0..<20 as Range<UInt64> {
            var draw = SplitMix64(seed: seed)
            var (sender, receiver) = (KnownLists(), KnownLists())
            for plan in Self.plans(500, &draw) {
                let bytes = Wire.bytes(of: sender.update(for: plan))
                #expect(try receiver.plan(for: Wire.value(PlanUpdate.self, in: bytes)) == plan)
            }
        }
    }

    @Test func `of a long context are as short as of a short one`() {
        var sender = KnownLists()
        let long = (0..<2560).map { Int32($0) }
        for step in 0..<3 {
            let sample = StepPlan.Sample(
                parameters: SamplingParameters(), position: 163_000 + step, generated: Array(long[...(1000 + step)]),
                prompt: long)
            let chunk = StepPlan.Chunk(
                request: 7, tokens: [1], start: 163_000 + step, pages: long, sample: sample)
            let bytes = Wire.bytes(of: sender.update(for: StepPlan(number: step, chunks: [chunk])))
            #expect(step == 0 || bytes.count < 400, "\(bytes.count) bytes in step \(step)")
        }
    }

    @Test func `that are lost, or come twice or in another order, are refused`() throws {
        var draw = SplitMix64.printed()
        var sender = KnownLists()
        let updates = Self.plans(4, &draw).map { sender.update(for: $0) }
        for order in [[1], [0, 2], [0, 0], [0, 1, 3], [0, 1, 2, 1]] {
            var receiver = KnownLists()
            for index in order.dropLast() { _ = try receiver.plan(for: updates[index]) }
            #expect(throws: Wire.Failure.self) { try receiver.plan(for: updates[order.last!]) }
        }
        var forged = updates[0]
        forged.plan = StepPlan(number: 0, chunks: [StepPlan.Chunk(request: 99, tokens: [1], start: 0, pages: [])])
        for known in [-1, 1, .max] as [Int32] {
            for place in 0..<KnownLists.perChunk {
                forged.known = [Int32](repeating: 0, count: KnownLists.perChunk)
                forged.known[place] = known
                #expect(throws: Wire.Failure.self) { try KnownLists.plan(of: forged) }
            }
        }
        forged.known = [0]
        #expect(throws: Wire.Failure.self) { try KnownLists.plan(of: forged) }
    }

    @Test func `that are cut short or too long are refused`() throws {
        var draw = SplitMix64(seed: 5)
        var bytes = Wire.bytes(of: Self.plan(&draw))
        while bytes.count < 200 { bytes = Wire.bytes(of: Self.plan(&draw)) }
        for count in bytes.indices {
            #expect(throws: Wire.Failure.self) { try Wire.value(StepPlan.self, in: Array(bytes[..<count])) }
        }
        #expect(throws: Wire.Failure.self) { try Wire.value(StepPlan.self, in: bytes + [0]) }
        bytes[0] += 1
        let failure = #expect(throws: Wire.Failure.self) { try Wire.value(StepPlan.self, in: bytes) }
        #expect(failure?.description == "the form of another version")
    }

    @Test func `that were damaged cost no more than their bytes`() {
        var draw = SplitMix64.printed()
        for _ in 0..<3000 {
            var bytes = Wire.bytes(of: Self.plan(&draw))
            for _ in 0...draw.below(4) { bytes[draw.below(bytes.count)] = UInt8(draw.below(256)) }
            // Damaged bytes may or may not be readable; reading must end, with a bounded number of values.
            if let plan = try? Wire.value(StepPlan.self, in: bytes) {
                #expect(plan.chunks.reduce(0) { $0 + $1.tokens.count + $1.pages.count } <= bytes.count)
            }
        }
    }

    @Test func `of settings arrive as they were sent, and senseless ones are refused`() throws {
        var settings = RankSettings()
        settings.numa = .off
        settings.parallel = ParallelConfiguration(
            data: 2, context: 3, tensor: 4, expert: 5, expertTensor: 6, pipeline: 2, stageLayers: [1, 2],
            denseTensor: 4, strategy: .zigzag, exchange: .allToAll,
            kvSharding: KVSharding(ranks: 2, unit: 3, minKeys: 9))
        settings.cacheType = CacheType(.fp8, hasFP4Index: true)
        settings.pageSize = 16
        settings.pages = 77
        settings.windowPages = 5
        #expect(try Wire.value(RankSettings.self, in: Wire.bytes(of: settings)) == settings)
        var processSharding = ProcessKVSharding()
        (processSharding.keysPerRow, processSharding.pageSize, processSharding.gatheredPages, processSharding.rows) = (
            7, 16, 33, 44
        )
        settings.processSharding = processSharding
        settings.maxRows = 1088
        settings.kernels = .reference
        settings.profile = .bf16
        settings.threadsPerRank = 3
        for (index, setting) in Tuning.settings.enumerated() { settings.tuning[keyPath: setting.path] = index + 5 }
        settings.stages = [.logits, .selected]
        #expect(try Wire.value(RankSettings.self, in: Wire.bytes(of: settings)) == settings)
        var draw = SplitMix64.printed()
        for _ in 0..<3000 {
            var bytes = Wire.bytes(of: settings)
            bytes[1 + draw.below(bytes.count - 1)] = UInt8(draw.below(256))
            guard let damaged = try? Wire.value(RankSettings.self, in: bytes) else { continue }
            #expect(Tuning.settings.allSatisfy { $0.legal.contains(damaged.tuning[keyPath: $0.path]) })
            #expect((1...1 << 31).contains(damaged.pages * damaged.pageSize))
            #expect((0...1 << 31).contains(damaged.windowPages * damaged.pageSize))
            #expect(damaged.parallel.checkedWorld != nil && damaged.parallel.kvSharding.unit > 0)
        }
    }

    @Test func `of settings with more ranks than there are, or layers of other stages, are refused`() throws {
        var settings = RankSettings()
        settings.pages = 1
        settings.parallel = ParallelConfiguration(pipeline: 2, stageLayers: [3, 4])
        let bytes = Wire.bytes(of: settings)
        #expect(try Wire.value(RankSettings.self, in: bytes) == settings)
        /// Returns whether settings arrive in which the first degrees, data to pipeline, and the layers are others.
        func arrives(_ degrees: [Int], layers: [Int] = [3, 4]) -> Bool {
            var forged = bytes
            // Behind the version are six degrees, and the number of layers in four bytes.
            for (index, value) in (degrees + [1, 1, 1, 1, 1, 2].dropFirst(degrees.count)).enumerated() {
                forged.replace(value, at: 1 + 8 * index)
            }
            for (index, value) in layers.enumerated() { forged.replace(value, at: 1 + 8 * 6 + 4 + 8 * index) }
            return (try? Wire.value(RankSettings.self, in: forged)) != nil
        }
        #expect(arrives([1, 1, 1]))
        #expect(arrives([16, 16, 8, 2048]))
        #expect(!arrives([16, 16, 9]), "with two stages more than 4096")
        #expect(!arrives([1, 1, 1, 2049]))
        #expect(!arrives([1, 1, 1, 1, 1 << 62]))
        // The product of these is 0 in 64 bits.
        #expect(!arrives([1 << 16, 1 << 16, 1 << 16, 1, 1, 1 << 16]))
        #expect(!arrives([-1, -1, 1]))
        #expect(!arrives([1, 1, 1, 1, 1, 3]), "there are layers of two stages")
        #expect(!arrives([], layers: [.max, .max]))
        #expect(!arrives([], layers: [0, 7]))
    }

    @Test func `plans with pages that are not in the cache are refused`() {
        let window = KeySet("window", [.init(.f32, width: 4)], lifetime: .window(tokens: 10))
        let format = CacheFormat(layers: [[window]], pageSize: 8)
        let plain = CacheFormat(layers: [[KeySet("keys", [.init(.f32, width: 4)])]], pageSize: 8)
        func problem(
            _ windowPages: [Int32], from first: Int = 0, pages: [Int32] = [1, 2, 3, 4], _ format: CacheFormat
        ) -> String? {
            let chunk = StepPlan.Chunk(
                request: 7, tokens: [1, 2, 3], start: 25, pages: pages, windowPages: windowPages, firstWindowPage: first
            )
            return StepPlan(number: 0, chunks: [chunk])
                .problem(format, pages: 9, windowPages: 6, vocabularySize: 9, groups: 1, groupRanks: 1)
        }
        #expect(problem([0, 1, 2, 5], format) == nil)
        #expect(problem([1, 5], from: 2, format) == nil, "rows see positions from 16 on")
        for (pages, first) in [
            ([0, 1, 2, 6], 0), ([0, 1, 2, -1], 0), ([0, 1, 2, .min], 0), ([0, 1, 2], 0), ([5], 3), ([1, 5], 3),
            ([1, 5], -1), ([1, 5], .max), ([1, 5], .min), ([], 0),
        ] as [([Int32], Int)] {
            #expect(problem(pages, from: first, format) != nil, "\(pages) from \(first)")
        }
        /// Returns the problem of sources of window entries before a chunk of a format with entries of 4 tokens.
        func problem(_ sources: StepPlan.WindowSources, windowPagesFrom first: Int = 1) -> String? {
            let entries = KeySet("entries", [.init(.f32, width: 4)], tokensPerEntry: 4)
            let chunk = StepPlan.Chunk(
                request: 7, tokens: [1, 2, 3], start: 25, pages: [1, 2, 3, 4],
                windowPages: Array([0, 1, 2, 5][first...]), firstWindowPage: first, windowSources: sources)
            return StepPlan(number: 0, chunks: [chunk]).problem(
                CacheFormat(layers: [[window, entries]], pageSize: 8), pages: 9, windowPages: 6, vocabularySize: 9,
                groups: 1, groupRanks: 4)
        }
        #expect(problem(.init(end: 24, ranks: [0, -1, 3])) == nil)
        #expect(problem(.init(end: 16, ranks: [3])) == nil)
        for (end, ranks) in [
            (28, [0]), (22, [0]), (8, [0]), (0, []), (-8, [0]), (.max, [0]), (.min, [0]), (24, [0, 0, 0, 0]), (24, [4]),
            (24, [-2]), (24, [.max]), (24, [.min]),
        ] as [(Int, [Int32])] {
            #expect(problem(.init(end: end, ranks: ranks)) != nil, "\(ranks) before \(end)")
        }
        #expect(
            problem(.init(end: 4, ranks: [0, 0]), windowPagesFrom: 0) != nil, "there is one unit before position 4")
        #expect(problem([], plain) == nil)
        #expect(problem([1], plain) != nil)
        #expect(problem([], from: 1, plain) != nil)
        for pages in [[1, 2, 3], [1, 2, 3, 9], [1, 2, 3, -1]] as [[Int32]] {
            #expect(problem([0, 1, 2, 5], pages: pages, format) != nil)
        }
    }
}

extension [UInt8] {
    /// Puts a number in place of the eight bytes at `offset`.
    fileprivate mutating func replace(_ value: Int, at offset: Int) {
        replaceSubrange(offset..<offset + 8, with: (0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) })
    }
}
