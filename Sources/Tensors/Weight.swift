import CKernels

/// Describes a matrix of stored weights, `rows × columns`, possibly part of a larger one. It is immutable, so ranks
/// share it.
///
/// The memory belongs to a mapped checkpoint or a buffer, which the owner of the model keeps alive.
@safe package struct Weight: @unchecked Sendable {
    package let rows: Int
    package let columns: Int
    package let dtype: DType
    private let data: UnsafeRawPointer
    private let stride: Int
    private let scale: UnsafePointer<Float>?
    private let scaleStride: Int
    private let row: Int
    private let column: Int

    /// Creates a whole matrix.
    ///
    /// - Parameters:
    ///   - data: `rows × columns` elements, row-major.
    ///   - scale: FP8: `[ceil(rows / 128), ceil(columns / 128)]`; INT8: `[rows]`; otherwise `nil`.
    @unsafe package init(
        _ data: UnsafeRawPointer, dtype: DType, rows: Int, columns: Int, scale: UnsafePointer<Float>? = nil
    ) {
        precondition((unsafe scale != nil) == (dtype == .fp8 || dtype == .int8), "FP8 and INT8 weights have scales")
        unsafe self.data = unsafe data
        self.dtype = dtype
        self.rows = rows
        self.columns = columns
        self.stride = columns
        unsafe self.scale = unsafe scale
        self.scaleStride = (columns + 127) / 128
        row = 0
        column = 0
    }

    private init(of whole: Weight, rows: Range<Int>, columns: Range<Int>) {
        precondition(rows.lowerBound >= 0 && rows.upperBound <= whole.rows, "rows \(rows) of \(whole.rows)")
        precondition(
            columns.lowerBound >= 0 && columns.upperBound <= whole.columns, "columns \(columns) of \(whole.columns)")
        let offset = (rows.lowerBound * whole.stride + columns.lowerBound) * whole.dtype.bytes
        unsafe data = whole.data + offset
        dtype = whole.dtype
        self.rows = rows.count
        self.columns = columns.count
        stride = whole.stride
        unsafe scale = whole.scale
        scaleStride = whole.scaleStride
        row = whole.row + rows.lowerBound
        column = whole.column + columns.lowerBound
    }

    /// Returns some of the rows, in the same memory.
    package func rows(_ range: Range<Int>) -> Weight { Weight(of: self, rows: range, columns: 0..<columns) }

    /// Returns some of the columns, in the same memory.
    package func columns(_ range: Range<Int>) -> Weight { Weight(of: self, rows: 0..<rows, columns: range) }

    var kernelValue: braid_weight {
        unsafe braid_weight(
            data: data, dtype: dtype.kernelValue, stride: Int64(stride), scale: scale, scale_stride: Int64(scaleStride),
            row: Int64(row), column: Int64(column))
    }
}
