import Foundation
import Parallelism
import Tensors
import TestSupport
import Testing

/// Checks what ranks leave behind when they end: a job starts new ones after a failure, and `verify` for every case.
@Suite(.timeLimit(.minutes(15))) struct `A world of ranks` {
    /// Runs every kind of operation once on some ranks.
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

    @Test func `of one process leaves nothing behind`() async throws {
        weak var world: ThreadWorld?
        weak var alarm: Alarm?
        for _ in 0..<3 {
            let ranks = ThreadWorld(threads: 3)
            try Self.use(ranks, ranks: 0..<3, of: 3)
            (world, alarm) = (ranks, ranks.alarm)
        }
        #expect(await eventually { world == nil && alarm == nil })
    }

    @Test func `of several processes leaves nothing behind once the next has begun`() async throws {
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
        // A rank's thread lets go of what it used only after it has delivered its result.
        for left in first { #expect(await eventually { left.world == nil && left.alarm == nil }) }
    }

    private struct Weak {
        weak var world: ProcessWorld?
        weak var alarm: Alarm?
    }

    @Test func `wakes waiting ranks although its alarm does not keep their counters alive`() throws {
        let world = ThreadWorld(threads: 2, cores: 0)
        // Many groups have existed and ended before.
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

@Suite(.timeLimit(.minutes(15))) struct `Memory of rows that are sent` {
    private static func gather(_ group: any ProcessGroup, rows: Int, _ scratch: Scratch) throws {
        let mark = scratch.mark()
        defer { scratch.reset(to: mark) }
        let counts = scratch.indices(group.size)
        counts.fill(Int32(rows))
        let part = scratch.rows(rows, 1024)
        part.fill(0)
        try group.run(.allGather(part: part, counts: counts, whole: scratch.rows(group.size * rows, 1024)))
    }

    @Test(arguments: World.all)
    func `is given back when small steps have followed a large one`(world: World) throws {
        let problems = try world.run(2) { member in
            let group = member.everybody(0)
            for _ in 0..<2 { try Self.gather(group, rows: 4096, member.scratch) }
            let large = group.sendBufferBytes
            // As in a layer, sizes differ, but none needs the memory of the large step.
            for round in 0..<1000 { try Self.gather(group, rows: 1 + round % 7, member.scratch) }
            let small = group.sendBufferBytes
            return large >= 32 << 20 && small <= 4 << 20 ? [] : ["\(large) bytes became \(small)"]
        }
        #expect(problems == [])
    }

    @Test func `stays where it is used`() throws {
        let problems = try World.inMemory[0].run(2) { member in
            let group = member.everybody(0)
            for round in 0..<1000 { try Self.gather(group, rows: round % 200 == 0 ? 1024 : 1, member.scratch) }
            let bytes = group.sendBufferBytes
            return bytes >= 4 << 20 ? [] : ["\(bytes) bytes are left"]
        }
        #expect(problems == [])
    }

    @Test func `that is not available is an error that names its size`() throws {
        let error = #expect(throws: MemoryError.self) { _ = try Scratch(reserving: 1 << 60) }
        #expect(error?.bytes == 1 << 60)
        #expect(error?.description.contains("\(1 << 60) bytes") ?? false)
        #expect(Buffer.problem(reserving: 1 << 60) == error)
        #expect(Buffer.problem(reserving: 1 << 20) == nil)
        let found = try onEveryRank(of: 2) { rank -> String in
            let group = ThreadWorld(threads: 2).group(of: rank, among: [0, 1], purpose: 0)
            let scratch = Scratch(bytes: 1 << 20)
            let counts = scratch.indices(2)
            counts.fill(1 << 30)
            // The rows are never read, because there is no memory to copy them to.
            let rows = unsafe View(UnsafeMutablePointer(bitPattern: 64)!, rows: 1 << 30, columns: 1 << 27)
            do {
                try group.start(.allGather(part: rows, counts: counts, whole: rows))
                return "started"
            } catch {
                return "\(error)"
            }
        }
        for (rank, error) in found.enumerated() {
            #expect(error.hasPrefix("rank \(rank) failed: no memory for rows to send"), "\(error)")
            #expect(error.contains("--chunked-prefill-size"))
        }
    }
}
