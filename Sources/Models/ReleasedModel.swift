package import Checkpoints
package import Modeling

/// A model that was released, as its `config.json` alone: what one plans with before downloading weights.
package enum ReleasedModel: String, Sendable, CaseIterable {
    case v31 = "v3.1"
    case v32 = "v3.2"
    case v4Flash = "v4-flash"
    case v4Pro = "v4-pro"
    case glm5 = "glm-5"

    /// Finds a model by its short name or by the one on Hugging Face, in capitals or not.
    package init?(named name: String) {
        let wanted = name.lowercased()
        let model = Self.allCases.first { wanted == $0.rawValue || wanted == $0.repository.lowercased() }
        guard let model else { return nil }
        self = model
    }

    private var bytes: [UInt8] {
        switch self {
        case .v31: PackageResources.v3_1_json
        case .v32: PackageResources.v3_2_json
        case .v4Flash: PackageResources.v4_flash_json
        case .v4Pro: PackageResources.v4_pro_json
        case .glm5: PackageResources.glm_5_json
        }
    }

    /// The model's name on Hugging Face, by which commands find it in the download cache.
    package var repository: String {
        switch self {
        case .v31: "deepseek-ai/DeepSeek-V3.1"
        case .v32: "deepseek-ai/DeepSeek-V3.2"
        case .v4Flash: "deepseek-ai/DeepSeek-V4-Flash"
        case .v4Pro: "deepseek-ai/DeepSeek-V4-Pro"
        case .glm5: "zai-org/GLM-5"
        }
    }

    /// Returns the model's configuration, read from the released `config.json`.
    ///
    /// - Throws: `CheckpointError` if the file and the readers no longer agree.
    package func configuration() throws(CheckpointError) -> any ModelConfiguration {
        try ModelRegistry.configuration(file())
    }

    /// Returns the released `config.json`, parsed.
    ///
    /// - Throws: `CheckpointError` if the file and the reader no longer agree.
    package func file() throws(CheckpointError) -> ConfigurationValue {
        try ModelConfigurationFile.parse(bytes, file: rawValue + ".json")
    }
}
