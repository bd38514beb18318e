package import JSON
import KVCache
import Parallelism
import Planning

extension PlanReport {
    /// For machines: seconds, bytes, and intervals as their two ends.
    package var json: JSONValue {
        .fields([
            "kind": .string("plan"), "assumed": .optional(assumed), "model": .string(planner.model.name),
            "weights": .string("\(planner.model.formats)"),
            "kv_cache_dtype": .string(cache.keys.rawValue), "enable_deepseek_v4_fp4_indexer": .bool(cache.hasFP4Index),
            "hardware": planner.cluster.hardware.json, "devices": .integer(planner.cluster.devices),
            "input_tokens": .integer(traffic.input), "output_tokens": .integer(traffic.output),
            "concurrency": .integer(traffic.concurrency), "layouts_predicted": .integer(considered),
            "layouts": .array(predictions.map(json)),
        ])
    }

    private func json(_ prediction: Prediction) -> JSONValue {
        let memory = prediction.memory
        let flags = LaunchFlags(prediction.parallel, traffic, planner.model, planner.cluster.hardware, cache: cache)
        return .fields([
            "layout": .string(prediction.parallel.notation), "fits": .bool(prediction.fits),
            "meets_objectives": .bool(objectives.areMet(by: prediction)),
            "ttft": json(.firstToken, prediction, prediction.firstToken.total),
            "ttft_parts": prediction.firstToken.json,
            "tpot": json(.perToken, prediction, prediction.perToken.total), "tpot_parts": prediction.perToken.json,
            "output_tokens_per_second": json(.throughput, prediction, prediction.throughput),
            "memory_bytes": .fields([
                "weights": .measured(memory.weights), "keys_per_token": .measured(memory.keysPerToken),
                "windows": .measured(memory.windows),
                "scratch": .measured(memory.scratch), "transport": .measured(memory.transport),
                "available": .measured(memory.available),
            ]),
            "capacity_tokens": .integer(memory.capacity),
            "layout_flags": .array(flags.layout.map(JSONValue.string)),
            "flags": .array(flags.braid.map(JSONValue.string)), "command": .string(flags.braidLine),
            "sglang": .array(flags.sglang.map(JSONValue.string)),
            "sglang_refusals": .array(flags.refusals.map(JSONValue.string)),
        ])
    }

    private func json(
        _ quantity: PublishedTable.Quantity, _ prediction: Prediction, _ value: Double
    ) -> JSONValue {
        let confidence = confidence(quantity, prediction)
        return .fields([
            "value": .measured(value), "low": .measured(confidence.interval.map { $0.lowerBound * value }),
            "high": .measured(confidence.interval.map { $0.upperBound * value }), "note": .optional(confidence.note),
        ])
    }
}

extension StepTime {
    /// The seconds of each part of the step, under the part's name.
    var json: JSONValue {
        .object(Part.allCases.map { JSONMember($0.rawValue, .measured(self[$0])) })
    }
}
