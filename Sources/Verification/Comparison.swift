import Inference
import Modeling

/// A comparison finds the differences between two transcripts of a workload.
///
/// Rows after the first token in which a request's answers differ have other inputs, and are not compared. Nor are those
/// from the first row on whose selection differs by a near tie (`NearTie`), where that is allowed.
struct Comparison {
    /// The largest difference allowed, relative to a row's largest value; `nil` requires bitwise equality.
    let tolerance: Float?
    /// The stages of which `found` may lack rows.
    private let incomplete: Set<Stage>
    private let expected: Transcript
    private let found: Transcript
    /// For each request whose tokens differ, the last position that both computed from the same tokens.
    private let lastCommon: [UInt64: Int]
    /// For each request with a near tie, the first position that selected other entries.
    private var firstTie: [UInt64: Int] = [:]

    init(_ expected: Transcript, _ found: Transcript, tolerance: Float?, incomplete: Set<Stage>) {
        self.expected = expected
        self.found = found
        self.tolerance = tolerance
        self.incomplete = incomplete
        var lastCommon: [UInt64: Int] = [:]
        for (request, answer) in expected.answers {
            let others = found.answers[request]?.tokens ?? []
            let common = zip(answer.tokens, others).prefix { $0.token == $1.token }.count
            if common == answer.tokens.count && common == others.count { continue }
            // The first token was sampled from the prompt's last row.
            let rows = expected.records.values.values.flatMap(\.keys).filter { $0.request == request }
            let firstChoice = (rows.map(\.position).max() ?? 0) - (answer.tokens.count - 1)
            lastCommon[request] = firstChoice + common
        }
        self.lastCommon = lastCommon
    }

    private func isComparable(_ place: StageRecords.Place) -> Bool {
        // Answers to `warmupRequests` are not expected.
        expected.answers[place.request] != nil && place.position <= lastCommon[place.request] ?? .max
            && place.position < firstTie[place.request] ?? .max
    }

    /// Stops comparing a request's rows from the one on in which the comparison found a near tie.
    ///
    /// - Returns: False, and nothing changes, where the difference is no near tie or bitwise equality is required.
    mutating func excuse(_ difference: Difference) -> Bool {
        guard let tolerance, let value = difference.value, value.key.stage == .selected else { return false }
        let scores = StageRecords.Key(layer: value.key.layer, stage: .indexScores)
        guard let old = expected.records.values[value.key]?[value.place],
            let new = found.records.values[value.key]?[value.place],
            let scores = expected.records.values[scores]?[value.place],
            NearTie.explains(old, new, scores: scores, tolerance: tolerance)
        else { return false }
        firstTie[value.place.request] = min(value.place.position, firstTie[value.place.request] ?? .max)
        return true
    }

    /// Stops comparing requests' rows from those on in which a computation that a later one replaced had a near tie.
    ///
    /// - Returns: False if that changes nothing, or bitwise equality is required.
    mutating func excuseReplaced() -> Bool {
        guard let tolerance else { return false }
        let before = firstTie
        firstTie.merge(
            NearTie.replaced(in: found.records, against: expected.records, tolerance: tolerance), uniquingKeysWith: min)
        return firstTie != before
    }

    /// The first row, in the order of computation, in which the records differ; `nil` where none does.
    var firstDifference: Difference? {
        let (left, right) = (expected.records.values, found.records.values)
        for key in Set(left.keys).union(right.keys).sorted(by: { $0 < $1 }) {
            let (old, new) = (left[key] ?? [:], right[key] ?? [:])
            let places = Set(old.keys).union(new.keys).filter(isComparable).sorted()
            let wrong = places.filter {
                !agree(old[$0], new[$0], key.stage) && !isExpectedToLack($0, of: key.stage, old, new)
            }
            guard let place = wrong.first else { continue }
            guard let before = old[place], let after = new[place], before.count == after.count else {
                return .rows(key, place, isMissing: new[place] == nil)
            }
            let index = worst(before, after)
            return .value(
                Difference.Value(
                    key: key, place: place, index: index, expected: before[index], found: after[index],
                    rows: wrong.count, allRows: places.count))
        }
        return nil
    }

    /// Returns whether only one of the two had a reason to compute a row: what is in the prefix cache is not computed, and
    /// who drafts computes also final states and layers of the next-token block, which one rank without drafts does not.
    private func isExpectedToLack(
        _ place: StageRecords.Place, of stage: Stage, _ old: [StageRecords.Place: [Float]],
        _ new: [StageRecords.Place: [Float]]
    ) -> Bool {
        new[place] == nil && incomplete.contains(stage) || old[place] == nil && stage != .logits
    }

    private func agree(_ old: [Float]?, _ new: [Float]?, _ stage: Stage) -> Bool {
        guard let old, let new else { return false }
        // Selected entries are numbers of entries, of which none is nearly another.
        if stage == .selected { return old.hasSameBits(as: new) }
        return tolerance.map { old.distance(to: new) <= $0 } ?? old.hasSameBits(as: new)
    }

    /// Returns the index of the first value with other bits or, with a tolerance, of the one that differs most.
    private func worst(_ old: [Float], _ new: [Float]) -> Int {
        let others = old.indices.filter { old[$0].bitPattern != new[$0].bitPattern }
        guard tolerance != nil else { return others[0] }
        return others.max { abs(old[$0] - new[$0]) < abs(old[$1] - new[$1]) }!
    }

    /// The first answer that differs; `nil` where none does. Tokens and scores are compared only where bitwise equality
    /// is required.
    var answerDifference: Difference? {
        for (request, answer) in expected.answers.sorted(by: { $0.key < $1.key }) {
            let other = found.answers[request] ?? Transcript.Answer()
            if let failure = other.failure { return .answer(request: request, failure) }
            guard tolerance == nil else { continue }
            for (what, old, new) in [("score", answer.scores, other.scores), ("token", answer.tokens, other.tokens)] {
                if let index = zip(old, new).enumerated().first(where: { !$1.0.hasSameBits(as: $1.1) })?.offset {
                    return .answer(request: request, "\(what) \(index) is \(new[index]), not \(old[index])")
                }
                if old.count != new.count {
                    return .answer(request: request, "it has \(new.count) \(what)s, not \(old.count)")
                }
            }
        }
        return nil
    }

    /// The largest relative difference between rows of logits.
    var largest: Float {
        let key = StageRecords.Key(layer: .max, stage: .logits)
        let others = found.records.values[key] ?? [:]
        return (expected.records.values[key] ?? [:]).filter { isComparable($0.key) }
            .reduce(0) { max($0, $1.value.distance(to: others[$1.key] ?? [])) }
    }
}
