import CKernels

/// Says how the activations that multiply an INT8 matrix are rounded, where the checkpoint fixes it for all tokens (static
/// W8A8, `profile.h` has the formula). It owns what kernels read of it, and is immutable, so ranks share it.
@safe package final class StaticRounding: @unchecked Sendable {
    /// A matrix with static rounding may have this many columns: sums with the largest biases then stay within 32 bits.
    package static let maximumColumns = 1 << 15
    /// The magnitudes of biases are smaller than this.
    package static let biasLimit = 1 << 30

    let value: UnsafeMutablePointer<braid_static_rounding>
    private let corrections: UnsafeMutableBufferPointer<Int32>
    /// A row whose bias is more than the offset's part of its sum, by more than F32 loses; `nil` if there is none.
    package let biasedRow: Int?

    /// Creates the rounding for a whole matrix.
    ///
    /// - Parameters:
    ///   - scale: the step between two integers; finite and greater than 0.
    ///   - offset: the integer of an activation of 0, -128 to 127.
    ///   - weights: `rows × columns` integers, row-major, `maximumColumns` at most.
    ///   - biases: what is added to each row's sum of products of integers, smaller than `biasLimit`: it takes off the
    ///     offset's part, `offset × (the sum of the row)`.
    @unsafe package init(
        scale: Float, offset: Int, weights: UnsafePointer<Int8>, rows: Int, columns: Int, biases: [Int]
    ) {
        precondition(
            scale.isFinite && (1 / scale).isFinite && scale > 0 && (-128...127).contains(offset),
            "scale \(scale), offset \(offset)")
        precondition(biases.count == rows && columns <= Self.maximumColumns, "\(rows) × \(columns)")
        let parts = Kernels.slices(of: columns)
        let width = columns / parts
        unsafe corrections = .allocate(capacity: rows * parts)
        unsafe value = .allocate(capacity: 1)
        var biasedRow: Int?
        for row in 0..<rows {
            var whole = 0
            for part in 0..<parts {
                // Without an offset the weights are not read, which for a mapped file means not to load them.
                let sum = unsafe offset == 0 ? 0 : Self.sum(weights + row * columns + part * width, width)
                unsafe corrections[row * parts + part] = Int32(offset * sum)
                whole += offset * sum
            }
            // Tools compute the offset's part in F32, so it may be some units more or less: the row gets what is stored.
            unsafe corrections[row * parts] -= Int32(biases[row] + whole)
            if abs(biases[row] + whole) > 16 + abs(whole) >> 18 { biasedRow = row }
        }
        self.biasedRow = biasedRow
        unsafe value.initialize(
            to: braid_static_rounding(
                scale: scale, offset: Int32(offset), corrections: corrections.baseAddress, parts: Int64(parts),
                part_columns: Int64(width)))
    }

    deinit {
        unsafe corrections.deallocate()
        unsafe value.deallocate()
    }

    private static func sum(_ weights: UnsafePointer<Int8>, _ count: Int) -> Int {
        var sum: Int32 = 0
        for index in 0..<count { unsafe sum &+= Int32(weights[index]) }
        return Int(sum)
    }
}
