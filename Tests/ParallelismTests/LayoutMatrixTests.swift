import Parallelism
import Testing

@Suite struct `A layout matrix` {
    private static let shapes = [
        ModelShape(
            layers: 4, heads: 4, valueWidth: 64, experts: 16, expertWidth: 64, denseWidth: 384, sharedWidth: 64),
        ModelShape(
            layers: 3, heads: 6, valueWidth: 20, experts: 12, expertWidth: 48, denseWidth: 160, sharedWidth: 0),
        ModelShape(
            layers: 61, heads: 128, valueWidth: 128, experts: 256, expertWidth: 2048, denseWidth: 18432,
            sharedWidth: 2048),
        ModelShape(layers: 1, heads: 1, valueWidth: 1, experts: 1, expertWidth: 1, denseWidth: 1, sharedWidth: 1),
    ]

    @Test(arguments: shapes) func `begins with one rank, repeats nothing and keeps the limit`(shape: ModelShape) {
        for most in [1, 2, 6, 8, 12] {
            let layouts = LayoutMatrix(shape, maxRanks: most).layouts
            #expect(layouts[0] == ParallelConfiguration())
            #expect(Set(layouts).count == layouts.count)
            #expect(layouts.allSatisfy { $0.world <= most })
            #expect(zip(layouts, layouts.dropFirst()).allSatisfy { $0.world <= $1.world })
        }
    }

    @Test(arguments: shapes) func `has every factorization that heads and layers allow`(shape: ModelShape) {
        let layouts = LayoutMatrix(shape, maxRanks: 12).layouts
        let meshes = Set(layouts.map { [$0.pipeline, $0.data, $0.context, $0.tensor] })
        var expected: Set<[Int]> = []
        for pipeline in 1...12 {
            for data in 1...12 {
                for context in 1...12 {
                    for tensor in 1...12 where pipeline * data * context * tensor <= 12 {
                        guard pipeline <= shape.layers, shape.heads % tensor == 0 else { continue }
                        expected.insert([pipeline, data, context, tensor])
                    }
                }
            }
        }
        #expect(meshes == expected)
    }

    @Test(arguments: shapes) func `has what resolving a request gives, and nothing else but whole experts`(
        shape: ModelShape
    ) throws {
        for layout in LayoutMatrix(shape, maxRanks: 8).layouts {
            var request = ParallelRequest()
            request.tpSize = layout.stageRanks
            request.attnDPSize = layout.data
            request.attnCPSize = layout.context
            request.epSize = layout.expert
            request.ppSize = layout.pipeline
            request.ppLayerPartition = layout.stageLayers
            request.moeDenseTPSize = layout.denseTensor
            request.strategy = layout.strategy
            request.exchange = layout.exchange
            request.dcpSize = layout.kvSharding.ranks
            request.dcpInterleave = layout.kvSharding.unit
            request.dcpMinKeys = layout.kvSharding.minKeys
            var resolved = try request.resolve(for: shape)
            if layout.replicatesExperts && layout.expertTensor == 1 && layout.expert == 1 { resolved.expertTensor = 1 }
            #expect(resolved == layout)
        }
    }

    @Test func `varies everything that makes a difference`() {
        let layouts = LayoutMatrix(Self.shapes[0], maxRanks: 8).layouts
        let here = layouts.filter { $0.pipeline == 2 && $0.context == 2 && $0.tensor == 2 }
        #expect(Set(here.map(\.strategy)).count == 3)
        #expect(Set(here.map(\.exchange)).count == 2)
        #expect(Set(here.map(\.stageLayers)) == [nil, [1, 3]])
        #expect(Set(here.map(\.denseTensor)) == [1, 2])
        #expect(Set(here.map { [$0.expert, $0.expertTensor] }) == [[1, 1], [1, 4], [2, 2], [4, 1]])
        #expect(
            Set(here.map { [$0.kvSharding.ranks, $0.kvSharding.unit] })
                == [[1, 1], [2, 1], [2, 2], [2, 4], [4, 1], [4, 2], [4, 4]])
        // Divided experts have 3 divisions × 2 exchanges, whole ones 1; times strategies, dense degrees, stages,
        // shardings.
        #expect(here.count == (3 * 2 + 1) * 3 * 2 * 2 * 7)
    }

    @Test func `has only the strategies, exchanges and least keys it is given`() {
        let layouts = LayoutMatrix(
            Self.shapes[0], maxRanks: 8, strategies: [.zigzag], exchanges: [.allToAll], minKeys: [7, 9]
        ).layouts
        let divided = layouts.filter { $0.kvSharding.ranks > 1 }
        #expect(Set(divided.map(\.kvSharding.minKeys)) == [7, 9])
        #expect(layouts.allSatisfy { $0.context == 1 || $0.strategy == .zigzag })
        #expect(layouts.allSatisfy { $0.stageRanks == 1 || $0.replicatesExperts || $0.exchange == .allToAll })
    }

    @Test(arguments: shapes) func `has a name for each layout, from which it can be made again`(shape: ModelShape)
        throws
    {
        let layouts = LayoutMatrix(shape, maxRanks: 8, minKeys: [1, 44]).layouts
        #expect(Set(layouts.map(\.notation)).count == layouts.count)
        for layout in layouts {
            #expect(try ParallelConfiguration(notation: layout.notation, for: shape) == layout)
        }
    }

    @Test(arguments: [
        "cp", "cp0", "cp-2", "4cp", "xp2", "cp2:1", "tp3", "cp2 dcp2:", "cp2 dcp2:0", "cp2 dcp2:1,2,3", "cp2 dcp4",
        "pp5", "pp2:1,1", "pp2:4", "pp2:x,3", "cp2 ep4",
        "tp2 dense4",
        "dense2", "cp9999999999999999999", "etp2", "diagonal", "cp2 etp3",
    ])
    func `has no layout of an illegal name`(notation: String) {
        #expect(throws: NotationError.self) {
            try ParallelConfiguration(notation: notation, for: Self.shapes[0])
        }
    }

    @Test(arguments: ["dp4097", "dp4096 pp4", "dp4096 cp4096 tp4096 pp4096", "ep4096 etp4096", "dp1000000000"])
    func `has no layout of more ranks than there are`(notation: String) {
        let error = #expect(throws: NotationError.self) {
            try ParallelConfiguration(notation: notation, for: Self.shapes[0])
        }
        let isTooLarge = notation.contains("4097") || notation.contains("000")
        #expect(error?.description.contains(isTooLarge ? "is no part" : "more than 4096 ranks") == true, "\(notation)")
    }
}
