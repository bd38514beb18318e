import CKernels

/// Says how a scale of FP8 or FP4 elements in a cache lane is stored.
package enum ScaleType: Sendable, Equatable, CaseIterable {
    /// A scale is a number of 32 bits.
    case f32
    /// A scale is a power of two, stored as the byte of its exponent: 2^(byte - 127), and NaN for 255.
    case e8m0

    /// The size of a scale in bytes.
    package var bytes: Int { Int(braid_scale_bytes(kernelValue)) }

    var kernelValue: braid_scale_type {
        switch self {
        case .f32: BRAID_SCALE_F32
        case .e8m0: BRAID_SCALE_E8M0
        }
    }
}
