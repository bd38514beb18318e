/// Writes JSON as bytes, piece by piece: whole values, or objects and arrays whose parts follow one after the other.
///
/// `takeBytes` returns what was written so far, so that an answer may be sent while it is being written. The caller
/// must close each object or array that it opens, and alternate keys and values.
package struct JSONWriter: Sendable {
    /// Says what separates the parts.
    package enum Style: Sendable {
        /// Separates with `", "` and `": "`, as Python's `json.dumps(value, ensure_ascii=False)` does.
        case python
        /// Writes one member or element per line, indented by two blanks per level.
        case indented
    }

    private let style: Style
    /// The bytes that were written and not taken.
    package private(set) var bytes: [UInt8] = []
    /// True if the innermost object or array already has a key or element.
    private var needsComma = false
    private var isAfterKey = false
    private var depth = 0

    package init(_ style: Style = .python) { self.style = style }

    /// Returns the bytes that were written since the last call.
    package mutating func takeBytes() -> [UInt8] {
        defer { bytes.removeAll(keepingCapacity: true) }
        return bytes
    }

    // MARK: Parts

    package mutating func beginObject() { begin(UInt8(ascii: "{")) }
    package mutating func endObject() { end(UInt8(ascii: "}")) }
    package mutating func beginArray() { begin(UInt8(ascii: "[")) }
    package mutating func endArray() { end(UInt8(ascii: "]")) }

    package mutating func key(_ key: String) {
        separate()
        quote(key)
        bytes += ": ".utf8
        isAfterKey = true
    }

    /// Writes an element, or the value of the preceding key.
    package mutating func value(_ value: JSONValue) {
        switch value {
        case .null: word("null")
        case .bool(let flag): word(flag ? "true" : "false")
        case .number(let number): word(number.pythonText)
        case .string(let text):
            separate()
            quote(text)
        case .array(let elements):
            beginArray()
            for element in elements { self.value(element) }
            endArray()
        case .object(let members):
            beginObject()
            for member in members { self.member(member.key, member.value) }
            endObject()
        }
    }

    package mutating func member(_ key: String, _ value: JSONValue) {
        self.key(key)
        self.value(value)
    }

    /// Writes a value that a writer of the same style has encoded before.
    package mutating func written(_ value: [UInt8]) {
        separate()
        bytes += value
    }

    package mutating func member(_ key: String, _ value: GrowingJSON) {
        self.key(key)
        separate()
        bytes += value.bytes
        bytes.append(value.closing)
    }

    /// Reserves memory for this many bytes at once.
    package mutating func reserve(_ count: Int) { bytes.reserveCapacity(count) }

    /// Writes the separator between the previous part and the next one.
    private mutating func separate() {
        defer { (needsComma, isAfterKey) = (true, false) }
        guard !isAfterKey else { return }
        if needsComma { bytes.append(UInt8(ascii: ",")) }
        switch style {
        case .python: if needsComma { bytes.append(UInt8(ascii: " ")) }
        case .indented: if depth > 0 { newLine() }
        }
    }

    private mutating func newLine() {
        bytes.append(UInt8(ascii: "\n"))
        bytes += repeatElement(UInt8(ascii: " "), count: 2 * depth)
    }

    private mutating func word(_ text: String) {
        separate()
        bytes += text.utf8
    }

    private mutating func begin(_ bracket: UInt8) {
        separate()
        bytes.append(bracket)
        depth += 1
        needsComma = false
    }

    private mutating func end(_ bracket: UInt8) {
        depth -= 1
        if style == .indented, needsComma { newLine() }
        bytes.append(bracket)
        needsComma = true
    }

    private mutating func quote(_ text: String) {
        bytes.append(UInt8(ascii: "\""))
        Self.escape(text, into: &bytes)
        bytes.append(UInt8(ascii: "\""))
    }

    /// Escapes quotes, backslashes and control characters, and nothing else.
    fileprivate static func escape(_ text: String, into bytes: inout [UInt8]) {
        let text = text.utf8
        var start = text.startIndex
        for place in text.indices {
            let byte = text[place]
            guard byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") else { continue }
            bytes += text[start..<place]
            bytes += escapes[Int(byte)]
            start = text.index(after: place)
        }
        bytes += text[start...]
    }

    /// The escapes by byte; it is empty for bytes that need none.
    private static let escapes: [[UInt8]] = (0..<0x80).map { byte in
        switch byte {
        case 0x22: Array("\\\"".utf8)
        case 0x5C: Array("\\\\".utf8)
        case 0x0A: Array("\\n".utf8)
        case 0x0D: Array("\\r".utf8)
        case 0x09: Array("\\t".utf8)
        case 0x08: Array("\\b".utf8)
        case 0x0C: Array("\\f".utf8)
        case 0..<0x20: Array(("\\u00" + (byte < 0x10 ? "0" : "") + String(byte, radix: 16)).utf8)
        default: []
        }
    }
}

/// A string or an array that grows and is written repeatedly, as in streams whose every event repeats the earlier
/// parts: each part is encoded once and later only copied.
package struct GrowingJSON: Sendable {
    fileprivate private(set) var bytes: [UInt8]
    fileprivate let closing: UInt8

    private init(_ opening: UInt8, _ closing: UInt8) {
        bytes = [opening]
        self.closing = closing
    }

    /// An empty string.
    package static var string: GrowingJSON { GrowingJSON(UInt8(ascii: "\""), UInt8(ascii: "\"")) }

    /// An empty array.
    package static var array: GrowingJSON { GrowingJSON(UInt8(ascii: "["), UInt8(ascii: "]")) }

    /// The number of bytes that will be written.
    package var count: Int { bytes.count + 1 }

    /// Appends text to a string.
    package mutating func append(_ text: String) {
        precondition(closing == UInt8(ascii: "\""), "only a string grows by text")
        JSONWriter.escape(text, into: &bytes)
    }

    /// Appends an element to an array.
    package mutating func append(_ element: JSONValue) {
        precondition(closing == UInt8(ascii: "]"), "only an array has elements")
        if bytes.count > 1 { bytes += ", ".utf8 }
        var writer = JSONWriter()
        writer.value(element)
        bytes += writer.bytes
    }
}

extension JSONValue {
    /// The text that Python's `json.dumps(value, ensure_ascii=False)` gives: `", "` and `": "` separate parts, and
    /// only quotes, backslashes and control characters are escaped.
    package var pythonText: String { String(decoding: pythonBytes, as: UTF8.self) }

    /// `pythonText` as UTF-8.
    package var pythonBytes: [UInt8] {
        var writer = JSONWriter()
        writer.value(self)
        return writer.takeBytes()
    }
}
