import Foundation
import Parallelism

/// Finds the efficiencies that make the published rows meant for fitting least wrong.
package struct Fit {
    /// Which numbers of a family are fitted on which quantity, one after the other, and between which bounds.
    struct Task {
        let family: String
        let quantity: PublishedTable.Quantity
        let numbers: [(Efficiencies.Fitted, ClosedRange<Double>)]
    }

    static let tasks = [
        Task(
            family: "h20", quantity: .perToken,
            numbers: [(.layer, 10e-6...2e-3), (.collective, 1e-6...100e-6)]),
        Task(
            family: "h20", quantity: .firstToken,
            numbers: [(.launch, 0.1e-3...20e-3), (.matrix, 0.2...1), (.index, 0.2...1)]),
        Task(family: "xeon-6980p", quantity: .perToken, numbers: [(.memory, 0.05...1)]),
    ]

    private let tables: [PublishedTable]
    private let hardware: HardwareTable
    private let model: Calibration.ModelSource

    /// - Parameter tables: of which only those meant for fitting are looked at.
    package init(_ tables: [PublishedTable], _ hardware: HardwareTable, model: @escaping Calibration.ModelSource) {
        self.tables = tables.filter { $0.use == .fit }
        self.hardware = hardware
        self.model = model
    }

    /// The fitted numbers by family, in the file's units and rounded to four digits.
    package func run() throws -> EfficiencyTable {
        var table = EfficiencyTable(families: [:])
        for task in Self.tasks {
            let rows = tables.filter { $0.run?.quantity == task.quantity && family(of: $0) == task.family }
            try fit(task, rows, &table)
        }
        return table.rounded()
    }

    private func family(of table: PublishedTable) -> String? {
        table.run.flatMap { hardware[$0.hardware]?.family }
    }

    /// Golden-section search along one number after the other: deterministic, and the sum of squares has one valley.
    private func fit(_ task: Task, _ rows: [PublishedTable], _ table: inout EfficiencyTable) throws {
        var best = table.families[task.family] ?? [:]
        func loss(_ numbers: [Efficiencies.Fitted: Double]) throws -> Double {
            let trial = EfficiencyTable(families: [task.family: numbers])
            return try Calibration(rows, trial, hardware, model: model).points.reduce(0) {
                $0 + $1.residual * $1.residual
            }
        }
        var before = Double.infinity
        while true {
            let now = try loss(best)
            if before - now < 1e-9 { break }
            before = now
            for (number, bounds) in task.numbers {
                var (low, high) = (log(bounds.lowerBound), log(bounds.upperBound))
                func value(_ place: Double) throws -> Double {
                    best[number] = exp(place)
                    return try loss(best)
                }
                for _ in 0..<40 {
                    let (a, b) = (high - 0.618_034 * (high - low), low + 0.618_034 * (high - low))
                    if try value(a) < value(b) { high = b } else { low = a }
                }
                best[number] = exp((low + high) / 2)
            }
        }
        table.families[task.family] = best
    }
}
