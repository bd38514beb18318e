package import Tensors

/// Assigns keys to ranks (decode context parallelism): token t of a request belongs to rank `(t / unit) mod ranks`,
/// with its latent, rotary key and index key. In query-gather attention that rank attends to the token's keys; with KV
/// shards, that rank's process stores them.
package struct KVSharding: Sendable, Hashable {
    package let ranks: Int
    /// The number of consecutive tokens in a run that one rank owns.
    package let unit: Int
    /// Query-gather attention needs at least this many keys: reading fewer keys costs less than moving queries.
    package let minKeys: Int

    package init(ranks: Int = 1, unit: Int = 1, minKeys: Int = 1024) {
        precondition(ranks > 0 && unit > 0 && minKeys >= 0, "\(ranks) ranks own runs of \(unit)")
        self.ranks = ranks
        self.unit = unit
        self.minKeys = minKeys
    }

    /// Returns the rank that owns a position.
    package func owner(of position: Int) -> Int { position / unit % ranks }

    /// Returns how many of the first `count` positions a rank owns.
    package func count(of count: Int, for rank: Int) -> Int {
        let (cycles, rest) = count.quotientAndRemainder(dividingBy: ranks * unit)
        return cycles * unit + min(max(rest - rank * unit, 0), unit)
    }

    /// Returns how many positions of several requests together each rank owns. It takes time proportional to the number
    /// of requests plus the number of ranks.
    ///
    /// - Parameter lengths: the number of positions of each request.
    package func counts(of lengths: some Sequence<Int>) -> [Int] {
        // Holds by how much a rank's count exceeds that of the previous rank, beyond what all ranks have.
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

    /// Returns the positions of one rank in the form that kernels take.
    package func positions(of rank: Int) -> ShardPositions { ShardPositions(ranks: ranks, unit: unit, rank: rank) }

    /// The number of position classes into which each softmax is split so that every rank has whole ones:
    /// `ranks · unit`, if that divides the eight classes in which attention is always computed. Otherwise it is `nil`:
    /// ranks then have parts of classes, and the result is only equal to rounding.
    package var classes: Int? { 8 % (ranks * unit) == 0 ? ranks * unit : nil }
}
