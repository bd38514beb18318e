/// A window exchange determines the window entries of one reach that the ranks of a data group send each other in a
/// step.
///
/// A rank stores the entries of its own rows. Another rank of the data group receives those that its rows of the same
/// step see, and all receive those that the next step may see (`CacheFormat.sharedWindows`). Where a request continues
/// from a cached prefix, all also receive the entries before it which only some have. Every rank knows the whole plan, so
/// senders and receivers agree without messages, and predicted bytes follow from the same rule.
package struct WindowExchange: Sendable {
    /// A run consists of consecutive positions of one chunk's request whose entries one rank has.
    package struct Run: Sendable, Equatable {
        /// The chunk's index in the plan.
        package let chunk: Int
        package var positions: Range<Int>

        package init(chunk: Int, _ positions: Range<Int>) { (self.chunk, self.positions) = (chunk, positions) }
    }

    private let reach: WindowReach
    /// The number of consecutive ranks of the group that share heads.
    private let tensor: Int
    /// The rows of each rank, in the order of the plan.
    private let runs: [[Run]]
    /// The entries of earlier steps that each rank sends to all others.
    private let earlier: [[Run]]
    /// The first position of each chunk of the group.
    private let starts: [Int: Int]
    /// The positions of each chunk that every rank receives.
    private let shared: [Int: [Range<Int>]]

    /// - Parameters:
    ///   - format: the cache format, which has key sets of this reach.
    ///   - runs: the rows of each rank of the group, in the order of the plan.
    ///   - earlier: the entries of earlier steps that each rank of the group sends to all others; empty if there are none.
    ///   - nextPosition: returns, for a chunk, the first position that the next step may compute.
    package init(
        _ reach: WindowReach, _ format: CacheFormat, runs: [[Run]], earlier: [[Run]] = [], tensor: Int,
        nextPosition: (_ chunk: Int) -> Int
    ) {
        self.reach = reach
        self.tensor = tensor
        self.runs = runs
        self.earlier = earlier.isEmpty ? runs.map { _ in [] } : earlier
        starts = runs.joined().reduce(into: [:]) {
            $0[$1.chunk] = min($0[$1.chunk] ?? .max, $1.positions.lowerBound)
        }
        shared = starts.keys.reduce(into: [:]) {
            $0[$1] = format.sharedWindows(reach, before: nextPosition($1))
        }
    }

    /// Returns, for each rank of the group, the entries that any of `receivers` needs from it: those of earlier steps, then
    /// those of its rows, in the order of the plan; none for the receivers themselves.
    package func sent(to receivers: some Sequence<Int>) -> [[Run]] {
        let receivers = Set(receivers)
        var needed = shared
        for reader in Set(receivers.flatMap(readers)) {
            for run in runs[reader] {
                if let seen = seen(by: run) { needed[run.chunk, default: []].append(seen) }
            }
        }
        needed = needed.mapValues(Self.merged)
        return runs.enumerated().map { rank, own in
            receivers.contains(rank)
                ? [] : earlier[rank] + own.flatMap { run in Self.parts(of: run, in: needed[run.chunk] ?? []) }
        }
    }

    /// The number of entries that each rank of the group receives from the others.
    package var receivedCounts: [Int] {
        runs.indices.map { receiver in sent(to: [receiver]).joined().reduce(0) { $0 + $1.positions.count } }
    }

    /// Returns the ranks whose rows a rank computes attention for: those that share heads. Entries of several tokens are
    /// made of own rows.
    private func readers(for rank: Int) -> Range<Int> {
        let first = rank - rank % tensor
        return reach.readEvery == 1 ? first..<first + tensor : rank..<rank + 1
    }

    /// Returns the positions of the step whose entries the rows of a run see; `nil` if none of the rows reads any.
    private func seen(by run: Run) -> Range<Int>? {
        let every = reach.readEvery
        let first = (run.positions.lowerBound + every) / every * every - 1
        let end = run.positions.upperBound / every * every
        guard first < end else { return nil }
        return max(starts[run.chunk]!, first - reach.tokens + 1)..<end
    }

    /// Returns the same positions as disjoint ranges in ascending order.
    private static func merged(_ ranges: [Range<Int>]) -> [Range<Int>] {
        var merged: [Range<Int>] = []
        for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) where !range.isEmpty {
            if let last = merged.last, range.lowerBound <= last.upperBound {
                merged[merged.count - 1] = last.lowerBound..<max(last.upperBound, range.upperBound)
            } else {
                merged.append(range)
            }
        }
        return merged
    }

    private static func parts(of run: Run, in ranges: [Range<Int>]) -> [Run] {
        // The first range that ends behind the start of the run.
        var (low, high) = (0, ranges.count)
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].upperBound <= run.positions.lowerBound { low = middle + 1 } else { high = middle }
        }
        return ranges[low...].prefix { $0.lowerBound < run.positions.upperBound }.map {
            Run(chunk: run.chunk, $0.clamped(to: run.positions))
        }
    }
}
