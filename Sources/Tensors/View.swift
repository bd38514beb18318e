/// Borrowed F32 rows: `rows × columns`, `stride` elements from one row to the next.
///
/// A view is what kernels and transports are given. The host cannot look into it: `Kernels.synchronize` is where it waits
/// for what it wants to read, and what it writes itself is made as `HostRows`.
///
/// A view owns nothing. It is valid until the scratch it came from is reset past it, or the buffer behind it is gone;
/// views therefore never outlive the step that made them.
@safe package struct View {
    package let rows: Int
    package let columns: Int
    package let stride: Int
    private let address: UnsafeMutablePointer<Float>

    @unsafe package init(_ base: UnsafeMutablePointer<Float>, rows: Int, columns: Int, stride: Int? = nil) {
        unsafe address = unsafe base
        self.rows = rows
        self.columns = columns
        self.stride = stride ?? columns
        precondition(rows >= 0 && columns >= 0 && self.stride >= columns, "a view's stride must hold its columns")
    }

    /// Where kernels and transports find the rows.
    var base: UnsafeMutablePointer<Float> { unsafe GuardedAddress.open(address) }

    /// Where the rows are as far as the host knows: in scratch, an address that it cannot follow.
    @unsafe package var hostAddress: UnsafeMutablePointer<Float> { unsafe address }

    /// No rows.
    package static var none: View { unsafe View(UnsafeMutablePointer(bitPattern: 64)!, rows: 0, columns: 0) }

    /// The same memory, these rows only.
    package func rows(_ range: Range<Int>) -> View {
        precondition(range.lowerBound >= 0 && range.upperBound <= rows, "rows \(range) of a view of \(rows)")
        return unsafe View(address + range.lowerBound * stride, rows: range.count, columns: columns, stride: stride)
    }

    /// The same memory, these columns only.
    package func columns(_ range: Range<Int>) -> View {
        precondition(range.lowerBound >= 0 && range.upperBound <= columns, "columns \(range) of a view of \(columns)")
        return unsafe View(address + range.lowerBound, rows: rows, columns: range.count, stride: stride)
    }

    /// Becomes a copy of `other`, which has the same shape. For transports: what computes copies with `Kernels.copyRows`.
    package func transfer(from other: View) {
        precondition(other.rows == rows && other.columns == columns, "copying \(other.shape) into \(shape)")
        if isPacked && other.isPacked { return unsafe base.update(from: other.base, count: rows * columns) }
        for row in 0..<rows {
            unsafe (base + row * stride).update(from: other.base + row * other.stride, count: columns)
        }
    }

    /// Whether rows follow each other without gaps.
    package var isPacked: Bool { stride == columns || rows <= 1 }

    /// Bytes of one row's elements.
    package var rowBytes: Int { columns * MemoryLayout<Float>.stride }

    /// The same memory as integers, for rows that are packed and whose bits are integers: see `ComputedIndices.bits`.
    package var integers: ComputedIndices {
        precondition(isPacked, "rows that are not packed")
        return unsafe address.withMemoryRebound(to: Int32.self, capacity: rows * columns) {
            unsafe ComputedIndices($0, count: rows * columns)
        }
    }

    var shape: String { "\(rows) × \(columns)" }
}

/// Borrowed F32 rows that the host may read and write: what it makes for kernels, such as rotary angles, what a transport
/// has received, and what `Kernels.synchronize` returns. Valid as long as a `View`.
@safe package struct HostRows {
    package let rows: Int
    package let columns: Int
    package let stride: Int
    private let base: UnsafeMutablePointer<Float>

    @unsafe package init(_ base: UnsafeMutablePointer<Float>, rows: Int, columns: Int, stride: Int? = nil) {
        unsafe self.base = unsafe base
        self.rows = rows
        self.columns = columns
        self.stride = stride ?? columns
        precondition(rows >= 0 && columns >= 0 && self.stride >= columns, "rows' stride must hold their columns")
    }

    /// The same memory for kernels and transports.
    package var view: View { unsafe View(base, rows: rows, columns: columns, stride: stride) }

    /// The same memory, these rows only.
    package func rows(_ range: Range<Int>) -> HostRows {
        precondition(range.lowerBound >= 0 && range.upperBound <= rows, "rows \(range) of \(rows)")
        return unsafe HostRows(base + range.lowerBound * stride, rows: range.count, columns: columns, stride: stride)
    }

    package subscript(row: Int, column: Int) -> Float {
        get {
            precondition(row >= 0 && row < rows && column >= 0 && column < columns)
            return unsafe base[row * stride + column]
        }
        nonmutating set {
            precondition(row >= 0 && row < rows && column >= 0 && column < columns)
            unsafe base[row * stride + column] = newValue
        }
    }

    /// One row as a buffer, for code that walks it (a sampler).
    @unsafe package func row(_ row: Int) -> UnsafeMutableBufferPointer<Float> {
        precondition(row >= 0 && row < rows)
        return unsafe UnsafeMutableBufferPointer(start: base + row * stride, count: columns)
    }

    /// The bits of an element as an integer.
    package func integer(_ row: Int, _ column: Int) -> Int32 { Int32(bitPattern: self[row, column].bitPattern) }

    package func fill(_ value: Float) {
        for row in 0..<rows { unsafe (base + row * stride).update(repeating: value, count: columns) }
    }

    /// A copy of the elements, row by row. Allocates: for tests and reports.
    package var elements: [Float] {
        (0..<rows).flatMap { row in (0..<columns).map { self[row, $0] } }
    }
}
