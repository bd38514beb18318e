import Foundation
import JSON
import Testing
import Tokenization

/// `‹x›` in these tests stands for a tag with DeepSeek's mark: `<｜DSML｜x>`.
private func marked(_ text: String) -> String {
    var result = ""
    for character in text {
        switch character {
        case "‹": result += "<｜DSML｜"
        case "›": result += ">"
        default: result.append(character)
        }
    }
    return result.replacing("<｜DSML｜/", with: "</｜DSML｜")
}

private func parse(_ text: String, thinking: Bool = false, tools: Bool = true) -> Parsed {
    Parsed([marked(text)], thinking: thinking, toolCalls: tools ? .deepSeek : nil)
}

@Suite struct `Parsing outputs` {
    @Test func `completions parse as by DeepSeek's own parser`() throws {
        for row in try Fixtures.rows("completions_v32.json") {
            // The decoder drops the end-of-sentence token.
            let text = try #require(row["text"]?.string).replacing("<｜end▁of▁sentence｜>", with: "")
            let parsed = Parsed([text], thinking: row["thinking_mode"]?.string == "thinking")
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
            #expect(parsed.reasoning == "why\n\n" && parsed.calls == ["f({})"] && parsed.content == "Done</think>")
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
        var parser = OutputParser(startsInReasoning: true, toolCalls: .deepSeek)
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

    @Test func `only the block's own line breaks are left out of the content`() {
        #expect(parse("a\n\n\n‹function_calls›‹/function_calls›").content == "a\n")
        #expect(parse("a\n‹function_calls›‹/function_calls›").content == "a\n")
        #expect(parse("a ‹function_calls›‹/function_calls›").content == "a ")
        #expect(parse("a\n\n").content == "a\n\n")
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
            [#"f({"a": 3, "b": 2})"#]
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

    private static func param(_ name: String, _ isString: String, _ value: String) -> String {
        "‹invoke name=\"f\"›‹parameter name=\"\(name)\" string=\"\(isString)\"›\(value)‹/parameter›‹/invoke›"
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
        let expected = text.hasPrefix("‹function_calls›words") ? "words" : marked(text)
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
        #expect(parsed.calls == ["f({})", "f({})"] && parsed.content == " and thenend")
        let inside = parse("‹invoke name=\"f\"›hm‹parameter name=\"a\" string=\"true\"›x‹/parameter›\n‹/invoke›")
        #expect(inside.calls == [#"f({"a": "x"})"#] && inside.content == "hm\n")
    }

    @Test func `a long string is streamed`() {
        let value = String(repeating: "\"é\n", count: 100)
        var parser = OutputParser(startsInReasoning: false, toolCalls: .deepSeek)
        var pieces: [String] = []
        var events = parser.feed(marked("‹invoke name=\"f\"›‹parameter name=\"p\" string=\"true\"›/tmp‹/parameter›"))
        #expect(events == [])
        events = parser.feed(marked("‹parameter name=\"t\" string=\"true\"›"))
        for character in value { events += parser.feed(String(character)) }
        #expect(events.first == .toolCallStart(index: 0, name: "f"))
        #expect(events.count > 100)
        events += parser.feed(marked("‹/parameter›‹parameter name=\"n\" string=\"false\"›1‹/parameter›‹/invoke›"))
        for case .toolCallArguments(_, let text) in events { pieces.append(text) }
        let expected = JSONValue.fields(["p": .string("/tmp"), "t": .string(value), "n": .integer(1)]).pythonText
        #expect(pieces.joined() == expected)
        #expect(pieces[0].hasPrefix(#"{"p": "/tmp", "t": "\""#))
        #expect(events.last == .toolCallEnd(index: 0))
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

    @Test func `text that only resembles a tag is content`() {
        for text in ["‹invokes", "‹invokes a›", "‹foo›", "‹/invoke›", "a‹parameter name=\"x\"›b", "<｜DSML", "\n\n<"] {
            #expect(parse(text).content == marked(text))
        }
        let long = "‹invoke " + String(repeating: "x", count: 5000)
        #expect(parse(long).content == marked(long))
    }

    @Test func `the division into pieces does not change the result`() {
        let parts = [
            "<", "</", "｜DSML｜", "‹function_calls›", "‹/function_calls›", "‹invoke name=\"f\"›", "‹/invoke›", "\n",
            "\n\n",
            "‹parameter name=\"a\" string=\"true\"›", "‹parameter name=\"b\" string=\"false\"›", "‹/parameter›",
            "{\"k\": 1}",
            "text é ", "</think>", "‹invoke name=\"g\"/›", "‹/", ">", "\"", " ", "<think>",
            String(repeating: "long é\n", count: 30), String(repeating: "long", count: 40),
        ].map(marked)
        var generator = SplitMix(state: 5)
        var (callCount, brokenCount) = (0, 0)
        for _ in 0..<4000 {
            let text = (0..<Int.random(in: 0...14, using: &generator)).map { _ in
                parts.randomElement(using: &generator)!
            }
            .joined()
            let thinking = Bool.random(using: &generator)
            let whole = Parsed([text], thinking: thinking)
            #expect(Parsed(cut(text, &generator), thinking: thinking) == whole, "\(text)")
            callCount += whole.calls.count
            brokenCount += whole.broken.count
        }
        #expect(callCount > 500 && brokenCount > 10, "\(callCount), \(brokenCount)")
    }

    /// Generates outputs of random markup and distinct numbers, each of which must occur in the result.
    @Test func `no word is lost, whatever the model writes`() {
        let parts = [
            "‹function_calls›", "‹/function_calls›", "‹invoke name=\"f\"›", "‹/invoke›", "\n", "\n\n",
            "‹parameter name=\"a\" string=\"true\"›", "‹parameter name=\"b\" string=\"false\"›",
            "‹parameter string=\"true\"›", "‹/parameter›", "</think>", "<think>", "‹invoke›", "‹/", "‹/parametr›",
        ].map(marked)
        var generator = SplitMix(state: 7)
        for _ in 0..<4000 {
            var words: [String] = []
            let text = (0..<Int.random(in: 0...14, using: &generator)).map { place in
                guard Bool.random(using: &generator) else { return parts.randomElement(using: &generator)! }
                words.append("w\(place)w")
                return words[words.count - 1] + String(repeating: "x", count: Bool.random(using: &generator) ? 0 : 150)
            }
            .joined()
            let parsed = Parsed([text], thinking: Bool.random(using: &generator))
            let all = parsed.reasoning + parsed.content + parsed.calls.joined() + parsed.broken.joined()
            for word in words where !all.contains(word) {
                // The last of several parameters with the same name counts.
                let isReplaced =
                    text.components(separatedBy: "name=\"a\"").count > 2
                    || text.components(separatedBy: "name=\"b\"").count > 2
                #expect(isReplaced, "\(word) of \(text)")
            }
        }
    }

    @Test func `a long value takes time in proportion`() {
        let value = String(repeating: "<｜DSML｜ \n", count: 20_000)
        let pieces =
            [marked("‹invoke name=\"f\"›‹parameter name=\"a\" string=\"true\"›")]
            + value.map(String.init) + [marked("‹/parameter›‹/invoke›")]
        var parsed: Parsed?
        let time = ContinuousClock().measure { parsed = Parsed(pieces) }
        #expect(parsed?.calls.first == "f({\"a\": \(JSONValue.string(value).pythonText)})")
        #expect(time < .seconds(20))
    }
}
