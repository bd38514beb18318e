import Disaggregation
import KVCache
import Parallelism
import Tensors
import Testing

@Suite struct `A transfer plan` {
    /// Divisions of up to eight ranks among up to eight processes.
    private static let divisions: [CellServer.Division] =
        CellServer.Division.all + [
            CellServer.Division(parallel: ParallelConfiguration(data: 2, context: 2, tensor: 2), processes: 4),
            CellServer.Division(
                parallel: ParallelConfiguration(context: 2, tensor: 4, kvSharding: KVSharding(ranks: 4, unit: 2)),
                processes: 8, isSharded: true),
            CellServer.Division(
                parallel: ParallelConfiguration(context: 8, kvSharding: KVSharding(ranks: 8)), processes: 4,
                isSharded: true),
            CellServer.Division(
                parallel: ParallelConfiguration(data: 2, tensor: 4, kvSharding: KVSharding(ranks: 4)), processes: 4,
                isSharded: true),
            CellServer.Division(parallel: ParallelConfiguration(context: 2, tensor: 2, pipeline: 2), processes: 3),
        ]

    /// Returns whether a process keeps an entry, from the definition: it runs a rank of the stage and data group that
    /// owns the entry.
    private static func keeps(
        _ process: Int, _ entry: Int, _ set: KeySetID, group: Int, _ division: CellServer.Division, window: Bool
    ) -> Bool {
        let parallel = division.parallel
        let stage = set.layer == 0 ? 0 : parallel.pipeline - 1
        return Placement(ranks: parallel.world, processes: division.processes).ranks(of: process).contains { rank in
            let place = rank % parallel.stageRanks
            let owner = rank % parallel.kvSharding.ranks
            return rank / parallel.stageRanks == stage && place / (parallel.context * parallel.tensor) == group
                && (window || !division.isSharded || parallel.kvSharding.owner(of: entry) == owner)
        }
    }

    @Test func `sends every entry once to every process that keeps it, from one that keeps it`() {
        for source in Self.divisions {
            for target in Self.divisions {
                for window in [0, 5] {
                    let groups = (source.parallel.data - 1, target.parallel.data - 1)
                    let from = CellServer.placement(source, window: window, pageSize: 32)
                    let to = CellServer.placement(target, window: window, pageSize: 64)
                    let plan = TransferPlan(from: from, group: groups.0, to: to, group: groups.1, layers: 0..<3)
                    Self.check(plan, from, source, groups.0, to, target, groups.1)
                }
            }
        }
    }

    private static func check(
        _ plan: TransferPlan, _ from: CachePlacement, _ source: CellServer.Division, _ group: Int,
        _ to: CachePlacement, _ target: CellServer.Division, _ targetGroup: Int
    ) {
        let positions = 37..<331
        for set in from.format.sets {
            let isWindow = from.format[set].window != nil
            let tokens = from.format[set].tokensPerEntry
            // Entries whose last token is at one of the positions.
            let wanted = (0..<400).filter { positions.contains(($0 + 1) * tokens - 1) }
            for receiver in 0..<to.processes {
                let kept = wanted.filter { keeps(receiver, $0, set, group: targetGroup, target, window: isWindow) }
                var received: [Int] = []
                for sender in 0..<from.processes {
                    let entries = plan.entries(of: set, positions, from: sender, to: receiver)
                    received += entries
                    let isRight = entries.allSatisfy {
                        keeps(sender, $0, set, group: group, source, window: isWindow)
                            && plan.sender(of: $0, set, to: receiver) == sender
                    }
                    #expect(isRight, "process \(sender) of \(source) sends what it does not keep")
                    let layers = plan.layers(from: sender, to: receiver, isWindow: isWindow)
                    #expect(entries.isEmpty || layers.contains(set.layer), "\(source) to \(target)")
                }
                #expect(received.sorted() == kept, "\(source) to process \(receiver) of \(target), \(set)")
            }
        }
    }

    /// DeepSeek-V3.2 with an FP8 cache, its next-token block included: 61 + 1 layers of 788 bytes per token.
    @Test func `has the bytes of an example that was worked out by hand`() {
        let keys = KeySet(
            "keys",
            [
                KeySet.Lane(.fp8, width: 512, group: 128), KeySet.Lane(.bf16, width: 64),
                KeySet.Lane(.fp8, width: 128),
            ])
        #expect(keys.bytesPerEntry == 788)
        let layers = Array(repeating: [keys], count: 62)
        let source = CachePlacement(
            CacheFormat(layers: layers, pageSize: 64), ParallelConfiguration(pipeline: 2), processes: 2,
            stages: (0..<62).map { $0 / 31 }, isSharded: false)
        let target = CachePlacement(
            CacheFormat(layers: layers, pageSize: 16),
            ParallelConfiguration(tensor: 8, kvSharding: KVSharding(ranks: 8)), processes: 4,
            stages: (0..<62).map { _ in 0 }, isSharded: true)
        let plan = TransferPlan(from: source, group: 0, to: target, group: 0, layers: 0..<62)
        for sender in 0..<2 {
            for receiver in 0..<4 {
                #expect(plan.bytes(4096..<10_000, from: sender, to: receiver) == 36_055_728)
            }
        }
    }

    @Test func `shares the load of copies`() {
        let copies = CellServer.placement(CellServer.Division.all[2], window: 0, pageSize: 64)
        let one = CellServer.placement(CellServer.Division.all[0], window: 0, pageSize: 64)
        let plan = TransferPlan(from: copies, group: 0, to: one, group: 0, layers: 0..<3)
        #expect(plan.bytes(0..<1024, from: 0, to: 0) == plan.bytes(0..<1024, from: 1, to: 0))
        #expect(plan.bytes(0..<1024, from: 0, to: 0) == 512 * 3 * 8)
    }
}
