extension Pattern {
    /// Reads a regular expression in the syntax that ECMAScript and most others share. Classes such as `\d` and `\w`
    /// are those of ECMAScript, ASCII only; `.` is any character but line ends.
    ///
    /// - Throws: for features that are not regular (back-references, assertions other than `^` and `$`), which the
    ///   error names, for flags, and for excessive depths and repetitions.
    init(parsing text: String) throws(GrammarError) {
        var parser = PatternParser(text)
        self = try parser.whole()
    }
}

private struct PatternParser: SyntaxParser {
    let scalars: [Unicode.Scalar]
    var at = 0
    var depth = 0

    private static let maxLength = 20_000
    private static let maxRepetitions = 10_000

    init(_ text: String) { scalars = Array(text.unicodeScalars) }

    mutating func whole() throws(GrammarError) -> Pattern {
        guard scalars.count <= Self.maxLength else {
            throw GrammarError(
                .tooLarge, "a pattern of \(scalars.count) characters; the most is \(Self.maxLength)")
        }
        let pattern = try choice()
        guard at == scalars.count else { throw error(.invalid, "')' without '('") }
        return pattern
    }

    private mutating func choice() throws(GrammarError) -> Pattern {
        let options = try options()
        return options.count == 1 ? options[0] : .choice(options)
    }

    mutating func sequence() throws(GrammarError) -> Pattern {
        var parts: [Pattern] = []
        while let next = peek, next != "|", next != ")" { parts.append(try quantified()) }
        return parts.count == 1 ? parts[0] : .sequence(parts)
    }

    private mutating func quantified() throws(GrammarError) -> Pattern {
        let start = at
        let part = try atom()
        guard let (minimum, maximum) = try quantifier() else { return part }
        if part == .start || part == .end { throw error(.invalid, "a repeated anchor", at: start) }
        guard max(minimum, maximum ?? 0) <= Self.maxRepetitions else {
            throw error(
                .tooLarge, "a repetition of \(max(minimum, maximum ?? 0)); the most is \(Self.maxRepetitions)",
                at: start)
        }
        guard minimum <= maximum ?? minimum else { throw error(.invalid, "a repetition out of order", at: start) }
        // Laziness decides which match comes first, but not whether there is one.
        _ = skip("?")
        if peek == "+" { throw error(.unsupported, "possessive quantifiers are not supported") }
        if peek == "*" || peek == "?" { throw error(.invalid, "nothing to repeat") }
        return .repeated(part, minimum: minimum, maximum: maximum)
    }

    private mutating func quantifier() throws(GrammarError) -> (Int, Int?)? {
        if skip("*") { return (0, nil) }
        if skip("+") { return (1, nil) }
        if skip("?") { return (0, 1) }
        let start = at
        guard skip("{") else { return nil }
        if let minimum = digits() {
            if skip("}") { return (minimum, minimum) }
            if skip(",") {
                if skip("}") { return (minimum, nil) }
                if let maximum = digits(), skip("}") { return (minimum, maximum) }
            }
        } else if skip(","), let maximum = digits(), skip("}") {
            return (0, maximum)
        }
        // It is no quantifier, so the brace is an ordinary character.
        at = start
        return nil
    }

    private mutating func atom() throws(GrammarError) -> Pattern {
        let start = at
        at += 1
        switch scalars[start] {
        case ".": return .set(ScalarSet.lineEnds.complement)
        case "^": return .start
        case "$": return .end
        case "(": return try group()
        case "[": return .set(try characterClass())
        case "\\": return try escape()
        case "*", "+", "?": throw error(.invalid, "nothing to repeat", at: start)
        default: return .set(ScalarSet(scalars[start]))
        }
    }

    private mutating func group() throws(GrammarError) -> Pattern {
        let start = at - 1
        if skip("?") {
            if skip("P") || peek == "<" {
                guard skip("<"), peek != "=", peek != "!" else {
                    throw error(.unsupported, "look-behind and references to groups are not supported", at: start)
                }
                while let next = peek, next != ">" { at += next == ")" ? scalars.count : 1 }
                guard skip(">") else { throw error(.invalid, "a group's name does not end", at: start) }
            } else if peek == "=" || peek == "!" {
                throw error(.unsupported, "look-ahead is not supported", at: start)
            } else if !skip(":") {
                throw error(.unsupported, "flags and special groups are not supported", at: start)
            }
        }
        let pattern = try choice()
        guard skip(")") else { throw error(.invalid, "'(' without ')'", at: start) }
        return pattern
    }

    private mutating func escape() throws(GrammarError) -> Pattern {
        guard let next = peek else { throw error(.invalid, "a pattern ends in '\\'") }
        switch next {
        case "b", "B": throw error(.unsupported, "word boundaries (\\\(next)) are not supported")
        case "A":
            at += 1
            return .start
        case "z", "Z":
            at += 1
            return .end
        case "1"..."9", "k": throw error(.unsupported, "back-references are not supported")
        default: return .set(try escapedSet())
        }
    }

    /// Reads the set after a backslash.
    private mutating func escapedSet() throws(GrammarError) -> ScalarSet {
        let start = at - 1
        guard let next = peek else { throw error(.invalid, "a pattern ends in '\\'") }
        at += 1
        switch next {
        case "d": return .digits
        case "D": return ScalarSet.digits.complement
        case "w": return .wordCharacters
        case "W": return ScalarSet.wordCharacters.complement
        case "s": return .spaces
        case "S": return ScalarSet.spaces.complement
        case "p", "P":
            let set = try category()
            return next == "p" ? set : set.complement
        default:
            at = start + 1
            return ScalarSet(try escapedScalar())
        }
    }

    private mutating func category() throws(GrammarError) -> ScalarSet {
        let start = at - 2
        guard skip("{") else { throw error(.invalid, "'\\p' without '{'", at: start) }
        var name = ""
        while let next = peek, next != "}" {
            name.unicodeScalars.append(next)
            at += 1
        }
        guard skip("}") else { throw error(.invalid, "'\\p{' without '}'", at: start) }
        guard let set = UnicodeCategories.set(named: name) else {
            throw error(
                .unsupported, "\\p{\(name.prefix(40))} is not supported; general categories such as \\p{L} are",
                at: start)
        }
        return set
    }

    private mutating func escapedScalar() throws(GrammarError) -> Unicode.Scalar {
        let start = at - 1
        let next = scalars[at]
        at += 1
        switch next {
        case "t": return "\t"
        case "n": return "\n"
        case "r": return "\r"
        case "f": return "\u{C}"
        case "v": return "\u{B}"
        case "a": return "\u{7}"
        case "e": return "\u{1B}"
        case "0": return "\0"
        case "c":
            guard let letter = peek, letter.isASCII, letter.properties.isAlphabetic else {
                throw error(.invalid, "'\\c' without a letter", at: start)
            }
            at += 1
            return Unicode.Scalar(UInt8(letter.value & 0x1F))
        case "x": return try scalar(hexadecimal(2, start), start)
        case "u": return try unicodeEscape(start)
        default:
            guard !next.isASCII || !(next.properties.isAlphabetic || "0"..."9" ~= next) else {
                throw error(.unsupported, "the escape '\\\(next)' is not supported", at: start)
            }
            return next
        }
    }

    private mutating func unicodeEscape(_ start: Int) throws(GrammarError) -> Unicode.Scalar {
        if skip("{") {
            var value: UInt32 = 0
            while let digit = peek.flatMap({ Character($0).hexDigitValue }), value <= 0x10FFFF {
                value = value << 4 | UInt32(digit)
                at += 1
            }
            guard skip("}") else { throw error(.invalid, "'\\u{' without '}'", at: start) }
            return try scalar(value, start)
        }
        let first = try hexadecimal(4, start)
        if 0xD800..<0xDC00 ~= first, skip("\\"), skip("u") {
            let second = try hexadecimal(4, start)
            guard 0xDC00..<0xE000 ~= second else { throw error(.invalid, "half of a surrogate pair", at: start) }
            return try scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00), start)
        }
        return try scalar(first, start)
    }

    private mutating func hexadecimal(_ count: Int, _ start: Int) throws(GrammarError) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<count {
            guard let digit = peek.flatMap({ Character($0).hexDigitValue }) else {
                throw error(.invalid, "\(count) hexadecimal digits are expected", at: start)
            }
            value = value << 4 | UInt32(digit)
            at += 1
        }
        return value
    }

    private func scalar(_ value: UInt32, _ start: Int) throws(GrammarError) -> Unicode.Scalar {
        guard let scalar = Unicode.Scalar(value) else { throw error(.invalid, "no Unicode scalar", at: start) }
        return scalar
    }

    // MARK: - Classes

    private mutating func characterClass() throws(GrammarError) -> ScalarSet {
        let start = at - 1
        let isNegated = skip("^")
        var ranges: [ClosedRange<UInt32>] = []
        while let next = peek, next != "]" {
            let (low, set) = try classMember()
            ranges += set.ranges
            guard let low, peek == "-", at + 1 < scalars.count, scalars[at + 1] != "]" else { continue }
            at += 1
            let (high, _) = try classMember()
            guard let high, low <= high else { throw error(.invalid, "a range out of order", at: start) }
            ranges.append(low.value...high.value)
        }
        guard skip("]") else { throw error(.invalid, "'[' without ']'", at: start) }
        let set = ScalarSet(ranges)
        return isNegated ? set.complement : set
    }

    /// Reads one member of a class; the scalar is nil unless the member is a single one, which may begin a range.
    private mutating func classMember() throws(GrammarError) -> (Unicode.Scalar?, ScalarSet) {
        let next = scalars[at]
        at += 1
        if next == "[", peek == ":" {
            throw error(.unsupported, "POSIX classes such as [:alpha:] are not supported")
        }
        guard next == "\\" else { return (next, ScalarSet(next)) }
        if skip("b") { return ("\u{8}", ScalarSet("\u{8}")) }
        let set = try escapedSet()
        guard set.ranges.count == 1, set.ranges[0].count == 1 else { return (nil, set) }
        return (Unicode.Scalar(set.ranges[0].lowerBound), set)
    }

    func place(of index: Int) -> String { "character \(index)" }
}
