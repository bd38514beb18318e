import Tensors

/// A point of a layer whose value can be compared with another implementation or another layout.
package enum Stage: String, Sendable, CaseIterable {
    case attentionNorm, indexScores, selected, attention, feedForwardNorm, gateExperts, gateWeights, feedForward
    case output, finalNorm
}

/// Keeps copies of what a forward computed, by stage, layer and row. For parity tests: it allocates.
package final class StageRecorder {
    package struct Key: Hashable, Sendable {
        package let stage: Stage
        package let layer: Int
    }

    /// Rows in the order they were recorded; rows of one stage need not have equal lengths.
    package private(set) var values: [Key: [[Float]]] = [:]

    package init() {}

    package func rows(_ stage: Stage, layer: Int = 0) -> [[Float]] { values[Key(stage: stage, layer: layer)] ?? [] }

    func record(_ stage: Stage, layer: Int, _ value: View) {
        for row in 0..<value.rows {
            values[Key(stage: stage, layer: layer), default: []].append(value.rows(row..<row + 1).elements)
        }
    }

    func record(_ stage: Stage, layer: Int, _ integers: [Int32]) {
        values[Key(stage: stage, layer: layer), default: []].append(integers.map(Float.init))
    }
}
