import ArgumentParser
package import Checkpoints
import Modeling
package import Models
package import Tensors

/// The value of `--dtype`: a numerics profile by the name of the type to which it rounds operands, or the one that suits
/// the checkpoint.
package enum ProfileChoice: String, ExpressibleByArgument, CaseIterable, Sendable {
    case auto, float32, bfloat16

    package init?(argument: String) {
        switch argument {
        case "float", "fp32": self = .float32
        case "bf16": self = .bfloat16
        default: self.init(rawValue: argument)
        }
    }

    /// Returns the profile for a checkpoint. `auto` is resolved here and nowhere else.
    ///
    /// - Parameter weights: The checkpoint's weights; `nil` judges by `config.json`.
    package func profile(of directory: ModelDirectory, _ weights: WeightIndex?) -> NumericsProfile {
        switch self {
        case .auto:
            weights?.profile
                ?? (directory.description.weightType == .f32 && directory.quantization == nil ? .f32 : .bf16)
        case .float32: .f32
        case .bfloat16: .bf16
        }
    }
}
