import Foundation
import Modeling
import Parallelism
package import Planning

/// Two models side by side over lengths of prompts, and where one overtakes the other.
package struct ModelComparison {
    package struct Row: Sendable {
        package let input: Int
        package let firstToken: [Double]
        package let perToken: [Double]
    }

    package let planners: [Planner]
    package let rows: [Row]
    private let traffic: PlannedTraffic

    /// - Parameter planners: two, for the same devices.
    /// - Throws: `ParallelRequest.Refusal` where the devices do not divide a model's heads.
    package init(_ planners: [Planner], _ traffic: PlannedTraffic) throws {
        precondition(planners.count == 2, "\(planners.count) models")
        self.planners = planners
        self.traffic = traffic
        let most = planners.map(\.model.description.contextLength).min()!
        var rows: [Row] = []
        for input in sequence(first: max(1, min(1024, most / 2)), next: { $0 * 2 }).prefix(while: { $0 < max(most, 2) })
        {
            rows.append(
                Row(
                    input: input, firstToken: try planners.map { try Self.times($0, traffic, input).firstToken },
                    perToken: try planners.map { try Self.times($0, traffic, input).perToken }))
        }
        self.rows = rows
    }

    /// Prompts on all devices as context ranks, decode steps on all as tensor ranks.
    private static func times(
        _ planner: Planner, _ traffic: PlannedTraffic, _ input: Int
    ) throws -> (firstToken: Double, perToken: Double) {
        var traffic = traffic
        traffic.input = input
        func predict(_ context: Int) throws -> Prediction {
            var request = ParallelRequest()
            request.tpSize = planner.cluster.devices
            request.attnCPSize = context
            let shape = planner.model.description.parallelShape
            let parallel = try request.resolve(for: shape, maxRanks: Cluster.maxDevices)
            return Prediction(LayoutTime(planner.model, parallel, planner.cluster, planner.efficiencies), traffic)
        }
        return (try predict(planner.cluster.devices).firstToken.total, try predict(1).perToken.total)
    }

    /// The shortest prompt from which the second model is faster than the first, between two rows of the table; `nil`
    /// where it never is, or always.
    package func crossover(_ path: KeyPath<Row, [Double]>) throws -> Int? {
        func isFaster(_ row: Row) -> Bool { row[keyPath: path][1] < row[keyPath: path][0] }
        guard let after = rows.firstIndex(where: isFaster), after > 0 else { return nil }
        var (low, high) = (rows[after - 1].input, rows[after].input)
        while high - low > 1 {
            let middle = (low + high) / 2
            let times = try planners.map { try Self.times($0, traffic, middle) }
            let row = Row(input: middle, firstToken: times.map(\.firstToken), perToken: times.map(\.perToken))
            if isFaster(row) { high = middle } else { low = middle }
        }
        return high
    }

    package func lines() throws -> [String] {
        let names = planners.map(\.model.name)
        var table = TextTable(["tokens"] + names.map { "TTFT \($0)" } + names.map { "TPOT \($0)" }, left: 0)
        for row in rows {
            table.add(["\(row.input)"] + row.firstToken.map(secondsText) + row.perToken.map(secondsText))
        }
        func sentence(_ what: String, _ path: KeyPath<Row, [Double]>) throws -> String {
            if let length = try crossover(path) { return "\(what): \(names[1]) is faster from \(length) tokens on" }
            let isFaster = rows[0][keyPath: path][1] < rows[0][keyPath: path][0]
            return "\(what): \(isFaster ? names[1] : names[0]) is faster at every length"
        }
        let cluster = planners[0].cluster
        return [
            "\(cluster.devices) × \(cluster.hardware.title); TTFT: all as context ranks; TPOT: all as tensor ranks, "
                + "\(traffic.concurrency) at a time", "",
        ] + table.lines + ["", try sentence("TTFT", \.firstToken), try sentence("TPOT", \.perToken)]
    }
}
