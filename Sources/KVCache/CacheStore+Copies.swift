package import Tensors

/// Processes with caches of their own send each other entries in the form in which they are stored, so that nothing is
/// rounded twice. A copy is a row: the entry's slot, then its words in each lane of a key set.
extension CacheStore {
    /// Returns the number of columns of a row that holds a copy of an entry. `CacheFormat.bytesPerCopy` is the same in
    /// bytes.
    package func copyColumns(_ set: KeySetID) -> Int { lanes(of: set).reduce(1) { $0 + $1.entryColumns } }

    /// Copies entries of a key set into rows that can be sent to other processes.
    ///
    /// - Parameters:
    ///   - slots: the slots to copy; this store must keep them.
    ///   - names: the slots in which receivers store the entries; `slots` when `nil`.
    ///   - rows: `[slots, copyColumns]`; receives the copies.
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

    /// Stores those of the received copies whose slots this store keeps, and skips the others.
    ///
    /// - Parameter places: for a store of gathered pages, maps the number of each page that it holds to the page's
    ///   index in the store; copies of other pages are skipped. `nil` for a cache, which keeps pages under their own
    ///   numbers.
    /// - Returns: false, with nothing written, if the rows are not copies of this key set or if a slot does not exist.
    package func store(_ rows: HostRows, _ set: KeySetID, pages places: [Int32: Int32]? = nil) -> Bool {
        guard rows.columns == copyColumns(set) else { return false }
        let group = format.group(of: set)
        let (shard, pageSize) = (shard(ofGroup: group), format.groups[group].entriesPerPage)
        let isWindow = format.groups[group].isWindow
        let slots = 0..<(places == nil ? (isWindow ? windowPages : pages) * pageSize : .max)
        var entries: [Int] = []
        entries.reserveCapacity(rows.rows)
        // Consecutive rows are mostly of one page, so the dictionary is read once for all of them.
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
