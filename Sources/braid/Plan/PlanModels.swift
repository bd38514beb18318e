package import Checkpoints
package import KVCache
package import Modeling
package import Models
package import Planning
import Tensors

/// Makes models to plan with, from `config.json` alone.
package enum PlanModels {
    /// - Parameter weights: how layers' matrices are kept; as `config.json` says when `nil`.
    package static func model(
        _ name: String, _ configuration: any ModelConfiguration, _ file: ConfigurationValue, cache: CacheType,
        weights: Hardware.ElementType? = nil
    ) throws(CheckpointError) -> PlannedModel {
        let description = configuration.description
        var stored = weights
        if stored == nil { stored = try storedType(description, file) }
        return PlannedModel(
            name, description, weights: stored!,
            format: configuration.cacheFormat(cache, pageSize: 128, drafts: false))
    }

    /// - Parameter name: a released model, or what `ModelDirectory` finds.
    package static func named(_ name: String, cache: CacheType) throws -> PlannedModel {
        if let released = ReleasedModel(rawValue: name.lowercased()) {
            return try self.released(released, cache: cache)
        }
        let directory = try ModelDirectory(name)
        let file = try ModelConfigurationFile.read(directory.path + "/config.json")
        // ModelSlim says it in another file.
        return try model(
            directory.name, directory.configuration, file, cache: cache,
            weights: directory.quantizedFormat == .int8 ? .int8 : nil)
    }

    package static func released(
        _ model: ReleasedModel, cache: CacheType, weights: Hardware.ElementType? = nil
    ) throws(CheckpointError) -> PlannedModel {
        try self.model(model.rawValue, model.configuration(), model.file(), cache: cache, weights: weights)
    }

    private static func storedType(
        _ model: ModelDescription, _ file: ConfigurationValue
    ) throws(CheckpointError) -> Hardware.ElementType {
        guard let quantization = try file.objectIfPresent("quantization_config") else {
            return model.weightType == .f32 ? .f32 : .bf16
        }
        return try QuantizationConfiguration.validate(quantization) == .int8 ? .int8 : .fp8
    }

    /// The models of published tables, each made once: for `Calibration` and `Fit`.
    package static func ofPublished() throws -> Calibration.ModelSource {
        var models: [String: PlannedModel] = [:]
        for table in try PublishedTable.builtIn() {
            guard let run = table.run else { continue }
            guard let released = ReleasedModel(rawValue: run.model) else {
                throw HardwareError("published.json: no model '\(run.model)' was released")
            }
            models[key(run)] = try models[key(run)] ?? self.released(released, cache: run.cache, weights: run.weights)
        }
        let made = models
        return { run in made[key(run)]! }
    }

    private static func key(_ run: PublishedTable.Run) -> String { "\(run.model) \(run.cache) \(run.weights)" }
}

extension Calibration {
    /// Against everything published, with the efficiencies the program carries.
    package static func builtIn() throws -> Calibration {
        try Calibration(
            PublishedTable.builtIn(), EfficiencyTable.builtIn(), HardwareTable.builtIn(),
            model: PlanModels.ofPublished())
    }
}
