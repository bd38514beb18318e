import Parallelism
import Tensors
import TestSupport
import Testing

/// What ranks leave behind when they have ended: a job starts new ones after a failure, and `verify` for every case.
@Suite(.timeLimit(.minutes(1))) struct `A world of ranks` {
    /// Every kind of operation once, on so many ranks.
    private static func use(_ world: any RankWorld, ranks: Range<Int>, of count: Int) throws {
        _ = try onEveryRank(of: ranks.count) { index in
            let rank = ranks.lowerBound + index
            let scratch = Scratch(bytes: 1 << 20)
            let group = world.group(of: rank, among: Array(0..<count), purpose: 1)
            let (part, counts) = (scratch.rows(3, 4), scratch.indices(count))
            part.fill(1)
            counts.fill(3)
            try group.run(.barrier)
            try group.run(.allGather(part: part, counts: counts, whole: scratch.rows(3 * count, 4)))
            if rank + 1 < count { try group.send(part) }
            if rank > 0 { try group.receive(into: part) }
        }
    }

    @Test func `of one process leaves nothing behind`() throws {
        weak var world: ThreadWorld?
        weak var alarm: Alarm?
        for _ in 0..<3 {
            let ranks = ThreadWorld(threads: 3)
            try Self.use(ranks, ranks: 0..<3, of: 3)
            (world, alarm) = (ranks, ranks.alarm)
        }
        #expect(world == nil && alarm == nil)
    }

    @Test func `of several processes leaves nothing behind once the next has begun`() throws {
        let transports = InMemoryTransport.network(2)
        defer { for transport in transports { transport.leave() } }
        let processes = transports.map { Processes($0) }
        let placement = Placement(ranks: 4, processes: 2)
        func run(epoch: UInt64) throws -> [Weak] {
            let worlds = processes.map { ProcessWorld($0, placement, epoch: epoch) }
            _ = try onEveryRank(of: 2) { process in
                try Self.use(worlds[process], ranks: placement.ranks(of: process), of: 4)
            }
            return worlds.map { Weak(world: $0, alarm: $0.alarm) }
        }
        let first = try run(epoch: 1)
        _ = try run(epoch: 2)
        for left in first { #expect(left.world == nil && left.alarm == nil) }
    }

    private struct Weak {
        weak var world: ProcessWorld?
        weak var alarm: Alarm?
    }

    @Test func `wakes those who wait though its alarm does not keep them`() throws {
        let world = ThreadWorld(threads: 2, cores: 0)
        // Many have come and gone.
        for purpose in 0..<100 { _ = world.group(of: 0, among: [0], purpose: purpose) }
        let found = try onEveryRank(of: 2) { rank -> String in
            let group = world.group(of: rank, among: [0, 1], purpose: 1000)
            if rank == 1 {
                world.alarm.raise(GroupFailure(rank: 1, reason: "made to fail"))
                return ""
            }
            do {
                try group.run(.barrier)
                return "met"
            } catch {
                return "\(error)"
            }
        }
        #expect(found[0] == "rank 1 failed: made to fail")
    }
}

