import Parallelism
import Testing

private let shapes = [
    // DeepSeek-V3.2, a model with three kinds of odd factors, a toy, and one that hardly divides.
    ModelShape(heads: 128, experts: 256, expertWidth: 2048, denseWidth: 18432),
    ModelShape(heads: 96, experts: 160, expertWidth: 1536, denseWidth: 12288),
    ModelShape(heads: 4, experts: 8, expertWidth: 16, denseWidth: 12),
    ModelShape(heads: 6, experts: 10, expertWidth: 7, denseWidth: 9),
]
private let deepSeek = shapes[0]

private func request(_ sizes: [ParallelRequest.Size: Int], contextFillsRanks: Bool = false) -> ParallelRequest {
    var request = ParallelRequest()
    for (size, value) in sizes { request[size] = value }
    request.contextFillsRanks = contextFillsRanks
    return request
}

private func resolve(_ sizes: [ParallelRequest.Size: Int], _ shape: ModelShape = deepSeek) throws
    -> ParallelConfiguration
{
    try request(sizes).resolve(for: shape)
}

private func problems(_ request: ParallelRequest, _ shape: ModelShape) -> [ParallelRequest.Problem] {
    do throws(ParallelRequest.Refusal) {
        _ = try request.resolve(for: shape)
        return []
    } catch {
        return error.problems
    }
}

/// Requests with sizes from a small set of good and bad ones, drawn by a fixed rule.
private func manyRequests() -> [ParallelRequest] {
    let values: [Int?] = [
        nil, nil, nil, nil, nil, 1, 1, 2, 2, 3, 4, 4, 5, 6, 7, 8, 8, 10, 12, 16, 24, 32, 64, 65, 0, -3, .max, .min,
    ]
    var state: UInt64 = 1
    return (0..<1000).map { number in
        var request = ParallelRequest()
        for size in ParallelRequest.Size.allCases {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            request[size] = values[Int(state >> 33) % values.count]
        }
        // Otherwise hardly any would be legal.
        if number % 4 != 0 { request.ppSize = nil }
        if number % 3 != 0 { request.moeDenseTPSize = nil }
        request.contextFillsRanks = number % 5 == 0
        return request
    }
}

@Suite struct `A parallel configuration` {
    @Test func `of nothing given is one rank`() throws {
        #expect(try resolve([:]) == ParallelConfiguration())
        #expect(ParallelConfiguration().world == 1)
        #expect("\(ParallelConfiguration())" == "one rank")
        #expect(ParallelConfiguration().keepsBits)
    }

    @Test func `of a context size alone has so many ranks`() throws {
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

    @Test func `fills the ranks with context when asked`() throws {
        #expect(try request([.ranks: 8], contextFillsRanks: true).resolve(for: deepSeek).context == 8)
        #expect(try request([.ranks: 8, .data: 2], contextFillsRanks: true).resolve(for: deepSeek).context == 4)
        #expect(try request([.ranks: 8, .context: 2], contextFillsRanks: true).resolve(for: deepSeek).context == 2)
        #expect(try request([:], contextFillsRanks: true).resolve(for: deepSeek).context == 1)
    }

    @Test func `shares widths where the experts do not go round`() throws {
        // Of 8 experts at most 8 ranks have some each; the other factor cuts their columns.
        let many = try resolve([.ranks: 16, .context: 4], shapes[2])
        #expect((many.tensor, many.expert, many.expertTensor) == (4, 8, 2))
        let odd = try resolve([.ranks: 6, .context: 3], shapes[1])
        #expect((odd.expert, odd.expertTensor, odd.keepsBits) == (2, 3, false))
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
            #expect((configuration.expert, configuration.expertTensor, configuration.keepsBits) == (1, 1, true))
        }
        #expect(try resolve([.context: 4]).replicatesExperts == false)
        // Tensor ranks have the same rows: to compute all experts for them twice would count them twice.
        #expect(problems(request([.ranks: 3]), shapes[3]).map(\.parameter) == ["tp_size"])
    }

    @Test func `cuts dense layers as the heads are, or not at all`() throws {
        #expect(try resolve([.ranks: 8, .dense: 1]).denseTensor == 1)
        #expect(try resolve([.ranks: 8, .dense: 8]).denseTensor == 8)
        #expect(try resolve([.ranks: 8, .context: 8, .dense: 1]).denseTensor == 1)
        // 9 columns cannot be shared by two.
        let whole = try resolve([.ranks: 2], shapes[3])
        #expect((whole.tensor, whole.denseTensor) == (2, 1))
    }

    @Test func `says whether its bits are those of one rank`() {
        #expect(ParallelConfiguration(data: 5, context: 7, tensor: 8, expert: 4, expertTensor: 2).keepsBits)
        #expect(!ParallelConfiguration(tensor: 3).keepsBits)
        #expect(!ParallelConfiguration(expert: 16).keepsBits)
        #expect(!ParallelConfiguration(expertTensor: 6).keepsBits)
        #expect(!ParallelConfiguration(denseTensor: 5).keepsBits)
    }

    @Test func `has a mesh and a description`() {
        let configuration = ParallelConfiguration(
            data: 2, context: 4, tensor: 2, expert: 8, expertTensor: 2, exchange: .allToAll)
        #expect(configuration.mesh == Mesh([.data: 2, .context: 4, .tensor: 2]))
        #expect(
            "\(configuration)"
                == "16 ranks: data 2 × context 4 × tensor 2, interleaved; experts 8 by expert × 2 by width, allToAll; "
                + "feed-forward whole on every rank")
        #expect("\(ParallelConfiguration(data: 3))" == "3 ranks: data 3; all experts on every rank")
        #expect("\(ParallelConfiguration(pipeline: 2))" == "2 ranks: pipeline 2")
    }

    @Test(arguments: shapes.indices)
    func `satisfies the equations, whatever was asked`(number: Int) {
        let shape = shapes[number]
        var resolved = 0
        for request in manyRequests() {
            guard let configuration = try? request.resolve(for: shape) else { continue }
            resolved += 1
            expectEquations(configuration, shape)
            for size in ParallelRequest.Size.allCases where request[size] != nil {
                #expect(value(size, configuration) == request[size], "\(size) of \(request)")
            }
        }
        #expect(resolved > 15)
    }

    private func value(_ size: ParallelRequest.Size, _ configuration: ParallelConfiguration) -> Int {
        switch size {
        case .ranks: configuration.stageRanks
        case .data: configuration.data
        case .context: configuration.context
        case .expert: configuration.expert
        case .dense: configuration.denseTensor
        case .pipeline: configuration.pipeline
        }
    }

    private func expectEquations(_ configuration: ParallelConfiguration, _ shape: ModelShape) {
        let ranks = configuration.stageRanks
        #expect(ranks == configuration.data * configuration.context * configuration.tensor)
        #expect(configuration.world == ranks * configuration.pipeline && (1...64).contains(configuration.world))
        #expect(configuration.mesh.world == configuration.world)
        #expect(
            configuration.expert * configuration.expertTensor == ranks
                || (configuration.tensor, configuration.expert, configuration.expertTensor) == (1, 1, 1),
            "\(configuration)")
        #expect(shape.heads % configuration.tensor == 0)
        #expect(shape.experts % configuration.expert == 0)
        for (width, degree) in [
            (shape.expertWidth, configuration.expertTensor), (shape.denseWidth, configuration.denseTensor),
        ] {
            #expect(width % degree == 0 && ![16, 32, 64].contains(degree))
        }
        #expect([1, configuration.tensor].contains(configuration.denseTensor))
    }

    /// An independent count: every way to give all four sizes of a stage, judged by the rules as they are written.
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
                            && (shares(shape.expertWidth, ranks / expert) || expert == 1 && ranks == data * context)
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
    @Test func `hears of everything at once`() {
        let wrong = request([.ranks: 8, .data: 3, .context: 5, .expert: 7, .dense: 5, .pipeline: 2])
        #expect(
            Set(problems(wrong, deepSeek).map(\.parameter))
                == ["attn_dp_size", "attn_cp_size", "ep_size", "moe_dense_tp_size", "pp_size"])
    }

    @Test func `is told the nearest legal values`() {
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
                == "ep_size: 256 experts do not divide evenly over 6 ranks; the nearest legal value is 4 of 1, 2, 4 and 8"
        )
        #expect(
            only([.pipeline: 4])
                == "pp_size: pipelines are not built yet, so there are not 4 stages; the only legal value is 1")
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
        let found = problems(request([.ranks: 16, .expert: 1]), deepSeek)
        #expect(found.map(\.parameter) == ["ep_size"])
        #expect(found.first?.legal == [2, 4, 8, 16])
    }

    @Test func `respects how many ranks there may be`() {
        #expect(throws: ParallelRequest.Refusal.self) { try request([.context: 4]).resolve(for: deepSeek, maxRanks: 2) }
        #expect(throws: Never.self) { try request([.context: 2]).resolve(for: deepSeek, maxRanks: 2) }
    }

    @Test func `with layers for stages is told to leave them out`() {
        var request = ParallelRequest()
        request.ppLayerPartition = [31, 30]
        #expect(
            problems(request, deepSeek).map(\.description)
                == ["pp_layer_partition: pipelines are not built yet; leave it out"])
    }

    @Test func `keeps the problems found before`() {
        var request = request([.ranks: 0])
        request.problems = [.init(parameter: "dp_size", message: "given twice")]
        #expect(problems(request, deepSeek).map(\.parameter) == ["dp_size", "tp_size"])
    }

    /// One problem a size, each repaired by any of its legal values; and repairing one after the other comes to an end,
    /// except with the last shape, where hardly any two sizes get on and a wrong one may have to go.
    @Test(arguments: shapes.indices)
    func `is repaired by the values it is told`(number: Int) throws {
        let shape = shapes[number]
        var refused = 0
        for original in manyRequests() {
            let found = problems(original, shape)
            if found.isEmpty { continue }
            refused += 1
            #expect(Set(found.map(\.parameter)).count == found.count)
            for problem in found {
                let size = try #require(ParallelRequest.Size(rawValue: problem.parameter))
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
            for _ in 0..<2 * ParallelRequest.Size.allCases.count {
                guard let problem = problems(request, shape).first else { break }
                request[try #require(ParallelRequest.Size(rawValue: problem.parameter))] = problem.nearestLegal
            }
            #expect(problems(request, shape).isEmpty, "\(original)")
        }
        #expect(refused > 100)
    }
}
