import Parallelism
import Tensors

/// Checks of integers that other ranks have computed, before anything uses them as an index: another process may send
/// any bits. What fails ends the job in the name of the rank that sent it.
extension Indices {
    /// Whether these are ascending positions of `0 ... last`, all of them in a shard.
    func areAscendingPositions(upTo last: Int, ownedBy owned: ShardPositions = .all) -> Bool {
        var before = -1
        for index in 0..<count {
            let position = Int(self[index])
            guard position > before, position <= last, owned.contains(position) else { return false }
            before = position
        }
        return true
    }
}

extension Seat {
    /// Checks the selections of rows that came from the members of a group, one member's after the other's.
    ///
    /// - Parameters:
    ///   - selected: `[rows, topK]`, positions as bits; of rows that see no more than `topK` keys nothing is read.
    ///   - counts: how many of the rows each member sent.
    /// - Throws: `GroupFailure` in the name of the member whose selection no row can have.
    func check(
        selected: View, of rows: Step.Rows, topK: Int, along axes: Axes, counts: (Int) -> Int
    ) throws(GroupFailure) {
        var row = 0
        for member in 0..<degree(axes) {
            let end = row + counts(member)
            defer { row = end }
            // What this rank selected itself is right.
            if member == place(along: axes) { continue }
            for row in row..<end where rows.positions[row] >= topK {
                let position = Int(rows.positions[row])
                let keys = kernels.synchronize(selected.rows(row..<row + 1).integers)
                if keys.areAscendingPositions(upTo: position) { continue }
                throw failure(
                    of: member, along: axes,
                    "it sent the selection of a row at position \(position) that is not \(topK) ascending positions of "
                        + "0...\(position)")
            }
        }
    }
}
