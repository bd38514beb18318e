import Foundation
package import Parallelism
package import Tensors

/// A collective that a member has started, and the check of its result.
package struct Flight {
    package let group: any ProcessGroup
    package let check: () -> [String]

    /// Finishes the collective and returns what is wrong with its result.
    package func land() throws -> [String] {
        try group.finish()
        return check()
    }
}

extension TransportLaws {
    /// Starts an all-gather of uneven parts, some of which are empty.
    package static func startAllGather(_ group: any ProcessGroup, _ draw: inout SplitMix64, _ scratch: Scratch) throws
        -> Flight
    {
        let (rowSeed, counts, columns) = (draw.next(), counts(group.size, &draw), 1 + draw.below(40))
        let part = rows(rowSeed, group.place, counts[group.place], columns, in: scratch)
        let announced = scratch.indices(group.size)
        announced.copy(counts.map { Int32($0) })
        let whole = scratch.rows(counts.reduce(0, +), columns)
        try group.start(.allGather(part: part, counts: announced, whole: whole))
        let (place, size) = (group.place, group.size)
        return Flight(group: group) {
            var next = 0
            var problems = difference(part, rowSeed, place).map { ["the part was changed: \($0)"] } ?? []
            for member in 0..<size {
                let arrived = whole.rows(next..<next + counts[member])
                if let found = difference(arrived, rowSeed, member) { problems.append("all-gather: \(found)") }
                next += counts[member]
            }
            return problems
        }
    }

    /// Starts an all-to-all of row blocks, with a random matrix of row counts.
    package static func startAllToAll(_ group: any ProcessGroup, _ draw: inout SplitMix64, _ scratch: Scratch) throws
        -> Flight
    {
        let (rowSeed, columns, size, place) = (draw.next(), 1 + draw.below(40), group.size, group.place)
        let matrix = (0..<size).map { _ in counts(size, &draw) }
        let parts = rows(rowSeed, place, matrix[place].reduce(0, +), columns, in: scratch)
        let (sentCounts, arriving) = (scratch.indices(size), scratch.indices(size))
        sentCounts.copy(matrix[place].map { Int32($0) })
        arriving.fill(-1)
        let count = matrix.reduce(0) { $0 + $1[place] }
        let spare = draw.below(4)
        let received = scratch.rows(count + spare, columns)
        received.fill(7)
        try group.start(.allToAll(parts: parts, counts: sentCounts, received: received, receivedCounts: arriving))
        return Flight(group: group) {
            var problems = difference(parts, rowSeed, place).map { ["the parts were changed: \($0)"] } ?? []
            if arriving.elements != matrix.map({ Int32($0[place]) }) {
                problems.append("received \(arriving.elements) rows, not \(matrix.map { $0[place] })")
            }
            var next = 0
            for member in 0..<size {
                let block = received.rows(next..<next + matrix[member][place])
                let before = matrix[member][..<place].reduce(0, +)
                if let found = difference(block, rowSeed, member, from: before) {
                    problems.append("all-to-all: \(found)")
                }
                next += block.rows
            }
            if received.rows(count..<count + spare).elements.contains(where: { $0 != 7 }) {
                problems.append("rows behind the received ones were written")
            }
            return problems
        }
    }

    package static func startBarrier(_ group: any ProcessGroup) throws -> Flight {
        try group.start(.barrier)
        return Flight(group: group) { [] }
    }

    /// Starts a random collective.
    package static func startAny(_ group: any ProcessGroup, _ draw: inout SplitMix64, _ scratch: Scratch) throws
        -> Flight
    {
        switch draw.below(5) {
        case 0: try startBarrier(group)
        case 1, 2: try startAllGather(group, &draw, scratch)
        default: try startAllToAll(group, &draw, scratch)
        }
    }

    /// Runs many all-gathers one after the other, with larger and smaller parts in alternation.
    package static func allGather(_ seed: UInt64, rounds: Int) -> Law {
        { member in
            let group = member.everybody()
            return try repeated(rounds, seed, member) { try startAllGather(group, &$0, member.scratch).land() }
        }
    }

    /// Runs many all-to-alls one after the other.
    package static func allToAll(_ seed: UInt64, rounds: Int) -> Law {
        { member in
            let group = member.everybody()
            return try repeated(rounds, seed, member) { try startAllToAll(group, &$0, member.scratch).land() }
        }
    }

    /// Delays members at random; between start and finish each one writes to its own scratch.
    package static func workBetween(_ seed: UInt64, rounds: Int) -> Law {
        { member in
            let group = member.everybody()
            return try repeated(rounds, seed, member) { draw in
                var own = SplitMix64(seed: draw.next() ^ UInt64(member.rank))
                let lazy = own.below(4)
                if lazy == 0 { Thread.sleep(forTimeInterval: Double(own.below(500)) * 1e-6) }
                let flight = try startAny(group, &draw, member.scratch)
                let work = rows(7, member.rank, own.below(60), 20, in: member.scratch)
                if lazy == 1 { Thread.sleep(forTimeInterval: Double(own.below(500)) * 1e-6) }
                var problems = try flight.land()
                if let found = difference(work, 7, member.rank) { problems.append("work in between: \(found)") }
                return problems
            }
        }
    }

    /// Runs collectives of several groups of the same ranks at the same time; every rank starts and finishes them in an
    /// order of its own.
    package static func severalGroups(_ seed: UInt64, rounds: Int) -> Law {
        { member in
            let (rank, all) = (member.rank, Array(0..<member.size))
            let memberships = [
                member.everybody(0), member.everybody(1), member.group(all.reversed(), 2),
                member.group(all.filter { $0 % 2 == rank % 2 }, 3), member.group(all.filter { $0 / 3 == rank / 3 }, 4),
            ]
            var own = SplitMix64(seed: seed ^ UInt64(rank) << 20)
            return try repeated(rounds, seed, member) { draw in
                let start = draw.next()
                let flights = try memberships.indices.shuffled(using: &own).map { number in
                    // A group's random numbers must not depend on the order.
                    var ofGroup = SplitMix64(seed: start &+ UInt64(number))
                    return try startAny(memberships[number], &ofGroup, member.scratch)
                }
                return try flights.shuffled(using: &own).flatMap { try $0.land() }
            }
        }
    }

    /// Runs all operations in random order.
    package static func anything(_ seed: UInt64, operations: Int) -> Law {
        { member in
            let groups = [member.everybody(0), member.everybody(1)]
            return try repeated(operations, seed, member) { draw in
                switch draw.below(4) {
                case 0: return try pass(groups[draw.below(2)], &draw, member.scratch)
                case 1:
                    let one = try startAny(groups[0], &draw, member.scratch)
                    let other = try startAny(groups[1], &draw, member.scratch)
                    return try one.land() + other.land()
                default: return try startAny(groups[draw.below(2)], &draw, member.scratch).land()
                }
            }
        }
    }

    /// Runs a number of rounds, each with scratch of its own, and returns the first problems.
    package static func repeated(
        _ rounds: Int, _ seed: UInt64, _ member: Member, _ body: (inout SplitMix64) throws -> [String]
    ) throws -> [String] {
        var draw = SplitMix64(seed: seed)
        var problems: [String] = []
        for round in 0..<rounds {
            let mark = member.scratch.mark()
            // A member continues after a problem, so that the others do not wait for it.
            problems += try body(&draw).map { "round \(round): \($0)" }
            member.scratch.reset(to: mark)
        }
        return Array(problems.prefix(3))
    }

    /// Checks that a barrier orders memory: every member writes a number to `shared` and finds the others' numbers
    /// after the barrier.
    package static func barrierOrdersMemory(_ shared: SharedNumbers, rounds: Int) -> Law {
        { member in
            let group = member.everybody()
            var problems: [String] = []
            for round in 0..<rounds {
                shared.numbers[member.rank] = Int32(round)
                try group.run(.barrier)
                for other in 0..<member.size where shared.numbers[other] != Int32(round) {
                    problems.append("round \(round): rank \(other) is seen in round \(shared.numbers[other])")
                }
                try group.run(.barrier)
            }
            return Array(problems.prefix(3))
        }
    }
}

/// Plain memory that threads share without synchronization of its own.
package final class SharedNumbers: @unchecked Sendable {
    private let scratch = Scratch(bytes: 1 << 16)
    package let numbers: Indices

    package init(_ count: Int) {
        numbers = scratch.indices(count)
        numbers.fill(0)
    }
}
