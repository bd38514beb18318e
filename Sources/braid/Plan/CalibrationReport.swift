import Foundation
package import Planning

/// Predictions beside published measurements, as Markdown: the tables of `Docs/planning.md`.
package struct CalibrationReport {
    private let calibration: Calibration

    package init(_ calibration: Calibration) { self.calibration = calibration }

    package var markdown: String {
        ([classes, tables, notExpressible].map { $0.joined(separator: "\n") }).joined(separator: "\n\n") + "\n"
    }

    private var classes: [String] {
        [
            "| class | fit: rows, median, worst | held out: rows, median, worst | 80 % interval | held out inside | verdict |",
            "|---|---|---|---|---|---|",
        ]
            + calibration.classes.map { kind in
                let record = calibration.records[kind]!
                let interval = record.interval.map { String(format: "× %.2f – %.2f", $0.lowerBound, $0.upperBound) }
                return "| \(kind) | \(text(record.fit)) | \(text(record.heldOut)) | "
                    + "\(interval ?? "–") | \(record.coverage.map { String(format: "%.0f %%", 100 * $0) } ?? "–") | "
                    + "\(record.verdict.rawValue) |"
            }
    }

    private func text(_ errors: ClassRecord.Errors?) -> String {
        errors.map { String(format: "%d, %.1f %%, %.1f %%", $0.count, 100 * $0.median, 100 * $0.worst) } ?? "–"
    }

    private var tables: [String] {
        ["| source | what | use | tokens | measured | predicted | error |", "|---|---|---|---|---|---|---|"]
            + calibration.points.map { point in
                let table = calibration.tables[point.table]
                let unit = point.kind.quantity == .throughput ? " tokens/s" : ""
                func text(_ value: Double) -> String {
                    unit.isEmpty ? secondsText(value) : String(format: "%.1f", value) + unit
                }
                return "| \(table.source) | \(table.what) | \(table.use.rawValue) | \(point.row.input) | "
                    + "\(text(point.row.value)) | \(text(point.predicted)) | "
                    + String(format: "%+.1f %% |", 100 * point.error)
            }
    }

    private var notExpressible: [String] {
        ["| source | published | why it is not predicted |", "|---|---|---|"]
            + calibration.tables.filter { $0.use == .notExpressible }.map {
                "| \($0.source) | \($0.what) | \($0.reason!) |"
            }
    }
}

/// `1.23 s` or `45.6 ms`: three digits.
package func secondsText(_ seconds: Double) -> String {
    if seconds >= 0.9995 {
        return String(format: seconds >= 99.95 ? "%.0f s" : seconds >= 9.995 ? "%.1f s" : "%.2f s", seconds)
    }
    let milliseconds = seconds * 1000
    return String(
        format: milliseconds >= 99.95 ? "%.0f ms" : milliseconds >= 9.995 ? "%.1f ms" : "%.2f ms", milliseconds)
}
