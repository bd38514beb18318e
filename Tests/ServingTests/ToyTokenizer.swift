import Foundation
import JSON
import Tokenization

/// A tokenizer whose tokens are easy to compute by hand: every byte is a token of its own, 256 plus its value, and the
/// control tokens have the first ids.
enum ToyTokenizer {
    static let bos: Int32 = 0
    static let eos: Int32 = 1
    static let controlTokens = [
        "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "｜DSML｜",
    ]

    /// Returns the tokens of a text without control tokens.
    static func tokens(_ text: String) -> [Int32] { text.utf8.map { 256 + Int32($0) } }

    /// The tokenizer with the control tokens of DeepSeek-V3.2's conversations.
    static let shared = loaded(controlTokens)
    /// The tokenizer with those of DeepSeek-V4's.
    static let v4 = loaded(controlTokens + ["<｜latest_reminder｜>", "<｜query｜>"])
    /// The tokenizer with DeepSeek-R1's, and the beginning of its template by which it is known.
    static let r1 = loaded(Array(controlTokens.prefix(6)), template: "<｜Assistant｜><think>\\n")
    /// The tokenizer without control tokens of conversations.
    static let withoutChat = loaded(Array(controlTokens.prefix(2)))

    /// It has what GLM-5's conversations need.
    static let glm = loaded(
        [
            "[gMASK]", "<|endoftext|>", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
            "<think>", "</think>",
        ], template: "<arg_key> clear_thinking")

    private static func loaded(_ controlTokens: [String], template: String? = nil) -> Tokenizer {
        do { return try load(controlTokens, template) } catch {
            fatalError("the toy tokenizer does not load: \(error)")
        }
    }

    private static func load(_ controlTokens: [String], _ template: String?) throws -> Tokenizer {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        try Data(file(controlTokens).pythonText.utf8).write(to: directory.appendingPathComponent("tokenizer.json"))
        let names = [("bos_token", controlTokens[0]), ("eos_token", controlTokens[1])]
        let config = object(names.map { ($0.0, .string($0.1)) } + [("add_bos_token", .bool(true))])
        try Data(config.pythonText.utf8).write(to: directory.appendingPathComponent("tokenizer_config.json"))
        if let template {
            try Data(template.utf8).write(to: directory.appendingPathComponent("chat_template.jinja"))
        }
        return try Tokenizer(directory: directory)
    }

    private static func file(_ controlTokens: [String]) -> JSONValue {
        let added = controlTokens.enumerated().map { id, text in
            object([("id", number(id)), ("content", .string(text)), ("special", .bool(id < 4))])
        }
        let vocabulary = (0..<256).map { JSONMember(spelling(of: UInt8($0)), number(256 + $0)) }
        let split = object([
            ("type", .string("Split")), ("pattern", object([("Regex", .string(pattern))])),
            ("behavior", .string("Isolated")), ("invert", .bool(false)),
        ])
        let bytes = object([
            ("type", .string("ByteLevel")), ("add_prefix_space", .bool(false)), ("use_regex", .bool(false)),
        ])
        return object([
            ("added_tokens", .array(added)),
            ("pre_tokenizer", object([("type", .string("Sequence")), ("pretokenizers", .array([split, bytes]))])),
            ("decoder", object([("type", .string("ByteLevel"))])),
            ("model", object([("type", .string("BPE")), ("vocab", .object(vocabulary)), ("merges", .array([]))])),
        ])
    }

    /// A known pattern for splitting words; since nothing merges, the pattern does not matter.
    private static let pattern =
        #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"#
        + #"|\s*[\r\n]+|\s+(?!\S)|\s+"#

    /// Returns GPT-2's printable representation of a byte.
    private static func spelling(of byte: UInt8) -> String {
        func isPrintable(_ byte: UInt8) -> Bool {
            0x21...0x7E ~= byte || 0xA1...0xAC ~= byte || 0xAE...0xFF ~= byte
        }
        guard !isPrintable(byte) else { return String(Unicode.Scalar(byte)) }
        let before = UInt32((0..<byte).count { !isPrintable($0) })
        return Unicode.Scalar(0x100 + before).map(String.init) ?? ""
    }

    private static func object(_ members: [(String, JSONValue)]) -> JSONValue {
        .object(members.map { JSONMember($0.0, $0.1) })
    }

    private static func number(_ value: Int) -> JSONValue { .number(JSONNumber(value)) }
}
