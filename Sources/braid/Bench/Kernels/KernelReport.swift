import Foundation
import JSON
import Tensors

/// A kernel measurement holds the time of one operation, and the processor's limits measured at the same time.
struct KernelMeasurement {
    let measured: KernelCase
    /// The seconds of one run.
    let seconds: Measurements
    /// The processor's limits: floating-point operations per second, and bytes read per second.
    private let products: Double
    private let productName: String
    private let memory: Double

    init(_ measured: KernelCase, repetitions: Int, beside meter: PeakMeter) {
        // One measurement consists of as many runs as take a millisecond; the first run also warms caches.
        let first = processorSeconds(measured.run)
        let runs = max(Int(0.001 / first), 1)
        let instruction = meter.kernels.instruction(of: measured.type)
        var (seconds, products, memory): ([Double], [Double], [Double]) = ([], [], [])
        for _ in 0..<repetitions {
            products.append(meter.rate(of: instruction))
            memory.append(meter.memoryRead())
            seconds.append(processorSeconds { for _ in 0..<runs { measured.run() } } / Double(runs))
        }
        self.measured = measured
        self.seconds = Measurements(seconds)
        self.products = Measurements(products).median!
        productName = instruction.rawValue
        self.memory = Measurements(memory).median!
    }

    var operationsPerSecond: Double { measured.operations / seconds.median! }
    var bytesPerSecond: Double { measured.bytes / seconds.median! }

    private var ofProducts: Double { operationsPerSecond / products }
    private var ofMemory: Double { bytesPerSecond / memory }

    /// The fraction reached of the limit that bounds the operation more, and the name of that limit.
    var share: Double { max(ofProducts, ofMemory) }
    var limit: String { ofProducts > ofMemory ? productName : "memory" }

    static let titles = ["operation", "shape", "type", "rows", "µs", "µs/row", "GFLOP/s", "GB/s", "share", "of"]

    var row: [String] {
        let microseconds = seconds.median! * 1e6
        return [
            measured.operation, measured.shape, "\(measured.type)".uppercased(), String(measured.rows),
            String(format: "%.1f", microseconds), String(format: "%.2f", microseconds / Double(measured.rows)),
            measured.operations == 0 ? "" : String(format: "%.1f", operationsPerSecond / 1e9),
            String(format: "%.1f", bytesPerSecond / 1e9), percent(share), limit,
        ]
    }

    var json: JSONValue {
        let product = measured.product.map { product in
            JSONMember.list(["outputs": .integer(product.outputs), "inputs": .integer(product.inputs)])
        }
        return .object(
            JSONMember.list([
                "operation": .string(measured.operation), "shape": .string(measured.shape),
                "type": .string("\(measured.type)"), "rows": .integer(measured.rows),
            ]) + (product ?? [])
                + JSONMember.list([
                    "seconds": .measured(seconds.median), "seconds_min": .measured(seconds.minimum),
                    "seconds_max": .measured(seconds.maximum),
                    "gflops_per_second": measured.operations == 0 ? .null : .measured(operationsPerSecond / 1e9),
                    "gbytes_per_second": .measured(bytesPerSecond / 1e9), "share": .measured(share),
                    "of": .string(limit), "limit_gflops_per_second": .measured(products / 1e9),
                    "memory_gbytes_per_second": .measured(memory / 1e9),
                ]))
    }
}

/// A kernel report holds all measurements of one model on one machine.
struct KernelReport {
    let name: String
    let ranks: Int
    let level: Kernels.Level
    let profile: NumericsProfile
    let peaks: [MachinePeaks]
    let measurements: [KernelMeasurement]

    var text: String {
        var limits = TextTable(
            ["threads", "F32 FMA GFLOP/s", "BF16 tiles GFLOP/s", "int8 dot GOP/s", "BF16 dot GFLOP/s", "memory GB/s"],
            left: 0)
        for peak in peaks {
            limits.add([
                String(peak.threads), giga(peak.multiplyAdds), giga(peak.tileDots), giga(peak.int8Dots),
                giga(peak.bf16Dots),
                giga(peak.memory),
            ])
        }
        var table = TextTable(KernelMeasurement.titles, left: 3)
        for measurement in measurements { table.add(measurement.row) }
        let heading = "\(Processor.name), \(level.rawValue), \(profile.name); \(name), one of \(ranks) ranks; medians"
        return ([heading, ""] + limits.lines + [""] + table.lines).joined(separator: "\n")
    }

    private func giga(_ value: Double?) -> String { value.map { String(format: "%.1f", $0 / 1e9) } ?? "-" }

    /// Returns one JSON object with a line for each operation, so that two files can be compared line by line.
    func json(commit: String?, date: Date) -> String {
        let facts: [(String, JSONValue)] = [
            ("kind", .string("kernels")), ("processor", .string(Processor.name)), ("kernels", .string(level.rawValue)),
            ("dtype", .string(profile.name)),
            ("commit", commit.map(JSONValue.string) ?? .null),
            ("date", .string(date.formatted(.iso8601))), ("model", .string(name)), ("ranks", .integer(ranks)),
        ]
        let peaks = peaks.map { peak in
            JSONValue.fields([
                "threads": .integer(peak.threads), "fma_gflops_per_second": .measured(peak.multiplyAdds / 1e9),
                "tile_gflops_per_second": .measured(peak.tileDots.map { $0 / 1e9 }),
                "int8_gops_per_second": .measured(peak.int8Dots.map { $0 / 1e9 }),
                "bf16_gflops_per_second": .measured(peak.bf16Dots.map { $0 / 1e9 }),
                "memory_gbytes_per_second": .measured(peak.memory / 1e9),
            ])
        }
        func list(_ name: String, _ values: [JSONValue]) -> String {
            "  \"\(name)\": [\n" + values.map { "    " + $0.pythonText }.joined(separator: ",\n") + "\n  ]"
        }
        let members = facts.map { "  \"\($0)\": \($1.pythonText)" }
        let parts = members + [list("peaks", peaks), list("operations", measurements.map(\.json))]
        return "{\n" + parts.joined(separator: ",\n") + "\n}\n"
    }
}

/// Describes the processor this runs on.
package enum Processor {
    /// The processor's name with family and model, since virtual machines often hide the rest; the architecture alone
    /// if the system tells no more.
    package static var name: String {
        let lines = ((try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? "").split(separator: "\n")
        func value(_ key: String) -> String? {
            let line = lines.first { $0.prefix { $0 != ":" }.trimmingCharacters(in: .whitespaces) == key }
            return line.map { $0.drop { $0 != ":" }.dropFirst().trimmingCharacters(in: .whitespaces) }
        }
        guard let name = value("model name"), let family = value("cpu family"), let model = value("model") else {
            #if arch(x86_64)
                return "x86-64"
            #else
                guard let maker = value("CPU implementer"), let part = value("CPU part") else { return "64-bit Arm" }
                return "64-bit Arm (maker \(maker), part \(part))"
            #endif
        }
        return "\(name) (family \(family), model \(model))"
    }
}
