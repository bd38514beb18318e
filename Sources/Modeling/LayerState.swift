package import KVCache
package import Parallelism
package import Tensors

/// The state of own rows between layers: the residual stream, and beside it the entries that an earlier layer selected
/// and later layers reuse.
///
/// Pipeline stages send all of it, so a layer finds what it reuses wherever the layers are cut into stages.
package struct LayerState {
    /// The state that one stage sends to the next, `[own rows, stateWidth + selectedCount]`.
    package let carried: View
    private let stateWidth: Int
    /// True if the rows' selection was made before, so that layers with an indexer reuse it, too.
    package let isSelected: Bool

    /// Creates a state in scratch.
    ///
    /// - Parameters:
    ///   - stateWidth: the number of elements of a row's residual stream.
    ///   - selected: the number of entries that a layer selects for a row and later ones reuse; 0 if none does.
    ///   - isSelected: true if the caller puts in a selection that all layers reuse.
    package init(rows: Int, stateWidth: Int, selected: Int, isSelected: Bool = false, _ seat: Seat) {
        self.isSelected = isSelected
        carried = seat.scratch.rows(rows, stateWidth + selected)
        self.stateWidth = stateWidth
        if selected == 0 { return }
        keep(Self.firstEntries(selected, rows: rows, seat), seat)
    }

    /// Returns for each row the first `count` entries, `[rows, count]`. Rows that do not select have these, because
    /// stages send the selections of all rows, and because a row at a later position may reuse them.
    package static func firstEntries(_ count: Int, rows: Int, _ seat: Seat) -> ComputedIndices {
        let entries = seat.scratch.indices(count)
        for entry in 0..<count { entries[entry] = Int32(entry) }
        let all = seat.scratch.computed(rows * count)
        if rows == 0 { return all }
        seat.kernels.copyRows(
            entries.bits(columns: count), xRows: seat.kernels.zeros(rows, seat.scratch), into: all.bits(columns: count))
        return all
    }

    package var residual: Residual { Residual(stream: carried.columns(0..<stateWidth)) }

    /// The part of `carried` that has the selection, as bits.
    package var selection: View { carried.columns(stateWidth..<carried.columns) }

    /// The number of entries that are kept for each row.
    package var selectedCount: Int { carried.columns - stateWidth }

    /// Keeps the entries that a layer has selected, `[own rows, selectedCount]`.
    package func keep(_ selected: ComputedIndices, _ seat: Seat) {
        seat.kernels.copyRows(selected.bits(columns: selectedCount), into: selection)
    }

    /// Returns the entries that an earlier layer has selected, `[own rows, selectedCount]`.
    ///
    /// - Parameter set: the set whose entries they are, or one with as many tokens for each entry.
    /// - Throws: `GroupFailure` that names the previous stage's rank if it sent a selection that no row can have.
    package func selected(of set: KeySetID, _ step: Step, _ seat: Seat) throws(GroupFailure) -> ComputedIndices {
        let selected = seat.scratch.computed(carried.rows * selectedCount)
        seat.kernels.copyRows(selection, into: selected.bits(columns: selectedCount))
        try seat.check(carried: selected, of: step.own, topK: selectedCount, step.group(of: set).group)
        return selected
    }
}
