import Foundation
package import JSON
import KVCache
import Planning

extension ServerComparison {
    /// The comparison for a person to read.
    package var text: String { (heading + [""] + table.lines + [""] + explanations).joined(separator: "\n") }

    private var heading: [String] {
        let mean = String(
            format: "%d finished requests: %.1f tokens in, %.1f out, %.2f at a time", served.prompt.count,
            served.prompt.value, served.answer.value, served.concurrency)
        let more = [
            served.hitRate > 0 ? "\(percent(served.hitRate)) of prompts cached" : nil,
            traffic.drafts > 0 ? String(format: "%.2f tokens a step", served.tokensPerStep) : nil,
            served.preemptions > 0 ? "\(served.preemptions) preemptions" : nil,
        ].compactMap { $0 }
        return [
            titled("server", "\(address), \(planner.model.name), weights \(planner.model.formats)"),
            titled("engine", engine.summary),
            titled("hardware", "\(planner.cluster.devices) × \(planner.cluster.hardware.title)"),
            titled("measured", ([mean] + more).joined(separator: ", ")),
            titled(
                "predicted",
                "\(traffic.input) tokens in, \(traffic.output) out, \(traffic.concurrency) at a time, chunks of "
                    + "\(traffic.chunk)"),
        ]
    }

    private var table: TextTable {
        var table = TextTable(
            ["", "measured", "mean of", "predicted", "80 %", "measured / predicted", "inside", "limits"], left: 1)
        for row in rows {
            func text(_ value: Double) -> String {
                row.quantity == .throughput ? String(format: "%.1f", value) : secondsText(value)
            }
            let interval = row.confidence.interval.map {
                "\(text($0.lowerBound * row.predicted)) – \(text($0.upperBound * row.predicted))"
            }
            table.add([
                row.title, text(row.measured), "\(row.count) \(row.what)", text(row.predicted),
                [interval, row.confidence.note].compactMap { $0 }.joined(separator: ", "),
                String(format: row.ratio < 0.1 ? "%.2g ×" : "%.2f ×", row.ratio),
                row.isInside.map { $0 ? "yes" : "no" } ?? "–", row.limit,
            ])
        }
        return table
    }

    private var explanations: [String] {
        let others = promptsPerToken > 0 ? ", which would add \(secondsText(promptsPerToken))" : ""
        return [
            "measured: means of all requests since the server started; predicted: requests of the mean lengths",
            "TTFT: from arrival, with waiting and steps shared with others; predicted for a prompt alone",
            "TPOT: between the tokens of a request; predicted for decode steps of all requests, without prompts between "
                + "them\(others)",
            "tokens/s: while any request ran; predicted while requests always wait",
            "inside: whether what was measured lies in the 80 % interval, – where there is none · limits: what most of the",
            "predicted time is spent on",
        ]
    }

    /// For machines: seconds, and intervals as their two ends.
    package var json: JSONValue {
        .fields([
            "kind": .string("comparison"), "server": .string(address), "model": .string(planner.model.name),
            "weights": .string("\(planner.model.formats)"), "layout": .string(engine.notation),
            "threads_per_rank": .integer(engine.threadsPerRank), "processes": .integer(engine.processes),
            "dtype": .string(engine.dtype), "kernels": .string(engine.kernels),
            "kv_cache_dtype": .string(engine.cache.keys.rawValue),
            "enable_deepseek_v4_fp4_indexer": .bool(engine.cache.hasFP4Index),
            "chunked_prefill_size": .integer(engine.chunk),
            "hardware": planner.cluster.hardware.json,
            "measured": .fields([
                "requests": .integer(served.prompt.count), "input_tokens": .measured(served.prompt.value),
                "output_tokens": .measured(served.answer.value), "concurrency": .measured(served.concurrency),
                "prefix_hit_rate": .measured(served.hitRate), "tokens_per_step": .measured(served.tokensPerStep),
                "preemptions": .integer(served.preemptions),
            ]),
            "predicted": .fields([
                "input_tokens": .integer(traffic.input), "output_tokens": .integer(traffic.output),
                "concurrency": .integer(traffic.concurrency),
            ]),
            "prompts_of_others_per_token": .measured(promptsPerToken),
            "quantities": .array(rows.map(\.json)),
        ])
    }
}

extension ServerComparison.Row {
    fileprivate var title: String {
        switch quantity {
        case .firstToken: "TTFT"
        case .perToken: "TPOT"
        case .throughput: "tokens/s"
        }
    }

    fileprivate var json: JSONValue {
        .fields([
            "quantity": .string(quantity.rawValue), "measured": .measured(measured), "count": .integer(count),
            "predicted": .measured(predicted), "low": .measured(confidence.interval.map { $0.lowerBound * predicted }),
            "high": .measured(confidence.interval.map { $0.upperBound * predicted }),
            "note": .optional(confidence.note), "ratio": .measured(ratio),
            "inside": isInside.map(JSONValue.bool) ?? .null, "limits": .string(limit),
        ])
    }
}
