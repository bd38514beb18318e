import Parallelism
import TestSupport
import Testing

private let shapes = [
    // The shapes are DeepSeek-V3.2, a model with three kinds of odd factors, a toy, and one that hardly divides.
    ModelShape(
        layers: 61, heads: 128, valueWidth: 128, experts: 256, expertWidth: 2048, denseWidth: 18432, sharedWidth: 2048),
    ModelShape(
        layers: 92, heads: 96, valueWidth: 128, experts: 160, expertWidth: 1536, denseWidth: 12288, sharedWidth: 1536),
    ModelShape(layers: 4, heads: 4, valueWidth: 8, experts: 8, expertWidth: 16, denseWidth: 12, sharedWidth: 16),
    ModelShape(layers: 3, heads: 6, valueWidth: 5, experts: 10, expertWidth: 7, denseWidth: 9, sharedWidth: 0),
]
private let deepSeek = shapes[0]

private func request(
    _ sizes: [ParallelRequest.Size: Int], partition: [Int]? = nil, contextFillsRanks: Bool = false
) -> ParallelRequest {
    var request = ParallelRequest()
    for (size, value) in sizes { request[size] = value }
    request.ppLayerPartition = partition
    request.contextFillsRanks = contextFillsRanks
    return request
}

private func resolve(_ sizes: [ParallelRequest.Size: Int], _ shape: ModelShape = deepSeek) throws
    -> ParallelConfiguration
{
    try request(sizes).resolve(for: shape)
}

private func problems(_ request: ParallelRequest, _ shape: ModelShape, maxRanks: Int = 64) -> [ParallelRequest.Problem]
{
    do throws(ParallelRequest.Refusal) {
        _ = try request.resolve(for: shape, maxRanks: maxRanks)
        return []
    } catch {
        return error.problems
    }
}

/// Returns the number of slices in which a sum over `width` columns is added.
private func slices(of width: Int) -> Int { [8, 4, 2].first { width % $0 == 0 } ?? 1 }

/// Draws requests with sizes from a small set of good and bad ones, by a fixed rule.
private func manyRequests(for shape: ModelShape) -> [ParallelRequest] {
    let values: [Int?] = [
        nil, nil, nil, nil, nil, 1, 1, 2, 2, 3, 4, 4, 5, 6, 7, 8, 8, 10, 12, 16, 24, 32, 64, 65, 0, -3, .max, .min,
    ]
    let partitions: [[Int]] = [
        [shape.layers], [shape.layers - 1, 1], [1, 1, shape.layers - 2], [2, shape.layers - 2], [1, shape.layers - 1],
        [Int](repeating: 1, count: shape.layers), [31, 30], [], [0, shape.layers], [-1, 1, 2], [.max, .max, 3],
    ]
    var draw = SplitMix64(seed: 1)
    return (0..<2000).map { number in
        var request = ParallelRequest()
        for size in ParallelRequest.Size.allCases {
            request[size] = values[draw.below(values.count)]
        }
        // Otherwise hardly any request would be legal.
        if number % 8 > 2 { request.ppSize = nil }
        if number % 3 != 0 { request.moeDenseTPSize = nil }
        if number % 4 != 0 { request.dcpSize = nil }
        if number % 7 < 3 { request.ppLayerPartition = partitions[draw.below(partitions.count)] }
        request.contextFillsRanks = number % 5 == 0
        return request
    }
}

@Suite struct `A parallel configuration` {
    @Test func `of nothing given is one rank`() throws {
        #expect(try resolve([:]) == ParallelConfiguration())
        #expect(ParallelConfiguration().world == 1)
        #expect("\(ParallelConfiguration())" == "one rank")
        for shape in shapes { #expect(ParallelConfiguration().isBitwiseEqual(for: shape)) }
    }

    @Test func `of a context size alone has as many ranks`() throws {
        #expect(try resolve([.context: 4]) == ParallelConfiguration(context: 4, expert: 4))
    }

    @Test func `gives the heads the ranks that data and context leave`() throws {
        #expect(
            try resolve([.ranks: 8, .context: 4])
                == ParallelConfiguration(context: 4, tensor: 2, expert: 8, denseTensor: 2))
        #expect(
            try resolve([.ranks: 8, .context: 2, .data: 2])
                == ParallelConfiguration(data: 2, context: 2, tensor: 2, expert: 8, denseTensor: 2))
        #expect(try resolve([.ranks: 8, .data: 8]) == ParallelConfiguration(data: 8, expert: 8))
        #expect(try resolve([.ranks: 8]) == ParallelConfiguration(tensor: 8, expert: 8, denseTensor: 8))
    }

    @Test func `has the fewest ranks that the given sizes divide`() throws {
        #expect(try resolve([.expert: 8]).stageRanks == 8)
        let both = try resolve([.context: 4, .expert: 8])
        #expect((both.context, both.tensor, both.expert, both.expertTensor) == (4, 2, 8, 1))
        let wide = try resolve([.data: 2, .context: 4, .expert: 2])
        #expect((wide.stageRanks, wide.tensor, wide.expert, wide.expertTensor) == (8, 1, 2, 4))
        #expect(try resolve([.data: 2, .context: 3]).stageRanks == 6)
    }

    @Test func `of sharded keys alone has as many context ranks`() throws {
        let keys = try resolve([.kvSharding: 4])
        #expect((keys.context, keys.tensor, keys.kvSharding) == (4, 1, KVSharding(ranks: 4)))
        #expect(try resolve([.ranks: 8, .context: 2, .kvSharding: 4]).kvSharding.ranks == 4)
        let found = problems(request([.ranks: 8, .context: 4, .data: 2, .kvSharding: 8]), deepSeek)
        #expect(found.map(\.parameter) == ["dcp_size"] && found[0].legal == [1, 2, 4])
        var wish = request([.kvSharding: 2])
        (wish.dcpInterleave, wish.dcpMinKeys) = (0, -1)
        #expect(problems(wish, deepSeek).map(\.parameter) == ["dcp_interleave", "dcp_min_keys"])
        (wish.dcpInterleave, wish.dcpMinKeys) = (2, 7)
        #expect(try wish.resolve(for: deepSeek).kvSharding == KVSharding(ranks: 2, unit: 2, minKeys: 7))
    }

    @Test func `fills the ranks with context when asked`() throws {
        #expect(try request([.ranks: 8], contextFillsRanks: true).resolve(for: deepSeek).context == 8)
        #expect(try request([.ranks: 8, .data: 2], contextFillsRanks: true).resolve(for: deepSeek).context == 4)
        #expect(try request([.ranks: 8, .context: 2], contextFillsRanks: true).resolve(for: deepSeek).context == 2)
        #expect(try request([:], contextFillsRanks: true).resolve(for: deepSeek).context == 1)
    }

    @Test func `shares widths where the experts do not go round`() throws {
        // With 8 experts at most 8 ranks have some each; the other factor cuts their columns.
        let many = try resolve([.ranks: 16, .context: 4], shapes[2])
        #expect((many.tensor, many.expert, many.expertTensor) == (4, 8, 2))
        let odd = try resolve([.ranks: 6, .context: 3, .expert: 2], shapes[1])
        #expect((odd.expert, odd.expertTensor, odd.isBitwiseEqual(for: shapes[1])) == (2, 3, false))
    }

    @Test func `divides the experts by default so that the bits are kept, even if fewer ways`() throws {
        // The sum over 256 experts has 8 slices, which 16 ranks would cut.
        let sixteen = try resolve([.context: 16])
        #expect((sixteen.expert, sixteen.expertTensor) == (8, 2))
        #expect(try resolve([.context: 64]).expertTensor == 8)
        #expect(try resolve([.context: 16, .expert: 16]).expertTensor == 1)
        // A width of two slices leaves 32 ranks only 16 × 2 and 32 × 1, which both cut the sum over experts.
        var narrow = deepSeek
        narrow.expertWidth = 18
        #expect(try resolve([.context: 16], narrow).expertTensor == 2)
        #expect(try resolve([.context: 32], narrow).replicatesExperts)
        // The sum over 10 experts has two slices.
        let ten = try resolve([.context: 10], shapes[3])
        #expect(ten.replicatesExperts && ten.isBitwiseEqual(for: shapes[3]))
        #expect(try resolve([.context: 2], shapes[3]).expert == 2)
        // Six ranks could share the width, but not between its slices.
        let six = try resolve([.data: 6], shapes[1])
        #expect(six.replicatesExperts)
        #expect(try resolve([.data: 6, .expert: 1], shapes[1]).expertTensor == 6)
        // If the heads are not bitwise equal anyway, as many ranks as possible divide the experts.
        #expect(try resolve([.ranks: 16]).expert == 16)
        #expect(try resolve([.ranks: 6], shapes[1]).expert == 2)
    }

    @Test func `keeps the bits by default where powers of two for data and context are all that is given`() throws {
        for shape in shapes {
            for data in [1, 2, 4, 8, 16, 32, 64] {
                for context in [1, 2, 4, 8, 16, 32, 64] where data * context <= 64 {
                    let configuration = try resolve([.data: data, .context: context], shape)
                    #expect(configuration.isBitwiseEqual(for: shape), "\(configuration)")
                }
            }
        }
    }

    @Test(arguments: 1...64, [ParallelRequest.Size.context, .data])
    func `exists for every degree of context and of data`(degree: Int, size: ParallelRequest.Size) throws {
        for shape in shapes {
            let configuration = try resolve([size: degree], shape)
            #expect(configuration.world == degree)
            #expect(configuration.tensor == 1)
        }
    }

    @Test func `keeps all experts on every rank where three of them can share nothing`() throws {
        for sizes: [ParallelRequest.Size: Int] in [[.context: 3], [.context: 3, .expert: 1], [.ranks: 3, .data: 3]] {
            let configuration = try resolve(sizes)
            #expect(configuration.replicatesExperts)
            #expect((configuration.expert, configuration.expertTensor) == (1, 1))
            #expect(configuration.isBitwiseEqual(for: deepSeek))
        }
        #expect(try resolve([.context: 4]).replicatesExperts == false)
        // Ranks that share heads have their own rows between attentions.
        for sizes: [ParallelRequest.Size: Int] in [[.ranks: 3], [.ranks: 6, .context: 3, .expert: 1]] {
            let configuration = try resolve(sizes, shapes[3])
            #expect(configuration.tensor > 1 && configuration.replicatesExperts)
        }
    }

    @Test func `cuts dense layers as the heads are, or not at all`() throws {
        #expect(try resolve([.ranks: 8, .dense: 1]).denseTensor == 1)
        #expect(try resolve([.ranks: 8, .dense: 8]).denseTensor == 8)
        #expect(try resolve([.ranks: 8, .context: 8, .dense: 1]).denseTensor == 1)
        // 9 columns cannot be shared by two.
        let whole = try resolve([.ranks: 2], shapes[3])
        #expect((whole.tensor, whole.denseTensor) == (2, 1))
    }

    @Test func `cuts shared experts as it cuts dense layers`() throws {
        var shape = deepSeek
        shape.sharedWidth = 2052
        #expect(try resolve([.ranks: 4], shape).denseTensor == 4)
        #expect(try resolve([.ranks: 8], shape).denseTensor == 1)
        #expect(
            problems(request([.ranks: 8, .dense: 8]), shape).map(\.description)
                == [
                    "moe_dense_tp_size: 8 ranks cannot share a feed-forward of width 2052; "
                        + "the only legal value is 1"
                ])
        shape.sharedWidth = 0
        #expect(try resolve([.ranks: 8, .dense: 8], shape).denseTensor == 8)
    }

    @Test func `splits the layers evenly over its stages`() throws {
        let three = try resolve([.pipeline: 3, .context: 2])
        #expect((three.stageRanks, three.world, three.stageLayers) == (2, 6, nil))
        #expect((0..<3).map { three.layers(ofStage: $0, total: 61) } == [0..<21, 21..<41, 41..<61])
        #expect(try resolve([.pipeline: 61]).layers(ofStage: 60, total: 61) == 60..<61)
        #expect(try resolve([:]).layers(ofStage: 0, total: 61) == 0..<61)
    }

    @Test func `splits the layers as requested`() throws {
        for sizes: [ParallelRequest.Size: Int] in [[:], [.pipeline: 3]] {
            let told = try request(sizes, partition: [20, 1, 40]).resolve(for: deepSeek)
            #expect((told.pipeline, told.stageLayers, told.world) == (3, [20, 1, 40], 3))
            #expect((0..<3).map { told.layers(ofStage: $0, total: 61) } == [0..<20, 20..<21, 21..<61])
        }
        #expect(try request([:], partition: [61]).resolve(for: deepSeek).world == 1)
    }

    @Test func `says whether its bits are those of one rank`() {
        func keeps(_ configuration: ParallelConfiguration, _ change: (inout ModelShape) -> Void = { _ in }) -> Bool {
            var shape = deepSeek
            change(&shape)
            return configuration.isBitwiseEqual(for: shape)
        }
        #expect(keeps(ParallelConfiguration(data: 5, context: 7, pipeline: 3)))
        #expect(keeps(ParallelConfiguration(tensor: 8, expert: 8, expertTensor: 8, denseTensor: 8)))
        for degree in [3, 5, 6, 16] {
            #expect(!keeps(ParallelConfiguration(tensor: degree)))
            #expect(!keeps(ParallelConfiguration(expert: degree)))
            #expect(!keeps(ParallelConfiguration(expertTensor: degree)))
            #expect(!keeps(ParallelConfiguration(denseTensor: degree)))
        }
        // The sum has four slices: 4 ranks add whole ones, 8 would cut them.
        for (degree, kept) in [(4, true), (8, false)] {
            #expect(keeps(ParallelConfiguration(tensor: degree)) { ($0.heads, $0.valueWidth) = (2, 6) } == kept)
            #expect(keeps(ParallelConfiguration(expert: degree)) { $0.experts = 20 } == kept)
            #expect(keeps(ParallelConfiguration(expertTensor: degree)) { $0.expertWidth = 12 } == kept)
            #expect(keeps(ParallelConfiguration(denseTensor: degree)) { $0.denseWidth = 12 } == kept)
            #expect(keeps(ParallelConfiguration(denseTensor: degree)) { $0.sharedWidth = 12 } == kept)
        }
        #expect(keeps(ParallelConfiguration(denseTensor: 8)) { $0.sharedWidth = 0 })
    }

    @Test func `has a mesh and a description`() {
        let configuration = ParallelConfiguration(
            data: 2, context: 4, tensor: 2, expert: 8, expertTensor: 2, exchange: .allToAll)
        #expect(configuration.mesh == Mesh([.data: 2, .context: 4, .tensor: 2]))
        #expect(
            "\(configuration)"
                == "16 ranks: data 2 × context 4 × tensor 2, interleaved; experts 8 by expert × 2 by width, allToAll; "
                + "feed-forward whole on every rank")
        #expect("\(ParallelConfiguration(data: 3))" == "3 ranks: data 3; every rank has all experts of its layers")
        #expect("\(ParallelConfiguration(pipeline: 2))" == "2 ranks: 2 stages")
        let stages = ParallelConfiguration(context: 2, expert: 2, pipeline: 3)
        #expect(stages.mesh == Mesh([.pipeline: 3, .context: 2]))
        #expect("\(stages)" == "6 ranks: 3 stages × context 2, interleaved; experts 2 by expert, gathered")
    }

    @Test(arguments: shapes.indices)
    func `satisfies the equations, whatever was asked`(number: Int) {
        let shape = shapes[number]
        var (resolved, staged, partitioned) = (0, 0, 0)
        for request in manyRequests(for: shape) {
            guard let configuration = try? request.resolve(for: shape) else { continue }
            resolved += 1
            if configuration.pipeline > 1 { staged += 1 }
            if configuration.stageLayers != nil { partitioned += 1 }
            expectEquations(configuration, shape)
            #expect(configuration.stageLayers == request.ppLayerPartition)
            if request.epSize == nil && configuration.kvSharding.classes != nil
                && slices(of: shape.heads * shape.valueWidth) % configuration.tensor == 0
            {
                #expect(configuration.isBitwiseEqual(for: shape), "\(configuration)")
            }
            for size in ParallelRequest.Size.allCases where request[size] != nil {
                #expect(value(size, configuration) == request[size], "\(size) of \(request)")
            }
        }
        #expect(resolved > 15 && staged > 5 && partitioned > 5, "\((resolved, staged, partitioned))")
    }

    private func value(_ size: ParallelRequest.Size, _ configuration: ParallelConfiguration) -> Int {
        switch size {
        case .ranks: configuration.stageRanks
        case .data: configuration.data
        case .context: configuration.context
        case .expert: configuration.expert
        case .dense: configuration.denseTensor
        case .pipeline: configuration.pipeline
        case .kvSharding: configuration.kvSharding.ranks
        }
    }

    private func expectEquations(_ configuration: ParallelConfiguration, _ shape: ModelShape) {
        let ranks = configuration.stageRanks
        #expect(ranks == configuration.data * configuration.context * configuration.tensor)
        #expect(configuration.world == ranks * configuration.pipeline && (1...64).contains(configuration.world))
        #expect(configuration.mesh.world == configuration.world)
        let shared = configuration.expert * configuration.expertTensor
        #expect(shared == (configuration.replicatesExperts ? 1 : ranks), "\(configuration)")
        #expect(shape.heads % configuration.tensor == 0)
        #expect(configuration.context * configuration.tensor % configuration.kvSharding.ranks == 0)
        #expect(shape.experts % configuration.expert == 0)
        for (width, degree) in [
            (shape.expertWidth, configuration.expertTensor), (shape.denseWidth, configuration.denseTensor),
            (shape.sharedWidth, configuration.denseTensor),
        ] {
            #expect(width % degree == 0 && ![16, 32, 64].contains(degree))
        }
        #expect([1, configuration.tensor].contains(configuration.denseTensor))
        let stages = (0..<configuration.pipeline).map { configuration.layers(ofStage: $0, total: shape.layers) }
        #expect(stages.allSatisfy { !$0.isEmpty } && stages.flatMap { $0 } == Array(0..<shape.layers))
        #expect(!"\(configuration)".contains("\n"))
        let sums = [
            (shape.heads * shape.valueWidth, configuration.tensor), (shape.experts, configuration.expert),
            (shape.expertWidth, configuration.expertTensor), (shape.denseWidth, configuration.denseTensor),
            (shape.sharedWidth, configuration.denseTensor),
        ]
        let keepsSums = sums.allSatisfy { slices(of: $0) % $1 == 0 }
        #expect(configuration.isBitwiseEqual(for: shape) == (keepsSums && 8 % configuration.kvSharding.ranks == 0))
    }

    /// Counts independently: every way to give all four sizes of a stage, judged by the rules as they are written.
    @Test(arguments: shapes.indices)
    func `exists exactly where the rules allow one`(number: Int) {
        let shape = shapes[number]
        func shares(_ width: Int, _ degree: Int) -> Bool { width % degree == 0 && ![16, 32, 64].contains(degree) }
        for ranks in [1, 2, 3, 4, 6, 8, 12, 16, 20, 64] {
            for data in [1, 2, 3, 4] {
                for context in [1, 2, 3, 4, 5, 8] {
                    for expert in [1, 2, 3, 4, 5, 6, 8, 10, 16, 64] {
                        let divides = ranks % (data * context) == 0 && ranks % expert == 0
                        let allowed =
                            divides && shape.heads % (ranks / (data * context)) == 0 && shape.experts % expert == 0
                            && (shares(shape.expertWidth, ranks / expert) || expert == 1)
                        let sizes: [ParallelRequest.Size: Int] = [
                            .ranks: ranks, .data: data, .context: context, .expert: expert,
                        ]
                        #expect(problems(request(sizes), shape).isEmpty == allowed, "\(sizes)")
                    }
                }
            }
        }
    }
}

@Suite struct `A refused request` {
    @Test func `reports every problem at once`() {
        let wrong = request([.ranks: 8, .data: 3, .context: 5, .expert: 7, .dense: 5, .pipeline: 0])
        #expect(
            Set(problems(wrong, deepSeek).map(\.parameter))
                == ["attn_dp_size", "attn_cp_size", "ep_size", "moe_dense_tp_size", "pp_size"])
    }

    @Test func `names the nearest legal values`() {
        func only(_ sizes: [ParallelRequest.Size: Int], _ shape: ModelShape = deepSeek) -> String {
            problems(request(sizes), shape).map(\.description).joined(separator: "\n")
        }
        #expect(
            only([.ranks: 8, .context: 3])
                == "attn_cp_size: 8 ranks do not divide evenly over 3 context ranks; "
                + "the nearest legal value is 2 of 1, 2, 4 and 8")
        #expect(
            only([.ranks: 6])
                == "tp_size: 6 ranks over attn_dp_size 1 × attn_cp_size 1 leave 6 to share 128 heads, which do not "
                + "divide evenly; the nearest legal value is 4 of 1, 2, 4, 8, 16, 32 and 64")
        #expect(
            only([.ranks: 8, .expert: 6])
                == "ep_size: 256 experts do not divide evenly over 6 ranks; "
                + "the nearest legal value is 4 of 1, 2, 4 and 8")
        #expect(
            only([.pipeline: 62])
                == "pp_size: 62 stages need as many layers, and the model has 61; the nearest legal value is 61")
        #expect(
            only([.pipeline: 16, .context: 8])
                == "pp_size: 16 stages of 8 ranks need 128 ranks together, and 64 is the most; "
                + "the nearest legal value is 8 of 1, 2, 3, 4, 5, 6, 7 and 8")
        #expect(
            only([.ranks: 4, .dense: 2])
                == "moe_dense_tp_size: 2 is neither 1 nor the tensor degree of attention, 4; "
                + "the nearest legal value is 1 of 1 and 4")
        #expect(
            only([.context: 100]) == "attn_cp_size: 100 is not between 1 and 64; the nearest legal value is 64")
        #expect(only([.data: .min]) == "attn_dp_size: \(Int.min) is not between 1 and 64; the nearest legal value is 1")
        #expect(
            only([.data: 16, .context: 8])
                == "attn_cp_size: with attn_dp_size 16 it needs 128 ranks, and 64 is the most; "
                + "the nearest legal value is 4 of 1, 2, 3 and 4")
    }

    @Test func `for sixteen ranks that share a width is refused, since sums have eight slices`() {
        let found = problems(request([.ranks: 32, .expert: 2]), deepSeek)
        #expect(found.map(\.parameter) == ["ep_size"])
        #expect(found.first?.legal == [1, 4, 8, 16, 32])
    }

    @Test func `never overflows, whatever sizes it is given`() {
        for size in ParallelRequest.Size.allCases {
            for other in ParallelRequest.Size.allCases where other != size {
                for value in [.max, .min, 1 << 32, 1_000_000_000, 64] {
                    let found = problems(request([size: value, other: 1 << 31]), deepSeek)
                    #expect(found.contains { $0.description.contains("is not between 1 and 64") }, "\(size) \(other)")
                }
            }
        }
    }

    @Test func `respects how many ranks there may be`() {
        #expect(throws: ParallelRequest.Refusal.self) { try request([.context: 4]).resolve(for: deepSeek, maxRanks: 2) }
        #expect(throws: Never.self) { try request([.context: 2]).resolve(for: deepSeek, maxRanks: 2) }
        let stages = request([.context: 2, .pipeline: 2])
        #expect(problems(stages, deepSeek, maxRanks: 3).map(\.parameter) == ["pp_size"])
        #expect(problems(stages, deepSeek, maxRanks: 4).isEmpty)
    }

    @Test(
        arguments: [
            ([31, 30], [.pipeline: 3], "31,30 gives 2 stages, and pp_size is 3", [21, 20, 20]),
            ([61], [.pipeline: 2], "61 gives 1 stage, and pp_size is 2", [31, 30]),
            ([31, 0, 30], [:], "31,0,30 has a stage of 0 layers, which is not between 1 and 61", [21, 20, 20]),
            (
                [.max, .max, 63], [:],
                "\(Int.max),\(Int.max),63 has a stage of \(Int.max) layers, which is not between 1 and 61",
                [21, 20, 20]
            ),
            ([31, 29], [:], "31,29 adds up to 60 layers, and the model has 61", [31, 30]),
            ([61, 61], [.pipeline: 2], "61,61 adds up to 122 layers, and the model has 61", [31, 30]),
            ([], [:], "no stage is given any layers", [61]),
            (
                [21, 20, 20], [.context: 32], "21,20,20 gives 3 stages of 32 ranks, 96 together, and 64 is the most",
                [31, 30]
            ),
        ] as [([Int], [ParallelRequest.Size: Int], String, [Int])])
    func `with layers for stages that do not fit names an even split`(
        partition: [Int], sizes: [ParallelRequest.Size: Int], message: String, nearest: [Int]
    ) {
        let found = problems(request(sizes, partition: partition), deepSeek)
        let list = nearest.map(String.init).joined(separator: ",")
        #expect(
            found.map(\.description) == ["pp_layer_partition: \(message); the nearest legal partition is \(list)"])
        #expect(found.first?.nearestPartition == nearest)
        #expect(problems(request(sizes, partition: nearest), deepSeek).isEmpty)
    }

    @Test func `for a wrong number of stages names that of a correct partition`() {
        let found = problems(request([.pipeline: 99], partition: [31, 30]), deepSeek)
        #expect(found.map(\.parameter) == ["pp_size"])
        #expect(found.first?.legal == [2])
    }

    @Test func `is repaired without regard to a wrong partition`() {
        // Six ranks cannot share 128 heads, and eleven stages of them are too many.
        let partition = [51] + [Int](repeating: 1, count: 10)
        let found = problems(request([.ranks: 6], partition: partition), deepSeek)
        #expect(found.map(\.parameter) == ["tp_size", "pp_layer_partition"])
        #expect(found.first?.legal == [1, 2, 4, 8, 16, 32, 64])
    }

    @Test func `keeps the problems found before`() {
        var request = request([.ranks: 0])
        request.problems = [.init(parameter: "dp_size", message: "given twice")]
        #expect(problems(request, deepSeek).map(\.parameter) == ["dp_size", "tp_size"])
    }

    /// There is one problem per size, and each is repaired by any of its legal values. Repairing one after the other
    /// ends, except with the last shape, where hardly any two sizes fit together and a wrong one may have to be
    /// dropped.
    @Test(arguments: shapes.indices)
    func `is repaired by the values it names`(number: Int) throws {
        let shape = shapes[number]
        var refused = 0
        for original in manyRequests(for: shape) {
            let found = problems(original, shape)
            if found.isEmpty { continue }
            refused += 1
            #expect(Set(found.map(\.parameter)).count == found.count)
            for problem in found {
                guard let size = ParallelRequest.Size(rawValue: problem.parameter) else {
                    let repaired = try repair(original, problem)
                    #expect(!problems(repaired, shape).contains { $0.parameter == problem.parameter }, "\(original)")
                    continue
                }
                #expect(problem.legal == problem.legal.sorted() && problem.nearestLegal != nil)
                let nearest = try #require(problem.nearestLegal)
                for value in Set([nearest, problem.legal[0], problem.legal[problem.legal.count - 1]]) {
                    var repaired = original
                    repaired[size] = value
                    #expect(!problems(repaired, shape).contains { $0.parameter == problem.parameter }, "\(original)")
                }
            }
            if number == shapes.count - 1 { continue }
            var request = original
            for _ in 0..<4 * (ParallelRequest.Size.allCases.count + 1) {
                guard let problem = problems(request, shape).first else { break }
                request = try repair(request, problem)
            }
            #expect(problems(request, shape).isEmpty, "\(original)")
        }
        #expect(refused > 100)
    }

    /// Returns the request with the problem's nearest legal value.
    private func repair(_ request: ParallelRequest, _ problem: ParallelRequest.Problem) throws -> ParallelRequest {
        var request = request
        if problem.parameter == "pp_layer_partition" {
            let nearest: [Int] = try #require(problem.nearestPartition)
            request.ppLayerPartition = nearest
        } else {
            request[try #require(ParallelRequest.Size(rawValue: problem.parameter))] = problem.nearestLegal
        }
        return request
    }
}
