import Foundation
import JSON

/// A file with options of a command: a JSON object, or YAML of the form that launch files have, as `YAMLReader` reads it.
struct ConfigurationFile {
    struct Entry: Equatable {
        let key: String
        let value: JSONValue
        /// The number of the key's line, from 1.
        let line: Int
    }

    let entries: [Entry]

    /// A larger file is taken for a mistake.
    private static let limit = 1 << 20

    init(path: String) throws {
        try self.init(DataFile(path: path, option: "--config", limit: Self.limit))
    }

    init(_ file: DataFile) throws {
        let isJSON = file.lines.first?.bytes.first { $0 != UInt8(ascii: " ") && $0 != UInt8(ascii: "\t") }
        entries = try isJSON == UInt8(ascii: "{") ? Self.json(file) : YAMLReader.entries(of: file)
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
        return zip(root.object ?? [], keyLines(of: file)).map { Entry(key: $0.key, value: $0.value, line: $1) }
    }

    /// Returns the text of a value as it was written; `nil` for null, lists and objects.
    static func text(of value: JSONValue) -> String? {
        switch value {
        case .string(let text): text
        case .number(let number): number.literal
        case .bool(let flag): flag ? "true" : "false"
        case .null, .array, .object: nil
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
}
