import Inference
import Modeling

/// What two transcripts of a mix have in common.
///
/// Rows behind the first token in which a request's answers differ have other inputs, and are not compared.
struct Comparison {
    /// Relative to a row's largest value; `nil` where bits must be equal.
    let tolerance: Float?
    /// Stages of which the other may lack rows.
    private let incomplete: Set<Stage>
    private let expected: Transcript
    private let found: Transcript
    /// Of each request whose tokens differ, the last row that both computed from the same tokens.
    private let lastCommon: [UInt64: Int]

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
            // The row that chose the first token was the prompt's last.
            let rows = expected.records.values.values.flatMap(\.keys).filter { $0.request == request }
            let firstChoice = (rows.map(\.position).max() ?? 0) - (answer.tokens.count - 1)
            lastCommon[request] = firstChoice + common
        }
        self.lastCommon = lastCommon
    }

    private func isComparable(_ place: StageRecords.Place) -> Bool {
        // Nobody expects answers of warmupRequests.
        expected.answers[place.request] != nil && place.position <= lastCommon[place.request] ?? .max
    }

    /// The first row, in the order of computation, in which the records differ.
    var firstDifference: Difference? {
        let (left, right) = (expected.records.values, found.records.values)
        for key in Set(left.keys).union(right.keys).sorted(by: { $0 < $1 }) {
            let (old, new) = (left[key] ?? [:], right[key] ?? [:])
            let places = Set(old.keys).union(new.keys).filter(isComparable).sorted()
            let wrong = places.filter {
                !agree(old[$0], new[$0]) && !(new[$0] == nil && incomplete.contains(key.stage))
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

    private func agree(_ old: [Float]?, _ new: [Float]?) -> Bool {
        guard let old, let new else { return false }
        return tolerance.map { old.distance(to: new) <= $0 } ?? old.hasSameBits(as: new)
    }

    /// The first value with other bits, or the one that is furthest off.
    private func worst(_ old: [Float], _ new: [Float]) -> Int {
        let others = old.indices.filter { old[$0].bitPattern != new[$0].bitPattern }
        guard tolerance != nil else { return others[0] }
        return others.max { abs(old[$0] - new[$0]) < abs(old[$1] - new[$1]) }!
    }

    /// The first answer that differs; only those that must have the same bits are compared.
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

    /// The largest relative difference of a row of logits.
    var largest: Float {
        let key = StageRecords.Key(layer: .max, stage: .logits)
        let others = found.records.values[key] ?? [:]
        return (expected.records.values[key] ?? [:]).filter { isComparable($0.key) }
            .reduce(0) { max($0, $1.value.distance(to: others[$1.key] ?? [])) }
    }
}
