import CKernels

/// Says how products and attention round, and in which order they add. It is a property of a run: all ranks have the
/// same, and every instruction-set level computes each of them with the same bits. `profile.h` has the formulas.
package enum NumericsProfile: String, Sendable, CaseIterable {
    /// Operands are widened to F32. Each output of a product is one chain of fused multiply-adds.
    case f32
    /// Operands are rounded to BF16 and added in F32, in the order in which AMX adds.
    case bf16

    /// The version of all profiles. It must change with every change of an order of summation or of a rounding: servers
    /// of different versions would give answers that neither gives alone.
    package static let version = 1

    /// The name by which options and clients call it: that of the type to which operands are rounded.
    package var name: String {
        switch self {
        case .f32: "float32"
        case .bf16: "bfloat16"
        }
    }

    var kernelValue: braid_profile {
        switch self {
        case .f32: BRAID_PROFILE_F32
        case .bf16: BRAID_PROFILE_BF16
        }
    }
}
