import Foundation
import Inference
import JSON
import KVCache
import Modeling
import Planning
import Tensors

/// A layer report holds the times of a model's kinds of layers, and adds them up.
struct LayerReport {
    /// The name of the output head in lines.
    static let head = "head"

    let name: String
    let setup: LayerSetup
    let formats: WeightFormats
    let kernels: Kernels
    let peaks: MachinePeaks
    let measured: [LayerReport.Line]
    /// True if all kinds of layers were measured, so that times of the whole model follow.
    let isWhole: Bool

    /// The time of one layer of a kind at one size.
    struct Line {
        let kind: String
        /// The number of such layers in the model.
        let count: Int
        let rows: Int
        /// The number of tokens before the rows; 0 for a prompt.
        let context: Int
        let seconds: Measurements
        /// The seconds of these that the canonical order of sums costs; 0 for the head, which has none.
        var equality = 0.0
        let work: StepWork
    }

    /// A line as text and as JSON.
    struct Printed {
        let row: String
        let json: JSONValue
    }

    var heading: String {
        let machine = "\(Processor.name), \(setup.numerics), \(setup.layout)"
        let memory = String(format: "memory %.1f GB/s", peaks.memory / 1e9)
        return "\(name), weights \(formats): \(machine), \(memory)\n"
            + columns(
                "rows", "context", "milliseconds of a layer  ", "× layers", "GB/s", "GFLOP/s", "limit ms", "share",
                "equality")
            + "  kind"
    }

    var lines: [Printed] { measured.map(printed) + totals }

    private func printed(_ line: Line) -> Printed {
        let (median, limit) = (line.seconds.median!, limit(line))
        let operations = line.work.parts.reduce(0) { $0 + $1.operations }
        let bytes = line.work.parts.reduce(0) { $0 + $1.bytes }
        let row =
            columns(
                String(line.rows), String(line.context), spread(line.seconds.scaled(by: 1000)), String(line.count),
                String(format: "%.1f", bytes / median / 1e9), String(format: "%.1f", operations / median / 1e9),
                String(format: "%.2f", limit * 1000), String(format: "%.0f%%", 100 * limit / median),
                percent(line.equality / median).replacing(" ", with: "")) + "  "
            + line.kind
        return Printed(
            row: row,
            json: .object(
                facts("layer")
                    + JSONMember.list([
                        "layer": .string(line.kind), "layers": .integer(line.count), "rows": .integer(line.rows),
                        "context": .integer(line.context), "seconds": .measured(median),
                        "seconds_min": .measured(line.seconds.minimum), "seconds_max": .measured(line.seconds.maximum),
                        "limit_seconds": .measured(limit), "share": .measured(limit / median),
                        "equality_seconds": .measured(line.equality),
                    ]) + [line.work.member]))
    }

    /// The times of the whole model, for each size: those of all layers and of the head.
    private var totals: [Printed] {
        guard isWhole else { return [] }
        var sizes: [(rows: Int, context: Int)] = []
        for line in measured where !sizes.contains(where: { $0 == (line.rows, line.context) }) {
            sizes.append((line.rows, line.context))
        }
        return sizes.map { rows, context in
            let lines = measured.filter { $0.rows == rows && $0.context == context }
            let seconds = lines.reduce(0) { $0 + Double($1.count) * $1.seconds.median! }
            let limit = lines.reduce(0) { $0 + Double($1.count) * self.limit($1) }
            let equality = lines.reduce(0) { $0 + Double($1.count) * $1.equality }
            let text =
                context == 0
                ? String(format: "prompt of %d tokens: %.1f s", rows, seconds)
                : String(
                    format: "batch %d: %.1f ms per token, %.2f tokens/s", rows, seconds * 1000, Double(rows) / seconds)
            return Printed(
                row: "whole model, \(text), " + String(format: "%.0f%% of the limit", 100 * limit / seconds)
                    + "; equality costs \(percent(equality / seconds))",
                json: .object(
                    facts("layers")
                        + JSONMember.list([
                            "rows": .integer(rows), "context": .integer(context), "seconds": .measured(seconds),
                            "tokens_per_second": .measured(Double(rows) / seconds), "limit_seconds": .measured(limit),
                            "share": .measured(limit / seconds), "equality_seconds": .measured(equality),
                        ])))
        }
    }

    private func facts(_ kind: String) -> [JSONMember] {
        JSONMember.list([
            "kind": .string(kind), "model": .string(name), "weights": .string("\(formats)"),
            "processor": .string(Processor.name), "kernels": .string(setup.kernels.rawValue),
            "dtype": .string(setup.configuration.profile.name), "threads": .integer(setup.configuration.threads),
            "kv_cache_dtype": .string(setup.configuration.cacheType.keys.rawValue),
            "enable_deepseek_v4_fp4_indexer": .bool(setup.configuration.cacheType.hasFP4Index),
        ])
    }

    /// Returns the least seconds that a line's work takes: each part at the speed of the instructions of the profile, or of
    /// memory.
    private func limit(_ line: Line) -> Double {
        // The head is computed in F32 in every profile.
        let kernels = line.kind == Self.head ? kernels.inF32 : kernels
        return line.work.parts.reduce(0) { sum, part in
            let type: DType = part.name == StepWork.matrices ? formats.products.dtype : .bf16
            let rate = peaks.rate(of: kernels.instruction(of: type))
            return sum + max(part.operations / rate, part.bytes / peaks.memory)
        }
    }
}
