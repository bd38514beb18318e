import Parallelism

/// Value pairs records which pairs of values of two dimensions of the verification matrix occur in some case, and which
/// do not yet.
///
/// Faults arise from two values together, such as zigzag and a page of one token, far more often than from three: a
/// sample that contains every pair finds nearly all of what the whole matrix would.
struct ValuePairs {
    /// The number of pairs that some case can have.
    let total: Int
    /// The number of pairs that no case has had so far.
    private(set) var missingCount: Int
    /// The values of each parallel configuration and of each combination of conditions. Every value of every dimension
    /// has a number; those of parallel configurations come first.
    private let layouts: [[Int]]
    private let conditions: [[Int]]
    /// The numbers of the values of each condition.
    private let conditionValues: [[Int]]
    private let layoutValueCount: Int
    private let valueCount: Int
    /// Tells for each pair whether no case has had it; the index is the smaller number times `valueCount`, plus the
    /// larger.
    private var isMissing: [Bool]
    /// The number of missing pairs of two conditions.
    private var missingConditionPairs: Int

    init(_ layouts: [ParallelConfiguration], _ conditions: [ServingConditions]) {
        var numbers: [String: Int] = [:]
        func numbered(_ values: [(axis: String, value: String)]) -> [Int] {
            values.map { axis, value in
                let name = "\(axis) \(value)"
                let number = numbers[name] ?? numbers.count
                numbers[name] = number
                return number
            }
        }
        self.layouts = layouts.map { numbered($0.values) }
        layoutValueCount = numbers.count
        let rows = conditions.map { numbered($0.values) }
        self.conditions = rows
        conditionValues = (rows.first ?? []).indices.map { axis in Set(rows.map { $0[axis] }).sorted() }
        let count = numbers.count
        valueCount = count
        var isMissing = Array(repeating: false, count: count * count)
        for values in self.layouts + rows { Self.forEachPair(of: values) { isMissing[$0 * count + $1] = true } }
        missingConditionPairs = isMissing[(layoutValueCount * count)...].count { $0 }
        for value in 0..<layoutValueCount {
            for condition in layoutValueCount..<count { isMissing[value * count + condition] = true }
        }
        total = isMissing.count { $0 }
        missingCount = total
        self.isMissing = isMissing
    }

    /// Records that a case has these values.
    mutating func cover(_ choice: VerificationPlan.Choice) {
        if missingCount == 0 { return }
        Self.forEachPair(of: layouts[choice.layout] + conditions[choice.conditions]) { smaller, larger in
            guard isMissing[smaller * valueCount + larger] else { return }
            isMissing[smaller * valueCount + larger] = false
            missingCount -= 1
            if smaller >= layoutValueCount { missingConditionPairs -= 1 }
        }
    }

    /// Returns the index, in a list of parallel configurations, of the first that can have most of the missing pairs
    /// under any conditions; `nil` if none can have any.
    func bestLayout(of candidates: [Int]) -> Int? {
        // Counts, for each value of a configuration, the conditions of which some value is missing with it.
        let open = (0..<layoutValueCount).map { value in
            conditionValues.count { $0.contains { isMissing[value * valueCount + $0] } }
        }
        return Self.firstLargest(candidates) { layout in
            var gain = layouts[layout].reduce(0) { $0 + open[$1] }
            Self.forEachPair(of: layouts[layout]) { if isMissing[$0 * valueCount + $1] { gain += 1 } }
            return gain
        }
    }

    /// Returns the index, in a list of combinations of conditions, of the first with which a parallel configuration
    /// covers most of the missing pairs; `nil` if it covers none with any.
    func bestConditions(of candidates: [Int], for layout: Int) -> Int? {
        let gains = (0..<valueCount).map { condition in
            layouts[layout].count { isMissing[$0 * valueCount + condition] }
        }
        return Self.firstLargest(candidates) { candidate in
            var gain = conditions[candidate].reduce(0) { $0 + gains[$1] }
            if missingConditionPairs > 0 {
                Self.forEachPair(of: conditions[candidate]) { if isMissing[$0 * valueCount + $1] { gain += 1 } }
            }
            return gain
        }
    }

    private static func firstLargest(_ candidates: [Int], _ gain: (Int) -> Int) -> Int? {
        var best: (place: Int?, gain: Int) = (nil, 0)
        for (place, candidate) in candidates.enumerated() {
            let gain = gain(candidate)
            if gain > best.gain { best = (place, gain) }
        }
        return best.place
    }

    /// Calls `body` with each pair of `values`, the smaller number first.
    private static func forEachPair(of values: [Int], _ body: (Int, Int) -> Void) {
        for (index, one) in values.enumerated() {
            for other in values[(index + 1)...] { body(min(one, other), max(one, other)) }
        }
    }
}
