import ArgumentParser
package import Checkpoints
package import Modeling
package import Models
package import Tensors

/// The value of `--dtype`: a numerics profile by the name of the type to which it rounds operands, or the one that suits
/// the checkpoint.
package enum ProfileChoice: String, ExpressibleByArgument, CaseIterable, Sendable {
    case auto, float32, bfloat16, int8
    case int8Float32 = "int8-float32"

    package init?(argument: String) {
        switch argument {
        case "float", "fp32": self = .float32
        case "bf16": self = .bfloat16
        default: self.init(rawValue: argument)
        }
    }

    /// Returns the profile for a checkpoint.
    ///
    /// - Parameter weights: The checkpoint's weights; `nil` judges by `config.json`.
    package func profile(of directory: ModelDirectory, _ weights: WeightIndex?) -> NumericsProfile {
        named ?? weights?.profile ?? Self.profile(byConfigurationOf: directory)
    }

    /// Returns the profile for weights that are stored in these formats.
    package func profile(of formats: WeightFormats) -> NumericsProfile {
        if let named { return named }
        switch formats.products.dtype {
        case .f32: return .f32
        case .int8: return formats.plain.dtype == .f32 ? .int8F32 : .int8
        case .bf16, .fp8, .fp4: return .bf16
        }
    }

    /// The profile that the option names; `nil` for `auto`, which this type resolves and no other.
    private var named: NumericsProfile? {
        switch self {
        case .auto: nil
        case .float32: .f32
        case .bfloat16: .bf16
        case .int8: .int8
        case .int8Float32: .int8F32
        }
    }

    private static func profile(byConfigurationOf directory: ModelDirectory) -> NumericsProfile {
        switch directory.quantizedFormat {
        case .int8: directory.description.weightType == .f32 ? .int8F32 : .int8
        case nil: directory.description.weightType == .f32 ? .f32 : .bf16
        default: .bf16
        }
    }
}

extension NumericsProfile {
    /// Returns false if the profile is the same as another one for a checkpoint, because no weights are INT8.
    func differs(for directory: ModelDirectory, _ weights: WeightIndex?) -> Bool {
        !isForIntegers || (weights?.hasIntegers ?? (directory.quantizedFormat == .int8))
    }

    /// - Throws: `CommandError` if the profile is one for INT8 weights, and a checkpoint has none.
    func check(_ directory: ModelDirectory, _ weights: WeightIndex?) throws {
        guard !differs(for: directory, weights) else { return }
        throw CommandError("--dtype: \(name) is for checkpoints with INT8 weights, and this one has none; leave it out")
    }
}
