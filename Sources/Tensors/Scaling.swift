import CKernels

/// Says which elements of a matrix of weights share a scale. An element's value is its stored value times its scale.
package enum Scaling: Sendable, Hashable {
    /// Stored values are the elements; there are no scales.
    case none
    /// Each row, that is, each output channel, has one scale.
    case perRow
    /// Each block of `rows` × `columns` has one scale. The last blocks of rows and of columns may be partial.
    case blocks(rows: Int, columns: Int)

    /// Returns the scales of a `rows × columns` matrix as an array of scale rows and scale columns; `nil` without
    /// scales.
    package func grid(rows: Int, columns: Int) -> (rows: Int, columns: Int)? {
        func blocks(_ extent: Int, of size: Int) -> Int { extent / size + (extent % size == 0 ? 0 : 1) }
        return switch self {
        case .none: nil
        case .perRow: (rows, 1)
        case .blocks(let high, let wide): (blocks(rows, of: high), blocks(columns, of: wide))
        }
    }

    /// Is the binary logarithm of the rows and of the columns that share a scale, as kernels read them.
    var shifts: (row: Int32, column: Int32) {
        switch self {
        case .none: return (0, 0)
        case .perRow: return (0, BRAID_WHOLE_SHIFT)
        case .blocks(let rows, let columns):
            precondition(
                rows > 0 && columns > 0 && rows & (rows - 1) == 0 && columns & (columns - 1) == 0,
                "blocks of \(rows) × \(columns) are no powers of two")
            return (Int32(rows.trailingZeroBitCount), Int32(columns.trailingZeroBitCount))
        }
    }
}

extension Scaling: CustomStringConvertible {
    package var description: String {
        switch self {
        case .none: "no scales"
        case .perRow: "a scale per row"
        case .blocks(let rows, let columns): "a scale per \(rows) × \(columns) block"
        }
    }
}

extension DType {
    /// Lists the scalings of weights that kernels read with this element format; the first is that of most released
    /// checkpoints. It is the one table of legal combinations: others are refused when a checkpoint is loaded.
    package var scalings: [Scaling] {
        switch self {
        case .f32, .bf16: [.none]
        case .fp8: [.blocks(rows: 128, columns: 128), .perRow]
        case .int8: [.perRow, .blocks(rows: 128, columns: 128)]
        case .fp4: [.blocks(rows: 1, columns: 32)]
        }
    }
}
