import JSON
import TestSupport
import Testing
import Tokenization

/// Tests how the values in DeepSeek's tool calls follow the schemas of the tools.
@Suite struct `Values of tool calls` {
    private static let typed = ToolCallMarkup.deepSeek(
        .functionCalls,
        ToolParameterTypes([
            try! ChatTool(
                function: JSONValue(
                    parsing: ##"""
                        {"name": "f", "parameters": {
                            "type": "object", "$defs": {"Unit": {"enum": ["c", "f"]}, "N": {"type": "null"}},
                            "properties": {
                                "s": {"type": "string"}, "i": {"type": "integer"}, "b": {"type": "boolean"},
                                "n": {"type": "number"}, "o": {"type": "object"}, "l": {"type": "array"},
                                "z": {"type": "null"}, "si": {"type": ["string", "integer"]},
                                "iz": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                                "sz": {"oneOf": [{"type": "string"}, {"$ref": "#/$defs/N"}]},
                                "u": {"$ref": "#/$defs/Unit"}, "x": {}, "loop": {"$ref": "#/properties/loop"},
                                "v": {"type": "string", "nullable": true}, "any": {"type": "any"},
                                "all": {"allOf": [{"type": ["string", "integer"]}, {"type": ["integer", "null"]}]}}}}
                        """##))
        ]))

    /// Parses a text, whole and by single characters, which must not matter.
    private func parseTyped(_ text: String, isCut: Bool = false) -> Parsed {
        let whole = Parsed([marked(text)], toolCalls: Self.typed, isCut: isCut)
        #expect(Parsed(marked(text).map(String.init), toolCalls: Self.typed, isCut: isCut) == whole, "\(text)")
        return whole
    }

    @Test(arguments: [
        // The schema says what a value is that is marked as a string, where it allows no string.
        ("b", "true", "true", "true"), ("i", "true", "7", "7"), ("n", "true", "-1.5", "-1.5"),
        ("z", "true", "null", "null"), ("o", "true", #"{"k": 1}"#, #"{"k": 1}"#), ("l", "true", "[1, 2]", "[1, 2]"),
        ("iz", "true", "null", "null"), ("iz", "true", "7", "7"), ("all", "true", "7", "7"),
        // It stays a string if its text is no such value.
        ("i", "true", "seven", #""seven""#), ("b", "true", "0", #""0""#), ("b", "true", "True", #""True""#),
        ("l", "true", "[1, ", #""[1, ""#), ("i", "true", "[1]", #""[1]""#), ("i", "true", "", #""""#),
        // Strings that look like something else are strings.
        ("s", "true", "0", #""0""#), ("s", "true", "true", #""true""#), ("s", "true", "[1]", #""[1]""#),
        ("s", "true", #""q""#, #""\"q\"""#), ("s", "false", "0", #""0""#), ("s", "false", "[1]", #""[1]""#),
        ("s", "false", #""q""#, #""q""#), ("s", "false", "free", #""free""#), ("u", "true", "c", #""c""#),
        ("u", "false", "5", #""5""#), ("s", "other", "0", #""0""#),
        // The mark decides where the schema allows both, or says nothing.
        ("si", "true", "5", #""5""#), ("si", "false", "5", "5"), ("si", "false", "true", #""true""#),
        ("sz", "true", "null", #""null""#), ("sz", "false", "null", "null"), ("sz", "false", "5", #""5""#),
        ("v", "false", "null", "null"), ("v", "true", "null", #""null""#), ("any", "true", "5", #""5""#),
        ("x", "true", "5", #""5""#), ("x", "false", "5", "5"), ("unknown", "true", "5", #""5""#),
        ("loop", "false", "5", "5"), ("i", "false", "[1]", "[1]"), ("b", "false", #""true""#, #""true""#),
    ])
    func `values have the kinds that the tool's schema allows`(
        name: String, mark: String, value: String, expected: String
    ) {
        #expect(parseTyped(param(name, mark, value)).calls == ["f({\"\(name)\": \(expected)})"])
    }

    @Test(arguments: ["arguments", "parameters"])
    func `arguments that are all in one parameter are unwrapped`(name: String) {
        for mark in ["true", "false"] {
            #expect(parseTyped(param(name, mark, #"{"s": "0", "i": 7}"#)).calls == [#"f({"s": "0", "i": 7})"#])
            #expect(parseTyped(param(name, mark, " {} ")).calls == ["f({})"])
        }
        let body = "‹invoke name=\"f\"›{\"\(name)\": {\"s\": \"0\"}}‹/invoke›"
        #expect(parseTyped(body).calls == [#"f({"s": "0"})"#])
        // A limit may cut them.
        let opening = "‹invoke name=\"f\"›‹parameter name=\"\(name)\" string=\"false\"›"
        #expect(parseTyped(opening + #"{"s": "Par"#, isCut: true).broken == [#"f({"s": "Par"#])
        #expect(parseTyped(opening + #"{"s": "0"}‹/parameter›"#, isCut: true).broken == [#"f({"s": "0"}"#])
        #expect(parseTyped(opening + "Par", isCut: true).broken == ["f({\"\(name)\": \"Par"])
        #expect(parseTyped("‹invoke name=\"f\"›{\"s\": 1", isCut: true).broken == [#"f({"s": 1"#])
    }

    @Test(arguments: ["arguments", "parameters", "input"])
    func `a parameter that is not an object of the tool's parameters is an ordinary one`(name: String) throws {
        for (mark, value, expected) in [
            ("false", #"{"unknown": 1}"#, #"{"unknown": 1}"#), ("true", "words", #""words""#), ("false", "[1]", "[1]"),
            ("true", "{", #""{""#),
        ] {
            #expect(parseTyped(param(name, mark, value)).calls == ["f({\"\(name)\": \(expected)})"])
        }
        let both =
            "‹parameter name=\"\(name)\" string=\"false\"›{\"s\": \"0\"}‹/parameter›"
            + "‹parameter name=\"i\" string=\"false\"›7‹/parameter›"
        #expect(
            parseTyped("‹invoke name=\"f\"›\(both)‹/invoke›").calls == ["f({\"\(name)\": {\"s\": \"0\"}, \"i\": 7})"])
        // Neither a tool that has such a parameter nor one without known parameters is concerned.
        let schema = "{\"name\": \"f\", \"parameters\": {\"properties\": {\"\(name)\": {\"type\": \"object\"}}}}"
        let own = ToolParameterTypes([try ChatTool(function: JSONValue(parsing: schema))])
        let text = marked(param(name, "false", "{}"))
        #expect(Parsed([text], toolCalls: .deepSeek(.functionCalls, own)).calls == ["f({\"\(name)\": {}})"])
        #expect(Parsed([text], toolCalls: .deepSeek(.functionCalls)).calls == ["f({\"\(name)\": {}})"])
    }

    @Test func `schemas that refer to themselves in many ways are read in bounded time`() throws {
        let options = Array(repeating: ##"{"$ref": "#/properties/a"}"##, count: 200).joined(separator: ",")
        let schema = #"{"name": "f", "parameters": {"properties": {"a": {"anyOf": [\#(options)]}}}}"#
        let function = try JSONValue(parsing: schema)
        let began = threadSeconds()
        _ = ToolParameterTypes([try ChatTool(function: function)])
        #expect(threadSeconds() - began < 20)
    }
}
