/// A JSON number, kept exactly: integers of any length digit by digit, fractions and exponents as they were written.
package struct JSONNumber: Sendable {
    private enum Storage: Sendable {
        case integer(Int)
        case real(Double)
        /// Holds the text of a number that is no `Int`, or was written with a point or an exponent. It follows JSON's
        /// grammar.
        case literal(String)
    }

    private let storage: Storage

    package init(_ value: Int) { storage = .integer(value) }

    /// Creates a number; `nil` for infinities and NaN, which JSON cannot represent.
    package init?(_ value: Double) {
        guard value.isFinite else { return nil }
        storage = .real(value)
    }

    /// Creates a number as it was written.
    ///
    /// - Parameter literal: a text that is known to follow JSON's grammar and to be within the range of doubles.
    init(literal: String, isInteger: Bool) {
        // −0 would lose its sign.
        if isInteger, literal != "-0", let value = Int(literal) {
            storage = .integer(value)
        } else {
            storage = .literal(literal)
        }
    }

    /// The number as it was written or, if it was computed, as Python would write it.
    package var literal: String {
        switch storage {
        case .integer(let value): String(value)
        case .real(let value): Self.pythonText(of: value)
        case .literal(let text): text
        }
    }

    /// Python's `repr` of the result of `json.loads`: integers digit by digit, any number with a point or an
    /// exponent as the shortest text that reads back as the same double.
    package var pythonText: String {
        guard case .literal(let text) = storage else { return literal }
        if Self.isInteger(text) { return text == "-0" ? "0" : text }
        return Self.pythonText(of: double)
    }

    /// The number as an `Int`; `nil` for integers that do not fit and for numbers written with a point or an
    /// exponent.
    package var integer: Int? {
        switch storage {
        case .integer(let value): value
        case .real: nil
        case .literal(let text): Int(text)
        }
    }

    /// The number as an `Int` if it is exactly a whole number, however it was written: `5`, `5.0`, `0.5e1`.
    package var wholeNumber: Int? {
        switch storage {
        case .integer(let value): value
        case .real(let value): Int(exactly: value)
        case .literal(let text): Self.wholeNumber(of: text)
        }
    }

    package var double: Double {
        switch storage {
        case .integer(let value): Double(value)
        case .real(let value): value
        case .literal(let text): Double(text) ?? .infinity
        }
    }

    private static func isInteger(_ literal: String) -> Bool {
        !literal.utf8.contains { $0 == UInt8(ascii: ".") || $0 | 0x20 == UInt8(ascii: "e") }
    }

    /// Converts without going through a double, which would round.
    private static func wholeNumber(of literal: String) -> Int? {
        let parts = literal.utf8.split(maxSplits: 1) { $0 | 0x20 == UInt8(ascii: "e") }
        let isNegative = parts[0].first == UInt8(ascii: "-")
        let mantissa = parts[0].dropFirst(isNegative ? 1 : 0)
            .split(separator: UInt8(ascii: "."), maxSplits: 1)
        var digits = mantissa.flatMap { Array($0) }
        while digits.last == UInt8(ascii: "0") && digits.count > 1 { digits.removeLast() }
        if digits == [UInt8(ascii: "0")] { return 0 }
        // An exponent that does not fit an Int cannot belong to a whole number below 2^63 other than zero.
        guard let exponent = parts.count > 1 ? Int(String(parts[1])!) : 0 else { return nil }
        let (pointAt, overflow) = mantissa[0].count.addingReportingOverflow(exponent)
        let leadingZeros = digits.prefix { $0 == UInt8(ascii: "0") }.count
        guard !overflow, pointAt >= digits.count, pointAt - leadingZeros <= 19 else { return nil }
        let zeros = String(repeating: "0", count: pointAt - digits.count)
        return Int((isNegative ? "-" : "") + String(decoding: digits, as: UTF8.self) + zeros)
    }

    /// Returns Python's `repr`: positional from 1e-4 to below 1e16, else `1e+16`, `1.5e-07`.
    private static func pythonText(of value: Double) -> String {
        if value == 0 { return value.sign == .minus ? "-0.0" : "0.0" }
        // Swift finds the same shortest digits; only the position of the point differs.
        let parts = value.magnitude.description.split(separator: "e")
        let mantissa = parts[0].split(separator: ".")
        var digits = mantissa.joined()
        var pointAt = mantissa[0].count + (parts.count > 1 ? Int(parts[1]) ?? 0 : 0)
        let leadingZeros = digits.prefix { $0 == "0" }.count
        digits.removeFirst(leadingZeros)
        pointAt -= leadingZeros
        while digits.last == "0" { digits.removeLast() }
        return (value < 0 ? "-" : "") + place(pointAt: pointAt, in: digits)
    }

    /// Returns `digits` (without zeros at either end) with the point after the first `pointAt` of them.
    private static func place(pointAt: Int, in digits: String) -> String {
        if pointAt > 16 || pointAt < -3 {
            let exponent = pointAt - 1
            let magnitude = exponent.magnitude < 10 ? "0\(exponent.magnitude)" : "\(exponent.magnitude)"
            let fraction = digits.count > 1 ? "." + digits.dropFirst() : ""
            return "\(digits.prefix(1))\(fraction)e\(exponent < 0 ? "-" : "+")\(magnitude)"
        }
        if pointAt <= 0 { return "0." + String(repeating: "0", count: -pointAt) + digits }
        if digits.count <= pointAt { return digits + String(repeating: "0", count: pointAt - digits.count) + ".0" }
        return digits.prefix(pointAt) + "." + digits.dropFirst(pointAt)
    }
}

/// Numbers are equal if Python would write them identically: `1.50` equals `1.5`, but not `1`.
extension JSONNumber: Equatable {
    package static func == (left: JSONNumber, right: JSONNumber) -> Bool {
        if case (.integer(let a), .integer(let b)) = (left.storage, right.storage) { return a == b }
        return left.pythonText == right.pythonText
    }
}
