/// A set of Unicode scalars, as ranges in ascending order that neither overlap nor touch.
struct ScalarSet: Sendable, Hashable {
    private(set) var ranges: [ClosedRange<UInt32>]

    init() { ranges = [] }

    /// Contains the scalars of the given ranges; surrogates are left out.
    init(_ unordered: [ClosedRange<UInt32>]) {
        ranges = []
        for range in unordered.sorted(by: { $0.lowerBound < $1.lowerBound }) { append(range) }
        self = intersection(.all)
    }

    init(_ range: ClosedRange<UInt32>) { self.init([range]) }

    init(_ scalar: Unicode.Scalar) { ranges = [scalar.value...scalar.value] }

    private init(ascending: [ClosedRange<UInt32>]) { ranges = ascending }

    /// All Unicode scalars.
    static let all = ScalarSet(ascending: [0...0xD7FF, 0xE000...0x10FFFF])

    var isEmpty: Bool { ranges.isEmpty }

    func contains(_ scalar: Unicode.Scalar) -> Bool {
        var (low, high) = (0, ranges.count)
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].upperBound < scalar.value { low = middle + 1 } else { high = middle }
        }
        return low < ranges.count && ranges[low].contains(scalar.value)
    }

    func union(_ other: ScalarSet) -> ScalarSet { ScalarSet(ranges + other.ranges) }

    func intersection(_ other: ScalarSet) -> ScalarSet {
        var result: [ClosedRange<UInt32>] = []
        var (mine, theirs) = (0, 0)
        while mine < ranges.count, theirs < other.ranges.count {
            let (a, b) = (ranges[mine], other.ranges[theirs])
            let (low, high) = (max(a.lowerBound, b.lowerBound), min(a.upperBound, b.upperBound))
            if low <= high { result.append(low...high) }
            if a.upperBound < b.upperBound { mine += 1 } else { theirs += 1 }
        }
        return ScalarSet(ascending: result)
    }

    var complement: ScalarSet {
        var gaps: [ClosedRange<UInt32>] = []
        var next: UInt32 = 0
        for range in ranges {
            if range.lowerBound > next { gaps.append(next...range.lowerBound - 1) }
            next = range.upperBound + 1
        }
        if next <= 0x10FFFF { gaps.append(next...0x10FFFF) }
        return ScalarSet(ascending: gaps).intersection(.all)
    }

    func subtracting(_ other: ScalarSet) -> ScalarSet { intersection(other.complement) }

    /// Appends a range that begins no lower than the last one.
    private mutating func append(_ range: ClosedRange<UInt32>) {
        guard let last = ranges.last, range.lowerBound <= last.upperBound || range.lowerBound == last.upperBound + 1
        else {
            ranges.append(range)
            return
        }
        ranges[ranges.count - 1] = last.lowerBound...max(last.upperBound, range.upperBound)
    }
}

extension ScalarSet {
    /// ASCII digits, as ECMAScript's `\d` does.
    static let digits = ScalarSet([0x30...0x39])
    /// ASCII letters, digits and `_`, as ECMAScript's `\w` does.
    static let wordCharacters = ScalarSet([0x30...0x39, 0x41...0x5A, 0x5F...0x5F, 0x61...0x7A])
    /// Blanks and line ends, as ECMAScript's `\s` does.
    static let spaces = ScalarSet([
        0x09...0x0D, 0x20...0x20, 0xA0...0xA0, 0x1680...0x1680, 0x2000...0x200A, 0x2028...0x2029, 0x202F...0x202F,
        0x205F...0x205F, 0x3000...0x3000, 0xFEFF...0xFEFF,
    ])
    static let lineEnds = ScalarSet([0x0A...0x0A, 0x0D...0x0D, 0x2028...0x2029])
}
