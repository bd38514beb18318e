import CAllocations
import Inference
import Modeling
import Models
import Parallelism
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(15))) struct `Ranks in a step` {
    private static let layouts = [
        ParallelConfiguration(), ParallelConfiguration(context: 4, expert: 4),
        ParallelConfiguration(tensor: 2, expert: 2, denseTensor: 2),
        ParallelConfiguration(context: 2, tensor: 2, expert: 4, exchange: .allToAll),
        ParallelConfiguration(context: 2, expert: 1, expertTensor: 2),
        ParallelConfiguration(context: 4, kvSharding: KVSharding(ranks: 4, minKeys: 1)),
        ParallelConfiguration(context: 2, tensor: 2, kvSharding: KVSharding(ranks: 4, minKeys: 1)),
        ParallelConfiguration(context: 2, pipeline: 2),
    ]

    /// Returns prefill chunks, then single tokens, of a prompt that is long enough to select keys.
    private static func run(_ pool: RankPool, _ golden: Golden) throws -> Int {
        var (start, step) = (0, 0)
        let count = golden.prompt.count
        while start < count {
            let end = start < count - 12 ? min(start + 16, count - 12) : start + 1
            let chunk = StepPlan.Chunk(
                request: 1, tokens: Array(golden.prompt[start..<end]), start: start,
                pages: (0..<Int32((end + 3) / 4)).map { 200 - $0 })
            _ = try pool.run(StepPlan(number: step, chunks: [chunk]))
            (start, step) = (end, step + 1)
        }
        return step
    }

    /// The last steps, in which every buffer has been used before.
    private static let warmSteps = 5

    private static func check(
        _ model: CountingModel, steps: Int, most: UInt64 = 0, _ layout: ParallelConfiguration
    ) {
        #expect(model.allocations.count == layout.world)
        for (rank, counts) in model.allocations.sorted(by: { $0.key < $1.key }) {
            #expect(counts.count == steps)
            #expect(counts.suffix(warmSteps).allSatisfy { $0 <= most }, "rank \(rank) of \(layout): \(counts)")
        }
    }

    @Test(.enabled(if: braid_counts_allocations()), arguments: layouts)
    func `allocate nothing on the heap inside the model`(layout: ParallelConfiguration) throws {
        let golden = try Golden("v32")
        let model = CountingModel(try golden.directory.load())
        let pool = RankPool(model, EngineConfiguration(smallCache: layout))
        let steps = try Self.run(pool, golden)
        pool.stop()
        Self.check(model, steps: steps, most: 0, layout)
    }

    @Test(.enabled(if: braid_counts_allocations()), arguments: layouts.filter { $0.world == 4 })
    func `allocate a few times a layer where they live in several processes`(layout: ParallelConfiguration) throws {
        let golden = try Golden("v32")
        let model = CountingModel(try golden.directory.load())
        let transports = InMemoryTransport.network(2)
        defer { for transport in transports { transport.leave() } }
        var configuration = EngineConfiguration(smallCache: layout)
        configuration.processes = 2
        let steps = try onEveryRank(of: 2) { [configuration] process -> Int in
            let processes = Processes(transports[process])
            guard process == 0 else {
                try RankFollower(model, processes).run()
                return 0
            }
            defer { RankFollower.dismiss(processes) }
            let pool = RankPool(model, configuration, processes: processes)
            defer { pool.stop() }
            return try Self.run(pool, golden)
        }[0]
        // Copies of keys for other processes need lists of entries, and a closure that stores them.
        Self.check(model, steps: steps, most: UInt64(4 * model.parallelShape.layers), layout)
    }
}
