import Foundation
import JSON
import Tokenization

/// Is a tokenizer of 256 bytes and a few words, written as files that a test can modify first.
struct TinyTokenizer {
    var tokenizer: JSONValue
    var config: JSONValue?
    /// The content of `chat_template.jinja`; `nil` for no file.
    var template: Data?

    init() {
        var vocabulary = (0..<256).map { byte in
            JSONMember(Self.character(of: UInt8(byte)), .number(JSONNumber(byte)))
        }
        for (index, word) in ["ab", "abc", "cd", "bc", "Ġa"].enumerated() {
            vocabulary.append(JSONMember(word, .number(JSONNumber(256 + index))))
        }
        let model = JSONValue.object([
            JSONMember("type", .string("BPE")), JSONMember("vocab", .object(vocabulary)),
            JSONMember(
                "merges", .array([.string("c d"), .string("a b"), .string("b c"), .string("ab c"), .string("Ġ a")])),
        ])
        tokenizer = .object([
            JSONMember(
                "added_tokens",
                .array([Self.added("<end>", 300, special: true), Self.added("<end>>", 301, special: false)])),
            JSONMember("normalizer", .null),
            JSONMember("pre_tokenizer", Fixtures.demoFile["pre_tokenizer"] ?? .null),
            JSONMember("decoder", .object([JSONMember("type", .string("ByteLevel"))])),
            JSONMember("model", model),
        ])
    }

    static func added(_ text: String, _ id: Int, special: Bool, flags: [String] = []) -> JSONValue {
        .object(
            [
                JSONMember("id", .number(JSONNumber(id))), JSONMember("content", .string(text)),
                JSONMember("special", .bool(special)),
            ] + flags.map { JSONMember($0, .bool(true)) })
    }

    /// Returns GPT-2's printable character for a byte.
    static func character(of byte: UInt8) -> String {
        let printable = (0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || byte >= 0xAE
        if printable { return String(Unicode.Scalar(byte)) }
        let order = (0..<byte).filter { !((0x21...0x7E).contains($0) || (0xA1...0xAC).contains($0) || $0 >= 0xAE) }
        return String(Unicode.Scalar(0x100 + UInt32(order.count))!)
    }

    /// Replaces the value at a path of keys.
    mutating func set(_ path: String..., to value: JSONValue) {
        tokenizer = Self.setting(tokenizer, path[...], value)
    }

    private static func setting(_ old: JSONValue, _ path: ArraySlice<String>, _ value: JSONValue) -> JSONValue {
        guard let key = path.first else { return value }
        var members = old.object ?? []
        let new = setting(old[key] ?? .null, path.dropFirst(), value)
        if let place = members.firstIndex(where: { $0.key == key }) {
            members[place].value = new
        } else {
            members.append(JSONMember(key, new))
        }
        return .object(members)
    }

    func load() throws -> Tokenizer {
        try load(text: tokenizer.pythonText)
    }

    /// Loads `text`, whatever it is, as `tokenizer.json`.
    func load(text: String) throws -> Tokenizer {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        try Data(text.utf8).write(to: directory.appendingPathComponent("tokenizer.json"))
        if let config {
            try Data(config.pythonText.utf8).write(to: directory.appendingPathComponent("tokenizer_config.json"))
        }
        if let template { try template.write(to: directory.appendingPathComponent("chat_template.jinja")) }
        return try Tokenizer(directory: directory)
    }
}

extension Fixtures {
    static let demoFile = try! JSONValue(
        parsing: Data(contentsOf: folder.appendingPathComponent("demo/tokenizer.json")))
}
