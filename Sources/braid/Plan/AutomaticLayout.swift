import ArgumentParser
import Checkpoints
import Foundation
package import KVCache
import Modeling
package import Models
import Parallelism
import Planning

/// The layout for this machine's cores that is predicted to serve most tokens a second.
package struct AutomaticLayout {
    /// What `--plan` may say.
    enum Choice: String, CaseIterable, ExpressibleByArgument {
        case auto
    }

    /// The ranks, as if they had been given.
    package let options: ParallelOptions
    /// Why, for the log.
    package let reasons: [String]

    /// Measures the model's operations on this machine, which takes seconds, and predicts every layout of up to one rank a
    /// core.
    ///
    /// - Parameters:
    ///   - cache: how keys are kept.
    ///   - chunk: prompt tokens of a step.
    ///   - cores: ranks, at most.
    /// - Throws: `CheckpointError`, or `CommandError` where no layout has room.
    package init(
        _ directory: ModelDirectory, cache: CacheType, chunk: Int,
        cores: Int = ProcessInfo.processInfo.activeProcessorCount
    ) throws {
        let model = PlanModels.model(directory.name, path: directory.path, directory.configuration, cache: cache)
        let kernels = PlanMeasurement.usualKernels(for: model)
        let hardware = try PlanMeasurement(model, kernels: kernels, cores: cores).hardware(name: "this machine")
        let answer = min(256, model.description.contextLength / 2)
        let traffic = PlannedTraffic(
            input: min(4096, model.description.contextLength - answer), output: answer, concurrency: 4, chunk: chunk)
        let predictions = (1...min(cores, 64)).flatMap { ranks in
            let planner = Planner(model, Cluster(hardware, devices: ranks), .measured(hardware))
            return planner.predictions(planner.startableLayouts, traffic)
        }
        let planner = Planner(model, Cluster(hardware, devices: 1), .measured(hardware))
        let ranked = planner.ranked(predictions, .init())
        guard let best = ranked.first, best.memory.fits else {
            throw CommandError("--plan auto: no layout has room for the weights on this machine")
        }
        let flags = LaunchFlags(best.parallel, traffic, model, hardware, cache: cache).layout
        options = try ParallelOptions.parse(flags)
        let alone = predictions[0]
        reasons = [
            "--plan auto: \(best.parallel.notation), of \(predictions.count) layouts on \(cores) cores"
                + (flags.isEmpty ? "" : ": " + flags.joined(separator: " ")),
            "predicted for \(traffic.concurrency) prompts of \(traffic.input) tokens and answers of \(traffic.output): "
                + "TTFT \(secondsText(best.firstToken.total)), TPOT \(secondsText(best.perToken.total)), "
                + "\(tokens(best)) tokens/s; one rank: \(secondsText(alone.firstToken.total)), "
                + "\(secondsText(alone.perToken.total)), \(tokens(alone)) tokens/s (not measured: Docs/planning.md)",
        ]
        func tokens(_ prediction: Prediction) -> String { String(format: "%.1f", prediction.throughput) }
    }
}

extension Efficiencies {
    /// Returns what kernels reach of measured hardware: what its file says, or else all of it.
    fileprivate static func measured(_ hardware: Hardware) -> Efficiencies { hardware.efficiencies ?? .measured }
}
