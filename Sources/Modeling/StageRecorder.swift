package import Parallelism
package import Tensors

/// A point of a layer whose value can be compared with another implementation or another parallel configuration. The
/// cases are in the order of computation.
package enum Stage: String, Sendable, CaseIterable {
    case attentionNorm, indexScores, selected, attention, feedForwardNorm, gateExperts, gateWeights, feedForward
    case output, finalNorm, logits
}

/// Copies of computed values, by layer, stage, request and position. They are for parity tests, because recording
/// allocates memory.
package struct StageRecords: Sendable {
    package struct Key: Hashable, Sendable {
        package let layer: Int
        package let stage: Stage

        package init(layer: Int, stage: Stage) {
            self.layer = layer
            self.stage = stage
        }
    }

    /// A row of a request, independent of the rank that computed it.
    package struct Place: Hashable, Sendable, Comparable {
        package let request: UInt64
        package let position: Int

        package init(request: UInt64, position: Int) {
            self.request = request
            self.position = position
        }

        package static func < (a: Place, b: Place) -> Bool { (a.request, a.position) < (b.request, b.position) }
    }

    package var values: [Key: [Place: [Float]]] = [:]
    /// The selections of rows that were computed again, as after a preemption, and then selected other entries. Other values
    /// of such rows are not kept: which entries a row attended to decides about those of all later ones.
    package private(set) var replacedSelections: [Key: [Place: [[Float]]]] = [:]

    package init() {}

    /// Returns the recorded rows of a stage, ordered by request and position. Rows of one stage may have different
    /// lengths.
    package func rows(_ stage: Stage, layer: Int = 0) -> [[Float]] {
        let rows = values[Key(layer: layer, stage: stage)] ?? [:]
        return rows.keys.sorted().map { rows[$0]! }
    }

    /// Adds what another rank or a later step recorded.
    package mutating func merge(_ other: StageRecords) {
        for (key, rows) in other.values {
            if key.stage == .selected, let known = values[key] {
                for (place, row) in rows {
                    guard let old = known[place], old != row else { continue }
                    replacedSelections[key, default: [:]][place, default: []].append(old)
                }
            }
            values[key, default: [:]].merge(rows) { $1 }
        }
        for (key, rows) in other.replacedSelections {
            replacedSelections[key, default: [:]].merge(rows, uniquingKeysWith: +)
        }
    }

    /// Returns the rows of some requests, as rows of other ones.
    ///
    /// - Parameter names: the new request of each request whose rows are kept.
    package func renamed(_ names: [UInt64: UInt64]) -> StageRecords {
        func kept<Row>(_ rows: [Place: Row]) -> [Place: Row] {
            var kept: [Place: Row] = [:]
            for (place, row) in rows {
                guard let request = names[place.request] else { continue }
                kept[Place(request: request, position: place.position)] = row
            }
            return kept
        }
        var renamed = StageRecords()
        renamed.values = values.mapValues { kept($0) }
        renamed.replacedSelections = replacedSelections.mapValues { kept($0) }
        return renamed
    }

    /// Removes rows of a request, such as those of rejected draft tokens.
    package mutating func remove(_ positions: Range<Int>, of request: UInt64) {
        for key in values.keys {
            for position in positions { values[key]![Place(request: request, position: position)] = nil }
        }
    }
}

/// The recorder of one rank. Only the rank's thread may use it.
package final class StageRecorder {
    package private(set) var records = StageRecords()
    private let stages: Set<Stage>

    /// Creates a recorder.
    ///
    /// - Parameter stages: the stages to record; other stages are ignored.
    package init(only stages: Set<Stage> = Set(Stage.allCases)) { self.stages = stages }

    /// True if a stage other than the logits is recorded, which only a model's layers compute.
    package var wantsLayers: Bool { stages != [.logits] }

    package func rows(_ stage: Stage, layer: Int = 0) -> [[Float]] { records.rows(stage, layer: layer) }

    /// Returns and removes what was recorded since the last call.
    package func take() -> StageRecords {
        defer { records = StageRecords() }
        return records
    }

    /// Records the rows of `value` as rows `first ..< first + value.rows` of `rows`.
    package func record(
        _ stage: Stage, layer: Int, _ value: View, of rows: Step.Rows, from first: Int = 0, _ seat: Seat
    ) {
        guard stages.contains(stage) else { return }
        let values = seat.kernels.synchronize(value)
        for row in 0..<value.rows {
            record(stage, layer: layer, values.rows(row..<row + 1).elements, of: rows, row: first + row)
        }
    }

    package func record(_ stage: Stage, layer: Int, _ value: [Float], of rows: Step.Rows, row: Int) {
        guard let request = rows.requests.first(where: { $0.rows.contains(row) }) else { return }
        record(stage, layer: layer, value, request: request.request, position: Int(rows.positions[row]))
    }

    package func record(_ stage: Stage, layer: Int, _ value: [Float], request: UInt64, position: Int) {
        guard stages.contains(stage) else { return }
        let place = StageRecords.Place(request: request, position: position)
        records.values[StageRecords.Key(layer: layer, stage: stage), default: [:]][place] = value
    }
}
