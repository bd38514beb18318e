import CKernels

/// Says how products and attention round, and in which order they add. It is a property of a run: all ranks have the
/// same, and every instruction-set level computes each of them with the same bits. `profile.h` has the formulas.
package enum NumericsProfile: String, Sendable, CaseIterable {
    /// Operands are widened to F32. Each output of a product is one chain of fused multiply-adds.
    case f32
    /// Operands are rounded to BF16 and added in F32, in the order in which AMX adds.
    case bf16
    /// As `bf16`, but products of INT8 weights round activations to integers, with a scale for each row and K-slice, and
    /// add integers exactly: W8A8.
    case int8
    /// As `int8`, but all else is as in `f32`.
    case int8F32 = "int8-f32"

    /// The version of all profiles. It must change with every change of an order of summation or of a rounding: servers
    /// of different versions would give answers that neither gives alone.
    package static let version = 1

    /// The name by which options and clients call it: that of the type to which operands are rounded.
    package var name: String {
        switch self {
        case .f32: "float32"
        case .bf16: "bfloat16"
        case .int8: "int8"
        case .int8F32: "int8-float32"
        }
    }

    /// The profile of a product of activations with weights.
    var kernelValue: braid_profile {
        switch self {
        case .f32: BRAID_PROFILE_F32
        case .bf16: BRAID_PROFILE_BF16
        case .int8: BRAID_PROFILE_INT8
        case .int8F32: BRAID_PROFILE_INT8_F32
        }
    }

    /// The profile of attention and index scores, and of the products of single heads, which belong to attention: W8A8
    /// checkpoints do not quantize what they read.
    var attentionValue: braid_profile { roundsToBF16 ? BRAID_PROFILE_BF16 : BRAID_PROFILE_F32 }

    /// True if operands of attention, and of products other than those of INT8 weights, are rounded to BF16.
    package var roundsToBF16: Bool { self == .bf16 || self == .int8 }

    /// True if the profile differs from another one where weights are INT8, and only there.
    package var isForIntegers: Bool { self == .int8 || self == .int8F32 }
}
