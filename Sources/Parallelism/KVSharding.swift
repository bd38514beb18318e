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

    /// The positions of one rank, as kernels see them.
    package func positions(of rank: Int) -> ShardPositions { ShardPositions(ranks: ranks, unit: unit, rank: rank) }

    /// Into how many classes of positions each softmax is cut so that every rank has whole ones: `ranks · unit` where
    /// that divides the eight classes in which attention is always computed. Otherwise `nil`: ranks then have parts of
    /// classes, and the result is equal to rounding only.
    package var classes: Int? { 8 % (ranks * unit) == 0 ? ranks * unit : nil }
}
