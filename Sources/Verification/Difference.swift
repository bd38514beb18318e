import Inference
package import Modeling

/// The first thing in which a layout differs from one rank.
package enum Difference: Sendable, Equatable, CustomStringConvertible {
    /// A rank failed.
    case failure(String)
    /// Pages or requests were lost track of.
    case entries(String)
    /// Rows that one of the two did not compute.
    case rows(StageRecords.Key, StageRecords.Place, isMissing: Bool)
    case value(Value)
    /// Tokens or log-probabilities differ although the logits do not.
    case answer(request: UInt64, String)
    /// When the same requests were served again.
    indirect case again(Difference)

    /// A number that differs.
    package struct Value: Sendable, Equatable {
        package let key: StageRecords.Key
        package let place: StageRecords.Place
        /// Index in the row.
        package let index: Int
        package let expected: Float
        package let found: Float
        /// How many rows of this stage differ, of how many.
        package let rows: Int
        package let allRows: Int
        /// Whether it differed when both were run again to find the stage; a race may not.
        package var isRepeatable = true
    }

    package var description: String {
        switch self {
        case .failure(let reason): return reason
        case .entries(let problem): return "books: \(problem)"
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
    /// The number that differs, whenever it does.
    package var value: Value? {
        switch self {
        case .value(let value): value
        case .again(let difference): difference.value
        case .failure, .entries, .rows, .answer: nil
        }
    }

    /// The same, which did not come back when everything was run again.
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
    /// `layer 2, attention`.
    package var description: String { stage == .logits ? "logits" : "layer \(layer), \(stage.rawValue)" }
}

extension StageRecords.Place: CustomStringConvertible {
    package var description: String { "request \(request) position \(position)" }
}

extension StageRecords.Key {
    /// In the order of computation.
    static func < (a: StageRecords.Key, b: StageRecords.Key) -> Bool { (a.layer, a.order) < (b.layer, b.order) }

    private var order: Int { Stage.allCases.firstIndex(of: stage)! }
}

extension [Float] {
    func hasSameBits(as other: [Float]) -> Bool {
        count == other.count && indices.allSatisfy { self[$0].bitPattern == other[$0].bitPattern }
    }

    /// The largest difference, relative to the largest value of this row; infinite where lengths differ or one is NaN.
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
