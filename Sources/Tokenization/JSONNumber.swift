/// A JSON number, kept as the text Python writes for it: integers of any length digit by digit, everything with a
/// point or an exponent as the shortest text that reads back as the same double.
package struct JSONNumber: Sendable, Equatable {
    /// Python's `repr` of the number.
    package let text: String

    package init(_ value: Int) {
        text = String(value)
    }

    /// `nil` for infinities and NaN, which JSON cannot carry.
    package init?(_ value: Double) {
        guard value.isFinite else { return nil }
        text = Self.pythonText(of: value)
    }

    /// Reads a number that is already known to follow JSON's grammar.
    /// - Returns: `nil` if it has more than `digitLimit` digits or overflows a double.
    init?(literal: String) {
        guard literal.utf8.count <= Self.digitLimit else { return nil }
        if literal.utf8.contains(where: { $0 == UInt8(ascii: ".") || $0 | 0x20 == UInt8(ascii: "e") }) {
            guard let value = Double(literal) else { return nil }
            self.init(value)
        } else {
            self.init(integerText: literal == "-0" ? "0" : literal)
        }
    }

    private init(integerText: String) {
        text = integerText
    }

    /// The longest literal that is read: as many digits as Python accepts for an integer.
    private static let digitLimit = 4300

    /// The number as an `Int`; `nil` for fractions and for integers that do not fit.
    package var integer: Int? { Int(text) }

    package var double: Double { Double(text) ?? .infinity }

    /// Python's `repr`: positional from 1e-4 to below 1e16, else `1e+16`, `1.5e-07`.
    private static func pythonText(of value: Double) -> String {
        if value == 0 { return value.sign == .minus ? "-0.0" : "0.0" }
        // Swift finds the same shortest digits; only where it puts the point differs.
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

    /// `digits` (no zeros at either end) with the point after the first `pointAt` of them.
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
