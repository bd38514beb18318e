package import KVCache
import Parallelism

/// The ranks that receive window entries.
///
/// A rank stores the entries of its own rows. Another rank of the data group receives those that its rows of the same
/// step see, and all receive those that the next step may see. Every rank knows the whole plan, so that senders and
/// receivers agree without messages.
extension RowAssignment {
    /// Returns which rows of a data group go from which rank to which other rank: for each sender and each receiver, by
    /// their places in the group, indices among the sender's rows, ascending.
    ///
    /// - Parameter format: the cache format, which has key sets of this reach.
    package func windowRows(ofGroup group: Int, _ reach: WindowReach, _ format: CacheFormat) -> [[[Int32]]] {
        let size = configuration.context * configuration.tensor
        let ranks = Array(rows[group * size..<(group + 1) * size])
        let places = WindowPlaces(plan, ranks)
        var sent = [[[Int32]]](repeating: [[Int32]](repeating: [], count: size), count: size)
        var shared = [Bool](repeating: false, count: places.owners.count)
        places.noteShared(plan, reach, format, in: &shared)
        for receiver in 0..<size {
            var needed = shared
            // Attended rows are those of the ranks that share heads; entries of several tokens are made of own rows.
            let first = receiver - receiver % configuration.tensor
            let readers = reach.readEvery == 1 ? first..<first + configuration.tensor : receiver..<receiver + 1
            for reader in readers { places.note(ranks[reader], plan, reach, in: &needed) }
            for (index, isNeeded) in needed.enumerated() where isNeeded {
                let owner = Int(places.owners[index])
                if owner >= 0, owner != receiver { sent[owner][receiver].append(places.rows[index]) }
            }
        }
        return sent
    }
}

/// The rows of a data group in the order of the plan, chunk by chunk.
private struct WindowPlaces {
    /// The index of the first row of each chunk; chunks of other data groups have no rows.
    private var first: [Int] = []
    /// The place of each row's owner in the group, and the row's index among the owner's rows.
    private(set) var owners: [Int32]
    private(set) var rows: [Int32]

    init(_ plan: StepPlan, _ ranks: [[RowAssignment.Row]]) {
        var sizes = [Int](repeating: 0, count: plan.chunks.count)
        for row in ranks.joined() { sizes[row.chunk] = plan.chunks[row.chunk].tokens.count }
        var count = 0
        for size in sizes {
            first.append(count)
            count += size
        }
        owners = Array(repeating: -1, count: count)
        rows = Array(repeating: -1, count: count)
        for (place, own) in ranks.enumerated() {
            for (index, row) in own.enumerated() {
                owners[first[row.chunk] + row.offset] = Int32(place)
                rows[first[row.chunk] + row.offset] = Int32(index)
            }
        }
    }

    /// Notes the rows of this step in the windows of some rows, which are in the order of the plan.
    func note(_ readers: [RowAssignment.Row], _ plan: StepPlan, _ reach: WindowReach, in needed: inout [Bool]) {
        var (chunk, next) = (-1, 0)
        for row in readers {
            if row.chunk != chunk { (chunk, next) = (row.chunk, 0) }
            guard reach.reads(at: plan.chunks[chunk].start + row.offset) else { continue }
            let seen = max(next, row.offset - reach.tokens + 1)
            if seen > row.offset { continue }
            for offset in seen...row.offset { needed[first[chunk] + offset] = true }
            next = row.offset + 1
        }
    }

    /// Notes the rows whose entries every rank receives.
    func noteShared(_ plan: StepPlan, _ reach: WindowReach, _ format: CacheFormat, in needed: inout [Bool]) {
        for (index, chunk) in plan.chunks.enumerated() {
            let count = (index + 1 < first.count ? first[index + 1] : owners.count) - first[index]
            if count == 0 { continue }
            // Rejected drafts are computed again.
            let end = chunk.start + count - chunk.drafts.count
            let shared = max(0, format.firstShared(reach, before: end) - chunk.start)
            if shared >= count { continue }
            for offset in shared..<count { needed[first[index] + offset] = true }
        }
    }
}
