import Foundation
import JSON
import Testing
import Tokenization

@Suite struct `Loading a tokenizer` {
    /// Returns the file and place for which a spoiled file is refused.
    private func refusal(_ spoil: (inout TinyTokenizer) -> Void) -> String {
        var tiny = TinyTokenizer()
        spoil(&tiny)
        let error = #expect(throws: TokenizerError.self) { try tiny.load() }
        return error?.description ?? "accepted"
    }

    private func number(_ value: Int) -> JSONValue { .number(JSONNumber(value)) }

    @Test func `a good file is accepted`() throws {
        #expect(try TinyTokenizer().load().vocabularySize == 302)
    }

    @Test func `merges may be strings or pairs`() throws {
        var tiny = TinyTokenizer()
        let pairs = try #require(tiny.tokenizer["model"]?["merges"]?.array).map { merge in
            JSONValue.array((merge.string ?? "").split(separator: " ").map { .string(String($0)) })
        }
        let text = "abcd ab bc abc"
        let expected = try tiny.load().encode(text, allowingControlTokens: true)
        tiny.set("model", "merges", to: .array(pairs))
        #expect(try tiny.load().encode(text, allowingControlTokens: true) == expected)
    }

    @Test func `a Sequence of no normalizers is none`() throws {
        var tiny = TinyTokenizer()
        tiny.set("normalizer", to: try JSONValue(parsing: #"{"type": "Sequence", "normalizers": []}"#))
        _ = try tiny.load()
    }

    @Test(arguments: [
        (["normalizer"], #"{"type": "NFC"}"#),
        (["decoder"], #"{"type": "WordPiece"}"#),
        (["decoder"], "null"),
        (["pre_tokenizer"], "null"),
        (["pre_tokenizer"], #"{"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}"#),
        (["model", "type"], #""Unigram""#),
        (["model", "dropout"], "0.1"),
        (["model", "unk_token"], #""<unk>""#),
        (["model", "continuing_subword_prefix"], ###""##""###),
        (["model", "end_of_word_suffix"], #""</w>""#),
        (["model", "byte_fallback"], "true"),
    ])
    func `what would change tokens is refused`(path: [String], value: String) throws {
        let value = try JSONValue(parsing: value)
        let message = refusal { tiny in
            if path.count == 1 { tiny.set(path[0], to: value) } else { tiny.set(path[0], path[1], to: value) }
        }
        #expect(message.contains(path.joined(separator: ".")) && message.contains("not supported"))
    }

    @Test(arguments: ["single_word", "lstrip", "rstrip"])
    func `added tokens that take neighbours with them are refused`(flag: String) {
        let message = refusal {
            $0.set("added_tokens", to: .array([TinyTokenizer.added("<x>", 300, special: true, flags: [flag])]))
        }
        #expect(message.contains("added_tokens[0].\(flag)"))
    }

    @Test(arguments: ["1", "0", #""true""#, #""false""#, "[]", "{}"])
    func `flags that are neither true nor false are refused by their place`(value: String) throws {
        let value = try JSONValue(parsing: value)
        for key in ["byte_fallback", "ignore_merges"] {
            let message = refusal { $0.set("model", key, to: value) }
            #expect(message.contains("model.\(key)") && message.contains("true or false"), "\(message)")
        }
        for flag in ["single_word", "lstrip", "rstrip", "special", "normalized"] {
            let token = JSONValue.object([
                JSONMember("id", number(300)), JSONMember("content", .string("<x>")), JSONMember(flag, value),
            ])
            let message = refusal { $0.set("added_tokens", to: .array([token])) }
            #expect(message.contains("added_tokens[0].\(flag)") && message.contains("true or false"), "\(message)")
        }
        let message = refusal { $0.config = .object([JSONMember("add_bos_token", value)]) }
        #expect(message.contains("tokenizer_config.json") && message.contains("add_bos_token"), "\(message)")
    }

    @Test(arguments: [
        (#""TemplateProcessing""#, "post_processor"), ("[]", "post_processor"), (#"{"single": []}"#, "post_processor"),
        (#"{"processors": [{"type": "ByteLevel"}, 1]}"#, "post_processor"),
        (#"{"type": "TemplateProcessing"}"#, "post_processor.single"),
        (#"{"type": "TemplateProcessing", "single": {}}"#, "post_processor.single"),
        (
            #"{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": 300}}]}"#,
            "post_processor.single[0].SpecialToken.id"
        ),
    ])
    func `a post-processor that cannot be read is refused, as it may begin prompts`(text: String, place: String) throws
    {
        let value = try JSONValue(parsing: text)
        let message = refusal { $0.set("post_processor", to: value) }
        #expect(message.contains(place) && message.contains("is expected"), "\(message)")
    }

    @Test(arguments: ["tokenizer_config.json", "chat_template.jinja"], ["missing", "itself"])
    func `a link without a target is no file that is absent`(name: String, target: String) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try Data(TinyTokenizer().tokenizer.pythonText.utf8).write(to: folder.appendingPathComponent("tokenizer.json"))
        _ = try Tokenizer(directory: folder)
        try FileManager.default.createSymbolicLink(
            atPath: folder.appendingPathComponent(name).path, withDestinationPath: target == "itself" ? name : target)
        let error = #expect(throws: TokenizerError.self) { try Tokenizer(directory: folder) }
        #expect(error?.description.hasPrefix("cannot read") == true, "\(error as Any)")
    }

    @Test func `two tokens of one id are refused`() {
        #expect(refusal { $0.set("model", "vocab", "zz", to: number(7)) }.contains("id 7 is used twice"))
        let twice = [TinyTokenizer.added("<x>", 300, special: true), TinyTokenizer.added("<y>", 300, special: true)]
        #expect(refusal { $0.set("added_tokens", to: .array(twice)) }.contains("id 300 is used twice"))
        let taken = [TinyTokenizer.added("<x>", 256, special: true)]
        #expect(refusal { $0.set("added_tokens", to: .array(taken)) }.contains("already the token ab"))
        let renamed = [TinyTokenizer.added("ab", 400, special: true)]
        #expect(refusal { $0.set("added_tokens", to: .array(renamed)) }.contains("already has id 256"))
    }

    @Test(arguments: ["-1", "4194304", "99999999999999999999", "1.5", "\"7\"", "null"])
    func `ids out of range are refused`(id: String) throws {
        let id = try JSONValue(parsing: id)
        #expect(refusal { $0.set("model", "vocab", "zz", to: id) }.contains(#"model.vocab["zz"]"#))
        let added = JSONValue.object([JSONMember("id", id), JSONMember("content", .string("<x>"))])
        #expect(refusal { $0.set("added_tokens", to: .array([added])) }.contains("added_tokens[0].id"))
    }

    @Test(arguments: [
        #""a""#, #""a b c""#, #"["a"]"#, #"["a", "b", "c"]"#, #"["a", 1]"#, "7", #""a zz""#, #""d a""#, #""a ""#,
    ])
    func `merges of unknown or missing tokens are refused`(merge: String) throws {
        let merge = try JSONValue(parsing: merge)
        #expect(refusal { $0.set("model", "merges", to: .array([merge])) }.contains("model.merges[0]"))
    }

    @Test func `a vocabulary without some byte is refused`() {
        let message = refusal { tiny in
            let words = tiny.tokenizer["model"]?["vocab"]?.object ?? []
            tiny.set("model", "vocab", to: .object(words.filter { $0.key != "Ġ" }))
        }
        #expect(message.contains("byte 32"))
    }

    @Test func `tokens too long or empty are refused`() {
        let long = String(repeating: "a", count: 70_000)
        #expect(refusal { $0.set("model", "vocab", long, to: number(400)) }.contains("bytes"))
        #expect(refusal { $0.set("model", "vocab", "", to: number(400)) }.contains("bytes"))
        let empty = [TinyTokenizer.added("", 300, special: true)]
        #expect(refusal { $0.set("added_tokens", to: .array(empty)) }.contains("added_tokens[0].content"))
    }

    @Test(arguments: ["", "[]", "{", "{} {}", "\u{FEFF}{}", #"{"model": "# + String(repeating: "[", count: 100_000)])
    func `files that are no JSON object are refused`(text: String) {
        let error = #expect(throws: TokenizerError.self) { try TinyTokenizer().load(text: text) }
        #expect(error?.description.contains("tokenizer.json is not valid") == true)
    }

    @Test func `a sentence token that is no token is refused`() {
        let message = refusal { $0.config = .object([JSONMember("eos_token", .string("<nothing>"))]) }
        #expect(message.contains("tokenizer_config.json") && message.contains("<nothing>"))
    }

    @Test func `chat templates that are too large or no text are refused`() throws {
        let large = String(repeating: "x", count: 1 << 20) + "y"
        #expect(refusal { $0.template = Data(large.utf8) }.contains("chat_template.jinja: it is larger than 1 MiB"))
        #expect(refusal { $0.template = Data([0x61, 0xFF]) }.contains("text in UTF-8 is expected"))
        for (template, words) in [
            (JSONValue.string(large), "'default' is larger than 1 MiB"), (.bool(true), "`name` and `template`"),
            (.array([.string("x")]), "`name` and `template`"),
        ] {
            let message = refusal { $0.config = .object([JSONMember("chat_template", template)]) }
            #expect(message.contains("tokenizer_config.json") && message.contains(words), "\(message)")
        }
        var tiny = TinyTokenizer()
        tiny.template = Data(repeating: 0x78, count: 1 << 20)
        _ = try tiny.load()
    }

    @Test func `sentence tokens may be objects or absent`() throws {
        var tiny = TinyTokenizer()
        tiny.config = try JSONValue(parsing: #"{"eos_token": {"content": "<end>"}, "bos_token": null}"#)
        let tokenizer = try tiny.load()
        #expect(tokenizer.eosToken == 300 && tokenizer.bosToken == nil)
    }

    @Test func `a missing file and a folder in its place are refused`() {
        let nowhere = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        let missing = #expect(throws: TokenizerError.self) { try Tokenizer(directory: nowhere) }
        #expect(missing?.description.hasPrefix("cannot read") == true)
        let folder = nowhere.appendingPathComponent("tokenizer.json")
        try? FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: nowhere) }
        let directory = #expect(throws: TokenizerError.self) { try Tokenizer(directory: nowhere) }
        #expect(directory?.description.contains("not a regular file") == true)
    }
}
