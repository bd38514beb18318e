import CKernels

/// One lane of the paged cache of one layer, as kernels see it: `[entries, width]` elements.
@safe package struct CacheLane: @unchecked Sendable {
    package let dtype: DType
    package let width: Int
    package let entries: Int
    let base: UnsafeMutableRawPointer

    @unsafe package init(_ base: UnsafeMutableRawPointer, dtype: DType, width: Int, entries: Int) {
        unsafe self.base = unsafe base
        self.dtype = dtype
        self.width = width
        self.entries = entries
    }

    /// A copy of an entry. Allocates: for tests and reports.
    package func bytes(ofEntry entry: Int) -> [UInt8] {
        precondition((0..<entries).contains(entry), "entry \(entry) of \(entries)")
        let size = width * dtype.bytes
        return unsafe Array(UnsafeRawBufferPointer(start: base + entry * size, count: size))
    }

    var kernelValue: braid_lane {
        unsafe braid_lane(data: base, dtype: dtype.kernelValue, width: Int64(width))
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
