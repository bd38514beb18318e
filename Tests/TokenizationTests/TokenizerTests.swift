import Foundation
import JSON
import TestSupport
import Testing
import Tokenization

@Suite struct `Encoding text` {
    @Test func `the released V3_2 tokenizer gives the reference library's tokens`() throws {
        let tokenizer = try Fixtures.deepSeekV32()
        for vector in try Fixtures.vectors() {
            #expect(tokenizer.encode(vector.text, allowingControlTokens: true) == vector.v32, "\(vector.text)")
        }
    }

    @Test func `the released V4 tokenizer gives the reference library's tokens`() throws {
        let tokenizer = try Fixtures.deepSeekV4()
        for vector in try Fixtures.vectors() {
            #expect(tokenizer.encode(vector.text, allowingControlTokens: true) == vector.v4, "\(vector.text)")
            let text = tokenizer.decode(vector.v4, skippingSpecialTokens: false)
            #expect(scalars(text) == scalars(vector.text))
        }
    }

    @Test func `the released GLM tokenizer gives the reference library's tokens`() throws {
        let tokenizer = try Fixtures.glm5()
        for vector in try Fixtures.vectors() {
            #expect(tokenizer.encode(vector.text, allowingControlTokens: true) == vector.glm, "\(vector.text)")
            let text = tokenizer.decode(vector.glm, skippingSpecialTokens: false)
            #expect(scalars(text) == scalars(vector.text))
        }
    }

    @Test func `the demo tokenizer gives the reference library's tokens`() throws {
        for vector in try Fixtures.vectors() {
            #expect(Fixtures.demo.encode(vector.text, allowingControlTokens: true) == vector.demo, "\(vector.text)")
        }
    }

    @Test func `what is encoded decodes to the same text`() throws {
        let tokenizer = try Fixtures.deepSeekV32()
        for vector in try Fixtures.vectors() {
            let text = tokenizer.decode(vector.v32, skippingSpecialTokens: false)
            #expect(scalars(text) == scalars(vector.text))
        }
    }

    @Test func `what a user writes never becomes a control token`() throws {
        let tokenizer = try Fixtures.deepSeekV32()
        for text in ["<｜User｜>hi<｜Assistant｜><think>", "<｜end▁of▁sentence｜>", "｜DSML｜", "</think>"] {
            let ids = tokenizer.encode(text, allowingControlTokens: false)
            #expect(ids.allSatisfy { !tokenizer.isSpecial($0) && $0 < 128_000 })
            #expect(tokenizer.decode(ids) == text)
        }
    }

    @Test func `segments around control tokens encode as one text`() throws {
        let tokenizer = try Fixtures.deepSeekV32()
        let whole = "<｜begin▁of▁sentence｜>Be kind.<｜User｜>don't  do 12345 日本<｜Assistant｜></think>"
        let segments: [PromptSegment] = [
            .template("<｜begin▁of▁sentence｜>"), .text("Be kind."), .template("<｜User｜>"), .text("don"), .text("'t "),
            .template(" do 123"), .text("45 日本"), .template("<｜Assistant｜></think>"),
        ]
        #expect(tokenizer.encode(segments: segments) == tokenizer.encode(whole, allowingControlTokens: true))
    }

    @Test func `a control token does not form across segments`() throws {
        let tokenizer = try Fixtures.deepSeekV32()
        let ids = tokenizer.encode(segments: [.template("<｜Us"), .text("er｜>")])
        #expect(!ids.contains(try #require(tokenizer.controlToken("<｜User｜>"))))
        #expect(tokenizer.decode(ids) == "<｜User｜>")
    }

    @Test func `sentence tokens come from the configuration`() throws {
        let tokenizer = try Fixtures.deepSeekV32()
        #expect(tokenizer.bosToken == 0 && tokenizer.eosToken == 1 && tokenizer.padToken == 1)
        #expect(tokenizer.vocabularySize == 128_815)
        #expect(tokenizer.id(of: "Ġthe") == tokenizer.encode(" the", allowingControlTokens: false).first)
        #expect(tokenizer.token(128_798) == "<think>" && tokenizer.bytes(of: 128_798) == Array("<think>".utf8))
        #expect(tokenizer.token(128_815) == nil && tokenizer.token(-1) == nil && tokenizer.bytes(of: 1 << 30) == [])
        #expect(tokenizer.isSpecial(0) && !tokenizer.isSpecial(128_798))
    }

    @Test func `a raw prompt begins as the model's files ask`() throws {
        // The demo's files ask for a beginning-of-sentence token, V3.2's do not.
        let released = try Fixtures.deepSeekV32()
        #expect(Fixtures.demo.addsBeginning && !released.addsBeginning)
        let plain = Fixtures.demo.encode("Hi", allowingControlTokens: true)
        #expect(Fixtures.demo.encodePrompt("Hi") == [0] + plain)
        #expect(Fixtures.demo.encodePrompt("<｜begin▁of▁sentence｜>Hi") == [0] + plain)
        #expect(released.encodePrompt("<think>") == [128_798])
    }

    @Test func `without tokenizer_config_json the post-processor defines the beginning of a prompt`() throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        var members = try #require(Fixtures.demoFile.object).filter { $0.key != "post_processor" }
        // A token that is none leaves it to the model family.
        for (opening, expected) in [("<｜begin▁of▁sentence｜>", 0), ("<｜end▁of▁sentence｜>", 1), ("none", Int32?.some(0))]
        {
            let processor =
                #"{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"\#(opening)","type_id":0}}]}"#
            members.append(JSONMember("post_processor", try JSONValue(parsing: processor)))
            let file = directory.appendingPathComponent("tokenizer.json")
            try Data(JSONValue.object(members).pythonBytes).write(to: file)
            let tokenizer = try Tokenizer(directory: directory)
            #expect(tokenizer.bosToken == expected && tokenizer.addsBeginning == (expected != nil))
            members.removeLast()
        }
    }

    @Test func `where the files name no token that begins a sentence, the model family does`() throws {
        var tiny = TinyTokenizer()
        let marks = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"]
        tiny.set(
            "added_tokens",
            to: .array(marks.enumerated().map { TinyTokenizer.added($0.element, 400 + $0.offset, special: true) }))
        tiny.set("post_processor", to: .object([JSONMember("type", .string("ByteLevel"))]))
        let family = try tiny.load()
        #expect(family.bosToken == 400 && family.eosToken == 401 && family.addsBeginning)
        #expect(family.encodePrompt("ab").first == 400 && family.encode("ab", allowingControlTokens: true).first != 400)
        // A configuration that says no is followed.
        tiny.config = .object([JSONMember("add_bos_token", .bool(false)), JSONMember("bos_token", .string(marks[0]))])
        #expect(try !tiny.load().addsBeginning)
        tiny.config = nil
        tiny.set("added_tokens", to: .array([]))
        #expect(try tiny.load().bosToken == nil && !tiny.load().addsBeginning)
    }

    /// Returns whether prompts begin with the beginning-of-sentence token.
    private func begins(_ tiny: TinyTokenizer, class name: String, _ more: JSONMember...) throws -> Bool {
        var tiny = tiny
        let members = ["tokenizer_class": name, "bos_token": "<begin>"].map { JSONMember($0.key, .string($0.value)) }
        tiny.config = .object(members + more)
        let tokenizer = try tiny.load()
        #expect(tokenizer.addsBeginning == (tokenizer.encodePrompt("ab").first == 400))
        return tokenizer.addsBeginning
    }

    @Test(arguments: ["LlamaTokenizer", "LlamaTokenizerFast"])
    func `a class whose default is to put the beginning before each text does so unless its files say no`(
        name: String
    ) throws {
        var tiny = TinyTokenizer()
        tiny.set("added_tokens", to: .array([TinyTokenizer.added("<begin>", 400, special: true)]))
        let no = JSONMember("add_bos_token", .bool(false))
        // Without a template, and with one that puts the token before a text.
        for steps in ["[]", #"[{"SpecialToken":{"id":"<begin>","type_id":0}}]"#] {
            let processor = #"{"type":"TemplateProcessing","single":\#(steps)}"#
            tiny.set("post_processor", to: try JSONValue(parsing: processor))
            #expect(try begins(tiny, class: name))
            #expect(try begins(tiny, class: name, JSONMember("add_bos_token", .null)))
            #expect(try begins(tiny, class: name, JSONMember("add_bos_token", .bool(true))))
            #expect(try !begins(tiny, class: name, no))
            #expect(try begins(tiny, class: "PreTrainedTokenizerFast") == (steps != "[]"))
        }
    }

    @Test func `an empty text has no tokens`() {
        #expect(Fixtures.demo.encode("", allowingControlTokens: true) == [])
        #expect(Fixtures.demo.encode(segments: []) == [])
    }

    @Test func `merges go by rank and then from the left`() throws {
        let tokenizer = try TinyTokenizer().load()
        func spelled(_ text: String) -> [String?] {
            tokenizer.encode(text, allowingControlTokens: true).map { tokenizer.token($0) }
        }
        #expect(spelled("abcd") == ["ab", "cd"])
        #expect(spelled("abc") == ["abc"])
        #expect(spelled("ab ab ac") == ["ab", "Ġ", "ab", "Ġa", "c"])
        #expect(spelled("abcab") == ["abc", "ab"])
    }

    @Test func `the longest of the control tokens at one place is taken`() throws {
        let tokenizer = try TinyTokenizer().load()
        #expect(tokenizer.encode("<end>><end>", allowingControlTokens: true) == [301, 300])
        #expect(tokenizer.encode("<en<end>", allowingControlTokens: true).last == 300)
    }

    @Test func `a word that is a token is taken whole only where merges are ignored`() throws {
        var tiny = TinyTokenizer()
        tiny.set("model", "vocab", "xyz", to: .number(JSONNumber(290)))
        #expect(try tiny.load().encode("xyz", allowingControlTokens: true).count == 3)
        tiny.set("model", "ignore_merges", to: .bool(true))
        #expect(try tiny.load().encode("xyz", allowingControlTokens: true) == [290])
    }

    @Test func `a very long word takes time in proportion`() throws {
        let tokenizer = try Fixtures.deepSeekV32()
        func seconds(_ text: String) -> Double {
            let start = threadSeconds()
            #expect(tokenizer.decode(tokenizer.encode(text, allowingControlTokens: false)) == text)
            return threadSeconds() - start
        }
        for unit in ["a", "qzj", " ", "!?"] {
            let short = seconds(String(repeating: unit, count: 60_000 / unit.count))
            let long = seconds(String(repeating: unit, count: 960_000 / unit.count))
            // 16 times the text: a quadratic step would take 256 times as long.
            #expect(long < max(short, 0.002) * 100, "\(unit)")
        }
    }

    @Test func `many tasks may encode at once`() async throws {
        let vectors = try Fixtures.vectors()
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    vectors.allSatisfy { Fixtures.demo.encode($0.text, allowingControlTokens: true) == $0.demo }
                }
            }
            for try await same in group { #expect(same) }
        }
    }

    @Test func `words beyond the cache's bounds are encoded alike`() throws {
        let tokenizer = try TinyTokenizer().load()
        let letters = Array("abcdefgh")
        // There are more different words than the cache holds.
        let text = (0..<40_000).map { number in
            " " + String(String(number, radix: 8).map { letters[$0.wholeNumberValue ?? 0] })
        }.joined()
        let first = tokenizer.encode(text, allowingControlTokens: true)
        #expect(tokenizer.encode(text, allowingControlTokens: true) == first)
        #expect(tokenizer.decode(first) == text)
    }
}
