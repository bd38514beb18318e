import Parallelism
import Testing

@Suite struct `A token partition` {
    static let degrees = [1, 2, 3, 4, 5, 8, 16]

    /// Lists every total from nothing to four rounds of the largest degree, in one request and in several.
    static func batches(_ ranks: Int) -> [[Int]] {
        var batches: [[Int]] = []
        for total in 0...4 * ranks * ranks where total < 40 || total % 7 == 0 {
            batches += [[total], [1, total], [total, 0, ranks, 2 * ranks + 1]]
        }
        return batches
    }

    @Test(arguments: PartitionStrategy.allCases, degrees)
    func `gives every row to exactly one rank, ascending`(strategy: PartitionStrategy, ranks: Int) {
        for lengths in Self.batches(ranks) {
            let rows = TokenPartition(strategy, lengths: lengths, ranks: ranks).rows
            #expect(rows.count == ranks)
            #expect(rows.joined().sorted() == Array(0..<lengths.reduce(0, +)), "\(lengths)")
            #expect(rows.allSatisfy { $0 == $0.sorted() }, "\(lengths)")
        }
    }

    @Test(arguments: degrees)
    func `interleaved evens out the number of rows to within one`(ranks: Int) {
        for lengths in Self.batches(ranks) {
            let counts = TokenPartition(.interleaved, lengths: lengths, ranks: ranks).rows.map(\.count)
            #expect(counts.max()! - counts.min()! <= 1, "\(lengths)")
        }
    }

    /// A row at position p of a prompt scores p + 1 keys, so that is its work.
    @Test(arguments: degrees.filter { $0 > 1 })
    func `zigzag evens out the causal work of one prompt to within a few rows of keys`(ranks: Int) {
        for length in [2 * ranks, 1000, 4099] {
            let work = TokenPartition(.zigzag, lengths: [length], ranks: ranks).rows
                .map { rows in rows.reduce(0) { $0 + $1 + 1 } }
            #expect(work.max()! - work.min()! <= 2 * length, "\(length)")
            let contiguous = TokenPartition(.contiguous, lengths: [length], ranks: ranks).rows
                .map { rows in rows.reduce(0) { $0 + $1 + 1 } }
            if length > 8 * ranks { #expect(contiguous.max()! > work.max()!, "\(length)") }
        }
    }

    @Test func `the worked examples`() {
        // Two requests of 6 and 5 rows are assigned round-robin to 4 ranks, continuing over the boundary.
        #expect(
            TokenPartition(.interleaved, lengths: [6, 5], ranks: 4).rows
                == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7]])
        // Ten rows are assigned to 2 ranks in blocks of 3, 3, 2, 2.
        #expect(TokenPartition(.zigzag, lengths: [10], ranks: 2).rows == [[0, 1, 2, 8, 9], [3, 4, 5, 6, 7]])
        #expect(TokenPartition(.contiguous, lengths: [3, 2], ranks: 2).rows == [[0, 1, 3], [2, 4]])
        // Positions 3, 4..<8, 8..<12 and 12.
        #expect(
            TokenPartition(.interleaved, [3..<13], ranks: 2, unit: 4).units == [[0..<1, 5..<9], [1..<5, 9..<10]])
        #expect(
            TokenPartition(.zigzag, [3..<13], ranks: 2, unit: 4).rows == [[0, 9], [1, 2, 3, 4, 5, 6, 7, 8]])
    }
}

@Suite struct `An edge` {
    private static let split = Layout(rows: [.data, .context])

    @Test func `derives the collective from the two layouts`() {
        #expect(Edge("", from: Self.split, to: Layout(rows: .data)).move == .allGather(.context))
        #expect(Edge("", from: Self.split, to: Layout()).move == .allGather([.data, .context]))
        let owed = Edge("", from: Layout(rows: [.data, .context], owes: .tensor), to: Layout(rows: .stage))
        #expect(owed.move == .reduceScatter(.tensor))
        #expect(owed.axes == .tensor)
        #expect(Edge("", from: Self.split, to: Self.split).move == .nothing)
        #expect(Edge("", from: Self.split, to: Self.split).axes == [])
    }

    @Test func `that no single collective implements is a mistake`() async {
        await #expect(processExitsWith: .failure) {
            _ = Edge("", from: Layout(rows: .data), to: Layout(rows: .context))
        }
        await #expect(processExitsWith: .failure) {
            _ = Edge("", from: Layout(owes: .tensor), to: Layout(rows: .context))
        }
        await #expect(processExitsWith: .failure) { _ = Layout(rows: .tensor, owes: .tensor) }
    }
}

@Suite struct `A mesh` {
    @Test func `numbers ranks with the last axis fastest`() {
        let mesh = Mesh([.context: 2, .tensor: 2, .pipeline: 3])
        #expect(mesh.world == 12)
        #expect(mesh.group(of: 3, along: .tensor) == [2, 3])
        #expect(mesh.group(of: 3, along: .context) == [1, 3])
        #expect(mesh.group(of: 3, along: .pipeline) == [3, 7, 11])
        #expect(mesh.group(of: 3, along: .data) == [3])
        #expect(mesh.group(of: 3, along: .stage) == [0, 1, 2, 3])
        #expect(mesh.group(of: 7, along: [.context, .pipeline]) == [1, 3, 5, 7, 9, 11])
        for rank in 0..<mesh.world {
            for axis in Axis.allCases {
                let group = mesh.group(of: rank, along: Axes(axis))
                #expect(group[mesh.coordinate(of: rank, on: axis)] == rank)
            }
        }
    }
}
