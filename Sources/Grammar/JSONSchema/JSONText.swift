/// Describes how JSON writes characters.
enum JSONText {
    /// The scalars that must be escaped inside a string.
    static let escapedScalars = ScalarSet([0x00...0x1F, 0x22...0x22, 0x5C...0x5C])

    /// Returns the spellings of an escaped scalar: the short one, if there is one, and those by its number.
    static func escapes(of value: UInt32) -> [String] {
        switch value {
        case 0x22: return ["\\\""]
        case 0x5C: return ["\\\\"]
        case 0x08: return ["\\b"]
        case 0x09: return ["\\t"]
        case 0x0A: return ["\\n"]
        case 0x0C: return ["\\f"]
        case 0x0D: return ["\\r"]
        default:
            let digits = String(value, radix: 16)
            let spelling = "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            let upper = "\\u" + String(repeating: "0", count: 4 - digits.count) + digits.uppercased()
            return spelling == upper ? [spelling] : [spelling, upper]
        }
    }
}
