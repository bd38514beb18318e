import Foundation
import JSON

/// Reads YAML of the form that launch files have: a name, a colon and a value in each line; lists in brackets or as lines
/// that begin with a dash; objects in braces or as indented lines. Anchors, tags, several documents and text of several
/// lines are refused.
struct YAMLReader {
    private struct Line {
        let number: Int
        let indent: Int
        /// The text without indentation and comment.
        let text: String
    }

    private let file: DataFile
    private let lines: [Line]
    private var next = 0

    private static let expected = "write one option a line, as page-size: 64; lists as [1, 2] or lines - 1, - 2"
    private static let maxDepth = 32

    /// Returns the options of a file.
    static func entries(of file: DataFile) throws -> [ConfigurationFile.Entry] {
        var reader = try YAMLReader(file)
        var entries: [ConfigurationFile.Entry] = []
        while let line = reader.line {
            guard line.indent == 0 else { throw reader.problem(line, "an option is indented") }
            let (key, value) = try reader.member(line, depth: maxDepth)
            entries.append(ConfigurationFile.Entry(key: key, value: value, line: line.number))
        }
        return entries
    }

    private init(_ file: DataFile) throws {
        self.file = file
        lines = try file.lines.compactMap { number, bytes in
            guard let decoded = String(validating: bytes, as: UTF8.self) else {
                throw file.problem(line: number, "it is not UTF-8", advice: Self.expected)
            }
            let text = Self.withoutComment(decoded)
            let indent = text.prefix { $0 == " " }.count
            let line = Line(number: number, indent: indent, text: text.trimmingCharacters(in: .whitespaces))
            guard line.text.isEmpty || text.dropFirst(indent).first != "\t" else {
                throw file.problem(line: number, "a tab indents it", advice: "indent with spaces")
            }
            return line.text.isEmpty ? nil : line
        }
        if line?.text == "---" { next = 1 }
    }

    private var line: Line? { next < lines.count ? lines[next] : nil }

    private func problem(_ line: Line, _ what: String) -> any Error {
        file.problem(line: line.number, what, advice: Self.expected)
    }

    // MARK: - Lines

    /// Reads a name and its value, which may be in the lines that follow.
    private mutating func member(_ line: Line, depth: Int) throws -> (String, JSONValue) {
        guard !Self.isItem(line) else { throw problem(line, "there is an item of a list, but no name before it") }
        guard let (key, rest) = Self.key(line.text) else { throw problem(line, "there is no name and colon") }
        next += 1
        guard rest.isEmpty else {
            guard let value = Self.value(rest, depth: depth) else {
                throw problem(line, "the value of \(key) is not a plain value, or a list or an object of them")
            }
            return (key, value)
        }
        // Items of a list need no indentation.
        guard let first = self.line, first.indent > line.indent || first.indent == line.indent && Self.isItem(first)
        else { throw problem(line, "\(key) has no value; null leaves an option out") }
        guard depth > 0 else { throw problem(line, "\(key) is nested too deeply") }
        return (key, Self.isItem(first) ? try items(first.indent) : try members(first.indent, depth: depth - 1))
    }

    private mutating func members(_ indent: Int, depth: Int) throws -> JSONValue {
        var members: [JSONMember] = []
        while let line, line.indent >= indent {
            guard line.indent == indent else { throw problem(line, "it is indented more than the line before") }
            let (key, value) = try member(line, depth: depth)
            guard !members.contains(where: { $0.key == key }) else { throw problem(line, "\(key) is given twice") }
            members.append(JSONMember(key, value))
        }
        return .object(members)
    }

    private mutating func items(_ indent: Int) throws -> JSONValue {
        var items: [JSONValue] = []
        while let line, line.indent >= indent, line.indent > indent || Self.isItem(line) {
            guard line.indent == indent else { throw problem(line, "it is indented more than the line before") }
            guard let item = Self.value(String(line.text.dropFirst()), depth: 1), !item.isObject else {
                throw problem(line, "the item is not a plain value")
            }
            items.append(item)
            next += 1
        }
        return .array(items)
    }

    private static func isItem(_ line: Line) -> Bool { line.text == "-" || line.text.hasPrefix("- ") }

    /// Returns the name before a colon, which may be quoted, and the text behind; `nil` if there is none.
    private static func key(_ text: String) -> (key: String, rest: String)? {
        var cursor = FlowReader(text)
        if let quote = text.first, quote == "'" || quote == "\"" {
            guard let key = cursor.quoted(), cursor.take(":") else { return nil }
            return (key, cursor.rest)
        }
        guard let colon = text.firstIndex(of: ":"), colon > text.startIndex else { return nil }
        let key = text[..<colon].trimmingCharacters(in: .whitespaces)
        return (key, text[text.index(after: colon)...].trimmingCharacters(in: .whitespaces))
    }

    /// Returns the value of a text that stands in one line; `nil` for any other form of YAML.
    private static func value(_ text: String, depth: Int) -> JSONValue? {
        let text = text.trimmingCharacters(in: .whitespaces)
        guard let first = text.first else { return nil }
        guard "[{'\"".contains(first) else { return text.contains(": ") ? nil : FlowReader.plain(text[...]) }
        var cursor = FlowReader(text)
        guard let value = cursor.value(depth: depth), cursor.rest.isEmpty else { return nil }
        return value
    }

    /// Returns the line without a comment, which begins with `#` at the start or after a space, outside of quotes.
    private static func withoutComment(_ line: String) -> String {
        var (quote, before): (Character?, Character) = (nil, " ")
        for index in line.indices {
            let character = line[index]
            if let open = quote {
                if character == open { quote = nil }
            } else if (character == "'" || character == "\"") && !before.isLetter {
                quote = character
            } else if character == "#", before.isWhitespace {
                return String(line[..<index])
            }
            before = character
        }
        return line
    }
}

extension JSONValue {
    fileprivate var isObject: Bool { object != nil }
}

/// Reads the values of YAML that stand in one line, in brackets, braces or quotes; JSON is among them.
private struct FlowReader {
    private var text: Substring

    init(_ text: String) { self.text = text[...] }

    /// What was not read, without spaces around it.
    var rest: String { text.trimmingCharacters(in: .whitespaces) }

    private mutating func skipSpaces() { text = text.drop { $0 == " " || $0 == "\t" } }

    /// Takes a character if it comes next, behind spaces.
    mutating func take(_ character: Character) -> Bool {
        skipSpaces()
        guard text.first == character else { return false }
        text.removeFirst()
        return true
    }

    /// Reads a value; `nil` if it has another form, or is nested more deeply.
    mutating func value(depth: Int) -> JSONValue? {
        skipSpaces()
        switch text.first {
        case "[": return depth > 0 ? list(depth: depth - 1) : nil
        case "{": return depth > 0 ? object(depth: depth - 1) : nil
        case "'", "\"": return quoted().map(JSONValue.string)
        default:
            let end = text.firstIndex { ",[]{}".contains($0) } ?? text.endIndex
            let plain = text[..<end]
            text = text[end...]
            return plain.contains(": ") ? nil : Self.plain(plain)
        }
    }

    private mutating func list(depth: Int) -> JSONValue? {
        text.removeFirst()
        var items: [JSONValue] = []
        while !take("]") {
            guard let item = value(depth: depth) else { return nil }
            items.append(item)
            guard take(",") else { return take("]") ? .array(items) : nil }
        }
        return .array(items)
    }

    private mutating func object(depth: Int) -> JSONValue? {
        text.removeFirst()
        var members: [JSONMember] = []
        while !take("}") {
            skipSpaces()
            let isQuoted = text.first == "'" || text.first == "\""
            guard let key = isQuoted ? quoted() : name(), take(":"), let value = value(depth: depth),
                !members.contains(where: { $0.key == key })
            else { return nil }
            members.append(JSONMember(key, value))
            guard take(",") else { return take("}") ? .object(members) : nil }
        }
        return .object(members)
    }

    private mutating func name() -> String? {
        let end = text.firstIndex { ":,[]{}".contains($0) } ?? text.endIndex
        let name = text[..<end].trimmingCharacters(in: .whitespaces)
        text = text[end...]
        return name.isEmpty ? nil : name
    }

    /// Reads a text in quotes: `''` is a quote between single ones, and between double ones there are JSON's escapes.
    mutating func quoted() -> String? {
        let quote = text.removeFirst()
        var inner = ""
        while let character = text.popFirst() {
            if character == quote {
                guard quote == "'", text.first == "'" else {
                    return quote == "'" || !inner.contains("\\")
                        ? inner : (try? JSONValue(parsing: "\"\(inner)\""))?.string
                }
                text.removeFirst()
            }
            inner.append(character)
            if quote == "\"", character == "\\" { inner.append(contentsOf: text.popFirst().map(String.init) ?? "") }
        }
        return nil
    }

    /// Returns the value of a text without quotes: null, true, false, a number, or else the text itself; `nil` for the
    /// other forms of YAML.
    static func plain(_ text: Substring) -> JSONValue? {
        let text = text.trimmingCharacters(in: .whitespaces)
        guard let first = text.first, !"{}[]&*!|>%@`,".contains(first) else { return nil }
        switch text.lowercased() {
        case "null", "~": return .null
        case "true": return .bool(true)
        case "false": return .bool(false)
        default: return (try? JSONValue(parsing: text, limits: .strict)) ?? .string(text)
        }
    }
}
