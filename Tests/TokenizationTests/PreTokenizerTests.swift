import Foundation
import JSON
import Testing
import Tokenization

/// Creates a tokenizer whose tokens are the words of the pre-tokenizer: it has no merges and every reference word in
/// the vocabulary, and ignores merges.
private func wordTokenizer(patterns: JSONValue, words: [String]) throws -> Tokenizer {
    var tiny = TinyTokenizer()
    var next = 1000
    var vocabulary = (tiny.tokenizer["model"]?["vocab"]?.object ?? []).filter { ($0.value.integer ?? 0) < 256 }
    var known = Set(vocabulary.map { Array($0.key.utf8) })
    for word in words {
        let spelling = word.utf8.map(TinyTokenizer.character).joined()
        guard known.insert(Array(spelling.utf8)).inserted else { continue }
        vocabulary.append(JSONMember(spelling, .number(JSONNumber(next))))
        next += 1
    }
    tiny.set("model", "vocab", to: .object(vocabulary))
    tiny.set("model", "merges", to: .array([]))
    tiny.set("model", "ignore_merges", to: .bool(true))
    tiny.set("added_tokens", to: .array([]))
    tiny.set("pre_tokenizer", to: patterns)
    return try tiny.load()
}

private func check(_ patterns: JSONValue, _ words: KeyPath<Fixtures.Vector, [String]>) throws {
    let vectors = try Fixtures.vectors()
    let tokenizer = try wordTokenizer(patterns: patterns, words: vectors.flatMap { $0[keyPath: words] })
    for vector in vectors {
        let found = tokenizer.encode(vector.text, allowingControlTokens: false).map { tokenizer.bytes(of: $0) }
        #expect(found == vector[keyPath: words].map { Array($0.utf8) }, "\(vector.text)")
    }
}

@Suite struct `Cutting words` {
    @Test func `DeepSeek's words are the regular expressions' words`() throws {
        try check(try #require(Fixtures.demoFile["pre_tokenizer"]), \.deepSeekWords)
    }

    @Test func `GLM's words are the regular expression's words`() throws {
        let pattern =
            #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"#
            + #"|\s*[\r\n]+|\s+(?!\S)|\s+"#
        let file = """
            {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": \(JSONValue.string(pattern).pythonText)},
                 "behavior": "Isolated", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]}
            """
        try check(try JSONValue(parsing: file), \.glmWords)
    }

    @Test func `an unknown pattern is refused and named`() throws {
        var tiny = TinyTokenizer()
        let pattern = #"\w+|\W+"#
        let step = try #require(Fixtures.demoFile["pre_tokenizer"]?["pretokenizers"]?.array)
        tiny.set(
            "pre_tokenizer", "pretokenizers",
            to: .array([
                .object([
                    JSONMember("type", .string("Split")),
                    JSONMember("pattern", .object([JSONMember("Regex", .string(pattern))])),
                    JSONMember("behavior", .string("Isolated")),
                ]), step[3],
            ]))
        let error = #expect(throws: TokenizerError.self) { try tiny.load() }
        #expect(error?.description.contains(#"\\w+|\\W+"#) == true)
    }
}
