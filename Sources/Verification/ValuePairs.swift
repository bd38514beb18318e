import Parallelism

/// The pairs of values that cases can have in two dimensions of the verification matrix, and which of them none has yet.
///
/// Faults come from two things that meet, such as zigzag and a page of one token, far more often than from three: a sample
/// that has every pair finds nearly all of what the whole matrix would.
struct ValuePairs {
    /// Pairs that some case can have.
    let total: Int
    /// Pairs that no case had so far.
    private(set) var missingCount: Int
    /// The numbers of each layout's values, and of each combination of conditions: one number for each value of each
    /// dimension, those of layouts first.
    private let layouts: [[Int]]
    private let conditions: [[Int]]
    /// The numbers of the values of each dimension of conditions.
    private let conditionValues: [[Int]]
    private let layoutValueCount: Int
    private let valueCount: Int
    /// By the smaller number times `valueCount`, plus the larger.
    private var isMissing: [Bool]
    /// Missing pairs of two values of conditions.
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

    /// Notes that a case has these values.
    mutating func cover(_ choice: VerificationPlan.Choice) {
        if missingCount == 0 { return }
        Self.forEachPair(of: layouts[choice.layout] + conditions[choice.conditions]) { smaller, larger in
            guard isMissing[smaller * valueCount + larger] else { return }
            isMissing[smaller * valueCount + larger] = false
            missingCount -= 1
            if smaller >= layoutValueCount { missingConditionPairs -= 1 }
        }
    }

    /// The place in a list of layouts of the first that can have most of the missing pairs, whatever its conditions;
    /// `nil` where none can have any.
    func bestLayout(of candidates: [Int]) -> Int? {
        // How many dimensions of conditions have a value missing beside a value of layouts.
        let open = (0..<layoutValueCount).map { value in
            conditionValues.count { $0.contains { isMissing[value * valueCount + $0] } }
        }
        return Self.firstLargest(candidates) { layout in
            var gain = layouts[layout].reduce(0) { $0 + open[$1] }
            Self.forEachPair(of: layouts[layout]) { if isMissing[$0 * valueCount + $1] { gain += 1 } }
            return gain
        }
    }

    /// The place in a list of combinations of conditions of the first with which a layout covers most of the missing
    /// pairs; `nil` where it covers none with any.
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

    /// Calls `body` with each two of some values, the smaller number first.
    private static func forEachPair(of values: [Int], _ body: (Int, Int) -> Void) {
        for (index, one) in values.enumerated() {
            for other in values[(index + 1)...] { body(min(one, other), max(one, other)) }
        }
    }
}
