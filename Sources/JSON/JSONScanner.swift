/// Reads the tokens of one JSON text strictly (RFC 8259), and never reads outside its bytes.
///
/// Foundation's reader accepts duplicate keys and hides how a number was written, and both matter in files that decide
/// where memory is read. Callers read objects and arrays step by step: `enter`, then members until `next` returns
/// false.
package struct JSONScanner {
    private let bytes: [UInt8]
    private let limits: JSONLimits
    /// The offset of the first byte that was not read.
    package private(set) var position = 0

    /// Creates a scanner of the bytes.
    ///
    /// - Throws: when the bytes are not UTF-8.
    package init(_ bytes: [UInt8], limits: JSONLimits = .strict) throws(JSONError) {
        do throws(UTF8.ValidationError) {
            _ = try UTF8Span(validating: bytes.span)
        } catch {
            throw JSONError("the text is not valid UTF-8", in: bytes, at: error.byteOffsets.lowerBound)
        }
        self.bytes = bytes
        self.limits = limits
    }

    /// Returns the next byte that is not white space, or nil at the end.
    package mutating func peek() -> UInt8? {
        while position < bytes.count {
            switch bytes[position] {
            case UInt8(ascii: " "), UInt8(ascii: "\n"), UInt8(ascii: "\r"), UInt8(ascii: "\t"): position += 1
            case let byte: return byte
            }
        }
        return nil
    }

    /// Returns an error at `offset`, or at the scanner's position.
    package func failure(_ problem: String, at offset: Int? = nil) -> JSONError {
        JSONError(problem, in: bytes, at: offset ?? position)
    }

    /// Returns an error that says what was found instead of `expected`.
    package mutating func unexpected(_ expected: String) -> JSONError {
        guard let byte = peek() else { return failure("expected \(expected), found the end of the text") }
        let end = bytes[position...].prefix(24).firstIndex { $0 <= 0x20 || $0 == UInt8(ascii: ",") } ?? position + 24
        let found = String(decoding: bytes[position..<max(position + 1, min(end, bytes.count))], as: UTF8.self)
        return failure(byte <= 0x20 ? "expected \(expected)" : "expected \(expected), found \(found.quotedForMessage)")
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard peek() == byte else { return false }
        position += 1
        return true
    }

    /// Reads `{`. Returns false if the object is empty; then its end was read too.
    package mutating func enterObject() throws(JSONError) -> Bool {
        guard take(UInt8(ascii: "{")) else { throw unexpected("an object") }
        return !take(UInt8(ascii: "}"))
    }

    /// Reads `[`. Returns false if the array is empty; then its end was read too.
    package mutating func enterArray() throws(JSONError) -> Bool {
        guard take(UInt8(ascii: "[")) else { throw unexpected("an array") }
        return !take(UInt8(ascii: "]"))
    }

    /// Reads a key and its colon.
    package mutating func key() throws(JSONError) -> String {
        guard peek() == UInt8(ascii: "\"") else { throw unexpected("a key in quotes") }
        let key = try string()
        guard take(UInt8(ascii: ":")) else { throw unexpected("a colon after the key \(key.quotedForMessage)") }
        return key
    }

    /// Reads a comma, or the end of the object. Returns true if another member follows.
    package mutating func nextMember() throws(JSONError) -> Bool {
        if take(UInt8(ascii: ",")) { return true }
        guard take(UInt8(ascii: "}")) else { throw unexpected("a comma or the end of the object") }
        return false
    }

    /// Reads a comma, or the end of the array. Returns true if another element follows.
    package mutating func nextElement() throws(JSONError) -> Bool {
        if take(UInt8(ascii: ",")) { return true }
        guard take(UInt8(ascii: "]")) else { throw unexpected("a comma or the end of the array") }
        return false
    }

    /// Reads `word` (`true`, `false` or `null`) if it is next, and returns whether it was.
    package mutating func takeWord(_ word: StaticString) -> Bool {
        guard peek() != nil, bytes.count - position >= word.utf8CodeUnitCount else { return false }
        let matches = unsafe bytes[position...].starts(
            with: UnsafeBufferPointer(start: word.utf8Start, count: word.utf8CodeUnitCount))
        if matches { position += word.utf8CodeUnitCount }
        return matches
    }

    /// Requires that only bytes of `allowed` follow.
    package mutating func end(allowing allowed: [UInt8]) throws(JSONError) {
        while position < bytes.count {
            guard allowed.contains(bytes[position]) else { throw failure("something follows the end of the JSON text") }
            position += 1
        }
    }
}

// MARK: - Strings

extension JSONScanner {
    package mutating func string() throws(JSONError) -> String {
        guard take(UInt8(ascii: "\"")) else { throw unexpected("a string") }
        let start = position
        while position < bytes.count {
            switch bytes[position] {
            case UInt8(ascii: "\""):
                defer { position += 1 }
                return String(decoding: bytes[start..<position], as: UTF8.self)
            case UInt8(ascii: "\\"):
                return try escapedString(from: start)
            case 0..<0x20:
                throw failure("a control character stands unescaped in a string")
            default:
                position += 1
            }
        }
        throw failure("a string does not end", at: start - 1)
    }

    /// Reads the rest of a string from its first backslash on.
    private mutating func escapedString(from start: Int) throws(JSONError) -> String {
        var content = Array(bytes[start..<position])
        while position < bytes.count {
            let byte = bytes[position]
            switch byte {
            case UInt8(ascii: "\""):
                position += 1
                return String(decoding: content, as: UTF8.self)
            case UInt8(ascii: "\\"):
                content.append(contentsOf: String(try escape()).utf8)
            case 0..<0x20:
                throw failure("a control character stands unescaped in a string")
            default:
                content.append(byte)
                position += 1
            }
        }
        throw failure("a string does not end", at: start - 1)
    }

    private mutating func escape() throws(JSONError) -> Unicode.Scalar {
        position += 1
        guard position < bytes.count else { throw failure("a string does not end") }
        let letter = bytes[position]
        position += 1
        switch letter {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(letter)
        case UInt8(ascii: "b"): return "\u{08}"
        case UInt8(ascii: "f"): return "\u{0C}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"): return try unicodeEscape()
        default: throw failure("an escape that JSON does not have", at: position - 2)
        }
    }

    /// Reads the digits after `\u`, and the second half of a surrogate pair.
    private mutating func unicodeEscape() throws(JSONError) -> Unicode.Scalar {
        let start = position - 2
        let first = try fourHexDigits()
        if let scalar = Unicode.Scalar(first) { return scalar }
        guard first < 0xDC00, bytes.count - position >= 6, bytes[position] == UInt8(ascii: "\\"),
            bytes[position + 1] == UInt8(ascii: "u")
        else { throw failure("half of a surrogate pair stands alone in a string", at: start) }
        position += 2
        let second = try fourHexDigits()
        guard (0xDC00...0xDFFF).contains(second),
            let scalar = Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
        else { throw failure("half of a surrogate pair stands alone in a string", at: start) }
        return scalar
    }

    private mutating func fourHexDigits() throws(JSONError) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard position < bytes.count, let digit = hexDigit(bytes[position]) else {
                throw failure("\\u needs four hexadecimal digits")
            }
            value = value << 4 | digit
            position += 1
        }
        return value
    }
}

/// Returns the value of a hexadecimal digit; `nil` for any other byte.
private func hexDigit(_ byte: UInt8) -> UInt32? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(byte - UInt8(ascii: "0"))
    case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt32(byte - UInt8(ascii: "a")) + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): UInt32(byte - UInt8(ascii: "A")) + 10
    default: nil
    }
}

// MARK: - Numbers

extension JSONScanner {
    /// Reads a number, which must be within the range of doubles.
    package mutating func number() throws(JSONError) -> JSONNumber {
        _ = peek()
        let start = position
        _ = skip(UInt8(ascii: "-"))
        try digits(leadingZero: false, from: start)
        var isInteger = true
        if skip(UInt8(ascii: ".")) {
            isInteger = false
            try digits(leadingZero: true, from: start)
        }
        if skip(UInt8(ascii: "e")) || skip(UInt8(ascii: "E")) {
            isInteger = false
            if !skip(UInt8(ascii: "+")) { _ = skip(UInt8(ascii: "-")) }
            try digits(leadingZero: true, from: start)
        }
        guard position - start <= limits.maxNumberBytes else {
            throw failure("a number of more than \(limits.maxNumberBytes) characters", at: start)
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        // Integers of any length are kept, as in Python; other numbers of this size would become infinite.
        guard isInteger || Double(text)?.isFinite == true else {
            throw failure("the number \(text.quotedForMessage) is too large for a double", at: start)
        }
        return JSONNumber(literal: text, isInteger: isInteger)
    }

    /// Reads a whole number from 0 to `Int.max`, as lengths and offsets must be.
    package mutating func count() throws(JSONError) -> Int {
        guard let first = peek() else { throw unexpected("a whole number") }
        guard first == UInt8(ascii: "-") || isDigit(first) else { throw unexpected("a whole number") }
        let start = position
        let number = try number()
        guard let value = number.integer, number.literal != "-0" else {
            throw failure("\(number.literal.prefix(40)) is not a whole number from 0 to 2^63 − 1", at: start)
        }
        guard value >= 0 else { throw failure("\(value) is negative", at: start) }
        return value
    }

    private mutating func skip(_ byte: UInt8) -> Bool {
        guard position < bytes.count, bytes[position] == byte else { return false }
        position += 1
        return true
    }

    private mutating func digits(leadingZero: Bool, from start: Int) throws(JSONError) {
        let first = position
        while position < bytes.count, isDigit(bytes[position]) { position += 1 }
        guard position > first else {
            position = start
            throw unexpected("a number")
        }
        guard leadingZero || position == first + 1 || bytes[first] != UInt8(ascii: "0") else {
            throw failure("a number begins with a superfluous zero", at: start)
        }
    }

    private func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }
}
