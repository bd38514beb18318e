import Foundation
import Modeling
package import Parallelism
package import Planning

/// The time to the first token with more and more ranks, context parallel and tensor parallel, by what it is spent on.
package struct ScalingReport {
    /// One number of ranks.
    package struct Row: Sendable {
        package let ranks: Int
        package let axis: Axis
        package let time: StepTime
        /// Bytes that a rank gets from others for the prompt.
        package let received: Double
        package let fits: Bool
        package let confidence: Confidence
    }

    package let planner: Planner
    package let traffic: PlannedTraffic
    package let rows: [Row]
    /// The numbers of tensor ranks that the model's heads do not divide into, which have no rows.
    package let leftOut: [Int]

    /// - Parameter ranks: every power of two in it, for each of the two.
    /// - Throws: `ParallelRequest.Refusal` where context ranks cannot divide the model's experts.
    package init(
        _ planner: Planner, _ traffic: PlannedTraffic, _ calibration: Calibration, ranks: ClosedRange<Int>
    ) throws {
        self.planner = planner
        self.traffic = traffic
        let heads = planner.model.description.parallelShape.heads
        var (rows, leftOut): ([Row], [Int]) = ([], [])
        for axis in [Axis.context, .tensor] {
            for count in sequence(first: 1, next: { $0 * 2 }).prefix(while: { $0 <= ranks.upperBound })
            where ranks.contains(count) {
                if axis == .tensor, heads % count != 0 {
                    leftOut.append(count)
                    continue
                }
                let parallel = try Self.layout(axis, count, planner)
                let cluster = Cluster(planner.cluster.hardware, devices: count)
                let time = LayoutTime(planner.model, parallel, cluster, planner.efficiencies)
                let prediction = Prediction(time, traffic)
                rows.append(
                    Row(
                        ranks: count, axis: axis, time: prediction.firstToken,
                        received: traffic.sampledChunks.reduce(0) {
                            $0 + Double($1.count) * time.receivedBytes($1.positions, stage: 0)
                        },
                        fits: prediction.memory.fits,
                        confidence: calibration.confidence(.firstToken, planner.model, cluster, parallel, traffic)))
            }
        }
        self.rows = rows
        self.leftOut = leftOut
    }

    /// All ranks along one axis; experts divided by width as far as that gives the bits of one rank.
    private static func layout(_ axis: Axis, _ ranks: Int, _ planner: Planner) throws -> ParallelConfiguration {
        let shape = planner.model.description.parallelShape
        var request = ParallelRequest()
        request.tpSize = ranks
        request.attnCPSize = axis == .context ? ranks : 1
        request.epSize = shape.expertDegrees(ranks: ranks).first { $0 > 1 || ranks <= 8 }
        return try request.resolve(for: shape, maxRanks: 1024)
    }

    package var lines: [String] {
        var table = TextTable(
            [
                "", "ranks", "TTFT", "80 %", "products", "weights", "index", "attention", "collectives", "launches",
                "received", "speed-up", "room",
            ], left: 1)
        for row in rows {
            let one = rows.first { $0.axis == row.axis }!
            let interval = row.confidence.interval.map {
                "\(secondsText($0.lowerBound * row.time.total)) – \(secondsText($0.upperBound * row.time.total))"
            }
            table.add(
                [
                    name(row.axis), "\(row.ranks)", secondsText(row.time.total),
                    [interval, row.confidence.note].compactMap { $0 }.joined(separator: ", "),
                ]
                    + StepTime.Part.allCases.map { secondsText(row.time[$0]) }
                    + [
                        bytesText(row.received),
                        String(format: "%.1f ×", one.time.total / row.time.total),
                        row.fits ? "yes" : "no",
                    ])
        }
        return [
            "\(planner.model.name), \(traffic.input) tokens in chunks of \(traffic.chunk), "
                + "\(planner.cluster.hardware.title)", "",
        ] + table.lines
            + [
                "", "received: bytes a rank gets from others for the prompt · room: whether weights and one step fit",
                "tensor: as engines for accelerators do it, each rank computes index scores and latents of all rows",
            ].filter { !$0.hasPrefix("tensor") || planner.cluster.hardware.kind == .accelerator } + leftOutInWords
    }

    private var leftOutInWords: [String] {
        if leftOut.isEmpty { return [] }
        let shape = planner.model.description.parallelShape
        let counts = leftOut.map(String.init).joined(separator: ", ")
        return ["left out: \(counts) tensor ranks, which cannot share \(shape.heads) \(shape.headsName) evenly"]
    }

    private func name(_ axis: Axis) -> String { axis == .context ? "CP" : "TP" }

    /// Stacked bars, one for each row.
    package var svg: String {
        let most = rows.map(\.time.total).max() ?? 1
        var drawing = Drawing(width: 760)
        let parts = StepTime.Part.allCases
        drawing.words("Time to first token, \(traffic.input) tokens", 20, 30, size: 15, bold: true)
        drawing.words("\(planner.model.name) on \(planner.cluster.hardware.title)", 20, 50, fill: Drawing.quiet)
        for (number, part) in parts.enumerated() {
            let x = 20 + Double(number) * 120
            drawing.box(x, 64, 12, 12, fill: Drawing.colour(number, of: parts.count), radius: 2)
            drawing.words(part.rawValue, x + 18, 74)
        }
        drawing.y = 96
        for row in rows {
            drawing.words("\(name(row.axis)) \(row.ranks)", 20, drawing.y + 14)
            var x = 80.0
            for (number, part) in parts.enumerated() {
                let width = row.time[part] / most * 560
                if width >= 0.05 {
                    drawing.box(x, drawing.y, width, 18, fill: Drawing.colour(number, of: parts.count), radius: 0)
                }
                x += width
            }
            drawing.words(secondsText(row.time.total), x + 6, drawing.y + 14)
            drawing.y += 26
        }
        drawing.y += 14
        return drawing.xml(title: "Time to first token by ranks, context and tensor parallel")
    }
}
