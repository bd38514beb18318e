import KVCache
import Parallelism
import Tensors

/// Integers that other ranks computed are checked before anything uses them as an index, because another process may
/// send any bits. A failed check ends the job with an error that names the sender.
extension Indices {
    /// Returns true if these are ascending entries below `visible`, all of which `owned` contains.
    func areAscending(below visible: Int, ownedBy owned: ShardPositions = .all) -> Bool {
        var before = -1
        for index in 0..<count {
            let entry = Int(self[index])
            guard entry > before, entry < visible, owned.contains(entry) else { return false }
            before = entry
        }
        return true
    }
}

extension Seat {
    /// Checks the selections of rows that the members of a group sent, member by member.
    ///
    /// - Parameters:
    ///   - selected: `[rows, topK]`, entries as bits; rows that see at most `topK` entries are not read.
    ///   - group: the page group of the key set that has the entries.
    ///   - counts: returns the number of rows that a member sent.
    /// - Throws: `GroupFailure` that names the member whose selection no row can have.
    func check(
        selected: View, of rows: Step.Rows, topK: Int, _ group: PageGroup, along axes: Axes, counts: (Int) -> Int
    ) throws(GroupFailure) {
        var row = 0
        for member in 0..<degree(axes) {
            let end = row + counts(member)
            defer { row = end }
            // This rank's own selections need no check.
            if member == place(along: axes) { continue }
            for row in row..<end {
                let visible = group.visibleEntries(at: Int(rows.positions[row]))
                if visible <= topK { continue }
                let entries = kernels.synchronize(selected.rows(row..<row + 1).integers)
                if entries.areAscending(below: visible) { continue }
                throw failure(
                    of: member, along: axes,
                    "it sent the selection of a row at position \(rows.positions[row]) that is not \(topK) ascending "
                        + "entries of 0..<\(visible)")
            }
        }
    }
}
