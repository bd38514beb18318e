package import Tensors

/// What a process tells another that has a cache of its own: entries as they are stored, so that nothing is rounded
/// twice. A row is a slot, then what the entry in that slot has in each lane of a key set.
extension CacheStore {
    /// Columns of such a row; see also `CacheFormat.bytesPerCopy`.
    package func copyColumns(_ set: KeySetID) -> Int { lanes(of: set).reduce(1) { $0 + $1.entryColumns } }

    /// Copies entries of a key set.
    ///
    /// - Parameters:
    ///   - slots: kept here.
    ///   - names: the slots they are to be stored in; `slots` when `nil`.
    ///   - rows: `[slots, copyColumns]`.
    package func copy(
        _ slots: Indices, as names: Indices? = nil, _ set: KeySetID, into rows: View, _ kernels: Kernels,
        _ scratch: Scratch
    ) {
        let shard = shard(ofGroup: format.group(of: set))
        let entries = scratch.indices(slots.count)
        for index in 0..<slots.count {
            guard let entry = shard.entry(of: Int(slots[index])) else {
                preconditionFailure("slot \(slots[index]) is not kept here")
            }
            entries[index] = Int32(entry)
        }
        kernels.copyRows((names ?? slots).bits(columns: 1), into: rows.columns(0..<1))
        var column = 1
        for lane in lanes(of: set) {
            kernels.loadEntries(entries, of: lane, into: rows, column: column)
            column += lane.entryColumns
        }
    }

    /// Stores copies made elsewhere, those in slots that are kept here.
    ///
    /// - Parameter places: by a page's number where it is here, for a cache of gathered pages; rows of others are left.
    /// - Returns: whether they were rows of this key set and slots of this cache; nothing is written where not.
    package func store(_ rows: HostRows, _ set: KeySetID, pages places: [Int32: Int32]? = nil) -> Bool {
        guard rows.columns == copyColumns(set) else { return false }
        let group = format.group(of: set)
        let (shard, pageSize) = (shard(ofGroup: group), format.groups[group].entriesPerPage)
        let isWindow = format.groups[group].isWindow
        let slots = 0..<(places == nil ? (isWindow ? windowPages : pages) * pageSize : .max)
        var entries: [Int] = []
        entries.reserveCapacity(rows.rows)
        // Rows of a page come together.
        var (page, place) = (-1, Int32?.none)
        for row in 0..<rows.rows {
            let slot = Int(rows.integer(row, 0))
            guard slots.contains(slot) else { return false }
            if let places {
                if slot / pageSize != page {
                    page = slot / pageSize
                    place = places[Int32(page)]
                }
                entries.append(place.map { Int($0) * pageSize + slot % pageSize } ?? -1)
            } else {
                entries.append(shard.entry(of: slot) ?? -1)
            }
        }
        var column = 1
        for lane in lanes(of: set) {
            lane.setEntries(entries, from: rows, column: column)
            column += lane.entryColumns
        }
        return true
    }
}
