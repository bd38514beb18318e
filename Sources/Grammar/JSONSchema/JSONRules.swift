import JSON
import Tokenization

/// Holds the rules of JSON itself.
///
/// Between the parts of objects and arrays the rules allow nothing, one space, or a line break with blanks: all common
/// styles, but no endless runs of blanks. Nor have numbers endless digits.
struct JSONRules: Sendable {
    let blanks: Expression
    /// Derives one character inside a string, in any spelling.
    let character: Expression
    let string: Expression
    let number: Expression
    let integer: Expression
    let object: Expression
    let array: Expression
    let value: Expression

    init(into rules: inout RuleSet) throws(GrammarError) {
        let indent = Expression.repeated(
            .choice([.bytes([0x20]), .bytes([0x09])]), minimum: 0, maximum: 32)
        blanks = .rule(
            try rules.add(.choice([.empty, .bytes([0x20]), .sequence([.bytes([0x0A]), indent])])))
        character = .rule(try rules.add(Self.anyCharacter))
        let quote = Expression.bytes([0x22])
        string = .rule(
            try rules.add(.sequence([quote, .repeated(character, minimum: 0, maximum: nil), quote])))
        let digit = Expression.byteRange(0x30...0x39)
        let digits = Expression.repeated(digit, minimum: 1, maximum: NumberAutomata.maxFractionDigits)
        let more = Expression.repeated(digit, minimum: 0, maximum: NumberAutomata.maxWholeDigits - 1)
        let whole = Expression.sequence([
            .repeated(.bytes([0x2D]), minimum: 0, maximum: 1),
            .choice([.bytes([0x30]), .sequence([.byteRange(0x31...0x39), more])]),
        ])
        integer = .rule(try rules.add(whole))
        // With two digits, or below 300, any such number fits a double.
        let exponent = Expression.sequence([
            .choice([.bytes([0x65]), .bytes([0x45])]),
            .repeated(.choice([.bytes([0x2B]), .bytes([0x2D])]), minimum: 0, maximum: 1),
            .choice([
                .repeated(digit, minimum: 1, maximum: 2), .sequence([.byteRange(0x31...0x32), digit, digit]),
            ]),
        ])
        number = .rule(
            try rules.add(
                .sequence([
                    whole, .repeated(.sequence([.bytes([0x2E]), digits]), minimum: 0, maximum: 1),
                    .repeated(exponent, minimum: 0, maximum: 1),
                ])))
        let (objectRule, arrayRule, valueRule) = (try rules.declare(), try rules.declare(), try rules.declare())
        (object, array, value) = (.rule(objectRule), .rule(arrayRule), .rule(valueRule))
        let member = Expression.sequence([string, .bytes([0x3A]), blanks, value])
        rules.define(objectRule, Self.list(of: member, between: (0x7B, 0x7D), blanks))
        rules.define(arrayRule, Self.list(of: value, between: (0x5B, 0x5D), blanks))
        rules.define(
            valueRule,
            .choice([string, number, object, array, .text("true"), .text("false"), .text("null")]))
    }

    private static func list(of part: Expression, between: (UInt8, UInt8), _ blanks: Expression) -> Expression {
        let more = Expression.sequence([.bytes([0x2C]), blanks, part])
        let parts = Expression.sequence([part, .repeated(more, minimum: 0, maximum: nil)])
        return .sequence([
            .bytes([between.0]), blanks,
            .choice([.empty, .sequence([parts, blanks])]), .bytes([between.1]),
        ])
    }

    private static var anyCharacter: Expression {
        func hex(_ ranges: ClosedRange<UInt8>...) -> Expression { .choice(ranges.map { .byteRange($0) }) }
        let any = hex(0x30...0x39, 0x41...0x46, 0x61...0x66)
        let lone = Expression.choice([
            .sequence([hex(0x30...0x39, 0x41...0x43, 0x45...0x46, 0x61...0x63, 0x65...0x66), any, any, any]),
            .sequence([hex(0x44...0x44, 0x64...0x64), hex(0x30...0x37), any, any]),
        ])
        let pair = Expression.sequence([
            hex(0x44...0x44, 0x64...0x64), hex(0x38...0x39, 0x41...0x42, 0x61...0x62), any, any, .text("\\u"),
            hex(0x44...0x44, 0x64...0x64), hex(0x43...0x46, 0x63...0x66), any, any,
        ])
        return .choice([
            .scalars(ScalarSet.all.subtracting(JSONText.escapedScalars), .utf8),
            .sequence([
                .bytes([0x5C]),
                .choice(
                    "\"\\/bfnrt".utf8.map { .bytes([$0]) } + [.sequence([.text("u"), .choice([lone, pair])])]),
            ]),
        ])
    }

    /// Derives a string of JSON in its canonical spelling.
    static func literal(_ text: String) -> Expression { .text(JSONValue.string(text).pythonText) }
}
