import CKernels

/// Describes a matrix of stored weights, `rows × columns`, possibly part of a larger one. It is immutable, so ranks
/// share it.
///
/// How weights are stored is two independent facts: the format of an element (`dtype`), and which elements share a scale
/// (`scaling`). `DType.scalings` lists the combinations that kernels read.
///
/// The memory belongs to a mapped checkpoint or a buffer, which the owner of the model keeps alive.
@safe package struct Weight: @unchecked Sendable {
    package let rows: Int
    package let columns: Int
    package let dtype: DType
    package let scaling: Scaling
    private let data: UnsafeRawPointer
    private let stride: Int
    private let scale: UnsafeRawPointer?
    private let scaleStride: Int
    private let row: Int
    private let column: Int
    private let rounding: StaticRounding?

    /// Creates a whole matrix.
    ///
    /// - Parameters:
    ///   - data: `rows × columns` elements, row-major; of FP4 the columns are even.
    ///   - scaling: one of `dtype.scalings`.
    ///   - scale: the scales, row-major, as many as `scaling.grid` says: E8M0 bytes for FP4, otherwise F32; `nil`
    ///     without scales.
    ///   - rounding: how the activations are rounded in profiles for integers, for INT8 with a scale per row; `nil` if
    ///     their own numbers decide.
    @unsafe package init(
        _ data: UnsafeRawPointer, dtype: DType, rows: Int, columns: Int, scaling: Scaling = .none,
        scale: UnsafeRawPointer? = nil, rounding: StaticRounding? = nil
    ) {
        precondition(rounding == nil || dtype == .int8 && scaling == .perRow, "static rounding of \(dtype)")
        precondition(dtype.scalings.contains(scaling), "no kernel reads \(dtype) weights with \(scaling)")
        precondition(dtype != .fp4 || columns % 2 == 0, "\(columns) columns in pairs")
        precondition((unsafe scale != nil) == (scaling != .none), "scales must be given exactly where there are some")
        unsafe self.data = unsafe data
        self.dtype = dtype
        self.scaling = scaling
        self.rows = rows
        self.columns = columns
        self.stride = columns
        unsafe self.scale = unsafe scale
        self.scaleStride = scaling.grid(rows: rows, columns: columns)?.columns ?? 0
        row = 0
        column = 0
        self.rounding = rounding
    }

    private init(of whole: Weight, rows: Range<Int>, columns: Range<Int>) {
        precondition(rows.lowerBound >= 0 && rows.upperBound <= whole.rows, "rows \(rows) of \(whole.rows)")
        precondition(
            columns.lowerBound >= 0 && columns.upperBound <= whole.columns, "columns \(columns) of \(whole.columns)")
        let element = rows.lowerBound * whole.stride + columns.lowerBound
        // The first element of an FP4 part may be the second in its byte.
        let place = whole.dtype == .fp4 ? whole.column & 1 + element : element
        unsafe data = whole.data + place * whole.dtype.bits / 8
        dtype = whole.dtype
        scaling = whole.scaling
        self.rows = rows.count
        self.columns = columns.count
        stride = whole.stride
        unsafe scale = whole.scale
        scaleStride = whole.scaleStride
        row = whole.row + rows.lowerBound
        column = whole.column + columns.lowerBound
        rounding = whole.rounding
    }

    /// Returns some of the rows, in the same memory.
    package func rows(_ range: Range<Int>) -> Weight { Weight(of: self, rows: range, columns: 0..<columns) }

    /// Returns some of the columns, in the same memory.
    package func columns(_ range: Range<Int>) -> Weight { Weight(of: self, rows: 0..<rows, columns: range) }

    var kernelValue: braid_weight {
        let shifts = scaling.shifts
        return unsafe braid_weight(
            data: data, dtype: dtype.kernelValue, stride: Int64(stride), scale: scale, scale_stride: Int64(scaleStride),
            row: Int64(row), column: Int64(column), row_shift: shifts.row, column_shift: shifts.column,
            rounding: rounding?.value)
    }
}
