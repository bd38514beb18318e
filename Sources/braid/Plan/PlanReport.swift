import Foundation
package import KVCache
import Modeling
import Parallelism
package import Planning

/// Ranked predictions for a person to read.
package struct PlanReport {
    package let planner: Planner
    package let traffic: PlannedTraffic
    package let calibration: Calibration
    package let cache: CacheType
    /// What was assumed of the devices where none were named, and how to name them.
    package let assumed: String?
    /// Best first.
    package let predictions: [Prediction]
    /// The number of layouts that were predicted.
    package let considered: Int
    package let objectives: Planner.Objectives

    package init(
        _ planner: Planner, _ traffic: PlannedTraffic, _ calibration: Calibration, cache: CacheType,
        assumed: String? = nil, predictions: [Prediction], considered: Int, objectives: Planner.Objectives
    ) {
        self.planner = planner
        self.traffic = traffic
        self.calibration = calibration
        self.cache = cache
        self.assumed = assumed
        self.predictions = predictions
        self.considered = considered
        self.objectives = objectives
    }

    package var text: String {
        (heading + [""] + table.lines + [""] + Self.definitions + [""] + flags).joined(separator: "\n")
    }

    private var heading: [String] {
        let hardware = planner.cluster.hardware
        let engine = hardware.kind == .processor ? "Braid" : "engines for accelerators (as SGLang shares work)"
        var lines = assumed.map { [titled("assumed", $0)] } ?? []
        lines += [
            titled(
                "model", "\(planner.model.name), weights \(planner.model.formats), cache \(cache.rawValue)"),
            titled("hardware", "\(planner.cluster.devices) × \(hardware.title); predicted for \(engine)"),
        ]
        if let numerics { lines.append(titled("numerics", numerics)) }
        lines += [
            titled(
                "traffic",
                "\(traffic.input) tokens in, \(traffic.output) out, \(traffic.concurrency) at a time, "
                    + "chunks of \(traffic.chunk)"),
            titled("layouts", "\(considered) predicted"),
        ]
        if !predictions.isEmpty && !predictions[0].fits {
            lines.append(titled("", "none has room for the weights and \(predictions[0].neededTokens) tokens of keys"))
        } else if let best = predictions.first, !objectives.areMet(by: best) {
            lines.append(titled("", "none meets the objectives"))
        }
        return lines
    }

    /// How Braid computes on a processor; `nil` for accelerators, and for F32 weights.
    private var numerics: String? {
        let (hardware, weights) = (planner.cluster.hardware, planner.model.weights)
        guard hardware.kind == .processor, weights != .f32 else { return nil }
        if hardware.kernels[.bf16] == nil { return "float32" }
        let factor = hardware.rate(.f32) / hardware.rate(weights)
        let advice = String(format: "; products of --dtype float32 are %.2f × as fast here", factor)
        // With kernels of one type alone, nothing is known of the other.
        let isFaster = hardware.kernels[.f32] != nil && factor > 1.005
        let reason =
            weights == .int8
            ? "; --dtype auto takes int8 for such weights, which is not predicted yet"
            : ", which --dtype auto takes for such weights"
        return "bfloat16" + reason + (isFaster ? advice : "")
    }

    private var table: TextTable {
        var table = TextTable(
            ["", "layout", "TTFT", "80 %", "TPOT", "80 %", "tokens/s", "80 %", "capacity", "limits"], left: 2)
        for (number, prediction) in predictions.enumerated() {
            table.add(
                ["\(number + 1)", prediction.parallel.notation]
                    + cells(.firstToken, prediction, prediction.firstToken.total, secondsText)
                    + cells(.perToken, prediction, prediction.perToken.total, secondsText)
                    + cells(.throughput, prediction, prediction.throughput) { String(format: "%.1f", $0) }
                    + [
                        prediction.fits ? "\(prediction.memory.capacity)" : "no room",
                        "\(prediction.firstToken.limit.rawValue) / \(prediction.perToken.limit.rawValue)",
                    ])
        }
        return table
    }

    private func cells(
        _ quantity: PublishedTable.Quantity, _ prediction: Prediction, _ value: Double, _ text: (Double) -> String
    ) -> [String] {
        let confidence = confidence(quantity, prediction)
        let interval = confidence.interval.map { "\(text($0.lowerBound * value)) – \(text($0.upperBound * value))" }
        return [text(value), [interval, confidence.note].compactMap { $0 }.joined(separator: ", ")]
    }

    func confidence(_ quantity: PublishedTable.Quantity, _ prediction: Prediction) -> Confidence {
        calibration.confidence(quantity, planner.model, planner.cluster, prediction.parallel, traffic)
    }

    private static let definitions = [
        "TTFT: one prompt with nothing before it in the queue · TPOT: a decode step of all requests, by the tokens it",
        "yields to each · tokens/s: new tokens while requests always wait · capacity: tokens whose keys fit, all requests",
        "together · limits: what most of TTFT / of TPOT is spent on · 80 %: the interval that errors of published rows",
        "justify; not measured: nothing near was published; not calibrated: published rows were missed by more than 10 %",
        "in the median or 30 % at worst; fitted only, too few rows: nothing, or little, tells how wrong it is elsewhere",
    ]

    private var flags: [String] {
        predictions.prefix(3).enumerated().flatMap { number, prediction in
            let flags = LaunchFlags(
                prediction.parallel, traffic, planner.model, planner.cluster.hardware, cache: cache)
            return [
                "\(number + 1)  \(flags.braidLine)",
                "   \(flags.sglangLine)",
            ] + flags.refusals.map { "   SGLang refuses: \($0)" }
        }
    }
}
