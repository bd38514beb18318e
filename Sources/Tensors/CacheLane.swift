import CKernels

/// Describes one lane of one layer's paged cache as kernels read it: `[entries, width]` elements.
@safe package struct CacheLane: @unchecked Sendable {
    package let dtype: DType
    package let width: Int
    /// The number of columns of an entry that share a scale. Only FP8 and FP4 have scales.
    package let group: Int
    /// The type of the scales: E8M0 for FP4, any for FP8; other types ignore it.
    package let scaleType: ScaleType
    package let entries: Int
    let base: UnsafeMutableRawPointer

    /// Creates a lane over memory that outlives it.
    ///
    /// - Parameters:
    ///   - base: `entries` times `entryBytes` bytes, 4-byte aligned.
    ///   - group: the columns that share a scale (FP8, FP4): a multiple of 16, or at least the width.
    @unsafe package init(
        _ base: UnsafeMutableRawPointer, dtype: DType, width: Int, group: Int, scaleType: ScaleType, entries: Int
    ) {
        precondition(dtype != .int8, "a cache has no \(dtype) lanes")
        precondition(dtype != .fp4 || scaleType == .e8m0, "FP4 with \(scaleType) scales")
        precondition(group > 0 && (group % 16 == 0 || group >= width), "groups of \(group) in a lane of \(width)")
        unsafe self.base = unsafe base
        self.group = group
        self.scaleType = scaleType
        self.dtype = dtype
        self.width = width
        self.entries = entries
    }

    /// Returns a copy of an entry, scales included. It allocates, so it is for tests and reports only.
    package func bytes(ofEntry entry: Int) -> [UInt8] {
        precondition((0..<entries).contains(entry), "entry \(entry) of \(entries)")
        return unsafe Array(UnsafeRawBufferPointer(start: base + entry * entryBytes, count: entryBytes))
    }

    /// Overwrites an entry. Tests use it to check that damage is found.
    package func overwrite(_ entry: Int, with bytes: [UInt8]) {
        precondition(
            (0..<entries).contains(entry) && bytes.count == entryBytes, "\(bytes.count) bytes for entry \(entry)")
        unsafe UnsafeMutableRawBufferPointer(start: base + entry * entryBytes, count: entryBytes).copyBytes(from: bytes)
    }

    /// Appends the bytes of consecutive entries, scales included.
    package func append(_ entries: Range<Int>, to bytes: inout [UInt8]) {
        precondition(entries.lowerBound >= 0 && entries.upperBound <= self.entries, "\(entries) of \(self.entries)")
        unsafe bytes.append(
            contentsOf: UnsafeRawBufferPointer(
                start: base + entries.lowerBound * entryBytes, count: entries.count * entryBytes))
    }

    /// Overwrites consecutive entries with bytes that `append` has made of as many.
    package func overwrite(_ entries: Range<Int>, with bytes: ArraySlice<UInt8>) {
        precondition(
            entries.lowerBound >= 0 && entries.upperBound <= self.entries && bytes.count == entries.count * entryBytes,
            "\(bytes.count) bytes for \(entries) of \(self.entries)")
        unsafe UnsafeMutableRawBufferPointer(start: base + entries.lowerBound * entryBytes, count: bytes.count)
            .copyBytes(from: bytes)
    }

    /// Copies `count` entries, scales included, from entry `first` on to entry `target` on.
    package func copyEntries(_ first: Int, count: Int, to target: Int) {
        precondition(first >= 0 && target >= 0 && max(first, target) + count <= entries, "\(count) of \(entries)")
        unsafe (base + target * entryBytes).copyMemory(
            from: base + first * entryBytes, byteCount: count * entryBytes)
    }

    /// The size of an entry in bytes, scales included.
    package var entryBytes: Int { Self.entryBytes(dtype, width: width, group: group, scaleType: scaleType) }

    /// Stores entries that a transport has received. Row i holds the entry for `entries[i]` from `column` on; rows with
    /// a negative entry are skipped.
    package func setEntries(_ entries: [Int], from rows: HostRows, column: Int) {
        precondition(rows.rows == entries.count, "\(entries.count) entries for \(rows.rows) rows")
        precondition(entries.allSatisfy { $0 < self.entries }, "entries beyond the \(self.entries) there are")
        precondition(column + entryColumns <= rows.columns, "entries from column \(column) of \(rows.columns)")
        for (row, entry) in entries.enumerated() where entry >= 0 {
            unsafe (base + entry * entryBytes).copyMemory(
                from: rows.row(row).baseAddress! + column, byteCount: entryBytes)
        }
    }

    /// The number of F32 columns that one entry occupies in a row.
    package var entryColumns: Int { (entryBytes + MemoryLayout<Float>.stride - 1) / MemoryLayout<Float>.stride }

    var kernelValue: braid_lane {
        unsafe braid_lane(
            data: base, dtype: dtype.kernelValue, width: Int64(width), group: Int64(group),
            scale_type: scaleType.kernelValue)
    }

    /// Returns the size of an entry in bytes, scales included.
    package static func entryBytes(_ dtype: DType, width: Int, group: Int, scaleType: ScaleType) -> Int {
        Int(braid_entry_bytes(dtype.kernelValue, Int64(width), Int64(group), scaleType.kernelValue))
    }
}

/// Maps a request's positions to pages: `pages[p >> shift]` is the page of position `p`.
package struct PageMap {
    package let pages: Indices
    package let shift: Int

    package init(pages: Indices, shift: Int) {
        self.pages = pages
        self.shift = shift
    }

    /// Returns the entry of a lane that stores position `position`.
    package func slot(of position: Int) -> Int32 {
        let entry = Int(pages[position >> shift]) << shift | position & ((1 << shift) - 1)
        return Int32(entry)
    }

    /// The number of positions that the pages have space for.
    package var capacity: Int { pages.count << shift }
}
