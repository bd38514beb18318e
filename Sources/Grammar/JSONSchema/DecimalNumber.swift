import JSON
import Tokenization

/// A decimal number of any length that is compared exactly.
struct DecimalNumber: Sendable, Comparable {
    var isNegative: Bool
    /// The digits before the point, without leading zeros; "0" if there are none.
    let integer: [UInt8]
    /// The digits after the point, without trailing zeros.
    let fraction: [UInt8]

    static let zero = DecimalNumber(isNegative: false, integer: [0], fraction: [])
    /// A number may have this many digits; longer ones are refused.
    private static let maxDigits = 400

    private init(isNegative: Bool, integer: [UInt8], fraction: [UInt8]) {
        let leading = integer.drop { $0 == 0 }
        self.integer = leading.isEmpty ? [0] : Array(leading)
        self.fraction = Array(fraction[..<((fraction.lastIndex { $0 != 0 } ?? -1) + 1)])
        self.isNegative = isNegative && (self.integer != [0] || !self.fraction.isEmpty)
    }

    /// Creates the number.
    ///
    /// - Returns: `nil` for numbers with too many digits.
    init?(_ number: JSONNumber) {
        let parts = number.literal.lowercased().drop { $0 == "-" }.split(separator: "e")
        let mantissa = parts[0].split(separator: ".", omittingEmptySubsequences: false)
        let exponent = parts.count > 1 ? Int(parts[1]) ?? .max : 0
        var digits = mantissa.joined().utf8.map { $0 - UInt8(ascii: "0") }
        guard abs(exponent) <= Self.maxDigits, digits.count <= Self.maxDigits else { return nil }
        var point = mantissa[0].count + exponent
        if point < 0 {
            digits.insert(contentsOf: repeatElement(0, count: -point), at: 0)
            point = 0
        }
        digits += repeatElement(0, count: max(0, point - digits.count))
        self.init(
            isNegative: number.literal.hasPrefix("-"), integer: Array(digits[..<point]),
            fraction: Array(digits[point...]))
    }

    var isInteger: Bool { fraction.isEmpty }

    var magnitude: DecimalNumber { DecimalNumber(isNegative: false, integer: integer, fraction: fraction) }

    static prefix func - (number: DecimalNumber) -> DecimalNumber {
        DecimalNumber(isNegative: !number.isNegative, integer: number.integer, fraction: number.fraction)
    }

    static func < (left: DecimalNumber, right: DecimalNumber) -> Bool {
        if left.isNegative != right.isNegative { return left.isNegative }
        return left.isNegative ? right.isSmaller(than: left) : left.isSmaller(than: right)
    }

    /// Compares magnitudes.
    private func isSmaller(than other: DecimalNumber) -> Bool {
        if integer.count != other.integer.count { return integer.count < other.integer.count }
        if integer != other.integer { return integer.lexicographicallyPrecedes(other.integer) }
        return fraction.lexicographicallyPrecedes(other.fraction)
    }

    /// Returns true if this is a multiple of another number above zero; `nil` if that has too many digits to tell.
    func isMultiple(of divisor: DecimalNumber) -> Bool? {
        guard let step = divisor.scaled(by: divisor.fraction.count), step > 0 else { return nil }
        let digits = integer + fraction + repeatElement(0, count: max(0, divisor.fraction.count - fraction.count))
        // In units of the finer of the two, the divisor is `step` times a power of ten.
        let zeros = max(0, fraction.count - divisor.fraction.count)
        guard zeros <= 15, let unit = Int(exactly: zeros).map({ (0..<$0).reduce(1) { value, _ in value * 10 } }) else {
            return nil
        }
        let (modulus, isOver) = step.multipliedReportingOverflow(by: unit)
        guard !isOver, modulus < Int.max / 16 else { return nil }
        return digits.reduce(0) { ($0 * 10 + Int($1)) % modulus } == 0
    }

    /// Returns the number times a power of ten; `nil` if that is no small integer.
    func scaled(by power: Int) -> Int? {
        guard fraction.count <= power, integer.count + power <= 15 else { return nil }
        let digits = integer + fraction + repeatElement(0, count: power - fraction.count)
        return digits.reduce(0) { $0 * 10 + Int($1) }
    }
}
