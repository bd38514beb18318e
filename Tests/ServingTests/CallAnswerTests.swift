import JSON
import Testing

/// Tests of tool calls in answers: those that a model writes wrongly, and the types of arguments.
@Suite struct CallAnswerTests {
    private static let path = "/v1/chat/completions"
    private static let tools = #""tools":[{"type":"function","function":{"name":"look","parameters":{}}}]"#

    /// Returns a request of one user message with further members.
    private static func body(_ more: String) -> String {
        #"{"model":"toy","messages":[{"role":"user","content":"hi"}],\#(more)}"#
    }

    /// Two calls, the first of which has no end of its parameter.
    private static func broken(_ value: String) -> String {
        """
        Wait.

        <｜DSML｜function_calls>
        <｜DSML｜invoke name="look">
        <｜DSML｜parameter name="at" string="true">\(value)</｜DSML｜invoke>
        <｜DSML｜invoke name="look">
        <｜DSML｜parameter name="times" string="false">2</｜DSML｜parameter>
        </｜DSML｜invoke>
        </｜DSML｜function_calls>
        """
    }

    /// The other routes, with the beginnings of their requests and with tools.
    private static let dialects = [
        (
            "/v1/responses", #"{"input":"hi","model":"toy","#,
            #""tools":[{"type":"function","name":"look","parameters":{}}]"#
        ),
        (
            "/v1/messages", #"{"max_tokens":999,"messages":[{"role":"user","content":"hi"}],"model":"toy","#,
            #""tools":[{"name":"look","input_schema":{}}]"#
        ),
    ]

    @Test func `a short call that breaks is the same content in a stream and in a whole answer`() async throws {
        let server = ToyServer(Self.broken("the sky"))
        let text = Self.broken("the sky").prefix { $0 != "2" }.split(separator: "\n<｜DSML｜invoke name=\"look\">\n")
            .prefix(2).joined(separator: "\n<｜DSML｜invoke name=\"look\">\n")
        let whole = try await server.post(Self.path, Self.body(Self.tools))
        let message = try #require(whole.json["choices"]?[0]?["message"])
        let stream = try await server.post(Self.path, Self.body(Self.tools + #","stream":true"#))
        let deltas = stream.chunks.compactMap { $0["choices"]?[0]?["delta"] }
        let content = deltas.compactMap { $0["content"]?.string }.joined()
        #expect(content == text && message["content"]?.string == text, "\(whole.text)")
        let calls = deltas.compactMap { $0["tool_calls"]?[0] }
        #expect(calls.map { $0["index"]?.integer } == [0] && message["tool_calls"]?.array?.count == 1)
        #expect(calls[0]["function"] == message["tool_calls"]?[0]?["function"])
        for (path, start, tools) in Self.dialects {
            let whole = try await server.post(path, start + "\(tools)}")
            let items = try #require(whole.json[path == "/v1/responses" ? "output" : "content"]?.array)
            let texts = items.map { $0["text"]?.string ?? $0["content"]?[0]?["text"]?.string }
            #expect(texts == [text, nil], "\(whole.text)")
            let stream = try await server.post(path, start + "\"stream\":true,\(tools)}")
            let pieces = stream.namedEvents.compactMap { event in
                event.data["delta"]?.string ?? event.data["delta"]?["text"]?.string
                    ?? event.data["delta"]?["partial_json"]?.string
            }
            #expect(pieces.joined() == text + #"{"times": 2}"#)
        }
    }

    @Test func `a long call that breaks is content, and in a stream nothing of it is sent twice`() async throws {
        let sky = String(repeating: "the sky ", count: 8)
        let server = ToyServer(Self.broken(sky))
        let whole = try await server.post(Self.path, Self.body(Self.tools))
        let message = try #require(whole.json["choices"]?[0]?["message"])
        #expect(message["content"]?.string?.contains(sky) == true && message["tool_calls"]?.array?.count == 1)
        let stream = try await server.post(Self.path, Self.body(Self.tools + #","stream":true"#))
        let deltas = stream.chunks.compactMap { $0["choices"]?[0]?["delta"] }
        #expect(deltas.compactMap { $0["content"]?.string }.joined() == "Wait.")
        let calls = deltas.compactMap { $0["tool_calls"]?[0] }
        let arguments = (0...1).map { index in
            calls.filter { $0["index"]?.integer == index }.compactMap { $0["function"]?["arguments"]?.string }.joined()
        }
        #expect(arguments == [#"{"at": "\#(sky)"#, #"{"times": 2}"#])
        for (path, start, tools) in Self.dialects {
            let whole = try await server.post(path, start + "\(tools)}")
            #expect(whole.status == 200 && whole.text.ranges(of: sky).count == 1, "\(whole.text)")
            let stream = try await server.post(path, start + "\"stream\":true,\(tools)}")
            let pieces = stream.namedEvents.compactMap { event in
                event.data["delta"]?.string ?? event.data["delta"]?["text"]?.string
                    ?? event.data["delta"]?["partial_json"]?.string
            }
            #expect(pieces.joined() == #"Wait.{"at": "\#(sky){"times": 2}"#)
        }
    }

    @Test func `arguments are typed by the tool's schema, streamed and whole`() async throws {
        let schema = #"{"properties":{"at":{"type":"string"},"times":{"type":"integer"},"all":{"type":"boolean"}}}"#
        let tools = #""tools":[{"type":"function","function":{"name":"look","parameters":\#(schema)}}]"#
        func call(_ name: String, _ mark: Bool, _ value: String) -> String {
            "<｜DSML｜parameter name=\"\(name)\" string=\"\(mark)\">\(value)</｜DSML｜parameter>\n"
        }
        for (parameters, expected) in [
            (
                call("at", true, "0") + call("times", true, "2") + call("all", true, "true"),
                #"{"at": "0", "times": 2, "all": true}"#
            ),
            (call("at", false, "0"), #"{"at": "0"}"#), (call("arguments", false, #"{"at": "sky"}"#), #"{"at": "sky"}"#),
        ] {
            let server = ToyServer(
                "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"look\">\n\(parameters)</｜DSML｜invoke>\n</｜DSML｜function_calls>"
            )
            let whole = try await server.post(Self.path, Self.body(tools))
            let calls = whole.json["choices"]?[0]?["message"]?["tool_calls"]
            #expect(calls?[0]?["function"]?["arguments"]?.string == expected)
            let stream = try await server.post(Self.path, Self.body(tools + #","stream":true"#))
            let pieces = stream.chunks.compactMap {
                $0["choices"]?[0]?["delta"]?["tool_calls"]?[0]?["function"]?["arguments"]?.string
            }
            #expect(pieces.joined() == expected)
        }
    }
}
