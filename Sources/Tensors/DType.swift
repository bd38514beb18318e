import CKernels

/// Says how an element is stored, apart from scales. Kernels compute in F32 whatever the type.
package enum DType: Sendable, Equatable, CaseIterable {
    case f32
    case bf16
    /// E4M3 values have F32 scales: in a weight those of its `Scaling`, in a cache lane one per group of columns.
    case fp8
    /// Integers have F32 scales, those of a weight's `Scaling`; no cache lane has integers.
    case int8

    /// The size of one element in bytes, without scales.
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
