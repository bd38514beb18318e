import ArgumentParser
import Foundation
import Inference
import JSON
import KVCache
import Modeling
import Models
import Parallelism
import Planning
import TestSupport
import Testing
import braid

/// Devices, models and traffic that the tests of planning share.
enum PlanExample {
    static func model(
        _ released: ReleasedModel = .v32, cache: CacheType = .fp8, weights: Hardware.ElementType? = nil
    ) throws -> PlannedModel {
        try PlanModels.released(released, cache: cache, weights: weights)
    }

    /// A device of round numbers, which reaches all of them: so much memory that bytes do not count, or so fast that only
    /// bytes do.
    static func hardware(
        tflops: Double = 1, bandwidth: Double = 1e6, kind: String = "processor", cores: Int = 1,
        kernels: String = #"{"f32": {}, "bf16": {}}"#
    ) throws -> Hardware {
        try Hardware(
            JSONValue(
                parsing: """
                    {"name": "round", "title": "a round device", "kind": "\(kind)", "family": "round", "memory_gb": 1000,
                     "bandwidth_gb_s": \(bandwidth), "tflops": {"f32": \(tflops), "bf16": \(tflops), "fp8": \(tflops)},
                     "kernels": \(kernels), "cores": \(cores), "link_gb_s": 1, "host_link_gb_s": 1,
                     "devices_per_host": 8, "efficiency": {}, "source": "made up"}
                    """))
    }

    static func time(_ model: PlannedModel, _ hardware: Hardware, _ parallel: ParallelConfiguration) throws
        -> LayoutTime
    {
        LayoutTime(model, parallel, Cluster(hardware, devices: parallel.world), .measured)
    }

    static func planner(_ name: String, _ model: PlannedModel) throws -> Planner {
        let cluster = try Cluster(name: name)
        return Planner(model, cluster, try EfficiencyTable.builtIn()[cluster.hardware])
    }
}

/// The examples on paper: per layer and token 278,528 operations a key of attention and 16,512 a key of index scores.
@Suite struct `Predicted steps` {
    private let one = ParallelConfiguration()

    @Test func `compute what the model's equations ask for`() throws {
        let time = try PlanExample.time(PlanExample.model(), PlanExample.hardware(), one).prefill(0..<4096, stage: 0)
        let scored = Double((2049 + 4096) * 2048 / 2)
        #expect(abs(time[.index] * 1e12 / (61 * 16_512 * scored) - 1) < 1e-9)
        let attended = Double((1 + 2048) * 2048 / 2 + 2048 * 2048)
        #expect(abs(time[.attention] * 1e12 / (61 * 278_528 * attended) - 1) < 1e-9)
        // 402.1 M operations of attention's products in each layer, 792.7 M of 8 experts and a shared one or of a dense
        // feed-forward, 3.67 M of the router; and once the head's 1.853 G.
        let perToken = 61 * 402.1e6 + 61 * 792.7e6 + 58 * 3.67e6
        #expect(abs(time[.products] * 1e12 / (4096 * perToken + 1.853e9) - 1) < 1e-3)
        #expect(time[.collectives] == 0 && time[.launches] == 0)
    }

    @Test func `read the keys and the weights that one token needs`() throws {
        let device = try PlanExample.hardware(tflops: 1e6, bandwidth: 1)
        let context = 131_072
        let time = try PlanExample.time(PlanExample.model(), device, one).decode(
            requests: 1, context: context, stage: 0)
        #expect(abs(time[.attention] * 1e9 / (61 * 2048 * 656) - 1) < 1e-9)
        // Index keys of 132 bytes, and scores of 4 that are written and read.
        #expect(abs(time[.index] * 1e9 / Double(61 * (132 + 8) * context) - 1) < 1e-9)
        // 170.33 M, 16.78 M and 14.0 M of attention; 8 of 256 experts a layer; shared ones, dense layers. In BF16: 0.459 M
        // of index head weights, which are among the 14.0 M, 1.835 M of a router, the head.
        let attention = 170.33e6 + 16.78e6 + 13.96e6 + 0.459e6
        let bytes = 61 * attention + 3 * 396.4e6 + 58 * (9 * 44.04e6 + 2 * 1.835e6) + 1.853e9
        #expect(abs(time[.weights] * 1e9 / bytes - 1) < 1e-3)
    }

    @Test func `read nearly all experts for many rows`() throws {
        let device = try PlanExample.hardware(tflops: 1e6, bandwidth: 1)
        func weights(_ requests: Int) throws -> Double {
            try PlanExample.time(PlanExample.model(), device, one).decode(requests: requests, context: 1, stage: 0)[
                .weights]
        }
        let experts = 58 * 44.04e6 * (222.4 - 8)
        #expect(abs((try weights(64) - weights(1)) * 1e9 / experts - 1) < 5e-3)
    }

    @Test func `of a contiguous split wait for its last rank`() throws {
        let model = try PlanExample.model()
        func time(_ strategy: PartitionStrategy) throws -> StepTime {
            let parallel = ParallelConfiguration(context: 4, expert: 4, strategy: strategy)
            return try PlanExample.time(model, PlanExample.hardware(), parallel).prefill(0..<65_536, stage: 0)
        }
        // The last quarter has 7 of 16 parts of the pairs, where even ranks have 4.
        #expect(abs(try time(.contiguous)[.index] / time(.interleaved)[.index] - 1.75) < 0.01)
        #expect(try time(.zigzag) == time(.interleaved))
    }

    @Test(arguments: [1, 2, 4, 8]) func `take a part of the index scores on each context rank`(ranks: Int) throws {
        let parallel = ParallelConfiguration(context: ranks, expert: ranks)
        let model = try PlanExample.model()
        let all = try PlanExample.time(model, PlanExample.hardware(), one).prefill(0..<8192, stage: 0)
        let part = try PlanExample.time(model, PlanExample.hardware(), parallel).prefill(0..<8192, stage: 0)
        #expect(abs(part[.index] * Double(ranks) / all[.index] - 1) < 1e-9)
        #expect(abs(part[.products] * Double(ranks) / all[.products] - 1) < 1e-3)
    }

    @Test func `of engines for accelerators repeat index scores on tensor ranks`() throws {
        let model = try PlanExample.model()
        func index(_ kind: String, _ tensor: Int) throws -> Double {
            let parallel = ParallelConfiguration(tensor: tensor, expertTensor: tensor, denseTensor: tensor)
            return try PlanExample.time(model, PlanExample.hardware(kind: kind), parallel)
                .prefill(0..<8192, stage: 0)[.index]
        }
        #expect(try index("accelerator", 8) == index("accelerator", 1))
        #expect(abs(try index("processor", 8) * 8 / index("processor", 1) - 1) < 1e-9)
    }

    @Test func `move the bytes that the collectives of a layout move`() throws {
        let model = try PlanExample.model(.v32, cache: .float32)
        let layouts = LayoutMatrix(
            model.description.parallelShape, maxRanks: 8, strategies: [.interleaved], minKeys: [1 << 20]
        ).layouts
        for parallel in layouts where parallel.kvSharding.ranks == 1 && parallel.stageLayers == nil {
            let cost = LayoutCost(model.description, parallel, format: model.format)
            let each = 64
            let group = each * parallel.context * parallel.tensor
            let rows = StepRows(
                owned: Array(repeating: each, count: parallel.stageRanks),
                outputs: Array(repeating: 0, count: parallel.stageRanks),
                maxPosition: Array(repeating: 8191, count: parallel.stageRanks))
            let ranks = (0..<parallel.stageRanks).map { rank in
                cost.bytes(ofRank: rank, rows).reduce(0) { $0 + $1.bytes }
            }
            let exact = ranks.reduce(0, +) / Double(parallel.stageRanks)
            let predicted = try PlanExample.time(model, PlanExample.hardware(), parallel)
                .receivedBytes(8192 - group..<8192, stage: 0)
            #expect(abs(predicted - exact) <= 1e-9 * exact, "\(parallel.notation): \(predicted), not \(exact)")
        }
    }

    /// The window entries that `braid inspect` counts for V4 are also those that Braid's collectives are predicted to
    /// move; engines for accelerators gather those of all rows.
    @Test(arguments: PartitionStrategy.allCases, [8192, 4096])
    func `of V4 move the window entries that ranks read`(strategy: PartitionStrategy, count: Int) throws {
        let model = try PlanExample.model(.v4Flash, cache: .float32)
        let tokens = [Int32](repeating: 0, count: count)
        for (context, tensor) in [(8, 1), (4, 2), (2, 1), (1, 8)] {
            let parallel = ParallelConfiguration(
                context: context, tensor: tensor, expert: context * tensor, strategy: strategy)
            let cost = LayoutCost(model.description, parallel, format: model.format)
            let plan = StepPlan(number: 0, chunks: [.init(request: 1, tokens: tokens, start: 0, pages: [])])
            var rows = StepRows(
                RowAssignment(plan, parallel, alignment: model.format.positionAlignment), model.format)
            rows.maxPosition = rows.maxPosition.map { _ in count - 1 }
            func average(_ rows: StepRows) -> Double {
                let ranks = (0..<parallel.world).map { cost.bytes(ofRank: $0, rows).reduce(0) { $0 + $1.bytes } }
                return ranks.reduce(0, +) / Double(parallel.world)
            }
            let (exact, processor) = (average(rows), try PlanExample.hardware())
            let predicted = try PlanExample.time(model, processor, parallel).receivedBytes(0..<count, stage: 0)
            #expect(abs(predicted - exact) <= 1e-9 * exact, "\(parallel.notation): \(predicted), not \(exact)")
            rows.receivedWindows = [:]
            #expect(average(rows) > exact, "\(parallel.notation)")
        }
    }

    @Test func `yield the tokens that are accepted`() {
        #expect(PlannedTraffic(input: 1, output: 1).tokensPerStep == 1)
        #expect(PlannedTraffic(input: 1, output: 1, drafts: 2, acceptanceRate: 0.5).tokensPerStep == 1.75)
    }

    @Test func `accept as many drafts as the tokens of a step say`() {
        #expect(abs(PlannedTraffic.acceptanceRate(drafts: 2, tokensPerStep: 1.75) - 0.5) < 1e-12)
        #expect(PlannedTraffic.acceptanceRate(drafts: 0, tokensPerStep: 1) == 0)
        #expect(PlannedTraffic.acceptanceRate(drafts: 3, tokensPerStep: 1) < 1e-12)
        #expect(PlannedTraffic.acceptanceRate(drafts: 3, tokensPerStep: 9) == 1)
    }

    @Test func `leave out what the prefix cache has, but for the last token`() {
        let cold = PlannedTraffic(input: 10, output: 1, chunk: 4)
        func chunks(_ traffic: PlannedTraffic) -> [Range<Int>] { traffic.sampledChunks.map(\.positions) }
        #expect(chunks(cold) == [0..<4, 4..<8, 8..<10])
        #expect(chunks(PlannedTraffic(input: 10, output: 1, prefixHitRate: 0.5, chunk: 4)) == [5..<9, 9..<10])
        #expect(chunks(PlannedTraffic(input: 10, output: 1, prefixHitRate: 1, chunk: 4)) == [9..<10])
    }

    @Test(arguments: [(512, 4), (513, 4), (2047, 1), (16_777_216, 1), (16_777_215, 1 << 40), (1, 1)])
    func `compute few of many chunks, which stand for all`(input: Int, chunk: Int) {
        let all = (input - 1) / chunk + 1
        let sampled = PlannedTraffic(input: input, output: 1, chunk: chunk).sampledChunks
        #expect(sampled.count == min(all, 128))
        #expect(sampled.map(\.count).reduce(0, +) == all)
        if all <= 128 { #expect(sampled.allSatisfy { $0.count == 1 }) }
        #expect(sampled.last?.positions.upperBound == input && sampled.last?.count == 1)
        // Each stands in the middle of its part, and has the length of a chunk.
        var start = 0
        for part in sampled.dropLast() {
            #expect(
                part.positions.lowerBound == (start + (part.count - 1) / 2) * chunk && part.positions.count == chunk)
            start += part.count
        }
    }

    @Test(arguments: [ReleasedModel.v31, .v32, .v4Flash])
    func `take as long by few of many chunks as by all of them`(name: ReleasedModel) throws {
        let model = try PlanExample.model(name)
        let time = try PlanExample.time(
            model, PlanExample.hardware(), ParallelConfiguration(tensor: 4, expert: 4))
        let traffic = PlannedTraffic(input: 65_536, output: 1, chunk: 64)
        let exact = stride(from: 0, to: 65_536, by: 64).reduce(0) { $0 + time.prefill($1..<$1 + 64, stage: 0).total }
        let predicted = Prediction(time, traffic).firstToken.total
        #expect(abs(predicted - exact) < 5e-3 * exact, "\(predicted), not \(exact)")
    }
}

@Suite struct `Predicted layouts` {
    @Test func `ten thousand are made within one call of a user`() throws {
        let planner = try PlanExample.planner("h20x16", PlanExample.model())
        let all = LayoutMatrix(planner.model.description.parallelShape, minRanks: 8, maxRanks: 16).layouts
        let layouts = Array(all.prefix(10_000))
        #expect(layouts.count == 10_000)
        let traffic = PlannedTraffic(input: 48_500, output: 512, concurrency: 16)
        let start = threadSeconds()
        #expect(planner.predictions(layouts, traffic).count == 10_000)
        // Half a second is usual. The bound finds only work that grows faster than the number of layouts.
        #expect(threadSeconds() - start < 20)
    }

    @Test func `keep the bytes of a token that the cache keeps`() throws {
        let planner = try PlanExample.planner("h20-141x8", PlanExample.model(.v32, cache: .fp8))
        let traffic = PlannedTraffic(input: 4096, output: 512)
        func memory(_ notation: String) throws -> MemoryNeed {
            let parallel = try ParallelConfiguration(
                notation: notation, for: planner.model.description.parallelShape)
            return planner.predictions([parallel], traffic)[0].memory
        }
        #expect(try memory("tp8 etp8 dense8 gathered").keysPerToken == 48_068)
        // Owners divide latents and rotary keys; each keeps all index keys.
        #expect(try memory("tp8 etp8 dense8 dcp8 gathered").keysPerToken == 61 * (656.0 / 8 + 132))
        #expect(try memory("pp2:31,30 cp4 etp4 gathered").keysPerToken == 31 * 788)
        // Eight devices have an eighth of the experts each, and with context ranks all of attention: about 94 GB.
        let whole = try memory("cp8 etp8 gathered").weights
        #expect(whole > 93e9 && whole < 99e9)
        #expect(try memory("tp8 etp8 dense8 gathered").weights < whole - 7e9)
    }

    @Test func `without room rank last, and those that miss objectives behind others`() throws {
        let planner = try PlanExample.planner("h20-141x8", PlanExample.model())
        let traffic = PlannedTraffic(input: 48_500, output: 512)
        let objectives = Planner.Objectives(firstToken: 8, perToken: 0.03)
        let ranked = planner.ranked(planner.predictions(planner.layouts, traffic), objectives)
        let ranks = ranked.map { ($0.fits ? 0 : 2) + (objectives.areMet(by: $0) ? 0 : 1) }
        #expect(ranks == ranks.sorted() && Set(ranks).count > 2)
        for (before, after) in zip(ranked, ranked.dropFirst())
        where before.fits == after.fits && objectives.areMet(by: before) == objectives.areMet(by: after) {
            #expect(before.throughput >= after.throughput)
        }
    }

    @Test func `name the layouts that SGLang refuses`() throws {
        let planner = try PlanExample.planner("h20x8", PlanExample.model())
        func refusals(_ notation: String, _ role: LaunchFlags.Role? = nil) throws -> [String] {
            let parallel = try ParallelConfiguration(notation: notation, for: planner.model.description.parallelShape)
            return LaunchFlags(
                parallel, PlannedTraffic(input: 1, output: 1), planner.model, planner.cluster.hardware,
                cache: .bfloat16, role: role
            ).refusals
        }
        #expect(try refusals("cp8 etp8 gathered") == [])
        #expect(try refusals("tp8 etp8 dense8 gathered") == [])
        #expect(try refusals("cp8 ep8 alltoall", .decode) == ["CP on the decoding side"])
        #expect(try refusals("cp16 ep16 alltoall") == ["prefill CP on more than 8 ranks of a stage"])
        #expect(try refusals("cp4 tp2 etp8 dcp2 gathered").contains("prefill CP and DCP in one server"))
    }

    @Test(arguments: ["h20x8", "h20-141x16"]) func `start as they were planned`(cluster: String) throws {
        let planner = try PlanExample.planner(cluster, PlanExample.model())
        let shape = planner.model.description.parallelShape
        let layouts = planner.layouts.filter { $0.stageRanks == 1 || !$0.replicatesExperts }
        #expect(layouts.count > 100)
        for layout in layouts {
            let flags = LaunchFlags(
                layout, PlannedTraffic(input: 1, output: 1), planner.model, planner.cluster.hardware,
                cache: .bfloat16
            ).layout
            let options = try ParallelOptions.parse(flags)
            let resolved = try options.request(environment: [:]).resolve(for: shape)
            #expect(resolved == layout, "\(layout.notation): \(flags.joined(separator: " "))")
        }
    }

    @Test func `are JSON that says what is in the table`() throws {
        let planner = try PlanExample.planner("h20-141x8", PlanExample.model(.v32, cache: .bfloat16))
        let traffic = PlannedTraffic(input: 16_385, output: 512)
        let parallel = try ParallelConfiguration(
            notation: "cp8 etp8 gathered", for: planner.model.description.parallelShape)
        let report = PlanReport(
            planner, traffic, try .builtIn(), cache: .bfloat16, predictions: planner.predictions([parallel], traffic),
            considered: 1, objectives: .init())
        let layout = try #require(JSONValue(parsing: report.json.pythonText)["layouts"]?.array?.first)
        let value = try #require(layout["ttft"]?["value"]?.double)
        #expect(value == report.predictions[0].firstToken.total)
        #expect(try #require(layout["ttft"]?["low"]?.double) < value)
        #expect(layout["ttft"]?["note"]?.isNull == true)
        #expect(layout["tpot"]?["low"]?.isNull == true && layout["tpot"]?["note"]?.string == "not measured")
        #expect(report.text.contains("cp8 etp8 interleave gathered") && report.text.contains("not measured"))
    }

    @Test func `divide devices between prompts and decoding`() throws {
        let planner = try PlanExample.planner("h20-141x16", PlanExample.model(.v32, cache: .bfloat16))
        let traffic = PlannedTraffic(input: 16_384, output: 512, concurrency: 16)
        let pairs = planner.disaggregations(traffic, .init())
        let best = try #require(pairs.first)
        for pair in pairs {
            #expect(pair.prefillDevices + pair.decodeDevices == 16)
            #expect(pair.prefill.parallel.world == pair.prefillDevices)
            #expect(pair.decode.parallel.world == pair.decodeDevices)
            #expect(pair.throughput <= best.throughput)
            // 16,384 tokens of 78,324 bytes for each memory that keeps them, over at most 8 adapters of 40 GB/s.
            #expect(pair.transfer >= 16_384 * 78_080 / (8 * 40e9))
            #expect(pair.firstToken == pair.prefill.firstToken.total + pair.transfer)
        }
    }
}

@Suite struct `Scaling and comparing` {
    @Test func `context ranks divide what tensor ranks repeat`() throws {
        let planner = try PlanExample.planner("h20-141x8", PlanExample.model(.v32, cache: .bfloat16))
        let report = try ScalingReport(
            planner, PlannedTraffic(input: 65_536, output: 1), .builtIn(), ranks: 1...32)
        func row(_ axis: Axis, _ ranks: Int) throws -> ScalingReport.Row {
            try #require(report.rows.first { $0.axis == axis && $0.ranks == ranks })
        }
        #expect(report.rows.map(\.ranks) == [1, 2, 4, 8, 16, 32, 1, 2, 4, 8, 16, 32])
        #expect(try row(.context, 1).time == row(.tensor, 1).time)
        #expect(try row(.tensor, 8).time[.index] == row(.tensor, 1).time[.index])
        for ranks in [2, 4, 8, 16, 32] {
            #expect(try row(.context, ranks).time.total < row(.tensor, ranks).time.total)
            #expect(try row(.context, ranks).received < row(.tensor, ranks).received)
        }
        #expect(report.svg.components(separatedBy: "<rect").count > 30)
        #expect(report.lines.count == 18)
    }

    @Test func `tensor ranks that cannot share the groups of heads are left out`() throws {
        let planner = try PlanExample.planner("h20-141x8", PlanExample.model(.v4Flash))
        let report = try ScalingReport(planner, PlannedTraffic(input: 65_536, output: 1), .builtIn(), ranks: 4...32)
        #expect(report.rows.map(\.ranks) == [4, 8, 16, 32, 4, 8] && report.leftOut == [16, 32])
        #expect(report.lines.last == "left out: 16, 32 tensor ranks, which cannot share 8 groups of heads evenly")
    }

    @Test func `the second model overtakes at the length that is named`() throws {
        let planners = try [ReleasedModel.v31, .v32].map {
            try PlanExample.planner("h20-141x8", PlanExample.model($0, cache: .bfloat16))
        }
        let traffic = PlannedTraffic(input: 1, output: 512)
        let comparison = try ModelComparison(planners, traffic)
        let length = try #require(try comparison.crossover(\.firstToken))
        let between = zip(comparison.rows, comparison.rows.dropFirst()).first {
            $0.input < length && length <= $1.input
        }
        let (before, after) = try #require(between)
        #expect(before.firstToken[1] >= before.firstToken[0] && after.firstToken[1] < after.firstToken[0])
        // A model is not faster than itself.
        #expect(try ModelComparison([planners[0], planners[0]], traffic).crossover(\.firstToken) == nil)
    }
}
