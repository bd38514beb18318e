package import Parallelism
package import Tensors

/// What the layers of a stage hand on for each own row: the residual stream, and beside it what later layers reuse, such as
/// the entries that an earlier layer has selected.
///
/// Pipeline stages carry all of it, so that a layer finds what it reuses wherever the stages are cut.
package struct LayerState {
    /// `[own rows, stateWidth + reused]`: what goes from stage to stage.
    package let carried: View
    private let stateWidth: Int

    /// - Parameters:
    ///   - stateWidth: elements of a row's residual stream.
    ///   - selected: entries that a layer selects for a row and later ones reuse; 0 where none does.
    package init(rows: Int, stateWidth: Int, selected: Int, _ seat: Seat) {
        carried = seat.scratch.rows(rows, stateWidth + selected)
        self.stateWidth = stateWidth
        if selected == 0 { return }
        // Stages carry it also before a layer has selected.
        keep(seat.kernels.zeros(rows * selected, seat.scratch), seat)
    }

    package var residual: Residual { Residual(stream: carried.columns(0..<stateWidth)) }

    /// Entries selected for each row.
    package var selectedCount: Int { carried.columns - stateWidth }

    /// Keeps what a layer has selected, `[own rows, selectedCount]`.
    package func keep(_ selected: ComputedIndices, _ seat: Seat) {
        seat.kernels.copyRows(
            selected.bits(columns: selectedCount), into: carried.columns(stateWidth..<carried.columns))
    }

    /// What an earlier layer has selected, `[own rows, selectedCount]`.
    package func selected(_ seat: Seat) -> ComputedIndices {
        let selected = seat.scratch.computed(carried.rows * selectedCount)
        seat.kernels.copyRows(
            carried.columns(stateWidth..<carried.columns), into: selected.bits(columns: selectedCount))
        return selected
    }
}
