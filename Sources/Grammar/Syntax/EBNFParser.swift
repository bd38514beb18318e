/// Reads grammars in the notation of llama.cpp and XGrammar:
///
///     root ::= "{" (pair ("," pair)*)? "}"   # a comment
///     pair ::= key ":" [0-9]{1,3}
///
/// Literals are in double quotes, classes in brackets; `*`, `+`, `?`, `{m}`, `{m,}` and `{m,n}` repeat, `|` separates
/// options, parentheses group, `.` is any character. The rule `root` derives the whole text. A rule ends where the next
/// begins.
struct EBNFParser: SyntaxParser {
    let scalars: [Unicode.Scalar]
    var at = 0
    var depth = 0
    private var rules = RuleSet()
    private var ruleOfName: [String: Int] = ["root": RuleSet.root]
    private var defined: Set<String> = []

    private static let maxRepetitions = 100_000

    static func rules(of text: String) throws(GrammarError) -> RuleSet {
        var parser = EBNFParser(text)
        try parser.readRules()
        return parser.rules
    }

    private init(_ text: String) { scalars = Array(text.unicodeScalars) }

    private mutating func readRules() throws(GrammarError) {
        skipSpace()
        while at < scalars.count {
            guard let name = name() else { throw error(.invalid, "the name of a rule is expected") }
            skipSpace()
            guard skip("::=") else { throw error(.invalid, "'::=' is expected after '\(name)'") }
            guard defined.insert(name).inserted else { throw error(.invalid, "the rule '\(name)' is defined twice") }
            let rule = try rule(named: name)
            rules.define(rule, try choice())
        }
        let missing = ruleOfName.keys.filter { !defined.contains($0) }.sorted()
        if let name = missing.first { throw GrammarError(.invalid, "the rule '\(name)' is not defined") }
    }

    private mutating func rule(named name: String) throws(GrammarError) -> Int {
        if let known = ruleOfName[name] { return known }
        let rule = try rules.declare()
        ruleOfName[name] = rule
        return rule
    }

    private mutating func choice() throws(GrammarError) -> Expression {
        .choice(try options())
    }

    mutating func sequence() throws(GrammarError) -> Expression {
        var parts: [Expression] = []
        skipSpace()
        while let part = try part() {
            parts.append(try repeated(part))
            skipSpace()
        }
        return .sequence(parts)
    }

    /// Reads one part of a sequence.
    ///
    /// - Returns: `nil` if the sequence ends.
    private mutating func part() throws(GrammarError) -> Expression? {
        switch peek {
        case "\"": return .text(try literal())
        case "[": return .scalars(try characterClass(), .utf8)
        case ".":
            at += 1
            return .scalars(.all, .utf8)
        case "(":
            at += 1
            if peek == "=" || peek == "!" { throw error(.unsupported, "look-ahead is not supported") }
            let inner = try choice()
            guard skip(")") else { throw error(.invalid, "'(' without ')'") }
            return inner
        case nil, "|", ")": return nil
        default:
            let start = at
            guard let name = name() else { throw error(.invalid, "'\(scalars[at])' is not expected here") }
            skipSpace()
            if scalars[at...].starts(with: "::=".unicodeScalars) {
                at = start
                return nil
            }
            if peek == "(", name == "TagDispatch" || name == "Token" || name == "ExcludeToken" {
                throw error(.unsupported, "\(name) is not supported")
            }
            return .rule(try rule(named: name))
        }
    }

    private mutating func repeated(_ part: Expression) throws(GrammarError) -> Expression {
        var part = part
        while true {
            let start = at
            if skip("*") {
                part = .repeated(part, minimum: 0, maximum: nil)
            } else if skip("+") {
                part = .repeated(part, minimum: 1, maximum: nil)
            } else if skip("?") {
                part = .repeated(part, minimum: 0, maximum: 1)
            } else if skip("{") {
                let (minimum, maximum) = try bounds()
                guard max(minimum, maximum ?? 0) <= Self.maxRepetitions else {
                    throw error(
                        .tooLarge,
                        "a repetition of \(max(minimum, maximum ?? 0)); the most is \(Self.maxRepetitions)", at: start)
                }
                part = .repeated(part, minimum: minimum, maximum: maximum)
            } else {
                return part
            }
        }
    }

    /// Reads the numbers of `{m}`, `{m,}`, `{,n}` and `{m,n}`, after the brace.
    private mutating func bounds() throws(GrammarError) -> (Int, Int?) {
        let start = at - 1
        let minimum = number()
        skipSpace()
        var maximum = minimum
        let hasComma = skip(",")
        if hasComma {
            skipSpace()
            maximum = number()
            skipSpace()
        }
        guard skip("}"), minimum != nil || (hasComma && maximum != nil), minimum ?? 0 <= maximum ?? .max else {
            throw error(.invalid, "'{m}', '{m,}' or '{m,n}' is expected", at: start)
        }
        return (minimum ?? 0, maximum)
    }

    private mutating func number() -> Int? {
        skipSpace()
        return digits()
    }

    private mutating func literal() throws(GrammarError) -> String {
        let start = at
        at += 1
        var text = ""
        while let next = peek, next != "\"" {
            guard next != "\n" else { break }
            text.unicodeScalars.append(try character())
        }
        guard skip("\"") else { throw error(.invalid, "a literal does not end", at: start) }
        return text
    }

    private mutating func characterClass() throws(GrammarError) -> ScalarSet {
        let start = at
        at += 1
        let isNegated = skip("^")
        var ranges: [ClosedRange<UInt32>] = []
        while let next = peek, next != "]" {
            if next == "\\", at + 1 < scalars.count, let set = Self.classes[scalars[at + 1]] {
                at += 2
                ranges += set.ranges
                continue
            }
            let low = try character()
            guard peek == "-", at + 1 < scalars.count, scalars[at + 1] != "]" else {
                ranges.append(low.value...low.value)
                continue
            }
            at += 1
            let high = try character()
            guard low <= high else { throw error(.invalid, "a range out of order", at: start) }
            ranges.append(low.value...high.value)
        }
        guard skip("]") else { throw error(.invalid, "'[' without ']'", at: start) }
        return isNegated ? ScalarSet(ranges).complement : ScalarSet(ranges)
    }

    private static let classes: [Unicode.Scalar: ScalarSet] = [
        "d": .digits, "D": ScalarSet.digits.complement, "w": .wordCharacters, "W": ScalarSet.wordCharacters.complement,
        "s": .spaces, "S": ScalarSet.spaces.complement,
    ]

    private static let escapes: [Unicode.Scalar: Unicode.Scalar] = [
        "n": "\n", "r": "\r", "t": "\t", "f": "\u{C}", "v": "\u{B}", "b": "\u{8}", "a": "\u{7}", "e": "\u{1B}",
        "0": "\0",
    ]

    private static let hexadecimal: [Unicode.Scalar: Int] = ["x": 2, "u": 4, "U": 8]

    /// Reads one character of a literal or a class.
    private mutating func character() throws(GrammarError) -> Unicode.Scalar {
        let start = at
        let first = scalars[at]
        at += 1
        guard first == "\\" else { return first }
        guard let next = peek else { throw error(.invalid, "the grammar ends in '\\'") }
        at += 1
        if let digits = Self.hexadecimal[next] {
            let text = String(String.UnicodeScalarView(scalars[at..<min(at + digits, scalars.count)]))
            at += text.unicodeScalars.count
            guard text.unicodeScalars.count == digits, let scalar = UInt32(text, radix: 16).flatMap(Unicode.Scalar.init)
            else { throw error(.invalid, "\(digits) hexadecimal digits of a Unicode scalar are expected", at: start) }
            return scalar
        }
        if let known = Self.escapes[next] { return known }
        guard !(next.isASCII && next.properties.isAlphabetic) else {
            throw error(.invalid, "the escape '\\\(next)' is unknown", at: start)
        }
        return next
    }

    // MARK: - Characters

    private mutating func name() -> String? {
        let start = at
        while let next = peek, next.isASCII,
            next.properties.isAlphabetic || "0"..."9" ~= next || "_-.".unicodeScalars.contains(next)
        {
            at += 1
        }
        return at == start ? nil : String(String.UnicodeScalarView(scalars[start..<at]))
    }

    private mutating func skipSpace() {
        while let next = peek {
            if next == "#" {
                while let next = peek, next != "\n" { at += 1 }
            } else if next.properties.isWhitespace {
                at += 1
            } else {
                return
            }
        }
    }

    func place(of index: Int) -> String { "line \(1 + scalars[..<index].count { $0 == "\n" })" }
}
