import Parallelism
import Tensors

/// Laws of rows that are copied between processes with memories of their own.
extension TransportLaws {
    /// Shares every member's rows: one member of each process receives each row bit by bit, and no other row.
    package static func share(_ seed: UInt64, rounds: Int, copies: Int) -> Law {
        { member in
            let group = member.everybody()
            return try repeated(rounds, seed, member) { draw in
                let (rowSeed, counts, columns) = (draw.next(), counts(group.size, &draw), 2 + draw.below(40))
                let part = rows(rowSeed, group.place, counts[group.place], columns, in: member.scratch)
                for row in 0..<part.rows { part.rows(row..<row + 1).integers[0] = Int32(row * 1000 + group.place) }
                let stored = Stored()
                let announced = member.scratch.indices(counts.count)
                announced.copy(counts.map { Int32($0) })
                try group.run(.share(part: part, counts: announced) { stored.add($0, rowSeed) })
                let everywhere = try all(stored.names, of: group, member.scratch)
                let wanted = counts.indices.flatMap { member in (0..<counts[member]).map { Int32($0 * 1000 + member) } }
                var problems = stored.problems
                if everywhere.sorted() != wanted.flatMap({ Array(repeating: $0, count: copies) }).sorted() {
                    problems.append("\(everywhere.count) rows were stored, not \(wanted.count) \(copies) times")
                }
                return problems
            }
        }
    }

    /// Delivers rows to some processes: one member of the right process receives each row bit by bit, and no other row.
    package static func deliver(_ seed: UInt64, rounds: Int) -> Law {
        { member in
            let group = member.everybody()
            let (place, leaders, size) = (group.place, group.leaders, group.size)
            return try repeated(rounds, seed, member) { draw in
                let (rowSeed, columns) = (draw.next(), 2 + draw.below(40))
                let drawn = (0..<size).map { _ in counts(size, &draw) }
                let matrix = drawn.enumerated().map { sender, row in
                    row.enumerated().map { leaders[$0] == $0 && leaders[sender] != $0 ? $1 : 0 }
                }
                let parts = rows(rowSeed, place, matrix[place].reduce(0, +), columns, in: member.scratch)
                for row in 0..<parts.rows { parts.rows(row..<row + 1).integers[0] = Int32(row * 1000 + place) }
                let (sent, arriving) = (member.scratch.indices(size), member.scratch.indices(size))
                sent.copy(matrix[place].map { Int32($0) })
                arriving.copy(matrix.map { Int32($0[leaders[place]]) })
                let stored = Stored()
                try group.run(
                    .deliver(parts: parts, counts: sent, arriving: arriving) { stored.add($0, rowSeed) })
                var problems = stored.problems
                for name in stored.names {
                    let (sender, row) = (Int(name) % 1000, Int(name) / 1000)
                    let first = matrix[sender][..<leaders[place]].reduce(0, +)
                    if !(first..<first + matrix[sender][leaders[place]]).contains(row) {
                        problems.append("row \(row) of member \(sender) is for another process than member \(place)'s")
                    }
                }
                let everywhere = try all(stored.names, of: group, member.scratch)
                let wanted = matrix.indices.flatMap { sender in
                    (0..<matrix[sender].reduce(0, +)).map { Int32($0 * 1000 + sender) }
                }
                if everywhere.sorted() != wanted.sorted() {
                    problems.append("\(everywhere.count) rows were stored, not each of \(wanted.count) once")
                }
                return problems
            }
        }
    }

    /// The rows that one member was asked to store.
    private final class Stored {
        var names: [Int32] = []
        var problems: [String] = []

        func add(_ rows: HostRows, _ rowSeed: UInt64) -> Bool {
            for row in 0..<rows.rows {
                let integers = (0..<rows.columns).map { rows.integer(row, $0) }
                let (place, number) = (Int(integers[0]) % 1000, Int(integers[0]) / 1000)
                names.append(integers[0])
                for column in 1..<rows.columns
                where UInt32(bitPattern: integers[column]) != bits(rowSeed, member: place, row: number, column) {
                    problems.append("row \(number) of member \(place) has other bits in column \(column)")
                }
            }
            return true
        }
    }

    /// Gathers the numbers of all members.
    private static func all(_ numbers: [Int32], of group: any ProcessGroup, _ scratch: Scratch) throws -> [Int32] {
        func gather(_ part: [Int32], _ counts: Indices) throws -> [Int32] {
            let mine = scratch.indices(part.count)
            mine.copy(part)
            let whole = scratch.rows((0..<counts.count).reduce(0) { $0 + Int(counts[$1]) }, 1)
            try group.run(.allGather(part: mine.bits(columns: 1), counts: counts, whole: whole))
            return whole.integers.elements
        }
        let (ones, counts) = (scratch.indices(group.size), scratch.indices(group.size))
        ones.fill(1)
        counts.copy(try gather([Int32(numbers.count)], ones))
        return try gather(numbers, counts)
    }
}
