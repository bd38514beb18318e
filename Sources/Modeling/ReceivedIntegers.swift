import KVCache
import Parallelism
import Tensors

/// Checks of integers that other ranks have computed, before anything uses them as an index: another process may send
/// any bits. What fails ends the job in the name of the rank that sent it.
extension Indices {
    /// Whether these are ascending entries below `visible`, all of them in a shard.
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
    /// Checks the selections of rows that came from the members of a group, one member's after the other's.
    ///
    /// - Parameters:
    ///   - selected: `[rows, topK]`, entries as bits; of rows that see no more than `topK` entries nothing is read.
    ///   - group: of the key set that has the entries.
    ///   - counts: how many of the rows each member sent.
    /// - Throws: `GroupFailure` in the name of the member whose selection no row can have.
    func check(
        selected: View, of rows: Step.Rows, topK: Int, _ group: PageGroup, along axes: Axes, counts: (Int) -> Int
    ) throws(GroupFailure) {
        var row = 0
        for member in 0..<degree(axes) {
            let end = row + counts(member)
            defer { row = end }
            // What this rank selected itself is right.
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
