import CKernels

/// How an element is stored. Computation is always in F32.
package enum DType: Sendable, Equatable, CaseIterable {
    case f32
    case bf16
    /// E4M3 with F32 scales: in a weight one per 128 × 128 block, in a cache lane one per group of columns.
    case fp8
    /// With one F32 scale per row.
    case int8

    /// Bytes of one element, scales not counted.
    package var bytes: Int {
        switch self {
        case .f32: 4
        case .bf16: 2
        case .fp8, .int8: 1
        }
    }

    var kernelValue: braid_dtype {
        switch self {
        case .f32: BRAID_F32
        case .bf16: BRAID_BF16
        case .fp8: BRAID_FP8
        case .int8: BRAID_INT8
        }
    }
}
