/// How rows are dealt over context ranks. All three give the same bits; they differ in who does how much.
package enum PartitionStrategy: String, Sendable, CaseIterable {
    /// Row g of the batch goes to rank g mod N: even work for any mix of lengths.
    case interleaved = "interleave"
    /// Each request is cut into 2N blocks; rank r takes blocks r and 2N − 1 − r.
    case zigzag
    /// Rank r takes the r-th part of each request.
    case contiguous

    /// Into how many blocks a request is cut; `nil` where its rows are dealt one by one.
    fileprivate func blocks(of ranks: Int) -> Int? {
        switch self {
        case .interleaved: nil
        case .zigzag: 2 * ranks
        case .contiguous: ranks
        }
    }
}

/// Which rows of a step each rank of a context group computes. Every row has exactly one rank.
package struct TokenPartition: Sendable, Equatable {
    /// For each rank the numbers of its rows in the batch, ascending.
    package let rows: [[Int]]

    /// Deals the rows of a batch whose requests have these lengths, one after the other.
    ///
    /// Requests with fewer rows than there are blocks, decoding ones above all, are dealt row by row in turn whatever
    /// the strategy. Ranks may get unequal numbers of rows, or none.
    package init(_ strategy: PartitionStrategy, lengths: [Int], ranks: Int) {
        precondition(ranks > 0 && lengths.allSatisfy { $0 >= 0 }, "\(lengths) rows for \(ranks) ranks")
        var rows = [[Int]](repeating: [], count: ranks)
        var first = 0
        var turn = 0
        for length in lengths {
            defer { first += length }
            guard let blocks = strategy.blocks(of: ranks), length >= blocks else {
                // Over the whole batch and not within a request: short requests fill up where the last one ended.
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

    /// Cuts `count` into consecutive parts, the first ones one longer where it does not divide.
    private static func cut(_ count: Int, into parts: Int) -> [Range<Int>] {
        let (size, longer) = count.quotientAndRemainder(dividingBy: parts)
        return (0..<parts).map { part in
            let start = part * size + min(part, longer)
            return start..<start + size + (part < longer ? 1 : 0)
        }
    }
}
