/// Why a text is not accepted as JSON, and at which byte.
package struct JSONError: Error, Equatable, CustomStringConvertible {
    package let problem: String
    /// Bytes before the place where reading stopped.
    package let offset: Int

    package var description: String { "invalid JSON at byte \(offset): \(problem)" }
}

extension JSONValue {
    /// Values nested deeper than this are refused.
    package static let depthLimit = 128

    /// Reads one JSON value and nothing after it, by the strict grammar (RFC 8259): no comments, no trailing commas, no
    /// `NaN`, no unescaped control characters, no half surrogates. Of equal keys the last value wins and the first
    /// place is kept, as in Python.
    /// - Throws: `JSONError` for anything else, for nesting over `depthLimit`, and for numbers that are longer than
    ///   4300 characters or do not fit a double.
    package init(parsing bytes: some Sequence<UInt8>) throws(JSONError) {
        let bytes = Array(bytes)
        guard String(validating: bytes, as: UTF8.self) != nil else {
            throw JSONError(problem: "the text is not UTF-8", offset: 0)
        }
        var parser = JSONParser(bytes: bytes)
        self = try parser.document()
    }

    package init(parsing text: String) throws(JSONError) {
        var parser = JSONParser(bytes: Array(text.utf8))
        self = try parser.document()
    }
}

/// Recursive descent over bytes that are known to be UTF-8.
private struct JSONParser {
    let bytes: [UInt8]
    var at = 0

    init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    mutating func document() throws(JSONError) -> JSONValue {
        skipSpace()
        let value = try value(depth: 0)
        skipSpace()
        guard at == bytes.count else { throw error("something follows the value") }
        return value
    }

    private mutating func value(depth: Int) throws(JSONError) -> JSONValue {
        guard depth <= JSONValue.depthLimit else {
            throw error("nested deeper than \(JSONValue.depthLimit) levels")
        }
        switch peek {
        case UInt8(ascii: "{"): return try object(depth: depth)
        case UInt8(ascii: "["): return try array(depth: depth)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case nil: throw error("the text ends where a value is expected")
        default: return .number(try number())
        }
    }

    private mutating func object(depth: Int) throws(JSONError) -> JSONValue {
        at += 1
        var members = JSONMembers()
        skipSpace()
        if skip(UInt8(ascii: "}")) { return .object([]) }
        while true {
            guard peek == UInt8(ascii: "\"") else { throw error("a key in quotes is expected") }
            let key = try string()
            skipSpace()
            guard skip(UInt8(ascii: ":")) else { throw error("':' is expected after a key") }
            skipSpace()
            members.set(key, try value(depth: depth + 1))
            skipSpace()
            if skip(UInt8(ascii: "}")) { return .object(members.members) }
            guard skip(UInt8(ascii: ",")) else { throw error("',' or '}' is expected") }
            skipSpace()
        }
    }

    private mutating func array(depth: Int) throws(JSONError) -> JSONValue {
        at += 1
        var elements: [JSONValue] = []
        skipSpace()
        if skip(UInt8(ascii: "]")) { return .array([]) }
        while true {
            elements.append(try value(depth: depth + 1))
            skipSpace()
            if skip(UInt8(ascii: "]")) { return .array(elements) }
            guard skip(UInt8(ascii: ",")) else { throw error("',' or ']' is expected") }
            skipSpace()
        }
    }

    private mutating func string() throws(JSONError) -> String {
        at += 1
        var text = ""
        var start = at
        while let byte = peek {
            switch byte {
            case UInt8(ascii: "\""):
                text += String(decoding: bytes[start..<at], as: UTF8.self)
                at += 1
                return text
            case UInt8(ascii: "\\"):
                text += String(decoding: bytes[start..<at], as: UTF8.self)
                text.unicodeScalars.append(try escape())
                start = at
            case 0..<0x20: throw error("control characters in strings must be escaped")
            default: at += 1
            }
        }
        throw error("a string does not end")
    }

    private mutating func escape() throws(JSONError) -> Unicode.Scalar {
        at += 1
        guard let byte = peek else { throw error("a string does not end") }
        at += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{C}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"):
            let first = try hexadecimal()
            if let scalar = Unicode.Scalar(first) { return scalar }
            guard first < 0xDC00, skip(UInt8(ascii: "\\")), skip(UInt8(ascii: "u")) else {
                throw error("half of a surrogate pair")
            }
            let second = try hexadecimal()
            guard 0xDC00..<0xE000 ~= second,
                let scalar = Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
            else { throw error("half of a surrogate pair") }
            return scalar
        default: throw error("unknown escape in a string")
        }
    }

    private mutating func hexadecimal() throws(JSONError) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = peek, byte < 0x80, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
                throw error("four hexadecimal digits are expected")
            }
            value = value << 4 | UInt32(digit)
            at += 1
        }
        return value
    }

    private mutating func number() throws(JSONError) -> JSONNumber {
        let start = at
        if !skip(UInt8(ascii: "-")) {
            guard let byte = peek, UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte else {
                throw error("a value is expected")
            }
        }
        if !skip(UInt8(ascii: "0")) { try digits() }
        if skip(UInt8(ascii: ".")) { try digits() }
        if let byte = peek, byte | 0x20 == UInt8(ascii: "e") {
            at += 1
            if !skip(UInt8(ascii: "+")) { _ = skip(UInt8(ascii: "-")) }
            try digits()
        }
        guard let number = JSONNumber(literal: String(decoding: bytes[start..<at], as: UTF8.self)) else {
            throw JSONError(problem: "the number is too large", offset: start)
        }
        return number
    }

    private mutating func digits() throws(JSONError) {
        let start = at
        while let byte = peek, UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte { at += 1 }
        guard at > start else { throw error("a digit is expected") }
    }

    private mutating func word(_ word: StaticString, _ value: JSONValue) throws(JSONError) -> JSONValue {
        let text = word.description.utf8
        guard bytes[at...].starts(with: text) else { throw error("a value is expected") }
        at += text.count
        return value
    }

    private var peek: UInt8? { at < bytes.count ? bytes[at] : nil }

    private mutating func skip(_ byte: UInt8) -> Bool {
        guard peek == byte else { return false }
        at += 1
        return true
    }

    private mutating func skipSpace() {
        while let byte = peek, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { at += 1 }
    }

    private func error(_ problem: String) -> JSONError { JSONError(problem: problem, offset: at) }
}

/// The members of an object being read; finds an earlier equal key without searching through large objects.
private struct JSONMembers {
    private(set) var members: [JSONMember] = []
    private var places: [ExactKey: Int] = [:]

    /// A key that equals only the same code points, where `String` would also equal canonical equivalents.
    private struct ExactKey: Hashable {
        let text: String

        static func == (left: ExactKey, right: ExactKey) -> Bool { left.text.utf8.elementsEqual(right.text.utf8) }

        func hash(into hasher: inout Hasher) {
            for byte in text.utf8 { hasher.combine(byte) }
        }
    }

    mutating func set(_ key: String, _ value: JSONValue) {
        let exact = ExactKey(text: key)
        if let place = places[exact] {
            members[place].value = value
        } else {
            places[exact] = members.count
            members.append(JSONMember(key, value))
        }
    }
}
