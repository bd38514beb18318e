package import Modeling

/// A near tie makes two runs that are equal to rounding select other keys: scores that differ by less than the tolerance may
/// change places, and from there on the rows attend to other keys.
package enum NearTie {
    /// Returns the first position of each request whose selection differed by a near tie in a computation that a later one
    /// replaced. Tokens before a preemption were sampled after those selections, and are not sampled again.
    package static func replaced(
        in found: StageRecords, against expected: StageRecords, tolerance: Float
    ) -> [UInt64: Int] {
        var first: [UInt64: Int] = [:]
        for (key, rows) in found.replacedSelections {
            let scores = expected.values[StageRecords.Key(layer: key.layer, stage: .indexScores)] ?? [:]
            for (place, selections) in rows {
                guard let old = expected.values[key]?[place], let scores = scores[place],
                    selections.contains(where: { explains(old, $0, scores: scores, tolerance: tolerance) })
                else { continue }
                first[place.request] = min(place.position, first[place.request] ?? .max)
            }
        }
        return first
    }

    /// Returns whether two selections differ only in entries whose scores are nearly the same.
    ///
    /// - Parameters:
    ///   - old: The numbers of the entries that were selected in the one run.
    ///   - new: The numbers of those selected in the other.
    ///   - scores: The scores of all entries that the row sees, in the first run.
    ///   - tolerance: The largest difference of scores allowed, relative to the largest of them.
    package static func explains(_ old: [Float], _ new: [Float], scores: [Float], tolerance: Float) -> Bool {
        let (left, right) = (Set(old), Set(new))
        let differing = left.symmetricDifference(right)
        guard left.count == old.count, right.count == new.count, old.count == new.count, !differing.isEmpty,
            differing.allSatisfy({ $0 >= 0 && $0 < Float(scores.count) })
        else { return false }
        let largest = scores.reduce(0) { max($0, abs($1)) }
        let tied = differing.map { scores[Int($0)] }
        return largest.isFinite && tied.max()! - tied.min()! <= tolerance * largest
    }
}
