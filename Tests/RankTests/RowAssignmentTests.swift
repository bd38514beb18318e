import Inference
import Parallelism
import TestSupport
import Testing

/// These tests check which rank owns which row of a step.
@Suite(.timeLimit(.minutes(15))) struct `A row assignment` {
    /// Some seeds are fixed and one differs from run to run; a failure prints the seed.
    static let seeds = Array(1...300) + [UInt64.random(in: 0 ... .max)]

    private static func configuration(_ draw: inout SplitMix64) -> ParallelConfiguration {
        ParallelConfiguration(
            data: 1 + draw.below(4), context: 1 + draw.below(8), tensor: 1 + draw.below(4),
            strategy: PartitionStrategy.allCases[draw.below(3)])
    }

    /// Returns prompts, later chunks of prompts and decode rows in random order, some of them scored or sampled.
    static func plan(_ groups: Int, _ draw: inout SplitMix64) -> StepPlan {
        let chunks = (0..<draw.below(9)).map { number in
            let isDecoding = draw.below(2) == 0
            let count = isDecoding ? 1 : 1 + draw.below(draw.below(2) == 0 ? 4 : 60)
            let scored = (0..<count).filter { _ in draw.below(6) == 0 }
            return StepPlan.Chunk(
                request: UInt64(number), group: draw.below(groups),
                tokens: (0..<count).map { _ in Int32(draw.below(100)) }, start: draw.below(2) == 0 ? 0 : draw.below(50),
                pages: [],
                sample: isDecoding || draw.below(2) == 0 ? .init(parameters: SamplingParameters(), position: 0) : nil,
                score: scored.map { StepPlan.ScoreRow(row: $0, target: 0) })
        }
        return StepPlan(number: 0, chunks: chunks)
    }

    @Test(arguments: seeds) func `gives every row to exactly one rank, in its request's data group`(seed: UInt64) {
        var draw = SplitMix64(seed: seed)
        let configuration = Self.configuration(&draw)
        let plan = Self.plan(configuration.data, &draw)
        let assignment = RowAssignment(plan, configuration)
        #expect(assignment.rows.count == configuration.stageRanks)
        let all = assignment.rows.joined().map { [$0.chunk, $0.offset] }
        let wanted = plan.chunks.indices.flatMap { chunk in plan.chunks[chunk].tokens.indices.map { [chunk, $0] } }
        #expect(all.sorted { $0.lexicographicallyPrecedes($1) } == wanted, "seed \(seed)")
        for (rank, rows) in assignment.rows.enumerated() {
            let group = configuration.mesh.coordinate(of: rank, on: .data)
            #expect(rows.allSatisfy { plan.chunks[$0.chunk].group == group }, "seed \(seed), rank \(rank)")
            let order = rows.map { [$0.chunk, $0.offset] }
            #expect(order == order.sorted { $0.lexicographicallyPrecedes($1) }, "seed \(seed), rank \(rank)")
        }
    }

    /// The ranks that share heads form one context rank: their rows, one rank after the other, are those it would own
    /// alone.
    @Test(arguments: seeds) func `divides a context rank's rows among those that share heads`(seed: UInt64) {
        var draw = SplitMix64(seed: seed)
        let configuration = Self.configuration(&draw)
        let plan = Self.plan(configuration.data, &draw)
        var single = configuration
        single.tensor = 1
        let (assignment, whole) = (RowAssignment(plan, configuration), RowAssignment(plan, single))
        for (rank, rows) in whole.rows.enumerated() {
            let sharing = assignment.rows[rank * configuration.tensor..<(rank + 1) * configuration.tensor]
            #expect(Array(sharing.joined()) == rows, "seed \(seed)")
            #expect(sharing.map(\.count).max()! - sharing.map(\.count).min()! <= 1, "seed \(seed)")
        }
    }

    @Test(arguments: seeds) func `lists every output once, beside its row`(seed: UInt64) {
        var draw = SplitMix64(seed: seed)
        let configuration = Self.configuration(&draw)
        let plan = Self.plan(configuration.data, &draw)
        let assignment = RowAssignment(plan, configuration)
        for (chunk, work) in plan.chunks.enumerated() {
            let outputs = assignment.outputs.joined().filter { $0.chunk == chunk }.sorted { $0.offset < $1.offset }
            #expect(outputs.map(\.offset) == work.outputRows, "seed \(seed), chunk \(chunk)")
            let targets = outputs.compactMap { output in
                output.target.map { StepPlan.ScoreRow(row: output.offset, target: $0) }
            }
            #expect(targets == work.score, "seed \(seed), chunk \(chunk)")
        }
        for (rows, outputs) in zip(assignment.rows, assignment.outputs) {
            #expect(outputs.map(\.row) == outputs.map(\.row).sorted(), "seed \(seed)")
            for output in outputs {
                let row = rows[output.row]
                #expect(row.chunk == output.chunk && row.offset == output.offset, "seed \(seed)")
            }
        }
    }

    /// The number of keys a row sees depends on its position alone.
    @Test(arguments: seeds) func `lets rows see as many keys as on one rank`(seed: UInt64) {
        var draw = SplitMix64(seed: seed)
        let configuration = Self.configuration(&draw)
        let plan = Self.plan(configuration.data, &draw)
        func visible(_ assignment: RowAssignment) -> [[Int]] {
            plan.chunks.indices.map { chunk in
                assignment.rows.joined().filter { $0.chunk == chunk }.map { plan.chunks[chunk].start + $0.offset + 1 }
                    .sorted()
            }
        }
        // One rank has only one data group.
        let alone = StepPlan(
            number: 0,
            chunks: plan.chunks.map { chunk in
                var chunk = chunk
                chunk.group = 0
                return chunk
            })
        #expect(
            visible(RowAssignment(plan, configuration)) == visible(RowAssignment(alone, ParallelConfiguration())),
            "seed \(seed)")
    }

    @Test func `assigns decode rows to context ranks alternately`() {
        let chunks = (0..<7).map {
            StepPlan.Chunk(
                request: $0, tokens: [1], start: 20, pages: [],
                sample: .init(parameters: SamplingParameters(), position: 21))
        }
        for strategy in PartitionStrategy.allCases {
            let assignment = RowAssignment(
                StepPlan(number: 0, chunks: chunks), ParallelConfiguration(context: 4, strategy: strategy))
            #expect(assignment.rows.map(\.count) == [2, 2, 2, 1])
            #expect(assignment.outputs.map(\.count) == [2, 2, 2, 1])
        }
    }

    /// If processes divide the keys, the cheaper of query-gather and key-gather attention is chosen for each chunk.
    @Test func `uses query-gather attention after many keys, and key-gather attention otherwise`() {
        var processSharding = ProcessKVSharding()
        (processSharding.keysPerRow, processSharding.pageSize, processSharding.gatheredPages, processSharding.rows) = (
            100, 16, 64, 1000
        )
        var parallel = ParallelConfiguration(context: 4)
        parallel.kvSharding = KVSharding(ranks: 4)
        func dcpChunks(_ chunks: [(start: Int, tokens: Int)]) -> Set<Int> {
            let plan = StepPlan(
                number: 0,
                chunks: chunks.enumerated().map { index, chunk in
                    let pages = (chunk.start + chunk.tokens + 15) / 16
                    return StepPlan.Chunk(
                        request: UInt64(index), tokens: Array(repeating: 0, count: chunk.tokens), start: chunk.start,
                        pages: (0..<pages).map { Int32(index * 100 + $0) })
                })
            return RowAssignment(plan, parallel, processSharding: processSharding).dcpChunks
        }
        #expect(dcpChunks([(0, 30), (100, 1), (101, 1), (400, 4), (401, 4)]) == [2, 4])
        // 64 pages can be gathered: the third chunk exceeds what is left, and the last one fits.
        #expect(dcpChunks([(0, 500), (100, 400), (0, 16), (0, 0)]) == [2])
        #expect(RowAssignment(StepPlan(number: 0, chunks: []), parallel).dcpChunks == [])
    }
}
