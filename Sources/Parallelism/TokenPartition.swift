/// Says how rows are assigned to context ranks. All three are bitwise equal; they differ in how even the work is.
package enum PartitionStrategy: String, Sendable, CaseIterable {
    /// Unit g of the batch is assigned to rank g mod N, which divides the work evenly for any mix of lengths.
    case interleaved = "interleave"
    /// Each request is cut into 2N blocks; rank r takes blocks r and 2N − 1 − r.
    case zigzag
    /// Rank r takes the r-th part of each request.
    case contiguous

    /// Returns the number of blocks into which a request is cut; `nil` if its units are assigned one by one.
    fileprivate func blocks(of ranks: Int) -> Int? {
        switch self {
        case .interleaved: nil
        case .zigzag: 2 * ranks
        case .contiguous: ranks
        }
    }
}

/// Says which rows of a step each rank of a context group computes. Every row has exactly one rank.
///
/// Positions may have to stay together in *units*, from a multiple of some number to the next: the tokens that one entry
/// of a key set stands for. Then all rows of a unit have one owner. A chunk may begin and end inside a unit.
package struct TokenPartition: Sendable, Equatable {
    /// Lists, for each rank, its units, ascending, each as the indices of its rows in the batch.
    package let units: [[Range<Int>]]

    /// Lists, for each rank, the indices of its rows in the batch, ascending.
    package var rows: [[Int]] { units.map { $0.flatMap { Array($0) } } }

    /// Assigns the rows of a batch whose requests have these positions, one after the other.
    ///
    /// Whatever the strategy, the units of a request with fewer units than there are blocks, such as one in decode, are
    /// assigned round-robin. Ranks may get unequal numbers of rows, or none.
    ///
    /// - Parameter unit: the number of consecutive positions that one rank owns together.
    package init(_ strategy: PartitionStrategy, _ requests: [Range<Int>], ranks: Int, unit: Int = 1) {
        precondition(
            ranks > 0 && unit > 0 && requests.allSatisfy { $0.lowerBound >= 0 },
            "positions \(requests) in units of \(unit) for \(ranks) ranks")
        var assigned = [[Range<Int>]](repeating: [], count: ranks)
        var first = 0
        var turn = 0
        for positions in requests {
            defer { first += positions.count }
            let units = Self.units(of: positions, unit).map {
                $0.lowerBound - positions.lowerBound + first..<$0.upperBound - positions.lowerBound + first
            }
            guard let blocks = strategy.blocks(of: ranks), units.count >= blocks else {
                // Round-robin continues over the whole batch: short requests begin at the rank after the last one's.
                for unit in units {
                    assigned[turn].append(unit)
                    turn = (turn + 1) % ranks
                }
                continue
            }
            for (block, range) in Self.cut(units.count, into: blocks).enumerated() {
                assigned[min(block, 2 * ranks - 1 - block)] += units[range]
            }
        }
        units = assigned
    }

    /// Assigns the rows of requests of these lengths, row by row.
    package init(_ strategy: PartitionStrategy, lengths: [Int], ranks: Int) {
        precondition(lengths.allSatisfy { $0 >= 0 }, "\(lengths) rows")
        self.init(strategy, lengths.map { 0..<$0 }, ranks: ranks)
    }

    /// Returns the units of each rank where so many ranks share heads and divide the units of a context rank. They own
    /// consecutive parts, so that gathering them restores the order.
    package func units(dividedBy tensor: Int) -> [[Range<Int>]] {
        units.flatMap { own in
            (0..<tensor).map { Array(own[Range(part: $0, of: tensor, among: own.count)]) }
        }
    }

    /// Cuts positions at the multiples of `unit`.
    private static func units(of positions: Range<Int>, _ unit: Int) -> [Range<Int>] {
        var units: [Range<Int>] = []
        var next = positions.lowerBound
        while next < positions.upperBound {
            let end = min((next / unit + 1) * unit, positions.upperBound)
            units.append(next..<end)
            next = end
        }
        return units
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
