/// Builds automata over the decimal digits of numbers within bounds, without exponents.
///
/// The digits are limited, because a model that repeats itself would write them without end.
enum NumberAutomata {
    /// A number may have this many digits before the point, unless its bounds have as many.
    static let maxWholeDigits = 100
    /// A number may have this many digits after the point, unless its bounds have as many.
    static let maxFractionDigits = 30
    /// The digits before the point are limited beside `multipleOf` if this many states suffice.
    private static let maxDigitStates = 10_000

    struct Bound: Sendable {
        var value: DecimalNumber
        var isExclusive: Bool
    }

    /// Derives the numbers that satisfy all conditions. Negative zero is not derived.
    static func expression(
        lower: Bound?, upper: Bound?, integersOnly: Bool, multiples: [DecimalNumber]
    ) throws(GrammarError) -> Expression {
        var options: [Expression] = []
        let zero = Bound(value: .zero, isExclusive: true)
        if upper.map({ $0.value >= .zero }) ?? true {
            let least = lower.flatMap { $0.value < .zero ? nil : $0 }
            options.append(
                .automaton(
                    try magnitudes(lower: least, upper: upper, integersOnly, multiples), .utf8))
        }
        if lower.map({ $0.value < .zero }) ?? true {
            let least = upper.flatMap { $0.value < .zero ? Bound(value: -$0.value, isExclusive: $0.isExclusive) : nil }
            let most = lower.map { Bound(value: -$0.value, isExclusive: $0.isExclusive) }
            let automaton = try magnitudes(lower: least ?? zero, upper: most, integersOnly, multiples)
            options.append(.sequence([.bytes([UInt8(ascii: "-")]), .automaton(automaton, .utf8)]))
        }
        return .choice(options)
    }

    private static func magnitudes(
        lower: Bound?, upper: Bound?, _ integersOnly: Bool, _ multiples: [DecimalNumber]
    ) throws(GrammarError) -> CharacterAutomaton {
        let limits = digitLimits([lower, upper].compactMap { $0?.value }, multiples)
        let whole = Pattern.choice([
            digit(0...0), .sequence([digit(1...9), digits(upTo: limits.whole.map { $0 - 1 })]),
        ])
        let fraction = Pattern.sequence([point, digit(0...9), digits(upTo: limits.fraction - 1)])
        let form = integersOnly ? whole : .sequence([whole, optional(fraction)])
        var automaton = try CharacterAutomaton(form, search: false)
        if let upper {
            automaton = try automaton.intersection(try CharacterAutomaton(atMost(upper.value), search: false))
            if upper.isExclusive { automaton = try automaton.subtracting(equal(upper.value)) }
        }
        if let lower {
            var smaller = try CharacterAutomaton(atMost(lower.value), search: false)
            if !lower.isExclusive { smaller = try smaller.subtracting(equal(lower.value)) }
            automaton = try automaton.subtracting(smaller)
        }
        for step in multiples { automaton = try automaton.intersection(try Self.multiples(of: step)) }
        return automaton
    }

    /// Returns the numbers of digits before and after the point.
    ///
    /// Beside `multipleOf` the automaton has a state for each remainder and number of digits. If these are too many, the
    /// digits before the point are not limited (`nil`); a few more always make a multiple.
    private static func digitLimits(
        _ bounds: [DecimalNumber], _ multiples: [DecimalNumber]
    ) -> (whole: Int?, fraction: Int) {
        let (longest, finest) = (
            bounds.map(\.integer.count).max() ?? 0, (bounds + multiples).map(\.fraction.count).max() ?? 0
        )
        let fraction = max(maxFractionDigits, finest + 1)
        let moduli = multiples.map { $0.scaled(by: $0.fraction.count) ?? maxModulus }
        let states = moduli.reduce(1) { min($0, maxModulus) * min($1, maxModulus) }
        let whole = min(max(maxWholeDigits, longest + 5), maxDigitStates / states)
        return (whole < max(20, longest + 5) ? nil : whole, fraction)
    }

    // MARK: - Comparison

    private static func digit(_ range: ClosedRange<UInt8>) -> Pattern {
        .set(ScalarSet(UInt32(range.lowerBound) + 0x30...UInt32(range.upperBound) + 0x30))
    }

    private static let point = Pattern.set(ScalarSet("."))
    private static let anyDigits = digits(upTo: nil)
    private static let zeros = Pattern.repeated(digit(0...0), minimum: 0, maximum: nil)

    private static func digits(upTo count: Int?) -> Pattern {
        .repeated(.set(.digits), minimum: 0, maximum: count)
    }

    private static func optional(_ pattern: Pattern) -> Pattern { .repeated(pattern, minimum: 0, maximum: 1) }

    private static func digits(_ digits: some Sequence<UInt8>) -> [Pattern] { digits.map { digit($0...$0) } }

    private static func equal(_ value: DecimalNumber) throws(GrammarError) -> CharacterAutomaton {
        let fraction =
            value.isInteger
            ? optional(.sequence([point, digit(0...0), zeros]))
            : Pattern.sequence([point] + digits(value.fraction) + [zeros])
        return try CharacterAutomaton(.sequence(digits(value.integer) + [fraction]), search: false)
    }

    /// Matches unsigned numbers that are at most `value`, which is not negative.
    private static func atMost(_ value: DecimalNumber) -> Pattern {
        let count = value.integer.count
        var smaller: [Pattern] = []
        for length in 1..<max(count, 1) {
            let more = Pattern.repeated(.set(.digits), minimum: length - 1, maximum: length - 1)
            smaller.append(.sequence([digit(length == 1 ? 0...9 : 1...9), more]))
        }
        for place in 0..<count {
            let least: UInt8 = place == 0 && count > 1 ? 1 : 0
            guard value.integer[place] > least else { continue }
            let rest = count - place - 1
            smaller.append(
                .sequence(
                    digits(value.integer[..<place]) + [
                        digit(least...value.integer[place] - 1),
                        .repeated(.set(.digits), minimum: rest, maximum: rest),
                    ]))
        }
        let anyFraction = optional(.sequence([point, .set(.digits), anyDigits]))
        return .choice([
            .sequence([.choice(smaller), anyFraction]),
            .sequence(digits(value.integer) + [optional(.sequence([point, fractionsAtMost(value.fraction)]))]),
        ])
    }

    /// Matches one or more digits after a point whose value is at most `fraction`.
    private static func fractionsAtMost(_ fraction: [UInt8]) -> Pattern {
        var options: [Pattern] = [.sequence(digits(fraction.isEmpty ? [0] : fraction) + [zeros])]
        for place in fraction.indices {
            if place > 0 { options.append(.sequence(digits(fraction[..<place]))) }
            guard fraction[place] > 0 else { continue }
            options.append(.sequence(digits(fraction[..<place]) + [digit(0...fraction[place] - 1), anyDigits]))
        }
        return .choice(options)
    }

    // MARK: - Multiples

    private static let maxModulus = 5000

    /// Accepts unsigned multiples of `step`, with a state for each remainder and number of digits after the point.
    private static func multiples(of step: DecimalNumber) throws(GrammarError) -> CharacterAutomaton {
        let places = step.fraction.count
        guard let modulus = step.scaled(by: places), 1...maxModulus ~= modulus, places <= 6 else {
            throw GrammarError(
                .unsupported, "multipleOf is supported up to \(maxModulus) units of its last digit, and six decimals")
        }
        func power(_ exponent: Int) -> Int { (0..<exponent).reduce(1 % modulus) { value, _ in value * 10 % modulus } }
        // States are numbered by the digits read after the point, -1 before it; state 0 has read nothing.
        func state(_ remainder: Int, _ behind: Int) -> Int { 1 + (behind + 1) * modulus + remainder }
        func edges(_ remainder: Int, _ behind: Int) -> [CharacterAutomaton.Edge] {
            let most = behind >= places ? 0 : 9
            var edges = (0...most).map { digit in
                CharacterAutomaton.Edge(
                    low: UInt32(0x30 + digit), high: UInt32(0x30 + digit),
                    target: behind >= places
                        ? state(remainder, behind)
                        : state((remainder * 10 + digit) % modulus, behind < 0 ? -1 : behind + 1))
            }
            if behind < 0 {
                edges.insert(CharacterAutomaton.Edge(low: 0x2E, high: 0x2E, target: state(remainder, 0)), at: 0)
            }
            return edges
        }
        var states = [CharacterAutomaton.State(edges: edges(0, -1).filter { $0.low != 0x2E })]
        for behind in -1...places {
            for remainder in 0..<modulus {
                let missing = places - max(behind, 0)
                states.append(
                    CharacterAutomaton.State(
                        edges: edges(remainder, behind), accepts: remainder * power(missing) % modulus == 0))
            }
        }
        return CharacterAutomaton(states: states).trimmed
    }
}
