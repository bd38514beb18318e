package import Checkpoints
package import KVCache
package import Modeling
package import Models
package import Planning
import Tensors

/// Makes models to plan with, from `config.json` alone.
package enum PlanModels {
    /// - Parameters:
    ///   - path: what commands take as `--model-path`.
    ///   - weights: how layers' matrices are kept; as `config.json` says when `nil`.
    package static func model(
        _ name: String, path: String, _ configuration: any ModelConfiguration, cache: CacheType,
        weights: Hardware.ElementType? = nil
    ) -> PlannedModel {
        var description = configuration.description
        if let weights {
            description.formats.products = WeightFormat(weights.stored)
            description.formats.experts = description.formats.products
        }
        return PlannedModel(
            name, path: path, description, format: configuration.cacheFormat(cache, pageSize: 128, drafts: false))
    }

    /// - Parameters:
    ///   - name: a released model, or what `ModelDirectory` finds.
    ///   - cache: returns how the model's keys are kept.
    package static func named(
        _ name: String, cache: (ModelDescription) throws -> CacheType
    ) throws -> PlannedModel {
        if let released = ReleasedModel(named: name) {
            return try self.released(released, cache: cache(released.configuration().description))
        }
        let directory: ModelDirectory
        do throws(CheckpointError) {
            directory = try ModelDirectory(name)
        } catch {
            let released = ReleasedModel.allCases.map(\.rawValue).joined(separator: ", ")
            throw CommandError("\(error); these released models need no files: \(released)")
        }
        // ModelSlim says it in another file than config.json.
        return try model(
            directory.name, path: name, directory.configuration, cache: cache(directory.description),
            weights: directory.quantization == "modelslim" ? .int8 : nil)
    }

    package static func released(
        _ model: ReleasedModel, cache: CacheType, weights: Hardware.ElementType? = nil
    ) throws(CheckpointError) -> PlannedModel {
        self.model(
            model.rawValue, path: model.repository, try model.configuration(), cache: cache, weights: weights)
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
