/// Borrows F32 rows: `rows × columns`, with `stride` elements from one row to the next.
///
/// Kernels and transports receive views. The host cannot read one: `Kernels.synchronize` waits for rows that the host
/// must read, and rows that the host writes are `HostRows`.
///
/// A view owns nothing. It is valid until the scratch it came from is reset past it, or the buffer behind it is freed;
/// so views never outlive the step that made them.
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

    /// The address of the rows for kernels and transports.
    var base: UnsafeMutablePointer<Float> { unsafe GuardedAddress.open(address) }

    /// The address of the rows as the host sees it; in scratch the host cannot follow it.
    @unsafe package var hostAddress: UnsafeMutablePointer<Float> { unsafe address }

    /// A view without rows.
    package static var none: View { unsafe View(UnsafeMutablePointer(bitPattern: 64)!, rows: 0, columns: 0) }

    /// Returns some of the rows, in the same memory.
    package func rows(_ range: Range<Int>) -> View {
        precondition(range.lowerBound >= 0 && range.upperBound <= rows, "rows \(range) of a view of \(rows)")
        return unsafe View(address + range.lowerBound * stride, rows: range.count, columns: columns, stride: stride)
    }

    /// Returns some of the columns, in the same memory.
    package func columns(_ range: Range<Int>) -> View {
        precondition(range.lowerBound >= 0 && range.upperBound <= columns, "columns \(range) of a view of \(columns)")
        return unsafe View(address + range.lowerBound, rows: rows, columns: range.count, stride: stride)
    }

    /// Copies `other`, which has the same shape, into this view. It is for transports; models use `Kernels.copyRows`.
    package func transfer(from other: View) {
        precondition(other.rows == rows && other.columns == columns, "copying \(other.shape) into \(shape)")
        if isPacked && other.isPacked { return unsafe base.update(from: other.base, count: rows * columns) }
        for row in 0..<rows {
            unsafe (base + row * stride).update(from: other.base + row * other.stride, count: columns)
        }
    }

    /// True if rows follow each other without gaps.
    package var isPacked: Bool { stride == columns || rows <= 1 }

    /// The size of one row's elements in bytes.
    package var rowBytes: Int { columns * MemoryLayout<Float>.stride }

    /// The same memory as integers, for packed rows whose bits are integers: see `ComputedIndices.bits`.
    package var integers: ComputedIndices {
        precondition(isPacked, "rows that are not packed")
        return unsafe address.withMemoryRebound(to: Int32.self, capacity: rows * columns) {
            unsafe ComputedIndices($0, count: rows * columns)
        }
    }

    var shape: String { "\(rows) × \(columns)" }
}

/// Borrows F32 rows that the host may read and write: those that it makes for kernels, such as rotary angles, those
/// that a transport has received, and the results of `Kernels.synchronize`. It is valid as long as a `View` would be.
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

    /// The same memory, for kernels and transports.
    package var view: View { unsafe View(base, rows: rows, columns: columns, stride: stride) }

    /// Returns some of the rows, in the same memory.
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

    /// Returns one row as a buffer, for code that iterates over it (a sampler).
    @unsafe package func row(_ row: Int) -> UnsafeMutableBufferPointer<Float> {
        precondition(row >= 0 && row < rows)
        return unsafe UnsafeMutableBufferPointer(start: base + row * stride, count: columns)
    }

    /// Returns the bits of an element as an integer.
    package func integer(_ row: Int, _ column: Int) -> Int32 { Int32(bitPattern: self[row, column].bitPattern) }

    package func fill(_ value: Float) {
        for row in 0..<rows { unsafe (base + row * stride).update(repeating: value, count: columns) }
    }

    /// A copy of the elements, row by row. It allocates, so it is for tests and reports only.
    package var elements: [Float] {
        (0..<rows).flatMap { row in (0..<columns).map { self[row, $0] } }
    }
}
