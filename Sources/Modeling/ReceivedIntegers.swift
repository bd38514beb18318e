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
            // This rank's own selections were checked when they came from another stage, or are its own work.
            if member == place(along: axes) { continue }
            for row in row..<end {
                let entries = selected.rows(row..<row + 1).integers
                guard let problem = problem(entries, at: Int(rows.positions[row]), topK: topK, group) else { continue }
                throw failure(of: member, along: axes, problem)
            }
        }
    }

    /// Checks the selections of own rows that the previous pipeline stage sent; the first stage has none of those.
    ///
    /// - Parameters:
    ///   - carried: `[rows, topK]` entries; those of rows that see at most `topK` entries are not read.
    ///   - group: the page group of the key set that has the entries.
    /// - Throws: `GroupFailure` that names the rank of the previous stage.
    func check(
        carried: ComputedIndices, of rows: Step.Rows, topK: Int, _ group: PageGroup
    ) throws(GroupFailure) {
        guard let sender = previousStageRank else { return }
        for row in 0..<rows.count {
            let entries = carried[row * topK..<(row + 1) * topK]
            guard let problem = problem(entries, at: Int(rows.positions[row]), topK: topK, group) else { continue }
            throw GroupFailure(rank: sender, reason: problem)
        }
    }

    /// Returns what is wrong with a row's selection; `nil` if nothing is.
    private func problem(_ entries: ComputedIndices, at position: Int, topK: Int, _ group: PageGroup) -> String? {
        let visible = group.visibleEntries(at: position)
        if visible <= topK || kernels.synchronize(entries).areAscending(below: visible) { return nil }
        return "it sent the selection of a row at position \(position) that is not \(topK) ascending entries of "
            + "0..<\(visible)"
    }
}
