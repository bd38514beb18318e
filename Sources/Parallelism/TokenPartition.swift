/// Says how rows are assigned to context ranks. All three are bitwise equal; they differ in how even the work is.
package enum PartitionStrategy: String, Sendable, CaseIterable {
    /// Row g of the batch is assigned to rank g mod N, which divides the work evenly for any mix of lengths.
    case interleaved = "interleave"
    /// Each request is cut into 2N blocks; rank r takes blocks r and 2N − 1 − r.
    case zigzag
    /// Rank r takes the r-th part of each request.
    case contiguous

    /// Returns the number of blocks into which a request is cut; `nil` if its rows are assigned one by one.
    fileprivate func blocks(of ranks: Int) -> Int? {
        switch self {
        case .interleaved: nil
        case .zigzag: 2 * ranks
        case .contiguous: ranks
        }
    }
}

/// Says which rows of a step each rank of a context group computes. Every row has exactly one rank.
package struct TokenPartition: Sendable, Equatable {
    /// Lists, for each rank, the indices of its rows in the batch, ascending.
    package let rows: [[Int]]

    /// Assigns the rows of a batch whose requests have these lengths, one after the other.
    ///
    /// Whatever the strategy, the rows of a request with fewer rows than there are blocks, such as one in decode, are
    /// assigned round-robin. Ranks may get unequal numbers of rows, or none.
    package init(_ strategy: PartitionStrategy, lengths: [Int], ranks: Int) {
        precondition(ranks > 0 && lengths.allSatisfy { $0 >= 0 }, "\(lengths) rows for \(ranks) ranks")
        var rows = [[Int]](repeating: [], count: ranks)
        var first = 0
        var turn = 0
        for length in lengths {
            defer { first += length }
            guard let blocks = strategy.blocks(of: ranks), length >= blocks else {
                // Round-robin continues over the whole batch: short requests begin at the rank after the last one's.
                for row in first..<first + length {
                    rows[turn].append(row)
                    turn = (turn + 1) % ranks
                }
                continue
            }
            for (block, range) in Self.cut(length, into: blocks).enumerated() {
                rows[min(block, 2 * ranks - 1 - block)] += range.map { first + $0 }
            }
        }
        self.rows = rows
    }

    /// Cuts `count` into consecutive parts; the first ones are one longer if it does not divide.
    private static func cut(_ count: Int, into parts: Int) -> [Range<Int>] {
        let (size, longer) = count.quotientAndRemainder(dividingBy: parts)
        return (0..<parts).map { part in
            let start = part * size + min(part, longer)
            return start..<start + size + (part < longer ? 1 : 0)
        }
    }
}
