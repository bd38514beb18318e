import Inference
package import Modeling

/// A difference is the first thing in which a parallel configuration differs from one rank.
package enum Difference: Sendable, Equatable, CustomStringConvertible {
    /// A rank failed, for this reason.
    case failure(String)
    /// An invariant of the scheduler was violated.
    case entries(String)
    /// Only one of the two computed a row.
    case rows(StageRecords.Key, StageRecords.Place, isMissing: Bool)
    case value(Value)
    /// Tokens or log-probabilities differ although the logits are equal.
    case answer(request: UInt64, String)
    /// The difference occurred when the same requests were served a second time.
    indirect case again(Difference)

    /// A number that differs from its expected value.
    package struct Value: Sendable, Equatable {
        package let key: StageRecords.Key
        package let place: StageRecords.Place
        /// The number's index in the row.
        package let index: Int
        package let expected: Float
        package let found: Float
        /// `rows` counts the rows of this stage that differ, `allRows` those that were compared.
        package let rows: Int
        package let allRows: Int
        /// True if the difference recurred when both were run again to find the stage; a race may not recur.
        package var isRepeatable = true
    }

    package var description: String {
        switch self {
        case .failure(let reason): return reason
        case .entries(let problem): return "invariant: \(problem)"
        case .rows(let key, let place, let isMissing):
            return "\(key), \(place): the row was \(isMissing ? "never computed" : "computed by many ranks only")"
        case .value(let value):
            return "\(value.key), \(value.place): value \(value.index) is \(value.found), not \(value.expected); "
                + "\(value.rows) of \(value.allRows) rows of this stage differ"
                + (value.isRepeatable ? "" : "; NOT when run again: a race?")
        case .answer(let request, let what): return "request \(request): \(what), and the logits do not differ"
        case .again(let difference): return "served again: \(difference)"
        }
    }
}

extension Difference {
    /// The number that differs, in whichever run; `nil` for differences of other kinds.
    package var value: Value? {
        switch self {
        case .value(let value): value
        case .again(let difference): difference.value
        case .failure, .entries, .rows, .answer: nil
        }
    }

    /// The same difference, marked as one that did not recur.
    var notRepeated: Difference {
        switch self {
        case .value(var value):
            value.isRepeatable = false
            return .value(value)
        case .again(let difference): return .again(difference.notRepeated)
        case .failure, .entries, .rows, .answer: return self
        }
    }
}

extension StageRecords.Key: CustomStringConvertible {
    /// The name of the stage in reports, such as `layer 2, attention`.
    package var description: String { stage == .logits ? "logits" : "layer \(layer), \(stage.rawValue)" }
}

extension StageRecords.Place: CustomStringConvertible {
    package var description: String { "request \(request) position \(position)" }
}

extension StageRecords.Key {
    /// Orders stages by their computation.
    static func < (a: StageRecords.Key, b: StageRecords.Key) -> Bool { (a.layer, a.order) < (b.layer, b.order) }

    private var order: Int { Stage.allCases.firstIndex(of: stage)! }
}

extension [Float] {
    func hasSameBits(as other: [Float]) -> Bool {
        count == other.count && indices.allSatisfy { self[$0].bitPattern == other[$0].bitPattern }
    }

    /// Returns the largest difference, relative to the largest value of this row; infinite if the lengths differ or a
    /// difference is not finite.
    func distance(to other: [Float]) -> Float {
        guard count == other.count else { return .infinity }
        var (largest, scale) = (Float(0), Float(0))
        for index in indices where self[index].bitPattern != other[index].bitPattern {
            let difference = abs(self[index] - other[index])
            guard difference.isFinite else { return .infinity }
            largest = Swift.max(largest, difference)
        }
        for value in self { scale = Swift.max(scale, abs(value)) }
        return largest == 0 ? 0 : largest / scale
    }
}

extension TokenLogProbs {
    func hasSameBits(as other: TokenLogProbs) -> Bool {
        token == other.token && logProb?.bitPattern == other.logProb?.bitPattern && top.count == other.top.count
            && zip(top, other.top).allSatisfy { $0.token == $1.token && $0.logProb.bitPattern == $1.logProb.bitPattern }
    }
}
