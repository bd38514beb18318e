import CKernels

/// Says how an element is stored, apart from scales. Kernels compute in F32 whatever the type.
package enum DType: Sendable, Equatable, CaseIterable {
    case f32
    case bf16
    /// E4M3 values have scales: in a weight the F32 ones of its `Scaling`, in a cache lane one per group of columns, of
    /// the lane's `ScaleType`.
    case fp8
    /// Integers have F32 scales, those of a weight's `Scaling`; no cache lane has integers.
    case int8
    /// E2M1 values are pairs in a byte, the first in its low four bits, and have E8M0 scales, which are bytes; of cache
    /// lanes only those of index keys have them.
    case fp4

    /// The size of one element in bits, without scales.
    package var bits: Int {
        switch self {
        case .f32: 32
        case .bf16: 16
        case .fp8, .int8: 8
        case .fp4: 4
        }
    }

    /// Returns the size of `count` elements in bytes, without scales.
    package func bytes(of count: Int) -> Int { (count * bits + 7) / 8 }

    var kernelValue: braid_dtype {
        switch self {
        case .f32: BRAID_F32
        case .bf16: BRAID_BF16
        case .fp8: BRAID_FP8
        case .int8: BRAID_INT8
        case .fp4: BRAID_FP4
        }
    }
}
