package import Checkpoints
import DeepSeekV32
import DeepSeekV4
package import Modeling

/// The registry lists the models that Braid can serve, one line each.
package enum ModelRegistry {
    package static let families: [any ModelConfiguration.Type] = [
        DeepSeekConfiguration.self, DeepSeekV4Configuration.self,
    ]

    /// Every legal `model_type`.
    package static var modelTypes: [String] { families.flatMap { $0.modelTypes } }

    /// Reads a configuration file with the target that knows its `model_type`.
    ///
    /// - Throws: `CheckpointError` that names the key, the value found and the legal values.
    package static func configuration(
        _ file: ConfigurationValue
    ) throws(CheckpointError) -> any ModelConfiguration {
        let type = try file.string("model_type", oneOf: modelTypes)
        let family = families.first { $0.modelTypes.contains(type) }!
        return try family.init(file)
    }
}
