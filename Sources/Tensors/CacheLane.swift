import CKernels

/// One lane of the paged cache of one layer, as kernels see it: `[entries, width]` elements.
@safe package struct CacheLane: @unchecked Sendable {
    package let dtype: DType
    package let width: Int
    /// Columns of an entry that share a scale; only FP8 has scales.
    package let group: Int
    package let entries: Int
    let base: UnsafeMutableRawPointer

    /// - Parameters:
    ///   - base: `entries` times `entryBytes`, 4-byte aligned.
    ///   - group: for FP8; a multiple of 16, or no less than the width.
    @unsafe package init(_ base: UnsafeMutableRawPointer, dtype: DType, width: Int, group: Int, entries: Int) {
        precondition(dtype != .int8, "a cache has no INT8 lanes")
        precondition(group > 0 && (group % 16 == 0 || group >= width), "groups of \(group) in a lane of \(width)")
        unsafe self.base = unsafe base
        self.group = group
        self.dtype = dtype
        self.width = width
        self.entries = entries
    }

    /// A copy of an entry, scales included. Allocates: for tests and reports.
    package func bytes(ofEntry entry: Int) -> [UInt8] {
        precondition((0..<entries).contains(entry), "entry \(entry) of \(entries)")
        return unsafe Array(UnsafeRawBufferPointer(start: base + entry * entryBytes, count: entryBytes))
    }

    /// Overwrites an entry: for tests that damage is found.
    package func overwrite(_ entry: Int, with bytes: [UInt8]) {
        precondition(
            (0..<entries).contains(entry) && bytes.count == entryBytes, "\(bytes.count) bytes for entry \(entry)")
        unsafe UnsafeMutableRawBufferPointer(start: base + entry * entryBytes, count: entryBytes).copyBytes(from: bytes)
    }

    /// Writes what `count` entries from `first` on hold, scales included, to those from `target` on.
    package func copyEntries(_ first: Int, count: Int, to target: Int) {
        precondition(first >= 0 && target >= 0 && max(first, target) + count <= entries, "\(count) of \(entries)")
        unsafe (base + target * entryBytes).copyMemory(
            from: base + first * entryBytes, byteCount: count * entryBytes)
    }

    /// Bytes of an entry, scales included.
    package var entryBytes: Int { Self.entryBytes(dtype, width: width, group: group) }

    /// Stores entries that a transport has received, from the columns of rows from `column` on, one a row. Rows whose entry
    /// is below zero are left out.
    package func setEntries(_ entries: [Int], from rows: HostRows, column: Int) {
        precondition(rows.rows == entries.count, "\(entries.count) entries for \(rows.rows) rows")
        precondition(entries.allSatisfy { $0 < self.entries }, "entries beyond the \(self.entries) there are")
        precondition(column + entryColumns <= rows.columns, "entries from column \(column) of \(rows.columns)")
        for (row, entry) in entries.enumerated() where entry >= 0 {
            unsafe (base + entry * entryBytes).copyMemory(
                from: rows.row(row).baseAddress! + column, byteCount: entryBytes)
        }
    }

    /// Columns of a row that hold an entry.
    package var entryColumns: Int { (entryBytes + MemoryLayout<Float>.stride - 1) / MemoryLayout<Float>.stride }

    var kernelValue: braid_lane {
        unsafe braid_lane(data: base, dtype: dtype.kernelValue, width: Int64(width), group: Int64(group))
    }

    /// Bytes of an entry, scales included.
    package static func entryBytes(_ dtype: DType, width: Int, group: Int) -> Int {
        Int(braid_entry_bytes(dtype.kernelValue, Int64(width), Int64(group)))
    }
}

/// Where a request's positions are: `pages[p >> shift]` is the page of position `p`.
package struct PageMap {
    package let pages: Indices
    package let shift: Int

    package init(pages: Indices, shift: Int) {
        self.pages = pages
        self.shift = shift
    }

    /// The entry of a lane that holds position `position`.
    package func slot(of position: Int) -> Int32 {
        let entry = Int(pages[position >> shift]) << shift | position & ((1 << shift) - 1)
        return Int32(entry)
    }

    /// How many positions the pages hold.
    package var capacity: Int { pages.count << shift }
}
