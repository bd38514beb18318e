package import Tensors

/// What a process tells another that has a cache of its own: entries as they are stored, so that nothing is rounded
/// twice. A row is a slot, then the entries of a layer's lanes in that slot.
extension CacheStore {
    /// Columns of such a row.
    package func copyColumns(layer: Int) -> Int { lanes(of: layer).reduce(1) { $0 + $1.entryColumns } }

    /// Copies of a layer's entries.
    ///
    /// - Parameter rows: `[slots, copyColumns]`.
    package func copy(_ slots: Indices, layer: Int, into rows: View) {
        for index in 0..<slots.count {
            let row = rows.rows(index..<index + 1)
            row.integers[0] = slots[index]
            var column = 1
            for lane in lanes(of: layer) {
                lane.copyEntry(Int(slots[index]), into: row, column: column)
                column += lane.entryColumns
            }
        }
    }

    /// Stores copies made elsewhere.
    ///
    /// - Returns: whether they were rows of this layer and slots of this cache; nothing is written where not.
    package func store(_ rows: View, layer: Int) -> Bool {
        let lanes = lanes(of: layer)
        guard rows.columns == copyColumns(layer: layer), let entries = lanes.map(\.entries).min() else { return false }
        let slots = (0..<rows.rows).map { Int(rows.rows($0..<$0 + 1).integers[0]) }
        guard slots.allSatisfy({ (0..<entries).contains($0) }) else { return false }
        for (index, slot) in slots.enumerated() {
            var column = 1
            for lane in lanes {
                lane.setEntry(slot, from: rows.rows(index..<index + 1), column: column)
                column += lane.entryColumns
            }
        }
        return true
    }
}
