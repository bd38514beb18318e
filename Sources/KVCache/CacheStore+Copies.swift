package import Tensors

/// What a process tells another that has a cache of its own: entries as they are stored, so that nothing is rounded
/// twice. A row is a slot, then the entries of a layer's lanes in that slot.
extension CacheStore {
    /// Columns of such a row; see also `CacheFormat.bytesPerCopy`.
    package func copyColumns(layer: Int) -> Int { lanes(of: layer).reduce(1) { $0 + $1.entryColumns } }

    /// Copies of a layer's entries.
    ///
    /// - Parameters:
    ///   - slots: kept here.
    ///   - names: the slots they are to be stored in; `slots` when `nil`.
    ///   - rows: `[slots, copyColumns]`.
    package func copy(_ slots: Indices, as names: Indices? = nil, layer: Int, into rows: View) {
        for index in 0..<slots.count {
            let row = rows.rows(index..<index + 1)
            row.integers[0] = (names ?? slots)[index]
            guard let entry = share.entry(of: Int(slots[index])) else {
                preconditionFailure("slot \(slots[index]) is not kept here")
            }
            var column = 1
            for lane in lanes(of: layer) {
                lane.copyEntry(entry, into: row, column: column)
                column += lane.entryColumns
            }
        }
    }

    /// Stores copies made elsewhere, those in slots that are kept here.
    ///
    /// - Parameter pages: by a page's number where it is here, for a cache of pages that visit; rows of others are left.
    /// - Returns: whether they were rows of this layer and slots of this cache; nothing is written where not.
    package func store(_ rows: View, layer: Int, pages places: [Int32: Int32]? = nil) -> Bool {
        guard rows.columns == copyColumns(layer: layer) else { return false }
        let slots = 0..<(places == nil ? pages * format.pageSize : .max)
        guard Self.slots(of: rows).allSatisfy(slots.contains) else { return false }
        for (row, slot) in Self.slots(of: rows).enumerated() {
            guard let entry = entry(of: slot, places) else { continue }
            var column = 1
            for lane in lanes(of: layer) {
                lane.setEntry(entry, from: rows.rows(row..<row + 1), column: column)
                column += lane.entryColumns
            }
        }
        return true
    }

    private func entry(of slot: Int, _ places: [Int32: Int32]?) -> Int? {
        guard let places else { return share.entry(of: slot) }
        let (page, token) = slot.quotientAndRemainder(dividingBy: format.pageSize)
        return places[Int32(page)].map { Int($0) * format.pageSize + token }
    }

    private static func slots(of rows: View) -> some Sequence<Int> {
        (0..<rows.rows).lazy.map { Int(rows.rows($0..<$0 + 1).integers[0]) }
    }
}

extension CacheFormat {
    /// Bytes of such a row.
    package func bytesPerCopy(layer: Int) -> Int {
        let word = MemoryLayout<Int32>.size
        return layers[layer].reduce(word) { $0 + ($1.bytes(forTokens: 1) + word - 1) / word * word }
    }
}
