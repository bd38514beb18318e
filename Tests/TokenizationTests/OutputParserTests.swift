import JSON
import Testing
import Tokenization

/// Collects a parser's events for an output, joined.
private struct Parsed: Equatable {
    var reasoning = ""
    var content = ""
    var calls: [String] = []

    init(_ pieces: [String], thinking: Bool = false, tools: Bool = true) {
        var parser = OutputParser(startsInReasoning: thinking, parsesToolCalls: tools)
        for piece in pieces { add(parser.feed(piece)) }
        add(parser.finish())
    }

    private mutating func add(_ events: [OutputParser.Event]) {
        for event in events {
            switch event {
            case .reasoning(let text): reasoning += text
            case .content(let text): content += text
            case .toolCall(let index, let name, let arguments):
                #expect(index == calls.count)
                calls.append("\(name)(\(arguments))")
            }
        }
    }
}

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
    Parsed([marked(text)], thinking: thinking, tools: tools)
}

@Suite struct `Taking output apart` {
    @Test func `completions parse as by DeepSeek's own parser`() throws {
        for row in try Fixtures.rows("completions_v32.json") {
            // The end of the sentence is a token, which never reaches the parser.
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
        #expect(parse("‹invoke name=\"f\"›‹/invoke›", thinking: true).calls == [])
    }

    @Test func `text streams as soon as it is decided`() {
        var parser = OutputParser(startsInReasoning: true, parsesToolCalls: true)
        #expect(parser.feed("why") == [.reasoning("why")])
        #expect(parser.feed(" <") == [.reasoning(" ")])
        #expect(parser.feed("b></think>so") == [.reasoning("<b>"), .content("so")])
        #expect(parser.feed("\n") == [])
        #expect(parser.feed("\nx<｜DS") == [.content("\n\nx")])
        #expect(parser.feed("K") == [.content("<｜DSK")])
        #expect(parser.feed("\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n") == [])
        #expect(
            parser.feed("</｜DSML｜invoke>") == [.toolCall(index: 0, name: "f", arguments: "{}")])
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

    @Test func `values are kept to the last blank`() {
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
    func `unusual calls are understood`(text: String, calls: [String]) {
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
    func `malformed calls are dropped and later ones are not`(text: String) {
        #expect(parse(text).calls == [] && parse(text).content == "")
        if text.hasSuffix("/invoke›") || text.hasSuffix("calls›") {
            let later = text + "‹invoke name=\"g\"›‹/invoke›after"
            #expect(parse(later).calls == ["g({})"] && parse(later).content == "after")
        }
    }

    @Test func `a tag that is cut off is dropped`() {
        for text in ["‹", "‹/", "‹inv", "‹invoke", "‹invoke na", "‹function_calls"] {
            #expect(parse("a\n\n" + text).content == "a")
        }
    }

    @Test func `an invoke without end gives way to the next`() {
        #expect(parse("‹function_calls›‹invoke name=\"f\"›‹invoke name=\"g\"›‹/invoke›").calls == ["g({})"])
        #expect(parse("‹function_calls›‹invoke name=\"f\"›‹/function_calls›x").content == "x")
    }

    @Test func `text that only resembles a tag stays`() {
        for text in ["‹invokes", "‹invokes a›", "‹foo›", "‹/invoke›", "a‹parameter name=\"x\"›b", "<｜DSML", "\n\n<"] {
            #expect(parse(text).content == marked(text))
        }
        let long = "‹invoke " + String(repeating: "x", count: 5000)
        #expect(parse(long).content == marked(long))
    }

    @Test func `any cutting gives the same`() {
        let parts = [
            "<", "</", "｜DSML｜", "‹function_calls›", "‹/function_calls›", "‹invoke name=\"f\"›", "‹/invoke›", "\n",
            "\n\n",
            "‹parameter name=\"a\" string=\"true\"›", "‹parameter name=\"b\" string=\"false\"›", "‹/parameter›",
            "{\"k\": 1}",
            "text é ", "</think>", "‹invoke name=\"g\"/›", "‹/", ">", "\"", " ",
        ].map(marked)
        var generator = SplitMix(state: 5)
        var callCount = 0
        for _ in 0..<4000 {
            let text = (0..<Int.random(in: 0...14, using: &generator)).map { _ in
                parts.randomElement(using: &generator)!
            }
            .joined()
            let thinking = Bool.random(using: &generator)
            let whole = Parsed([text], thinking: thinking)
            #expect(Parsed(cut(text, &generator), thinking: thinking) == whole, "\(text)")
            callCount += whole.calls.count
        }
        #expect(callCount > 500)
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
