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
    package func copy(
        _ slots: Indices, as names: Indices? = nil, layer: Int, into rows: View, _ kernels: Kernels, _ scratch: Scratch
    ) {
        let entries = scratch.indices(slots.count)
        for index in 0..<slots.count {
            guard let entry = share.entry(of: Int(slots[index])) else {
                preconditionFailure("slot \(slots[index]) is not kept here")
            }
            entries[index] = Int32(entry)
        }
        kernels.copyRows((names ?? slots).bits(columns: 1), into: rows.columns(0..<1))
        var column = 1
        for lane in lanes(of: layer) {
            kernels.loadEntries(entries, of: lane, into: rows, column: column)
            column += lane.entryColumns
        }
    }

    /// Stores copies made elsewhere, those in slots that are kept here.
    ///
    /// - Parameter pages: by a page's number where it is here, for a cache of pages that visit; rows of others are left.
    /// - Returns: whether they were rows of this layer and slots of this cache; nothing is written where not.
    package func store(_ rows: HostRows, layer: Int, pages places: [Int32: Int32]? = nil) -> Bool {
        guard rows.columns == copyColumns(layer: layer) else { return false }
        let slots = 0..<(places == nil ? pages * format.pageSize : .max)
        var entries: [Int] = []
        entries.reserveCapacity(rows.rows)
        // Rows of a page come together.
        var (page, place) = (-1, Int32?.none)
        for row in 0..<rows.rows {
            let slot = Int(rows.integer(row, 0))
            guard slots.contains(slot) else { return false }
            if let places {
                if slot / format.pageSize != page {
                    page = slot / format.pageSize
                    place = places[Int32(page)]
                }
                entries.append(place.map { Int($0) * format.pageSize + slot % format.pageSize } ?? -1)
            } else {
                entries.append(share.entry(of: slot) ?? -1)
            }
        }
        var column = 1
        for lane in lanes(of: layer) {
            lane.setEntries(entries, from: rows, column: column)
            column += lane.entryColumns
        }
        return true
    }
}

extension CacheFormat {
    /// Bytes of such a row.
    package func bytesPerCopy(layer: Int) -> Int {
        let word = MemoryLayout<Int32>.size
        return layers[layer].reduce(word) { $0 + ($1.bytes(forTokens: 1) + word - 1) / word * word }
    }
}
