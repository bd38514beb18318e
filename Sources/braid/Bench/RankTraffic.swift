package import Inference
package import JSON
package import Modeling
package import Parallelism
package import Planning

/// Rank traffic compares what ranks exchanged in some steps with the prediction, and holds how long they worked.
package struct RankTraffic: Sendable {
    /// One collective, summed over all ranks.
    package struct Operation: Sendable {
        package let name: String
        package var predicted = 0.0
        package var measured = 0
        package var seconds = 0.0
        /// True if the prediction is an expectation rather than exact.
        package var isExpected = false

        package init(name: String) { self.name = name }
    }

    package private(set) var operations: [Operation] = []
    /// The seconds that each rank spent in steps, without those in collectives.
    package private(set) var busySeconds: [Double]
    /// The seconds that each rank spent in collectives.
    package private(set) var collectiveSeconds: [Double]

    package init(ranks: Int) {
        busySeconds = Array(repeating: 0, count: ranks)
        collectiveSeconds = busySeconds
    }

    /// Creates the traffic that was measured since the start.
    package init(_ status: [RankStatus]) {
        self.init(ranks: status.count)
        for (rank, status) in status.enumerated() {
            busySeconds[rank] = status.busySeconds
            collectiveSeconds[rank] = status.collectiveSeconds
            for collective in status.operations {
                change("\(collective.name)") {
                    $0.measured += collective.bytes
                    $0.seconds += collective.seconds
                }
            }
        }
    }

    /// Creates the predicted traffic of one step.
    package init(predicted cost: LayoutCost, _ rows: StepRows) {
        self.init(ranks: cost.parallel.world)
        for rank in 0..<cost.parallel.world {
            for (transfer, bytes) in cost.bytes(ofRank: rank, rows) {
                change(transfer.name) {
                    $0.predicted += bytes
                    $0.isExpected = transfer.isExpected
                }
            }
        }
    }

    private mutating func change(_ name: String, _ body: (inout Operation) -> Void) {
        let index = operations.firstIndex { $0.name == name }
        if index == nil { operations.append(Operation(name: name)) }
        body(&operations[index ?? operations.count - 1])
    }

    /// Adds the traffic of other steps.
    package mutating func add(_ other: RankTraffic) { combine(other, +, +) }

    /// Returns the traffic added since `earlier`.
    package func since(_ earlier: RankTraffic) -> RankTraffic {
        var difference = self
        difference.combine(earlier, -, -)
        return difference
    }

    private mutating func combine(
        _ other: RankTraffic, _ seconds: (Double, Double) -> Double, _ bytes: (Int, Int) -> Int
    ) {
        busySeconds = zip(busySeconds, other.busySeconds).map(seconds)
        collectiveSeconds = zip(collectiveSeconds, other.collectiveSeconds).map(seconds)
        for operation in other.operations {
            change(operation.name) {
                $0.predicted = seconds($0.predicted, operation.predicted)
                $0.measured = bytes($0.measured, operation.measured)
                $0.seconds = seconds($0.seconds, operation.seconds)
                $0.isExpected = $0.isExpected || operation.isExpected
            }
        }
    }

    /// Returns the mean of `repetitions` repetitions of the same steps.
    package func divided(by repetitions: Int) -> RankTraffic {
        var mean = self
        mean.busySeconds = busySeconds.map { $0 / Double(repetitions) }
        mean.collectiveSeconds = collectiveSeconds.map { $0 / Double(repetitions) }
        for index in operations.indices {
            mean.operations[index].predicted /= Double(repetitions)
            mean.operations[index].measured /= repetitions
            mean.operations[index].seconds /= Double(repetitions)
        }
        return mean
    }

    package var predicted: Double { operations.reduce(0) { $0 + $1.predicted } }
    package var measured: Int { operations.reduce(0) { $0 + $1.measured } }
    package var isShared: Bool { busySeconds.count > 1 }
    package var isExpected: Bool { operations.contains { $0.isExpected } }

    /// The busiest rank's time above the mean, as a fraction of the mean; 0 if no rank worked.
    package var skew: Double {
        let mean = busySeconds.reduce(0, +) / Double(busySeconds.count)
        return mean > 0 ? busySeconds.max()! / mean - 1 : 0
    }
}

// MARK: - Reports

extension RankTraffic {
    /// The column titles of `cells`.
    static let titles = ["predicted", "moved", "exchange s", "busy s", "skew"].map { padded($0) }.joined()

    /// The last cells of a row of a benchmark's table: bytes predicted and moved, average seconds per rank in
    /// collectives and at work, and skew.
    package var cells: String {
        let ranks = Double(busySeconds.count)
        return [
            (isExpected ? "~" : "") + bytesText(predicted), bytesText(Double(measured)),
            rounded(collectiveSeconds.reduce(0, +) / ranks), rounded(busySeconds.reduce(0, +) / ranks),
            percent(skew),
        ].map { Self.padded($0) }.joined()
    }

    private static func padded(_ cell: String) -> String {
        String(repeating: " ", count: max(12 - cell.count, 1)) + cell
    }

    /// A block of text with the bytes of each collective, and the seconds of each rank.
    package var details: String {
        var operations = TextTable(["collective", "predicted", "moved", "seconds"], left: 1)
        for operation in self.operations {
            operations.add([
                operation.name, (operation.isExpected ? "~" : "") + bytesText(operation.predicted),
                bytesText(Double(operation.measured)), rounded(operation.seconds),
            ])
        }
        var ranks = TextTable(["rank", "busy s", "exchange s"], left: 0)
        for rank in busySeconds.indices {
            ranks.add(["\(rank)", rounded(busySeconds[rank]), rounded(collectiveSeconds[rank])])
        }
        return (operations.lines + [""] + ranks.lines).joined(separator: "\n")
    }

    /// Returns the members for a line of JSON.
    package func members(_ parallel: ParallelConfiguration) -> [JSONMember] {
        let operations = self.operations.map { operation in
            JSONMember(
                operation.name,
                .fields([
                    "bytes_predicted": .amount(operation.predicted), "bytes_measured": .integer(operation.measured),
                    "seconds": .measured(operation.seconds),
                ]))
        }
        return [
            JSONMember("ranks", .integer(busySeconds.count)), JSONMember("layout", .string("\(parallel)")),
            JSONMember("bytes_predicted", .amount(predicted)), JSONMember("bytes_measured", .integer(measured)),
            JSONMember("prediction", .string(isExpected ? "expected" : "exact")),
            JSONMember("operations", .object(operations)),
            JSONMember("busy_seconds", .array(busySeconds.map { .measured($0) })),
            JSONMember("collective_seconds", .array(collectiveSeconds.map { .measured($0) })),
            JSONMember("skew", .measured(skew)),
        ]
    }
}
