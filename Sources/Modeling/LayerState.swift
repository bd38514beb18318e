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
    package init(rows: Int, stateWidth: Int, selected: Int, _ scratch: Scratch) {
        carried = scratch.rows(rows, stateWidth + selected)
        // What is not selected is carried, too.
        carried.fill(0)
        self.stateWidth = stateWidth
    }

    package var residual: Residual { Residual(stream: carried.columns(0..<stateWidth)) }

    /// Entries selected for each row.
    package var selectedCount: Int { carried.columns - stateWidth }

    /// Keeps what a layer has selected, `[own rows, selectedCount]`.
    package func keep(_ selected: Indices) {
        carried.columns(stateWidth..<carried.columns).copy(selected.bits(columns: selectedCount))
    }

    /// What an earlier layer has selected, `[own rows, selectedCount]`.
    package func selected(_ scratch: Scratch) -> Indices {
        let selected = scratch.indices(carried.rows * selectedCount)
        selected.bits(columns: selectedCount).copy(carried.columns(stateWidth..<carried.columns))
        return selected
    }
}
