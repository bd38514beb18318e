package import Parallelism

/// What one rank did since the start, for metrics.
package struct RankStatus: Sendable {
    package let rank: Int
    /// Its place on each axis of attention.
    package let coordinates: [(axis: Axis, place: Int)]
    package private(set) var steps = 0
    /// Rows it owned.
    package private(set) var rows = 0
    /// Spent in steps, collectives not counted.
    package private(set) var busySeconds = 0.0
    /// Its collectives, by operation.
    package private(set) var operations: [Meter.Account] = []

    init(rank: Int, mesh: Mesh) {
        self.rank = rank
        coordinates = [.pipeline, .data, .context, .tensor].map { ($0, mesh.coordinate(of: rank, on: $0)) }
    }

    /// Time in collectives, all together.
    package var collectiveSeconds: Double { operations.reduce(0) { $0 + $1.seconds } }

    mutating func add(_ report: StepReport) {
        let before = collectiveSeconds
        steps += 1
        rows += report.rows
        operations = report.operations
        busySeconds += report.seconds - (collectiveSeconds - before)
    }
}
