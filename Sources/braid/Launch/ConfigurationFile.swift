import Foundation
import JSON

/// A file with options of a command: a JSON object, or YAML of the form that launch files have, which is a name, a colon
/// and a value in each line, with lists in brackets or as lines that begin with a dash.
struct ConfigurationFile {
    struct Entry: Equatable {
        let key: String
        let values: [String]
        /// The number of the key's line, from 1.
        let line: Int
        /// True if further lines may add items.
        fileprivate var isOpen = false
    }

    let entries: [Entry]

    /// A larger file is taken for a mistake.
    private static let limit = 1 << 20

    init(path: String) throws {
        try self.init(DataFile(path: path, option: "--config", limit: Self.limit))
    }

    init(_ file: DataFile) throws {
        let isJSON = file.lines.first?.bytes.first { $0 != UInt8(ascii: " ") && $0 != UInt8(ascii: "\t") }
        entries = try isJSON == UInt8(ascii: "{") ? Self.json(file) : Self.yaml(file)
        var keys: Set<String> = []
        for entry in entries where !keys.insert(CommandOptions.dashed(entry.key)).inserted {
            throw file.problem(line: entry.line, "\(entry.key) is given twice", advice: "give it once")
        }
    }

    // MARK: - JSON

    private static func json(_ file: DataFile) throws -> [Entry] {
        let root: JSONValue
        do throws(JSONError) {
            root = try JSONValue(parsing: file.bytes, limits: .strict)
        } catch {
            throw CommandError("\(file.name): \(error)")
        }
        return try zip(root.object ?? [], keyLines(of: file)).map { member, line in
            let values = try (member.value.array ?? [member.value]).map { try text(of: $0, member.key, file, line) }
            return Entry(key: member.key, values: values, line: line)
        }
    }

    private static func text(of value: JSONValue, _ key: String, _ file: DataFile, _ line: Int) throws -> String {
        if let string = value.string { return string }
        switch value {
        case .null, .array:
            throw file.problem(
                line: line, "\(key) has \(value.kindName)",
                advice: "a string, a number, true, false or a list of them is expected")
        default: return value.pythonText
        }
    }

    /// Returns the lines of the keys of a file that is a JSON object, in their order.
    private static func keyLines(of file: DataFile) -> [Int] {
        var (lines, line, depth) = ([Int](), 1, 0)
        var (isKey, isInString, isEscaped) = (false, false, false)
        for byte in file.bytes {
            if byte == UInt8(ascii: "\n") { line += 1 }
            if isInString {
                isInString = isEscaped || byte != UInt8(ascii: "\"")
                isEscaped = !isEscaped && byte == UInt8(ascii: "\\")
                continue
            }
            switch byte {
            case UInt8(ascii: "\""):
                if isKey { lines.append(line) }
                (isInString, isKey) = (true, false)
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                depth += 1
                isKey = depth == 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
            case UInt8(ascii: ","): isKey = depth == 1
            default: break
            }
        }
        return lines
    }

    // MARK: - YAML

    private static let expected = "write one option a line, as page-size: 64; lists as [1, 2] or lines - 1, - 2"

    private static func yaml(_ file: DataFile) throws -> [Entry] {
        var entries: [Entry] = []
        for (number, bytes) in file.lines {
            func problem(_ what: String) -> any Error { file.problem(line: number, what, advice: expected) }
            guard let decoded = String(validating: bytes, as: UTF8.self) else { throw problem("it is not UTF-8") }
            let line = withoutComment(decoded)
            let text = line.trimmingCharacters(in: .whitespaces)
            if text.isEmpty || text == "---" && entries.isEmpty { continue }
            if text == "-" || text.hasPrefix("- ") {
                guard let last = entries.popLast(), last.values.isEmpty || last.isOpen else {
                    throw problem("there is an item of a list, but no name before it")
                }
                guard let item = scalar(text.dropFirst()) else { throw problem("the item is not a plain value") }
                entries.append(Entry(key: last.key, values: last.values + [item], line: last.line, isOpen: true))
                continue
            }
            guard line.first?.isWhitespace == false else { throw problem("an option is indented") }
            guard let colon = text.firstIndex(of: ":"), colon > text.startIndex else {
                throw problem("there is no name and colon")
            }
            let key = String(text[..<colon]).trimmingCharacters(in: .whitespaces)
            guard let values = values(text[text.index(after: colon)...]) else {
                throw problem("the value of \(key) is not a plain value or a list of them")
            }
            entries.append(Entry(key: key, values: values, line: number, isOpen: values.isEmpty))
        }
        if let empty = entries.first(where: { $0.values.isEmpty }) {
            throw file.problem(line: empty.line, "\(empty.key) has no value", advice: expected)
        }
        return entries
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

    /// Returns the values after a colon: none, one, or those of a list in brackets; `nil` if they are of another form.
    private static func values(_ text: Substring) -> [String]? {
        let text = text.trimmingCharacters(in: .whitespaces)
        if text.isEmpty { return [] }
        guard text.hasPrefix("[") else { return scalar(text[...]).map { [$0] } }
        guard text.hasSuffix("]") else { return nil }
        let items = text.dropFirst().dropLast().split(separator: ",", omittingEmptySubsequences: false).map(scalar)
        return items.contains(nil) ? nil : items.compactMap(\.self)
    }

    /// Returns a plain or quoted value; `nil` for any other form of YAML.
    private static func scalar(_ text: Substring) -> String? {
        let text = text.trimmingCharacters(in: .whitespaces)
        guard let first = text.first, !"{}[]&*!|>%@`".contains(first), text != "~", text != "null" else { return nil }
        guard first == "'" || first == "\"" else { return text.contains(": ") ? nil : text }
        guard text.count >= 2, text.last == first else { return nil }
        let inner = String(text.dropFirst().dropLast())
        if first == "'" { return inner.replacingOccurrences(of: "''", with: "'") }
        return inner.contains("\\") ? (try? JSONValue(parsing: text))?.string : inner
    }
}
