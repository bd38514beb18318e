import Grammar
import JSON
import Testing
import Tokenization

/// Tests calls in the markup of DeepSeek-V3.2, DeepSeek-V4 and GLM.
@Suite struct ToolCallTests {
    private static let weather = ToolCallSource.Tool(
        name: "get_weather",
        parameters: #"""
            {"type":"object","properties":{"city":{"type":"string","minLength":2},"days":{"type":"integer","minimum":1},
            "unit":{"enum":["c","f",null]},"at":{"type":["string","null"],"format":"date"}},"required":["city"]}
            """#,
        isStrict: true)
    private static let ping = ToolCallSource.Tool(name: "ping", parameters: nil, isStrict: false)

    private static func block(_ invokes: String...) -> String {
        "<｜DSML｜function_calls>\n" + invokes.joined(separator: "\n") + "\n</｜DSML｜function_calls>"
    }

    private static func invoke(_ name: String, _ parameters: String...) -> String {
        "<｜DSML｜invoke name=\"\(name)\">\n" + parameters.joined(separator: "\n") + "\n</｜DSML｜invoke>"
    }

    private static func parameter(_ name: String, _ value: String, string: Bool) -> String {
        "<｜DSML｜parameter name=\"\(name)\" string=\"\(string)\">\(value)</｜DSML｜parameter>"
    }

    private static let city = parameter("city", "Paris <3", string: true)

    private func compiled(isRequired: Bool = true, allowsSeveral: Bool = true) throws -> CompiledGrammar {
        try grammar(
            .toolCalls(
                ToolCallSource(
                    tools: [Self.weather, Self.ping], isRequired: isRequired, allowsSeveral: allowsSeveral)))
    }

    @Test func `calls follow the markup and the schemas of their tools`() throws {
        let grammar = try compiled()
        let calls = [
            Self.block(Self.invoke("get_weather", Self.city)),
            "\n\n" + Self.block(Self.invoke("get_weather", Self.city, Self.parameter("days", "3", string: false))),
            Self.block(
                Self.invoke("ping", ""), Self.invoke("ping", Self.parameter("x", "{\"a\": [1]}", string: false))),
            Self.block(
                Self.invoke(
                    "get_weather", Self.city, Self.parameter("unit", "c", string: true),
                    Self.parameter("at", "2024-02-29", string: true))),
            Self.block(
                Self.invoke(
                    "get_weather", Self.city, Self.parameter("unit", "null", string: false),
                    Self.parameter("at", "null", string: false))),
        ]
        for call in calls { #expect(try grammar.accepts(call), "\(call)") }
        let others = [
            "", "hello", Self.block(Self.invoke("get_weather", "")), Self.block(Self.invoke("other", "")),
            Self.block(Self.invoke("get_weather", Self.parameter("city", "P", string: true))),
            Self.block(Self.invoke("get_weather", Self.city, Self.parameter("days", "0", string: false))),
            Self.block(Self.invoke("get_weather", Self.city, Self.parameter("days", "3", string: true))),
            Self.block(Self.invoke("get_weather", Self.city, Self.parameter("unit", "\"c\"", string: false))),
            Self.block(Self.invoke("get_weather", Self.city, Self.city)),
            Self.block(Self.invoke("ping", "")) + " and text",
        ]
        for text in others { #expect(try !grammar.accepts(text), "\(text)") }
    }

    @Test func `of a schema that cannot be enforced, a tool that is not strict follows the rest`() throws {
        func tool(isStrict: Bool) -> ToolCallSource.Tool {
            ToolCallSource.Tool(
                name: "f",
                parameters: #"""
                    {"type":"object","if":{},"then":{},"$defs":{"n":{"type":"integer","maximum":9,"minimum":0}},"properties":{
                    "n":{"$ref":"#/$defs/n"},"tags":{"type":"array","uniqueItems":true,"items":{"type":"integer"}},
                    "c":{"format":"color"},"o":{"type":"object","if":{},"then":{},"unevaluatedProperties":false},"a\"b":{}},
                    "required":["n","tags","a\"b"]}
                    """#,
                isStrict: isStrict)
        }
        func source(_ isStrict: Bool) -> GrammarSource {
            .toolCalls(ToolCallSource(tools: [tool(isStrict: isStrict)], isRequired: true, allowsSeveral: false))
        }
        #expect(throws: GrammarError.self) { try grammar(source(true)) }
        let relaxed = try grammar(source(false))
        let (number, tags) = (
            Self.parameter("n", "5", string: false), Self.parameter("tags", "[1, 1]", string: false)
        )
        for parameters in [
            [number, tags], [number, tags, Self.parameter("c", "any", string: true)],
            [number, tags, Self.parameter("o", "{\"x\": 1}", string: false)],
        ] {
            let call = Self.block(Self.invoke("f", parameters.joined(separator: "\n")))
            #expect(try relaxed.accepts(call), "\(call)")
        }
        for parameters in [
            [], [number], [tags], [Self.parameter("n", "10", string: false), tags],
            [number, Self.parameter("tags", "[\"a\"]", string: false)],
            [number, tags, Self.parameter("o", "1", string: false)],
            [number, tags, Self.parameter("x", "1", string: false)],
        ] {
            let call = Self.block(Self.invoke("f", parameters.joined(separator: "\n")))
            #expect(try !relaxed.accepts(call), "\(call)")
        }
    }

    @Test func `if calls are optional, any text may come, followed by one block`() throws {
        let grammar = try compiled(isRequired: false)
        for text in ["", "Hello <b>", "Let me see.\n\n" + Self.block(Self.invoke("get_weather", Self.city))] {
            #expect(try grammar.accepts(text), "\(text)")
        }
        #expect(try !grammar.accepts("Hm\n\n" + Self.block(Self.invoke("get_weather", ""))))
        #expect(try !grammar.accepts(Self.block(Self.invoke("ping", "")) + Self.block(Self.invoke("ping", ""))))
    }

    @Test func `one call at a time, if that is required`() throws {
        let grammar = try compiled(allowsSeveral: false)
        #expect(try grammar.accepts(Self.block(Self.invoke("ping", ""))))
        #expect(try !grammar.accepts(Self.block(Self.invoke("ping", ""), Self.invoke("ping", ""))))
    }

    @Test func `a call that is made in reasoning is one that is offered`() throws {
        let source = ToolCallSource(tools: [Self.weather, Self.ping], isRequired: true, allowsSeveral: true)
        let call = Self.block(Self.invoke("get_weather", Self.city))
        let required = try grammar(.afterReasoning(.toolCalls(source)))
        for text in ["why</think>\n\n\(call)", "why\n\n\(call)", call, "a < b, <｜DSML｜ and </\(call)"] {
            #expect(try required.accepts(text), "\(text)")
        }
        let others = [
            Self.block(Self.invoke("other", "")), Self.block(Self.invoke("get_weather", "")),
            Self.invoke("get_weather", Self.city), call + "</think>", "", "why", "why</think>no",
        ]
        for text in others { #expect(try !required.accepts("why\n\n\(text)"), "\(text)") }
        #expect(try required.state(after: "why <｜DSML｜invoke") == nil)
        var optional = source
        optional.isRequired = false
        let strict = try grammar(.afterReasoning(.toolCalls(optional)))
        #expect(try strict.accepts("why\(call)") && strict.accepts("why</think>Hi") && !strict.accepts("why"))
        #expect(try !strict.accepts("why" + Self.block(Self.invoke("other", ""))))
    }

    @Test func `a call that is made in reasoning may begin with a control token`() throws {
        let vocabulary = GrammarVocabulary(
            bytes: (0...255).map { [$0] } + [[], [], []],
            controlTokens: ["｜DSML｜": 256, "</think>": 257, "<tool_call>": 258], size: 259)
        func accepts(_ markup: ToolCallSource.Markup, _ parts: [Any]) throws -> Bool {
            let source = ToolCallSource(markup: markup, tools: [Self.ping], isRequired: true, allowsSeveral: true)
            var state = try CompiledGrammar(.afterReasoning(.toolCalls(source)), vocabulary).start
            for part in parts {
                let next =
                    if let token = part as? Int32 { try state.advanced(by: token) } else {
                        try state.advanced(by: Array("\(part)".utf8))
                    }
                guard let next else { return false }
                state = next
            }
            return true
        }
        let (mark, call) = (Int32(256), Int32(258))
        for name in ["ping\">\n", "other"] {
            let begun = ["why<", mark, "function_calls>\n<", mark, "invoke name=\"\(name)"] as [Any]
            #expect(try accepts(.deepSeekV32, begun) == name.hasPrefix("ping"))
        }
        #expect(try !accepts(.deepSeekV32, ["why<", mark, "invoke"]))
        #expect(try accepts(.glm, ["why", call, "ping"]) && !accepts(.glm, ["why", call, "other"]))
        #expect(try !accepts(.glm, ["why<tool_call>"]))
    }

    @Test func `V4's calls are the same in a block of another name`() throws {
        let tools = [Self.weather, Self.ping]
        let source = ToolCallSource(markup: .deepSeekV4, tools: tools, isRequired: true, allowsSeveral: true)
        let older = Self.block(Self.invoke("get_weather", Self.city), Self.invoke("ping", ""))
        let newer = older.replacing("function_calls", with: "tool_calls")
        #expect(try grammar(.toolCalls(source)).accepts(newer) && !grammar(.toolCalls(source)).accepts(older))
        #expect(try !compiled().accepts(newer))
        let parsed = Self.parsed(newer, .deepSeek(.toolCalls))
        #expect(parsed == ["get_weather", #"{"city": "Paris <3"}"#, "ping", "{}"])
    }

    private static func parsed(_ text: String, _ markup: ToolCallMarkup) -> [String] {
        var parser = OutputParser(startsInReasoning: false, toolCalls: markup)
        return (parser.feed(text) + parser.finish()).compactMap { event in
            switch event {
            case .toolCallStart(_, let name): name
            case .toolCallArguments(_, let text): text
            case .toolCallEnd: nil
            case .content(let text), .reasoning(let text), .toolCallBroken(_, let text, _): "lost: " + text
            }
        }
    }

    private static func call(_ name: String, _ arguments: (String, String)...) -> String {
        "<tool_call>\(name)"
            + arguments.map { "<arg_key>\($0.0)</arg_key><arg_value>\($0.1)</arg_value>" }.joined() + "</tool_call>"
    }

    private func glm(isRequired: Bool = true, allowsSeveral: Bool = true) throws -> CompiledGrammar {
        try grammar(
            .toolCalls(
                ToolCallSource(
                    markup: .glm, tools: [Self.weather, Self.ping], isRequired: isRequired,
                    allowsSeveral: allowsSeveral)))
    }

    @Test func `GLM's calls follow its markup and the schemas of their tools`() throws {
        let calls = try glm()
        let markup = ToolCallMarkup.glm(
            ToolParameterTypes([
                try ChatTool(
                    function: JSONValue(
                        parsing: #"{"name": "get_weather", "parameters": \#(Self.weather.parameters!)}"#))
            ]))
        let city = ("city", "7 <3")
        let accepted: [(text: String, parsed: [String])] = [
            (Self.call("get_weather", city), ["get_weather", #"{"city": "7 <3"}"#]),
            (
                "\n\n" + Self.call("get_weather", city, ("days", "3")) + "\n" + Self.call("ping"),
                ["get_weather", #"{"city": "7 <3", "days": 3}"#, "ping", "{}"]
            ),
            (Self.call("get_weather", city, ("unit", "c")), ["get_weather", #"{"city": "7 <3", "unit": "c"}"#]),
            (Self.call("get_weather", city, ("unit", "null")), ["get_weather", #"{"city": "7 <3", "unit": null}"#]),
            (
                Self.call("ping", ("x", "{\"a\": [1]}"), ("y", "free text")),
                ["ping", #"{"x": {"a": [1]}, "y": "free text"}"#]
            ),
        ]
        for (text, parsed) in accepted {
            #expect(try calls.accepts(text), "\(text)")
            #expect(Self.parsed(text, markup) == parsed)
        }
        let refused = [
            "", "hello", Self.call("get_weather"), Self.call("other"), Self.call("get_weather", ("city", "P")),
            Self.call("get_weather", city, ("days", "0")), Self.call("get_weather", city, ("days", "x")),
            Self.call("get_weather", city, ("unit", "\"c\"")), Self.call("get_weather", city, city),
            Self.call("ping") + " and text", Self.call("get_weather", ("city", "Paris</arg_value>")),
        ]
        for text in refused { #expect(try !calls.accepts(text), "\(text)") }
        #expect(try !glm(allowsSeveral: false).accepts(Self.call("ping") + Self.call("ping")))
        let optional = try glm(isRequired: false)
        #expect(try optional.accepts("a < b") && optional.accepts("Hm\n\n" + Self.call("get_weather", city)))
        #expect(try !optional.accepts("Hm" + Self.call("get_weather")))
    }

    @Test func `a string in GLM's markup is none that reads as JSON, where the schema allows other values`() throws {
        let tool = ToolCallSource.Tool(
            name: "f",
            parameters: #"""
                {"type":"object","properties":{"u":{"type":["string","integer"],"maximum":5},"s":{"type":"string"}}}
                """#, isStrict: true)
        let source = ToolCallSource(markup: .glm, tools: [tool], isRequired: true, allowsSeveral: false)
        let grammar = try grammar(.toolCalls(source))
        for value in ["", "5", "seven", "5 or 7", "nullable"] {
            #expect(try grammar.accepts(Self.call("f", ("u", value))), "\(value)")
        }
        for value in ["7", "true", " 7", "null ", "-1.5e3", "[]", "\"quoted\"", "</tool_call>"] {
            #expect(try !grammar.accepts(Self.call("f", ("u", value))), "\(value)")
        }
        for value in ["7", "true", "[]", "\"quoted\""] {
            #expect(try grammar.accepts(Self.call("f", ("s", value))), "\(value)")
        }
    }

    @Test func `GLM's calls are made of control tokens where the vocabulary has them`() throws {
        let vocabulary = GrammarVocabulary(
            bytes: (0...255).map { [$0] }, controlTokens: ["<tool_call>": 300, "</tool_call>": 301], size: 320)
        let source = ToolCallSource(markup: .glm, tools: [Self.ping], isRequired: true, allowsSeveral: false)
        let grammar = try CompiledGrammar(.toolCalls(source), vocabulary)
        #expect(try grammar.start.mask().contains(300) && !grammar.start.mask().contains(Int32(UInt8(ascii: "<"))))
        let named = try #require(try grammar.start.advanced(by: 300)?.advanced(by: Array("ping".utf8)))
        #expect(try named.advanced(by: 301)?.mayEnd == true)
    }

    @Test func `reasoning comes first, and ends in its mark or in the mark's text`() throws {
        let mark: Int32 = 300
        let vocabulary = GrammarVocabulary(
            bytes: (0...255).map { [$0] }, controlTokens: ["</think>": mark, "<end>": 301], size: 320)
        let grammar = try CompiledGrammar(.afterReasoning(.jsonObject), vocabulary)
        let thought = try #require(try grammar.state(after: "{\"not yet\": <think> </thin"))
        #expect(try !thought.mayEnd && !thought.mask().contains(301))
        let after = try #require(try thought.advanced(by: mark))
        #expect(try after.advanced(by: Array("{}".utf8))?.mayEnd == true)
        #expect(try grammar.accepts("ab</think>\n\n{\"a\":1}"))
        #expect(try !grammar.accepts("{}"))
        // In this grammar, rules call the root.
        let nested = try CompiledGrammar(.afterReasoning(.ebnf("root ::= \"(\" root? \")\"")), vocabulary)
        #expect(try nested.accepts("x</think>(())") && !nested.accepts("x</think>(y</think>())"))
    }

    @Test func `a strict tool whose schema cannot be enforced is refused, another is called with any arguments`()
        throws
    {
        let schema = #"{"type":"object","properties":{"a":{"type":"array","contains":{"const":1}}}}"#
        func source(strict: Bool) -> GrammarSource {
            let tool = ToolCallSource.Tool(name: "f", parameters: schema, isStrict: strict)
            return .toolCalls(ToolCallSource(tools: [tool], isRequired: true, allowsSeveral: true))
        }
        let error = try #require(refusal(source(strict: true)))
        #expect(error.description.contains("tools[0]") && error.description.contains("#/properties/a/contains"))
        let call = Self.block(Self.invoke("f", Self.parameter("a", "[2]", string: false)))
        #expect(try grammar(source(strict: false)).accepts(call))
    }

    @Test func `calls are made of the released vocabulary's mark`() throws {
        let vocabulary = try Fixtures.deepSeekV32()
        let grammar = try CompiledGrammar(
            .toolCalls(ToolCallSource(tools: [Self.ping], isRequired: true, allowsSeveral: true)), vocabulary)
        let state = try #require(try grammar.state(after: "\n\n<"))
        #expect(try state.mask().count == 1)
        #expect(try state.advanced(by: Array("｜".utf8)) == nil)
    }
}
