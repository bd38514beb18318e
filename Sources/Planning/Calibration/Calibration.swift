import Foundation
import Modeling
import Parallelism

/// Predictions beside what was published, and what follows for the errors of others.
package struct Calibration: Sendable {
    /// One published number.
    package struct Point: Sendable {
        /// The number of its table.
        package let table: Int
        package let use: PublishedTable.Use
        /// True if no row of the same run was used for fitting.
        package let isIndependent: Bool
        package let kind: CalibrationClass
        package let row: PublishedTable.Row
        package let predicted: Double
        /// The devices and the weights it was measured with, which bound what counts as measured.
        package let devices: Int

        /// The logarithm of measured by predicted.
        package var residual: Double { log(row.value / predicted) }
        /// How far the prediction is from what was measured, as a fraction of the latter; negative where it is too low.
        package var error: Double { predicted / row.value - 1 }
    }

    package let tables: [PublishedTable]
    package let points: [Point]
    /// The errors of every class of which something was published.
    package let records: [CalibrationClass: ClassRecord]

    /// Makes a released model, as weights and cache of these types keep it.
    package typealias ModelSource = (PublishedTable.Run) throws -> PlannedModel

    package init(
        _ tables: [PublishedTable], _ efficiencies: EfficiencyTable, _ hardware: HardwareTable,
        model: ModelSource
    ) throws {
        self.tables = tables
        var points: [Point] = []
        for (number, table) in tables.enumerated() {
            guard let run = table.run else { continue }
            guard let device = hardware[run.hardware] else {
                throw HardwareError("published.json: there is no hardware '\(run.hardware)'")
            }
            let model = try model(run)
            let parallel = try ParallelConfiguration(notation: run.layout, for: model.description.parallelShape)
            let time = LayoutTime(model, parallel, Cluster(device, devices: run.devices), efficiencies[device])
            for row in table.rows {
                points.append(
                    Point(
                        table: number, use: table.use, isIndependent: table.isIndependent,
                        kind: CalibrationClass(model, device, run.quantity, parallel),
                        row: row,
                        predicted: Self.predict(time, run, row), devices: run.devices))
            }
        }
        self.points = points
        records = Dictionary(grouping: points, by: \.kind).mapValues(ClassRecord.init)
    }

    private static func predict(_ time: LayoutTime, _ run: PublishedTable.Run, _ row: PublishedTable.Row) -> Double {
        let prediction = Prediction(time, PlannedTraffic(input: row.input, output: row.output, chunk: run.chunk))
        return switch run.quantity {
        case .firstToken: prediction.firstToken.total
        case .perToken: prediction.perToken.total
        case .throughput: prediction.throughput
        }
    }

    /// The classes in the order in which they first occur.
    package var classes: [CalibrationClass] {
        var seen: [CalibrationClass] = []
        for point in points where !seen.contains(point.kind) { seen.append(point.kind) }
        return seen
    }
}
