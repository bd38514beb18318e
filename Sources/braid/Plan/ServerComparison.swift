import Foundation
import Modeling
import Parallelism
package import Planning

/// What a running server has measured beside what is predicted for the same engine and the same traffic.
package struct ServerComparison {
    /// One quantity.
    package struct Row: Sendable {
        package let quantity: PublishedTable.Quantity
        package let measured: Double
        /// The number of observations, and of what.
        package let count: Int
        package let what: String
        package let predicted: Double
        package let confidence: Confidence
        /// What most of the predicted time is spent on.
        package let limit: String

        package var ratio: Double { measured / predicted }
        /// Tells whether the measurement lies within the interval; `nil` where there is none.
        package var isInside: Bool? { confidence.interval.map { $0.contains(ratio) } }
    }

    package let engine: ServedEngine
    package let served: ServedTraffic
    package let planner: Planner
    package let traffic: PlannedTraffic
    package let rows: [Row]
    /// Seconds by which the prompts of other requests lengthen each token of one: not in the prediction of TPOT.
    package let promptsPerToken: Double
    let address: String

    /// - Parameters:
    ///   - address: the server, for the heading.
    ///   - hardware: a device for each rank; where it was measured, a core, of which a rank has one for each thread.
    /// - Throws: `CommandError` where the server cannot be running that model.
    package init(
        address: String, _ engine: ServedEngine, _ served: ServedTraffic, _ model: PlannedModel, _ hardware: Hardware,
        _ calibration: Calibration
    ) throws {
        (self.address, self.engine, self.served) = (address, engine, served)
        let parallel = try Self.parallel(engine, model)
        var device = hardware.efficiencies == nil ? hardware : hardware.joined(engine.threadsPerRank)
        // The server's profile may be another than the one that --dtype auto takes for such weights.
        let isF32 = engine.dtype == "float32"
        if device.kind == .processor, isF32 != (model.weights == .f32) {
            device.kernels = device.kernels.all(in: isF32 ? .f32 : .bf16)
        }
        // Ranks of one process are on one host, also where they share its cores.
        device.devicesPerHost = max(device.devicesPerHost, parallel.world / max(engine.processes, 1))
        planner = Planner(
            model, Cluster(device, devices: parallel.world), try EfficiencyTable.builtIn()[device])
        traffic = served.planned(engine)
        guard traffic.input + traffic.output <= model.description.contextLength else {
            throw Self.otherModel(
                model,
                "requests of \(traffic.input + traffic.output) tokens, more than its context of "
                    + "\(model.description.contextLength)")
        }
        let prediction = planner.predictions([parallel], traffic)[0]
        let requests = (traffic.concurrency + parallel.data - 1) / parallel.data
        promptsPerToken = Double(requests - 1) * prediction.occupancy / Double(traffic.output)
        rows = Self.rows(served, prediction, requests: traffic.concurrency) { [planner, traffic] quantity in
            calibration.confidence(quantity, model, planner.cluster, parallel, traffic)
        }
    }

    private static func parallel(_ engine: ServedEngine, _ model: PlannedModel) throws -> ParallelConfiguration {
        guard engine.vocabularySize == model.description.vocabularySize else {
            throw otherModel(
                model, "a vocabulary of \(engine.vocabularySize), and not of \(model.description.vocabularySize)")
        }
        let parallel: ParallelConfiguration
        do throws(NotationError) {
            parallel = try ParallelConfiguration(notation: engine.notation, for: model.description.parallelShape)
        } catch {
            throw otherModel(model, "the layout '\(engine.notation.printableLine)': \("\(error)".printableLine)")
        }
        guard parallel.world <= Cluster.maxDevices else {
            throw otherModel(model, "\(parallel.world) ranks, more than \(Cluster.maxDevices)")
        }
        return parallel
    }

    private static func otherModel(_ model: PlannedModel, _ reason: String) -> CommandError {
        CommandError(
            "--compare: the server cannot be running \(model.name), for it has \(reason); give the model that it runs as "
                + "--model-path")
    }

    private static func rows(
        _ served: ServedTraffic, _ prediction: Prediction, requests: Int,
        _ confidence: (PublishedTable.Quantity) -> Confidence
    ) -> [Row] {
        func row(
            _ quantity: PublishedTable.Quantity, _ measured: Double, _ count: Int, _ what: String, _ predicted: Double,
            _ limit: String
        ) -> Row {
            Row(
                quantity: quantity, measured: measured, count: count, what: what, predicted: predicted,
                confidence: confidence(quantity), limit: limit)
        }
        let decoding = prediction.perToken.total * prediction.throughput / Double(requests)
        return [
            row(
                .firstToken, served.firstToken.value, served.firstToken.count, "requests", prediction.firstToken.total,
                prediction.firstToken.limit.rawValue),
            row(
                .perToken, served.perToken.value, served.perToken.count, "tokens", prediction.perToken.total,
                prediction.perToken.limit.rawValue),
            row(
                .throughput, served.throughput, served.answer.count, "requests", prediction.throughput,
                decoding >= 0.5
                    ? "decode steps, " + String(format: "%.0f %%", 100 * decoding)
                    : "prompts, " + String(format: "%.0f %%", 100 * (1 - decoding))),
        ]
    }
}
