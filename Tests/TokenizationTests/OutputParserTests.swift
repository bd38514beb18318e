import Foundation
import JSON
import TestSupport
import Testing
import Tokenization

private func parse(_ text: String, thinking: Bool = false, tools: Bool = true, isCut: Bool = false) -> Parsed {
    Parsed([marked(text)], thinking: thinking, toolCalls: tools ? .deepSeek(.functionCalls) : nil, isCut: isCut)
}

@Suite struct `Parsing outputs` {
    @Test(arguments: [("completions_v32.json", DSMLBlock.functionCalls), ("completions_v4.json", .toolCalls)])
    func `completions parse as by DeepSeek's own parser`(file: String, block: DSMLBlock) throws {
        let rows = try Fixtures.rows(file)
        #expect(rows.count == 4)
        for row in rows {
            // The decoder drops the end-of-sentence token.
            let text = try #require(row["text"]?.string).replacing("<｜end▁of▁sentence｜>", with: "")
            let thinking = row["thinking_mode"]?.string == "thinking"
            let parsed = Parsed([text], thinking: thinking, toolCalls: .deepSeek(block))
            #expect(parsed.reasoning == row["parsed"]?["reasoning_content"]?.string)
            #expect(parsed.content == row["parsed"]?["content"]?.string)
            let calls = try #require(row["parsed"]?["tool_calls"]?.array).map { call in
                "\(call["function"]?["name"]?.string ?? "")(\(call["function"]?["arguments"]?.string ?? ""))"
            }
            #expect(parsed.calls == calls)
        }
    }

    @Test func `reasoning ends at the first mark`() {
        #expect(parse("a</think>b</think>c", thinking: true).reasoning == "a")
        #expect(parse("a</think>b</think>c", thinking: true).content == "b</think>c")
        #expect(parse("</think>b", thinking: true).reasoning == "")
        #expect(parse("a</think>b").content == "a</think>b")
    }

    @Test func `output that ends inside its reasoning is all reasoning`() {
        #expect(parse("let me see </thin", thinking: true).reasoning == "let me see </thin")
        #expect(parse(" \n", thinking: true).reasoning == " \n")
        #expect(parse("<thi", thinking: true).reasoning == "<thi")
        #expect(parse("<thi").content == "<thi")
    }

    @Test func `a call ends reasoning, and the closing mark may follow`() {
        for text in ["‹invoke name=\"f\"›‹/invoke›", "‹function_calls›‹invoke name=\"f\"›‹/invoke›‹/function_calls›"] {
            let parsed = parse("why\n\n\(text)</think>\nDone</think>", thinking: true)
            #expect(parsed.reasoning == "why" && parsed.calls == ["f({})"] && parsed.content == "\nDone</think>")
            let without = parse("why \(text)", thinking: true, tools: false)
            #expect(without.reasoning == "why " + marked(text) && without.content == "")
        }
    }

    @Test func `reasoning may begin with a mark, whatever the prompt ends with`() {
        for opening in ["<think>", "\n<think>", " \n <think>"] {
            #expect(parse(opening + "why</think>so", thinking: true).reasoning == "why")
            #expect(parse(opening + "why</think>so", thinking: true).content == "so")
            #expect(parse(opening + "why</think>so").reasoning == "why")
            #expect(parse(opening + "why</think>so").content == "so")
        }
        #expect(parse("a <think>b</think>c").content == "a <think>b</think>c")
        #expect(parse("a <think>b</think>c", thinking: true).reasoning == "a <think>b")
    }

    @Test func `text streams as soon as it is decided`() {
        var parser = OutputParser(startsInReasoning: true, toolCalls: .deepSeek(.functionCalls))
        #expect(parser.feed("why") == [.reasoning("why")])
        #expect(parser.feed(" <") == [.reasoning(" ")])
        #expect(parser.feed("b></think>so") == [.reasoning("<b>"), .content("so")])
        #expect(parser.feed("\n") == [])
        #expect(parser.feed("\nx<｜DS") == [.content("\n\nx")])
        #expect(parser.feed("K") == [.content("<｜DSK")])
        #expect(parser.feed("\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n") == [])
        #expect(
            parser.feed("</｜DSML｜invoke>") == [
                .toolCallStart(index: 0, name: "f"), .toolCallArguments(index: 0, "{}"), .toolCallEnd(index: 0),
            ])
        #expect(parser.finish() == [])
    }

    @Test func `without tools markup is text`() {
        let text = "‹function_calls›‹invoke name=\"f\"›‹/invoke›"
        #expect(parse(text, tools: false).content == marked(text))
    }

    @Test func `only the block's own line breaks and blanks between calls are left out`() {
        let call = "‹function_calls›\n‹invoke name=\"f\"›\n‹/invoke›\n‹/function_calls›"
        #expect(parse("a\n\n\n\(call)").content == "a\n")
        #expect(parse("a\n\(call)").content == "a\n")
        #expect(parse("a \(call)").content == "a ")
        #expect(parse("a\n\n\(call)").content == "a")
        #expect(parse("a\n\n").content == "a\n\n")
        #expect(parse("\(call)\n\n\n b").content == "\n\n\n b")
        #expect(parse("\(call)\n \n\(call)\n").content == "" && parse("\(call)\n\n\(call)").calls.count == 2)
    }

    @Test func `a block without an invoke is content`() {
        for text in [
            "‹function_calls›", "‹function_calls›‹/function_calls›", "‹function_calls›words‹/function_calls›",
            "The tag ‹function_calls› begins a block.", "‹function_calls›\n words",
        ] {
            #expect(parse("a\n\n" + text).content == "a\n\n" + marked(text))
        }
        let later = parse("‹function_calls› is a tag: ‹invoke name=\"f\"/›")
        #expect(later.calls == ["f({})"] && later.content == marked("‹function_calls› is a tag: "))
    }

    @Test func `values keep all their blanks`() {
        let call = """
            ‹invoke name="f"›
            ‹parameter name="s" string="true"›  "q" <b>&amp;
             \\ ‹/parameter›
            ‹/invoke›
            """
        #expect(parse(call).calls == [#"f({"s": "  \"q\" <b>&amp;\n \\ "})"#])
        #expect(
            parse("‹invoke name=\"f\"›‹parameter name=\"n\" string=\"false\"›[1,2.50]‹/parameter›‹/invoke›").calls
                == [#"f({"n": [1,2.50]})"#])
    }

    @Test(arguments: [
        ("‹invoke name=\"f\"/›", ["f({})"]),
        ("‹invoke name=\"f\" /›x", ["f({})"]),
        ("‹invoke name=\"f\"›\n{\"a\": [1 ,2]}\n‹/invoke›", [#"f({"a": [1, 2]})"#]),
        ("‹invoke name=\"f\"›‹/invoke›‹invoke name=\"g\"›\n\n‹/invoke›", ["f({})", "g({})"]),
        (
            "‹function_calls›‹invoke name=\"f\"›‹/invoke›‹/function_calls›\n"
                + "‹function_calls›‹invoke name=\"g\"›‹/invoke›",
            ["f({})", "g({})"]
        ),
        (param("n", "false", "NaN"), [#"f({"n": "NaN"})"#]),
        (param("n", "false", "Infinity"), [#"f({"n": "Infinity"})"#]),
        (param("n", "false", "Paris"), [#"f({"n": "Paris"})"#]),
        (param("n", "other", "1"), [#"f({"n": 1})"#]),
        (
            "‹invoke name=\"f\"›‹parameter name=\"a\" string=\"false\"›1‹/parameter›"
                + "‹parameter name=\"b\" string=\"false\"›2‹/parameter›"
                + "‹parameter name=\"a\" string=\"false\"›3‹/parameter›‹/invoke›",
            // Readers of JSON take the last of equal members.
            [#"f({"a": 1, "b": 2, "a": 3})"#]
        ),
        (param("a\\é", "true", "x"), [#"f({"a\\é": "x"})"#]),
        (
            "‹invoke name=\"f\"›‹parameter name=\"s\" string=\"true\"›‹invoke name=\"g\"›‹/parameter›‹/invoke›",
            [#"f({"s": "<｜DSML｜invoke name=\"g\">"})"#]
        ),
    ])
    func `unusual calls are parsed`(text: String, calls: [String]) {
        #expect(parse(text).calls == calls)
    }

    @Test(arguments: [
        "‹invoke›{}‹/invoke›",
        "‹invoke name=\"\"›‹/invoke›",
        "‹invoke name=\"f\"›",
        "‹invoke name=\"f",
        "‹invoke name=\"f\"›no object‹/invoke›",
        "‹invoke name=\"f\"›[1]‹/invoke›",
        "‹invoke name=\"f\"›‹parameter name=\"a\" string=\"true\"›x‹/invoke›",
        "‹invoke name=\"f\"›‹parameter name=\"a\" string=\"true\"›x‹/function_calls›",
        "‹function_calls›words‹/function_calls›",
    ])
    func `malformed calls become content, and later ones are calls`(text: String) {
        let parsed = parse(text)
        let expected = marked(text)
        #expect(parsed.calls == [] && parsed.content == expected)
        if text.hasSuffix("/invoke›") || text.hasSuffix("calls›") {
            let later = parse(text + "‹invoke name=\"g\"›‹/invoke›after")
            #expect(later.calls == ["g({})"] && later.content == expected + "after")
        }
    }

    @Test(arguments: ["‹", "‹/", "‹inv", "‹invoke", "‹invoke na", "‹function_calls", "‹function_calls›\n"])
    func `incomplete calls become content`(text: String) {
        #expect(parse("a\n\n" + text).content == "a\n\n" + marked(text))
    }

    @Test func `an invoke without an end ends where the next begins`() {
        let next = parse("‹function_calls›‹invoke name=\"f\"›‹invoke name=\"g\"›‹/invoke›")
        #expect(next.calls == ["g({})"] && next.content == marked("‹function_calls›‹invoke name=\"f\"›"))
        let text = "‹function_calls›‹invoke name=\"f\"›‹/function_calls›x"
        #expect(parse(text).content == marked(text))
    }

    @Test func `text between calls is content`() {
        let call = "‹invoke name=\"f\"›‹/invoke›"
        let parsed = parse("‹function_calls›\n\(call) and then \n\(call)\n‹/function_calls›\n\nend")
        #expect(parsed.calls == ["f({})", "f({})"] && parsed.content == " and then \n\n\nend")
        let inside = parse("‹invoke name=\"f\"›hm‹parameter name=\"a\" string=\"true\"›x‹/parameter›\n‹/invoke›")
        #expect(inside.calls == [#"f({"a": "x"})"#] && inside.content == "hm\n")
    }

    @Test func `a call is streamed once its values have 64 bytes, or when it is complete`() {
        let sky = String(repeating: "sky\"", count: 15)
        var parser = OutputParser(startsInReasoning: false, toolCalls: .deepSeek(.functionCalls))
        #expect(parser.feed(marked("‹function_calls›\n‹invoke name=\"f\"›\n")) == [])
        #expect(parser.feed(marked("‹parameter name=\"p\" string=\"true\"›" + sky + "‹/parameter›")) == [])
        #expect(parser.feed(marked("\n‹parameter name=\"q\" string=\"true\"›abc")) == [])
        #expect(
            parser.feed("d") == [
                .toolCallStart(index: 0, name: "f"),
                .toolCallArguments(index: 0, "{\"p\": " + JSONValue.string(sky).pythonText + ", \"q\": \"abcd"),
            ])
        #expect(parser.feed("e") == [.toolCallArguments(index: 0, "e")])
        #expect(parser.feed(marked("‹/parameter›")) == [.toolCallArguments(index: 0, "\"")])
        #expect(parser.feed(marked("\n‹parameter name=\"n\" string=\"false\"›12")) == [])
        #expect(parser.feed(marked("3‹/parameter›\n")) == [.toolCallArguments(index: 0, #", "n": 123"#)])
        #expect(parser.feed(marked("‹/invoke›")) == [.toolCallArguments(index: 0, "}"), .toolCallEnd(index: 0)])
        #expect(parser.feed(marked("‹invoke name=\"g\"›‹parameter name=\"p\" string=\"true\"›a‹/parameter›")) == [])
        #expect(
            parser.feed(marked("‹/invoke›")) == [
                .toolCallStart(index: 1, name: "g"), .toolCallArguments(index: 1, #"{"p": "a"}"#),
                .toolCallEnd(index: 1),
            ])
        #expect(parser.finish() == [])
    }

    @Test func `a long value that is no string is streamed once it is certain`() {
        let list = "[" + Array(repeating: "{\"k\": 1.5e3}", count: 40).joined(separator: ", ") + "]"
        var parser = OutputParser(startsInReasoning: false, toolCalls: .deepSeek(.functionCalls))
        let opening = marked("‹invoke name=\"f\"›‹parameter name=\"l\" string=\"false\"›")
        #expect(parser.feed(opening + list.prefix(127)) == [.toolCallStart(index: 0, name: "f")])
        #expect(parser.feed(String(list.dropFirst(127).prefix(1))).count == 1)
        #expect(parser.feed(String(list.dropFirst(128).prefix(20))).count == 1)
        #expect(parse(opening + list + "‹/parameter›‹/invoke›").calls == ["f({\"l\": \(list)})"])
        // What is no JSON is a string as soon as that is certain, and a call that promised JSON is broken.
        var other = OutputParser(startsInReasoning: false, toolCalls: .deepSeek(.functionCalls))
        let blanks = String(repeating: " ", count: 64)
        #expect(other.feed(opening + blanks + "nul") == [.toolCallStart(index: 0, name: "f")])
        #expect(other.feed("l and") == [.toolCallArguments(index: 0, "{\"l\": \"\(blanks)null and")])
        let broken = parse(opening + list.dropLast() + ", x‹/parameter›‹/invoke›")
        #expect(broken.calls == [] && broken.broken.count == 1)
        #expect(broken.content == opening + list.dropLast() + ", x" + marked("‹/parameter›‹/invoke›"))
    }

    @Test func `a call that a limit cuts is returned as far as it got`() {
        func cut(_ text: String) -> Parsed { parse(text, isCut: true) }
        let opening = "a\n\n‹function_calls›\n‹invoke name=\"f\"›\n"
        #expect(cut(opening + "‹parameter name=\"p\" string=\"true\"›/tm").broken == [#"f({"p": "/tm"#])
        #expect(cut(opening + "‹parameter name=\"p\" string=\"true\"›/tm‹/par").broken == [#"f({"p": "/tm"#])
        #expect(cut(opening).broken == ["f("] && cut(opening + "‹param").broken == ["f("])
        for unnamed in ["‹function_calls›\n", "‹function_calls›\n‹invoke name=\"f", "‹function_ca", "‹"] {
            let parsed = cut("a\n\n" + unnamed)
            #expect(parsed.content == "a" && parsed.broken == [])
        }
        let whole = opening + "‹/invoke›"
        for unfinished in ["\n<", "\n</", "\n‹/function_calls", "\n‹invoke name=\"g", "\n‹/function_calls›\n<"] {
            let parsed = cut(whole + unfinished)
            #expect(parsed.content == "a" && parsed.calls == ["f({})"] && parsed.broken == [], "\(unfinished)")
        }
        let part = String(marked("‹").dropLast(2))
        #expect(cut("a\n\n" + part).content == "a" && cut("a\n\n‹function_calls›\n<").content == "a")
        for unfinished in ["\n\n" + part, "\n\n‹invo", "</thi", "\n\n‹function_calls"] {
            let parsed = parse("why" + unfinished, thinking: true, isCut: true)
            #expect(parsed.reasoning == "why" && parsed.content == "", "\(unfinished)")
            let ended = parse("why" + unfinished, thinking: true)
            #expect(ended.reasoning + ended.content == "why" + marked(unfinished))
        }
        #expect(parse("a <", thinking: true, isCut: true).reasoning == "a <")
        #expect(cut("a\n\n<").content == "a\n\n<" && cut("a‹foo").content == marked("a‹foo"))
    }

    @Test func `the beginning of a JSON text is told from others`() {
        let parts = [
            "{", "}", "[", "]", ",", ":", "\"a\"", "\"é\\n\\u00e9\"", "1", "-0.5e+3", "0", "true", "null", " ", "x",
        ]
        func isPrefix(_ text: String) -> Bool {
            var prefix = JSONPrefix()
            return text.utf8.allSatisfy { prefix.feed($0) }
        }
        var generator = SplitMix(state: 3)
        var count = 0
        for _ in 0..<40_000 {
            let text = (0..<Int.random(in: 1...7, using: &generator)).map { _ in
                parts.randomElement(using: &generator)!
            }
            .joined()
            guard (try? JSONValue(parsing: text)) != nil else { continue }
            count += 1
            #expect(isPrefix(text), "\(text)")
        }
        #expect(count > 1000)
        for text in [
            "{'a'", "[1 2", "nil", "01", "1.e", "- 1", "{,", "[,", "{\"a\" 1", "\"\\x", "]", "{]", "1}", "tru ",
        ] {
            #expect(!isPrefix(text), "\(text)")
        }
    }

    @Test(arguments: ["", "‹/parametr›‹/invoke›", "‹/function_calls›after", "‹/invoke›after"])
    func `a long call that is malformed is reported with its text`(end: String) {
        let text = "‹invoke name=\"f\"›‹parameter name=\"t\" string=\"true\"›" + String(repeating: "x", count: 200)
        let parsed = parse("a\n\n" + text + end)
        #expect(parsed.calls == [])
        #expect(parsed.broken.count == 1 && parsed.broken[0].hasPrefix(#"f({"t": "xxx"#))
        #expect(parsed.content.hasPrefix("a\n\n" + marked(text)))
        #expect(end.hasSuffix("after") == parsed.content.hasSuffix("after"))
    }

    @Test func `of a call that breaks, a stream has what was not sent of it, and nothing twice`() {
        let opening = "‹invoke name=\"f\"›hm‹parameter name=\"t\" string=\"true\"›"
        for sky in ["sky", String(repeating: "sky ", count: 16)] {
            let number = sky == "sky" ? "12" : String(repeating: "12", count: 32)
            for (text, arguments, rest) in [
                (opening + "\(sky)‹/parametr›‹/invoke›after", "{\"t\": \"\(sky)‹/parametr›", "hmafter"),
                (opening + sky, "{\"t\": \"\(sky)", "hm"),
                (opening + "\(sky)‹/par", "{\"t\": \"\(sky)‹/par", "hm"),
                (
                    opening + "\(sky)‹/parameter›‹parameter string=\"true\"›lost‹/parameter›and‹/invoke›",
                    "{\"t\": \"\(sky)\"", "hmandlost"
                ),
                ("‹invoke name=\"f\"›‹parameter name=\"n\" string=\"false\"›\(number)", "{\"n\": \(number)", ""),
            ] {
                let parsed = parse(text)
                #expect(parsed.content == marked(text))
                if sky == "sky" {
                    // Of a short one, nothing was sent: a stream has what a whole answer has.
                    #expect(parsed.streamed == parsed.content && parsed.broken.isEmpty, "\(text): \(parsed)")
                } else {
                    #expect(
                        parsed.broken == ["f(" + marked(arguments)] && parsed.streamed == rest, "\(text): \(parsed)")
                }
            }
        }
    }

    @Test func `a call that is known to be malformed is not begun`() {
        let text =
            "‹invoke name=\"f\"›‹parameter name=\"t\"›sky‹/parameter›‹parameter string=\"true\"›"
            + String(repeating: "lost", count: 50)
        #expect(parse(text).streamed == marked(text) && parse(text).broken.isEmpty)
    }

    @Test func `text that only resembles a tag is content`() {
        for text in ["‹invokes", "‹invokes a›", "‹foo›", "‹/invoke›", "a‹parameter name=\"x\"›b", "<｜DSML", "\n\n<"] {
            #expect(parse(text).content == marked(text))
        }
        let long = "‹invoke " + String(repeating: "x", count: 5000)
        #expect(parse(long).content == marked(long))
    }

    /// Tools whose parameters `a` and `b` occur in random outputs.
    private static let types = ToolParameterTypes([
        try! ChatTool(
            function: JSONValue(
                parsing:
                    #"{"name": "f", "parameters": {"properties": {"a": {"type": "string"}, "b": {"type": "array"}}}}"#
            ))
    ])

    @Test(arguments: DSMLBlock.allCases)
    func `the division into pieces does not change the result`(block: DSMLBlock) {
        let parts = [
            "‹parameter name=\"b\" string=\"true\"›", "‹parameter name=\"arguments\" string=\"false\"›",
            "{\"a\": \"x\"}",
            "<", "</", "｜DSML｜", "‹function_calls›", "‹/function_calls›", "‹invoke name=\"f\"›", "‹/invoke›", "\n",
            "\n\n",
            "‹parameter name=\"a\" string=\"true\"›", "‹parameter name=\"b\" string=\"false\"›", "‹/parameter›",
            "{\"k\": 1}",
            "text é ", "</think>", "‹invoke name=\"g\"/›", "‹/", ">", "\"", " ", "<think>",
            String(repeating: "long é\n", count: 30), String(repeating: "long", count: 40),
            String(repeating: "[1, ", count: 40), "[" + String(repeating: "1, ", count: 50) + "1]",
        ].map { marked($0, block) }
        var generator = SplitMix(state: 5)
        var (callCount, brokenCount) = (0, 0)
        for _ in 0..<4000 {
            let text = (0..<Int.random(in: 0...14, using: &generator)).map { _ in
                parts.randomElement(using: &generator)!
            }
            .joined()
            let thinking = Bool.random(using: &generator)
            let isCut = Bool.random(using: &generator)
            let markup = ToolCallMarkup.deepSeek(block, Self.types)
            let whole = Parsed([text], thinking: thinking, toolCalls: markup, isCut: isCut)
            let pieces = cut(text, &generator)
            #expect(Parsed(pieces, thinking: thinking, toolCalls: markup, isCut: isCut) == whole, "\(text)")
            callCount += whole.calls.count
            brokenCount += whole.broken.count
        }
        #expect(callCount > 500 && brokenCount > 10, "\(callCount), \(brokenCount)")
    }

    /// Generates outputs of random markup and distinct words, each of which must occur once in the result.
    @Test(arguments: DSMLBlock.allCases)
    func `no word is lost or given twice, whatever the model writes`(block: DSMLBlock) {
        let parts = [
            "‹function_calls›", "‹/function_calls›", "‹invoke name=\"f\"›", "‹/invoke›", "\n", "\n\n",
            "‹parameter name=\"a\" string=\"true\"›", "‹parameter name=\"b\" string=\"false\"›",
            "‹parameter string=\"true\"›", "‹/parameter›", "</think>", "<think>", "‹invoke›", "‹/", "‹/parametr›",
            "‹parameter name=\"b\" string=\"true\"›", "‹parameter name=\"arguments\" string=\"false\"›", "{", "[",
        ].map { marked($0, block) }
        var generator = SplitMix(state: 7)
        for _ in 0..<4000 {
            var words: [String] = []
            let text = (0..<Int.random(in: 0...14, using: &generator)).map { place in
                guard Bool.random(using: &generator) else { return parts.randomElement(using: &generator)! }
                words.append("w\(place)\n\n \nw")
                return words[words.count - 1] + String(repeating: "x", count: Bool.random(using: &generator) ? 0 : 150)
            }
            .joined()
            let parsed = Parsed(
                [text], thinking: Bool.random(using: &generator), toolCalls: .deepSeek(block, Self.types),
                isCut: Bool.random(using: &generator))
            for view in parsed.views {
                let view = view.replacing("\\n", with: "\n")
                for word in words { #expect(view.ranges(of: word).count == 1, "\(word) of \(text)") }
            }
        }
    }

    /// Feeds outputs token by token, where each token is one byte, so that every cut of the bytes occurs.
    @Test func `an output of V4 is the same for every cut of its bytes`() throws {
        let tokenizer = try TinyTokenizer().load()
        let text = marked(
            """
            Wég 🧭 why</think>Sure.

            ‹function_calls›
            ‹invoke name="get_weather"›
            ‹parameter name="city" string="true"›Zürich 🏔 <b>‹/parameter›
            ‹parameter name="days" string="false"›[3, {"é": null}]‹/parameter›
            ‹/invoke›
            ‹invoke name="now"›

            ‹/invoke›
            ‹/function_calls›

            Bye é
            """, .toolCalls)
        let bytes = Array(text.utf8)
        let tokens = tokenizer.encode(text, allowingControlTokens: false)
        #expect(tokens.count > bytes.count / 2)
        let whole = Parsed([text], thinking: true, toolCalls: .deepSeek(.toolCalls))
        #expect(whole.reasoning == "Wég 🧭 why" && whole.content == "Sure.\n\nBye é")
        #expect(
            whole.calls == [#"get_weather({"city": "Zürich 🏔 <b>", "days": [3, {"é": null}]})"#, "now({})"])
        var single = StreamingDecoder(tokenizer)
        #expect(
            Parsed(tokens.map { single.feed($0) } + [single.finish()], thinking: true, toolCalls: .deepSeek(.toolCalls))
                == whole)
        for cut in tokens.indices {
            var decoder = StreamingDecoder(tokenizer)
            let pieces = [decoder.feed(tokens[..<cut]), decoder.feed(tokens[cut...]), decoder.finish()]
            #expect(Parsed(pieces, thinking: true, toolCalls: .deepSeek(.toolCalls)) == whole, "\(cut)")
        }
    }

    @Test func `a block of another model is text`() {
        let text = marked("a ‹function_calls›words", .toolCalls)
        #expect(Parsed([text]).content == text)
    }

    @Test func `a long value takes time in proportion`() {
        let value = String(repeating: "<｜DSML｜ \n", count: 20_000)
        let pieces =
            [marked("‹invoke name=\"f\"›‹parameter name=\"a\" string=\"true\"›")]
            + value.map(String.init) + [marked("‹/parameter›‹/invoke›")]
        let began = threadSeconds()
        let parsed = Parsed(pieces)
        let seconds = threadSeconds() - began
        #expect(parsed.calls.first == "f({\"a\": \(JSONValue.string(value).pythonText)})")
        #expect(seconds < 20)
    }
}
