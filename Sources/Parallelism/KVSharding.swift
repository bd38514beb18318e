package import Tensors

/// Which rank owns which keys (decode context parallelism): token t of a request belongs to rank `(t / unit) mod ranks`,
/// with its latent, rotary key and index key. Where a step's queries go to the keys, it attends to them; where processes
/// divide the memory for keys, its process keeps them.
package struct KVSharding: Sendable, Hashable {
    package let ranks: Int
    /// Consecutive tokens dealt together.
    package let unit: Int
    /// Queries go to the keys only where there are so many: fewer are looked at faster than queries travel.
    package let minKeys: Int

    package init(ranks: Int = 1, unit: Int = 1, minKeys: Int = 1024) {
        precondition(ranks > 0 && unit > 0 && minKeys >= 0, "\(ranks) ranks own runs of \(unit)")
        self.ranks = ranks
        self.unit = unit
        self.minKeys = minKeys
    }

    package func owner(of position: Int) -> Int { position / unit % ranks }

    /// How many of the first `count` positions a rank owns.
    package func count(of count: Int, for rank: Int) -> Int {
        let (cycles, rest) = count.quotientAndRemainder(dividingBy: ranks * unit)
        return cycles * unit + min(max(rest - rank * unit, 0), unit)
    }

    /// How many positions each rank owns of several requests together. Takes time that grows with the requests plus the
    /// ranks.
    ///
    /// - Parameter lengths: of each request its first so many positions.
    package func counts(of lengths: some Sequence<Int>) -> [Int] {
        // How many more a rank has than the one before it, beyond what all have.
        var (all, differences) = (0, [Int](repeating: 0, count: ranks + 1))
        for length in lengths {
            let (cycles, rest) = length.quotientAndRemainder(dividingBy: ranks * unit)
            let (full, part) = rest.quotientAndRemainder(dividingBy: unit)
            all += cycles * unit
            differences[0] += unit
            differences[full] += part - unit
            differences[full + 1] -= part
        }
        var more = 0
        return differences.dropLast().map { difference in
            more += difference
            return all + more
        }
    }

    /// The positions of one rank, as kernels see them.
    package func positions(of rank: Int) -> ShardPositions { ShardPositions(ranks: ranks, unit: unit, rank: rank) }

    /// Into how many classes of positions each softmax is cut so that every rank has whole ones: `ranks · unit` where
    /// that divides the eight classes in which attention is always computed. Otherwise `nil`: ranks then have parts of
    /// classes, and the result is equal to rounding only.
    package var classes: Int? { 8 % (ranks * unit) == 0 ? ranks * unit : nil }
}
