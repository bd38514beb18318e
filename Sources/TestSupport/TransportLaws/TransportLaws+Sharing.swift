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
