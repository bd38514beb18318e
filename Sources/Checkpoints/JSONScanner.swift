/// What is wrong with a piece of JSON, and at which byte.
struct JSONError: Error, Equatable {
    let offset: Int
    let problem: String
}

/// A strict reader of the tokens of one JSON text (RFC 8259), which never looks outside its bytes.
///
/// `JSONSerialization` accepts duplicate keys and hides how a number was written, and both matter in files that decide
/// where memory is read. Objects and arrays are walked by their reader: `enter`, then members until `next` is false.
struct JSONScanner {
    private let bytes: [UInt8]
    /// The offset of the first byte not yet read.
    private(set) var position = 0

    /// - Throws: when the bytes are not UTF-8.
    init(_ bytes: [UInt8]) throws(JSONError) {
        do throws(UTF8.ValidationError) {
            _ = try UTF8Span(validating: bytes.span)
        } catch {
            throw JSONError(offset: error.byteOffsets.lowerBound, problem: "the text is not valid UTF-8")
        }
        self.bytes = bytes
    }

    /// The next byte that is not white space, or nil at the end.
    mutating func peek() -> UInt8? {
        while position < bytes.count {
            switch bytes[position] {
            case UInt8(ascii: " "), UInt8(ascii: "\n"), UInt8(ascii: "\r"), UInt8(ascii: "\t"): position += 1
            case let byte: return byte
            }
        }
        return nil
    }

    func failure(_ problem: String, at offset: Int? = nil) -> JSONError {
        JSONError(offset: offset ?? position, problem: problem)
    }

    /// An error that says what stands here instead of `expected`.
    mutating func unexpected(_ expected: String) -> JSONError {
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

    /// Reads `{`. False when the object is empty, and then it has been read whole.
    mutating func enterObject() throws(JSONError) -> Bool {
        guard take(UInt8(ascii: "{")) else { throw unexpected("an object") }
        return !take(UInt8(ascii: "}"))
    }

    /// Reads `[`. False when the array is empty, and then it has been read whole.
    mutating func enterArray() throws(JSONError) -> Bool {
        guard take(UInt8(ascii: "[")) else { throw unexpected("an array") }
        return !take(UInt8(ascii: "]"))
    }

    /// Reads a key and its colon.
    mutating func key() throws(JSONError) -> String {
        guard peek() == UInt8(ascii: "\"") else { throw unexpected("a key in quotes") }
        let key = try string()
        guard take(UInt8(ascii: ":")) else { throw unexpected("a colon after the key \(key.quotedForMessage)") }
        return key
    }

    /// Whether another member follows; otherwise the object has been read whole.
    mutating func nextMember() throws(JSONError) -> Bool {
        if take(UInt8(ascii: ",")) { return true }
        guard take(UInt8(ascii: "}")) else { throw unexpected("a comma or the end of the object") }
        return false
    }

    /// Whether another element follows; otherwise the array has been read whole.
    mutating func nextElement() throws(JSONError) -> Bool {
        if take(UInt8(ascii: ",")) { return true }
        guard take(UInt8(ascii: "]")) else { throw unexpected("a comma or the end of the array") }
        return false
    }

    /// Reads `word` (`true`, `false` or `null`) if it stands here.
    mutating func takeWord(_ word: StaticString) -> Bool {
        guard peek() != nil, bytes.count - position >= word.utf8CodeUnitCount else { return false }
        let matches = unsafe bytes[position...].starts(
            with: UnsafeBufferPointer(start: word.utf8Start, count: word.utf8CodeUnitCount))
        if matches { position += word.utf8CodeUnitCount }
        return matches
    }

    /// Requires that nothing follows but bytes of `allowed`.
    mutating func end(allowing allowed: [UInt8]) throws(JSONError) {
        while position < bytes.count {
            guard allowed.contains(bytes[position]) else { throw failure("something follows the end of the JSON text") }
            position += 1
        }
    }
}

// MARK: - Strings

extension JSONScanner {
    mutating func string() throws(JSONError) -> String {
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

    /// The slow way, from the first backslash on.
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
            guard position < bytes.count, let digit = Character(Unicode.Scalar(bytes[position])).hexDigitValue,
                bytes[position] < 0x80
            else { throw failure("\\u needs four hexadecimal digits") }
            value = value << 4 | UInt32(digit)
            position += 1
        }
        return value
    }
}

// MARK: - Numbers

extension JSONScanner {
    /// A number as it was written: whole if it has neither fraction nor exponent and fits 64 bits.
    enum Number: Equatable {
        case whole(Int64)
        case real(Double)
    }

    mutating func number() throws(JSONError) -> Number {
        _ = peek()
        let start = position
        let negative = skip(UInt8(ascii: "-"))
        try digits(leadingZero: false, from: start)
        var isWhole = true
        if skip(UInt8(ascii: ".")) {
            isWhole = false
            try digits(leadingZero: true, from: start)
        }
        if skip(UInt8(ascii: "e")) || skip(UInt8(ascii: "E")) {
            isWhole = false
            if !skip(UInt8(ascii: "+")) { _ = skip(UInt8(ascii: "-")) }
            try digits(leadingZero: true, from: start)
        }
        guard position - start <= 400 else { throw failure("a number of more than 400 characters", at: start) }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        // −0 stays a real number: as a whole one it would lose its sign.
        if isWhole, let value = Int64(text), !(negative && value == 0) { return .whole(value) }
        guard let value = Double(text), value.isFinite else {
            throw failure("the number \(text.quotedForMessage) is too large for a double", at: start)
        }
        return .real(value)
    }

    /// A whole number from zero on that fits `Int`; what lengths and offsets must be.
    mutating func count() throws(JSONError) -> Int {
        guard let first = peek() else { throw unexpected("a whole number") }
        guard first == UInt8(ascii: "-") || isDigit(first) else { throw unexpected("a whole number") }
        let start = position
        switch try number() {
        case .whole(let value) where value >= 0: return Int(value)
        case .whole(let value): throw failure("\(value) is negative", at: start)
        case .real:
            let text = String(decoding: bytes[start..<position].prefix(40), as: UTF8.self)
            throw failure("\(text) is not a whole number from 0 to 2^63 − 1", at: start)
        }
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
