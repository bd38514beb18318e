/// Reads a JSON text byte by byte and tells as early as possible that it is none.
///
/// It accepts a superset of what `JSONValue` does (it does not check `\u` escapes in pairs, the depth or the range of
/// numbers): a text that it refuses is no JSON, one that it accepts is parsed again when it is complete.
package struct JSONPrefix: Sendable {
    private enum State {
        /// A value is expected; `mayClose` is true at the start of an array.
        case value(mayClose: Bool)
        /// A key is expected; `mayClose` is true at the start of an object.
        case key(mayClose: Bool)
        case colon
        /// A value is complete.
        case end
        case string(isKey: Bool)
        case escape(isKey: Bool)
        case hexadecimal(isKey: Bool, remaining: Int)
        /// The rest of `true`, `false` or `null`.
        case literal(ArraySlice<UInt8>)
        case number(Number)
    }

    private enum Number {
        case minus, zero, integer, point, fraction, exponent, sign, power

        /// True if the number may end here.
        var isComplete: Bool {
            switch self {
            case .zero, .integer, .fraction, .power: true
            case .minus, .point, .exponent, .sign: false
            }
        }

        /// Returns what follows by one more character of the number; `nil` if it is none.
        func next(_ byte: UInt8) -> Number? {
            let isDigit = 0x30...0x39 ~= byte
            switch self {
            case .minus: return !isDigit ? nil : byte == 0x30 ? .zero : .integer
            case .integer where isDigit: return .integer
            case .zero, .integer:
                return byte == UInt8(ascii: ".") ? .point : "eE".utf8.contains(byte) ? .exponent : nil
            case .point: return isDigit ? .fraction : nil
            case .fraction: return isDigit ? .fraction : "eE".utf8.contains(byte) ? .exponent : nil
            case .exponent: return isDigit ? .power : "+-".utf8.contains(byte) ? .sign : nil
            case .sign, .power: return isDigit ? .power : nil
            }
        }
    }

    private var state = State.value(mayClose: false)
    /// The open brackets.
    private var open: [UInt8] = []

    package init() {}

    /// Reads one more byte.
    ///
    /// - Returns: `false` if no JSON text begins like this.
    package mutating func feed(_ byte: UInt8) -> Bool {
        switch state {
        case .string(let isKey): return feedString(byte, isKey)
        case .escape(let isKey):
            state = byte == UInt8(ascii: "u") ? .hexadecimal(isKey: isKey, remaining: 4) : .string(isKey: isKey)
            return "\"\\/bfnrtu".utf8.contains(byte)
        case .hexadecimal(let isKey, let remaining):
            state = remaining > 1 ? .hexadecimal(isKey: isKey, remaining: remaining - 1) : .string(isKey: isKey)
            return "0123456789abcdefABCDEF".utf8.contains(byte)
        case .literal(let rest):
            state = rest.count > 1 ? .literal(rest.dropFirst()) : .end
            return rest.first == byte
        case .number(let number):
            if let next = number.next(byte) {
                state = .number(next)
                return true
            }
            state = .end
            return number.isComplete && feed(byte)
        case .value, .key, .colon, .end:
            return " \t\r\n".utf8.contains(byte) || feedToken(byte)
        }
    }

    private mutating func feedString(_ byte: UInt8, _ isKey: Bool) -> Bool {
        switch byte {
        case UInt8(ascii: "\""): state = isKey ? .colon : .end
        case UInt8(ascii: "\\"): state = .escape(isKey: isKey)
        default: return byte >= 0x20
        }
        return true
    }

    /// Reads the first byte of something between blanks.
    private mutating func feedToken(_ byte: UInt8) -> Bool {
        switch (state, byte) {
        case (.value, UInt8(ascii: "{")), (.value, UInt8(ascii: "[")):
            open.append(byte)
            state = byte == UInt8(ascii: "{") ? .key(mayClose: true) : .value(mayClose: true)
        case (.value, UInt8(ascii: "\"")): state = .string(isKey: false)
        case (.value, UInt8(ascii: "t")): state = .literal(Array("rue".utf8)[...])
        case (.value, UInt8(ascii: "f")): state = .literal(Array("alse".utf8)[...])
        case (.value, UInt8(ascii: "n")): state = .literal(Array("ull".utf8)[...])
        case (.value, UInt8(ascii: "-")): state = .number(.minus)
        case (.value, 0x30): state = .number(.zero)
        case (.value, 0x31...0x39): state = .number(.integer)
        case (.key, UInt8(ascii: "\"")): state = .string(isKey: true)
        case (.colon, UInt8(ascii: ":")): state = .value(mayClose: false)
        case (.end, UInt8(ascii: ",")) where !open.isEmpty:
            state = open.last == UInt8(ascii: "{") ? .key(mayClose: false) : .value(mayClose: false)
        case (.value(mayClose: true), UInt8(ascii: "]")), (.key(mayClose: true), UInt8(ascii: "}")): return close()
        case (.end, UInt8(ascii: "]")) where open.last == UInt8(ascii: "["): return close()
        case (.end, UInt8(ascii: "}")) where open.last == UInt8(ascii: "{"): return close()
        default: return false
        }
        return true
    }

    private mutating func close() -> Bool {
        open.removeLast()
        state = .end
        return true
    }
}
