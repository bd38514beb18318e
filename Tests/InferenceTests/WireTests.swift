import Inference
import KVCache
import Modeling
import Parallelism
import Tensors
import TestSupport
import Testing

@Suite struct `Plans on their way to other processes` {
    /// Any plan, sensible or not.
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
                minTokensRemaining: draw.below(4))
            return StepPlan.Chunk(
                request: draw.next(), group: draw.below(4), tokens: tokens(40), start: draw.below(900),
                pages: tokens(9), windowPages: tokens(4), firstWindowPage: draw.below(5), sample: draw.below(2) == 0 ? nil : sample,
                speculation: draw.below(2) == 0
                    ? nil : .init(drafted: draw.below(3), next: tokens(1).first, ahead: draw.below(4)),
                score: tokens(4).map { .init(row: Int($0), target: $0) },
                topLogProbs: draw.below(2) == 0 ? nil : draw.below(20))
        }
        return StepPlan(number: draw.below(1 << 30), chunks: chunks)
    }

    @Test func `arrive as they were sent`() throws {
        var draw = SplitMix64(seed: .random(in: 0 ... .max))
        for _ in 0..<200 {
            let plan = Self.plan(&draw)
            #expect(try Wire.value(StepPlan.self, in: Wire.bytes(of: plan)) == plan)
        }
    }

    /// A field that does not pass would get its default elsewhere, without an error: who adds one comes here.
    @Test func `have the fields that Wire passes`() {
        func fields(_ value: Any) -> [String] { Mirror(reflecting: value).children.compactMap(\.label) }
        let sample = StepPlan.Sample(parameters: SamplingParameters(), position: 0)
        #expect(fields(StepPlan(number: 0, chunks: [])) == ["number", "chunks"])
        #expect(
            fields(StepPlan.Chunk(request: 0, tokens: [], start: 0, pages: []))
                == [
                    "request", "group", "tokens", "start", "pages", "windowPages", "firstWindowPage", "sample",
                    "speculation", "score", "topLogProbs",
                ])
        #expect(fields(sample) == ["parameters", "position", "generated", "prompt", "minTokensRemaining"])
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
                "parallel", "cacheType", "pageSize", "pages", "windowPages", "processSharding", "kernels",
                "threadsPerRank", "tuning", "stages", "isTraced",
            ])
        #expect(fields(ProcessKVSharding()) == ["keysPerRow", "pageSize", "gatheredPages", "rows"])
        #expect(
            fields(Tuning()) == [
                "minParallelWork", "spins", "gemvMaxRows", "directKeyMaxHeads", "indexKeyTiles", "indexRowTile",
            ])
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
        var draw = SplitMix64(seed: .random(in: 0 ... .max))
        for _ in 0..<3000 {
            var bytes = Wire.bytes(of: Self.plan(&draw))
            for _ in 0...draw.below(4) { bytes[draw.below(bytes.count)] = UInt8(draw.below(256)) }
            // Whether it can be read is a matter of luck; that it ends, and with so many values at most, is not.
            if let plan = try? Wire.value(StepPlan.self, in: bytes) {
                #expect(plan.chunks.reduce(0) { $0 + $1.tokens.count + $1.pages.count } <= bytes.count)
            }
        }
    }

    @Test func `of settings arrive as they were sent, and senseless ones are refused`() throws {
        var settings = RankSettings()
        settings.parallel = ParallelConfiguration(
            data: 2, context: 3, tensor: 4, expert: 5, expertTensor: 6, pipeline: 2, stageLayers: [1, 2],
            denseTensor: 4, strategy: .zigzag, exchange: .allToAll,
            kvSharding: KVSharding(ranks: 2, unit: 3, minKeys: 9))
        settings.cacheType = .fp8
        settings.pageSize = 16
        settings.pages = 77
        settings.windowPages = 5
        #expect(try Wire.value(RankSettings.self, in: Wire.bytes(of: settings)) == settings)
        var processSharding = ProcessKVSharding()
        (processSharding.keysPerRow, processSharding.pageSize, processSharding.gatheredPages, processSharding.rows) = (
            7, 16, 33, 44
        )
        settings.processSharding = processSharding
        settings.kernels = .reference
        settings.threadsPerRank = 3
        for (index, setting) in Tuning.settings.enumerated() { settings.tuning[keyPath: setting.path] = index + 5 }
        settings.stages = [.logits, .selected]
        settings.isTraced = true
        #expect(try Wire.value(RankSettings.self, in: Wire.bytes(of: settings)) == settings)
        var draw = SplitMix64(seed: .random(in: 0 ... .max))
        for _ in 0..<3000 {
            var bytes = Wire.bytes(of: settings)
            bytes[1 + draw.below(bytes.count - 1)] = UInt8(draw.below(256))
            guard let damaged = try? Wire.value(RankSettings.self, in: bytes) else { continue }
            #expect(Tuning.settings.allSatisfy { $0.legal.contains(damaged.tuning[keyPath: $0.path]) })
            #expect((1...1 << 31).contains(damaged.pages * damaged.pageSize))
            #expect((1...65_536).contains(damaged.parallel.context) && damaged.parallel.kvSharding.unit > 0)
        }
    }
}
