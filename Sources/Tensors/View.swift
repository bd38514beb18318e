/// Borrowed F32 rows: `rows × columns`, `stride` elements from one row to the next.
///
/// A view owns nothing. It is valid until the scratch it came from is reset past it, or the buffer behind it is gone;
/// views therefore never outlive the step that made them.
@safe package struct View {
    package let rows: Int
    package let columns: Int
    package let stride: Int
    @usableFromInline let base: UnsafeMutablePointer<Float>

    @unsafe package init(_ base: UnsafeMutablePointer<Float>, rows: Int, columns: Int, stride: Int? = nil) {
        unsafe self.base = unsafe base
        self.rows = rows
        self.columns = columns
        self.stride = stride ?? columns
        precondition(rows >= 0 && columns >= 0 && self.stride >= columns, "a view's stride must hold its columns")
    }

    /// No rows.
    package static var none: View { unsafe View(UnsafeMutablePointer(bitPattern: 64)!, rows: 0, columns: 0) }

    /// The same memory, these rows only.
    package func rows(_ range: Range<Int>) -> View {
        precondition(range.lowerBound >= 0 && range.upperBound <= rows, "rows \(range) of a view of \(rows)")
        return unsafe View(base + range.lowerBound * stride, rows: range.count, columns: columns, stride: stride)
    }

    /// The same memory, these columns only.
    package func columns(_ range: Range<Int>) -> View {
        precondition(range.lowerBound >= 0 && range.upperBound <= columns, "columns \(range) of a view of \(columns)")
        return unsafe View(base + range.lowerBound, rows: rows, columns: range.count, stride: stride)
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

    /// Copies `other`, which has the same shape, into this view.
    package func copy(_ other: View) {
        precondition(other.rows == rows && other.columns == columns, "copying \(other.shape) into \(shape)")
        if isPacked && other.isPacked { return unsafe base.update(from: other.base, count: rows * columns) }
        for row in 0..<rows {
            unsafe (base + row * stride).update(from: other.base + row * other.stride, count: columns)
        }
    }

    package func fill(_ value: Float) {
        for row in 0..<rows { unsafe (base + row * stride).update(repeating: value, count: columns) }
    }

    package func scale(by factor: Float) {
        for row in 0..<rows {
            for column in 0..<columns { unsafe base[row * stride + column] *= factor }
        }
    }

    /// Whether rows follow each other without gaps.
    package var isPacked: Bool { stride == columns || rows <= 1 }

    /// Bytes of one row's elements.
    package var rowBytes: Int { columns * MemoryLayout<Float>.stride }

    /// The same memory as integers, for rows that are packed and whose bits are integers: see `Indices.bits`.
    package var integers: Indices {
        precondition(isPacked, "rows that are not packed")
        return unsafe base.withMemoryRebound(to: Int32.self, capacity: rows * columns) {
            unsafe Indices($0, count: rows * columns)
        }
    }

    /// A copy of the elements, row by row. Allocates: for tests and reports.
    package var elements: [Float] {
        (0..<rows).flatMap { row in (0..<columns).map { self[row, $0] } }
    }

    var shape: String { "\(rows) × \(columns)" }
}

/// Borrowed 32-bit integers: token ids, positions, slots, row numbers. Valid as long as a `View`.
@safe package struct Indices {
    package let count: Int
    @usableFromInline let base: UnsafeMutablePointer<Int32>

    @unsafe package init(_ base: UnsafeMutablePointer<Int32>, count: Int) {
        unsafe self.base = unsafe base
        self.count = count
    }

    package subscript(index: Int) -> Int32 {
        get {
            precondition(index >= 0 && index < count)
            return unsafe base[index]
        }
        nonmutating set {
            precondition(index >= 0 && index < count)
            unsafe base[index] = newValue
        }
    }

    package subscript(range: Range<Int>) -> Indices {
        precondition(range.lowerBound >= 0 && range.upperBound <= count)
        return unsafe Indices(base + range.lowerBound, count: range.count)
    }

    package func fill(_ value: Int32) { unsafe base.update(repeating: value, count: count) }

    package func copy(_ values: some Collection<Int32>) {
        precondition(values.count == count)
        var next = 0
        for value in values {
            unsafe base[next] = value
            next += 1
        }
    }

    /// The same memory as rows of `columns` numbers, for what only moves bits and does not compute with them.
    package func bits(columns: Int) -> View {
        precondition(columns > 0 && count % columns == 0, "\(count) integers in rows of \(columns)")
        return unsafe base.withMemoryRebound(to: Float.self, capacity: count) {
            unsafe View($0, rows: count / columns, columns: columns)
        }
    }

    package var sum: Int { (0..<count).reduce(0) { $0 + Int(self[$1]) } }

    /// A copy. Allocates: for tests and reports.
    package var elements: [Int32] { (0..<count).map { self[$0] } }
}
