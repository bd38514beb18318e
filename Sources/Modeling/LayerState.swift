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
        // Stages send the selection even before a layer has selected, so it needs defined contents.
        keep(seat.kernels.zeros(rows * selected, seat.scratch), seat)
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
    package func selected(_ seat: Seat) -> ComputedIndices {
        let selected = seat.scratch.computed(carried.rows * selectedCount)
        seat.kernels.copyRows(selection, into: selected.bits(columns: selectedCount))
        return selected
    }
}
