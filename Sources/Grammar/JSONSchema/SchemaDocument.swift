import JSON
import Tokenization

/// Numbers the parts of a schema, so that sets of parts can be compared.
struct SchemaDocument {
    struct Node {
        let value: JSONValue
        /// The location of the part, as a JSON pointer in a fragment.
        let path: String
    }

    private(set) var nodes: [Node] = []
    /// The number of each part by its path. Keys are compared by their bytes, as everywhere in JSON.
    private var numbers: [JSONKey: Int] = [:]
    private let root: JSONValue
    private let rootID: String?
    /// Maps each `$anchor` to its part.
    private var anchors: [JSONKey: (value: JSONValue, path: String)] = [:]
    private var hasEmbeddedResources = false

    static let maxNodes = 50_000

    init(_ root: JSONValue) throws(GrammarError) {
        self.root = root
        rootID = root["$id"]?.string.map { String($0.split(separator: "#").first ?? "") }
        findAnchors(root, "#")
        _ = try number(root, "#")
    }

    /// Returns the number of a part; equal paths have equal numbers.
    mutating func number(_ value: JSONValue, _ path: String) throws(GrammarError) -> Int {
        if let known = numbers[JSONKey(path)] { return known }
        guard nodes.count < Self.maxNodes else {
            throw GrammarError(.tooLarge, at: path, "the schema has more than \(Self.maxNodes) parts")
        }
        switch value {
        case .object, .bool: break
        default: throw GrammarError(.invalid, at: path, "a schema must be an object or a boolean")
        }
        nodes.append(Node(value: value, path: path))
        numbers[JSONKey(path)] = nodes.count - 1
        return nodes.count - 1
    }

    static func path(_ path: String, _ key: String) -> String {
        // Few keys need an escape, and to replace it takes long: it compares characters, not bytes.
        let isPlain = !key.utf8.contains { $0 == UInt8(ascii: "~") || $0 == UInt8(ascii: "/") }
        return path + "/" + (isPlain ? key : key.replacing("~", with: "~0").replacing("/", with: "~1"))
    }

    private mutating func findAnchors(_ value: JSONValue, _ path: String) {
        switch value {
        case .object(let members):
            if let anchor = value["$anchor"]?.string { anchors[JSONKey(anchor)] = (value, path) }
            if path != "#", let id = value["$id"]?.string, !id.hasPrefix("#") { hasEmbeddedResources = true }
            for member in members where member.key != "enum" && member.key != "const" {
                findAnchors(member.value, Self.path(path, member.key))
            }
        case .array(let elements):
            for (index, element) in elements.enumerated() { findAnchors(element, "\(path)/\(index)") }
        default: break
        }
    }

    /// Returns the part that `reference`, which occurs at `path`, refers to.
    mutating func resolve(_ reference: String, at path: String) throws(GrammarError) -> Int {
        guard !hasEmbeddedResources else {
            throw GrammarError(.unsupported, at: path, "$ref beside an $id within the schema is not supported")
        }
        var text = reference[...]
        if let rootID, !rootID.isEmpty, text.hasPrefix(rootID) { text = text.dropFirst(rootID.count) }
        guard text.isEmpty || text.hasPrefix("#") else {
            throw GrammarError(
                .unsupported, at: path, "$ref to another document ('\(reference.prefix(100))') is not supported")
        }
        let fragment = Self.percentDecoded(text.dropFirst())
        if fragment.isEmpty { return try number(root, "#") }
        guard fragment.hasPrefix("/") else {
            guard let anchor = anchors[JSONKey(fragment)] else { throw missing(reference, path) }
            return try number(anchor.value, anchor.path)
        }
        var (value, place) = (root, "#")
        for part in fragment.dropFirst().split(separator: "/", omittingEmptySubsequences: false) {
            let key = part.replacing("~1", with: "/").replacing("~0", with: "~")
            let next: JSONValue? =
                if let elements = value.array {
                    Int(key).flatMap { elements.indices.contains($0) ? elements[$0] : nil }
                } else { value[String(key)] }
            guard let next else { throw missing(reference, path) }
            (value, place) = (next, Self.path(place, String(key)))
        }
        return try number(value, place)
    }

    private func missing(_ reference: String, _ path: String) -> GrammarError {
        GrammarError(.invalid, at: path, "$ref '\(reference.prefix(100))' leads nowhere in this schema")
    }

    private static func percentDecoded(_ text: Substring) -> String {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), rest.count >= 2,
                let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
            {
                bytes.append(value)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
