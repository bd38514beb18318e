import Parallelism
import TestSupport
import Testing

/// Checks what every strategy guarantees for every total, degree and mix of requests.
@Suite(.timeLimit(.minutes(15))) struct `Every partition strategy` {
    static let seed = UInt64.random(in: 0 ... .max)

    /// Draws, for every total from 1 to four squares of the degree, up to four requests, some of them empty.
    static func eachBatch(_ ranks: Int, _ body: ([Int]) -> Void) {
        var draw = SplitMix64(seed: seed)
        for total in 1...4 * ranks * ranks {
            for requests in 1...4 {
                let ends = (1..<requests).map { _ in draw.below(total + 1) }.sorted() + [total]
                body(zip([0] + ends, ends).map { $1 - $0 })
            }
        }
    }

    @Test(arguments: PartitionStrategy.allCases, 1...8)
    func `has every row once, and its counts add up`(strategy: PartitionStrategy, ranks: Int) {
        var problems: [[Int]] = []
        Self.eachBatch(ranks) { lengths in
            let partition = TokenPartition(strategy, lengths: lengths, ranks: ranks)
            let total = lengths.reduce(0, +)
            let gathered = partition.rows.flatMap { $0 }
            let isWhole = gathered.sorted() == Array(0..<total) && partition.rows.map(\.count).reduce(0, +) == total
            // The same holds for each request.
            var first = 0
            let addsUp = lengths.allSatisfy { length in
                defer { first += length }
                let own = partition.rows.map { $0.count { (first..<first + length).contains($0) } }
                return own.reduce(0, +) == length
            }
            if !isWhole || !addsUp { problems.append(lengths) }
        }
        #expect(problems == [], "seed \(Self.seed)")
    }

    /// Round-robin assignment evens out the whole batch; blocks even out each request, and requests too short for
    /// blocks together.
    @Test(arguments: PartitionStrategy.allCases, 1...8)
    func `gives ranks nearly equal numbers of rows`(strategy: PartitionStrategy, ranks: Int) {
        var problems: [[Int]] = []
        Self.eachBatch(ranks) { lengths in
            let counts = TokenPartition(strategy, lengths: lengths, ranks: ranks).rows.map(\.count)
            let blocks = strategy == .zigzag ? 2 * ranks : ranks
            let cut = lengths.count { $0 >= blocks }
            let most = strategy == .interleaved ? 1 : cut + (cut < lengths.count ? 1 : 0)
            if counts.max()! - counts.min()! > most { problems.append(lengths) }
        }
        #expect(problems == [], "seed \(Self.seed)")
    }

    /// Of request i, which begins at row s, rank c is assigned
    /// `⌊(s + len − c + N − 1)/N⌋ − ⌊(s − c + N − 1)/N⌋` rows.
    @Test(arguments: 1...8) func `counts interleaved rows as the floor formula does`(ranks: Int) {
        var problems: [[Int]] = []
        Self.eachBatch(ranks) { lengths in
            let rows = TokenPartition(.interleaved, lengths: lengths, ranks: ranks).rows
            var first = 0
            for length in lengths {
                for rank in 0..<ranks {
                    let before = (first - rank + ranks - 1) / ranks
                    let until = (first + length - rank + ranks - 1) / ranks
                    let own = rows[rank].filter { (first..<first + length).contains($0) }
                    if own.count != until - before || !own.allSatisfy({ $0 % ranks == rank }) {
                        problems.append(lengths)
                    }
                }
                first += length
            }
        }
        #expect(problems == [], "seed \(Self.seed)")
    }

    /// Chunks may begin and end inside a unit.
    @Test(arguments: PartitionStrategy.allCases, [2, 3, 8])
    func `leaves the positions of a unit to one rank`(strategy: PartitionStrategy, ranks: Int) {
        var draw = SplitMix64(seed: Self.seed)
        for _ in 0..<300 {
            let unit = 1 << draw.below(6)
            let requests = (0..<1 + draw.below(4)).map { _ in
                let start = draw.below(3 * unit)
                return start..<start + draw.below(5 * ranks * unit)
            }
            let partition = TokenPartition(strategy, requests, ranks: ranks, unit: unit)
            let total = requests.reduce(0) { $0 + $1.count }
            #expect(partition.rows.flatMap { $0 }.sorted() == Array(0..<total), "seed \(Self.seed)")
            #expect(partition.rows.allSatisfy { $0 == $0.sorted() }, "seed \(Self.seed)")
            var owners: [[Int]: Set<Int>] = [:]
            for (rank, rows) in partition.rows.enumerated() {
                for row in rows {
                    var (first, request) = (0, 0)
                    while row >= first + requests[request].count {
                        first += requests[request].count
                        request += 1
                    }
                    let position = requests[request].lowerBound + row - first
                    owners[[request, position / unit], default: []].insert(rank)
                }
            }
            #expect(owners.values.allSatisfy { $0.count == 1 }, "seed \(Self.seed), units of \(unit): \(requests)")
        }
    }

    /// A row attends to itself and the rows before it, so that is its work; zigzag assigns blocks of rows.
    @Test(arguments: 1...8) func `evens out causal work by zigzag to within a block`(ranks: Int) {
        for length in 2 * ranks...max(4 * ranks * ranks, 2 * ranks + 1) {
            let work = TokenPartition(.zigzag, lengths: [length], ranks: ranks).rows
                .map { rows in rows.reduce(0) { $0 + $1 + 1 } }
            let block = (length + 2 * ranks - 1) / (2 * ranks)
            #expect(work.max()! - work.min()! <= block * length, "\(length) rows")
            // The bound is even two rows, and the work is equal if all blocks are.
            #expect(work.max()! - work.min()! <= 2 * length, "\(length) rows")
            if length % (2 * ranks) == 0 { #expect(work.max()! == work.min()!, "\(length) rows") }
        }
    }
}
