import Grammar
import HTTPTypes
import Inference
import JSON
import Serving
import TestSupport
import Testing
import Tokenization

/// Tests of Anthropic's routes.
@Suite struct MessagesTests {
    private static let path = "/v1/messages"

    private static func body(_ more: String = "", messages: String = #"[{"role":"user","content":"hi"}]"#) -> String {
        #"{"model":"toy","max_tokens":1000,"messages":\#(messages)\#(more.isEmpty ? "" : ",")\#(more)}"#
    }

    private static func tokens(_ text: String) -> [Int32] {
        ToyTokenizer.shared.encode(text, allowingControlTokens: true)
    }

    private static func prompt(_ server: ToyServer) throws -> String {
        let prompt = try #require(server.engine.received.last?.prompt)
        return ToyTokenizer.shared.decode(prompt, skippingSpecialTokens: false)
    }

    private static let tools = #""tools":[{"name":"look","description":"d","input_schema":{"type":"object"}}]"#
    static let call = """
        Wait.

        <｜DSML｜function_calls>
        <｜DSML｜invoke name="look">
        <｜DSML｜parameter name="at" string="true">the sky</｜DSML｜parameter>
        </｜DSML｜invoke>
        </｜DSML｜function_calls>
        """

    @Test func `an answer has Anthropic's form`() async throws {
        let server = ToyServer("hello")
        server.engine.cachedTokens = 2
        let reply = try await server.post(Self.path, Self.body(#""system":"be brief""#))
        #expect(reply.status == 200, "\(reply.text)")
        #expect(reply.json["type"]?.string == "message" && reply.json["role"]?.string == "assistant")
        #expect(reply.json["id"]?.string?.hasPrefix("msg_") == true && reply.json["model"]?.string == "toy")
        #expect(reply.json["content"] == .array([.fields(["type": .string("text"), "text": .string("hello")])]))
        #expect(reply.json["stop_reason"]?.string == "end_turn" && reply.json["stop_sequence"]?.isNull == true)
        #expect(try Self.prompt(server).contains("be brief<｜User｜>hi<｜Assistant｜></think>"))
        let usage = try #require(reply.json["usage"])
        let count = try #require(server.engine.received.last?.prompt.count)
        #expect(usage["input_tokens"]?.integer == count - 2 && usage["cache_read_input_tokens"]?.integer == 2)
        #expect(usage["output_tokens"]?.integer == 6)
        #expect(reply.header("request-id")?.isEmpty == false)
    }

    @Test func `words between the parameters of a call come after it`() async throws {
        let call = Self.call.replacing("</｜DSML｜parameter>", with: "</｜DSML｜parameter> so be it")
        let reply = try await ToyServer { _ in Self.tokens(call) }.post(Self.path, Self.body(Self.tools))
        let content = try #require(reply.json["content"]?.array)
        #expect(content.map { $0["type"]?.string } == ["text", "tool_use", "text"], "\(reply.text)")
        #expect(content[1]["input"] == .fields(["at": .string("the sky")]))
        #expect(content[2]["text"]?.string?.contains("so be it") == true)
    }

    @Test func `a stream has Anthropic's events, and says the same as the whole answer`() async throws {
        let server = ToyServer { _ in Self.tokens("hm, </think>" + Self.call) }
        let more = #""thinking":{"type":"enabled","budget_tokens":1024},"# + Self.tools
        let whole = try await server.post(Self.path, Self.body(more))
        #expect(
            whole.json["content"]?.array?.map { $0["type"]?.string } == ["thinking", "text", "tool_use"],
            "\(whole.text)")
        #expect(whole.json["content"]?[0]?["thinking"]?.string == "hm, ")
        #expect(whole.json["content"]?[1]?["text"]?.string == "Wait.")
        #expect(whole.json["content"]?[2]?["input"] == .fields(["at": .string("the sky")]))
        #expect(whole.json["stop_reason"]?.string == "tool_use")

        let stream = try await server.post(Self.path, Self.body(more + #","stream":true"#))
        let events = stream.namedEvents
        #expect(events.allSatisfy { $0.data["type"]?.string == $0.name })
        #expect(events.first?.name == "message_start" && events.last?.name == "message_stop")
        #expect(events.first?.data["message"]?["content"] == .array([]))
        var blocks: [[JSONMember]] = []
        var json = ""
        for (name, data) in events {
            let index = data["index"]?.integer
            switch name {
            case "content_block_start":
                #expect(index == blocks.count)
                blocks.append(try #require(data["content_block"]?.object))
                json = ""
            case "content_block_delta":
                #expect(index == blocks.count - 1)
                let delta = try #require(data["delta"])
                for name in ["text", "thinking"] {
                    guard let text = delta[name]?.string else { continue }
                    let place = try #require(blocks[blocks.count - 1].firstIndex { $0.key == name })
                    blocks[blocks.count - 1][place].value = .string(
                        (blocks[blocks.count - 1][place].value.string ?? "") + text)
                }
                json += delta["partial_json"]?.string ?? ""
            case "content_block_stop":
                guard let place = blocks[blocks.count - 1].firstIndex(where: { $0.key == "input" }) else { continue }
                blocks[blocks.count - 1][place].value = try JSONValue(parsing: json)
            default: break
            }
        }
        func withoutIDs(_ blocks: [[JSONMember]]) -> [[JSONMember]] { blocks.map { $0.filter { $0.key != "id" } } }
        #expect(withoutIDs(blocks) == withoutIDs(whole.json["content"]?.array?.compactMap(\.object) ?? []))
        let end = try #require(events.first { $0.name == "message_delta" }?.data)
        #expect(end["delta"]?["stop_reason"]?.string == "tool_use")
        #expect(end["usage"]?["output_tokens"] == whole.json["usage"]?["output_tokens"])
    }

    @Test func `a conversation with tools is rendered as the chat route renders it`() async throws {
        let server = ToyServer("x")
        let messages = """
            [{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]},
             {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":""},
              {"type":"text","text":"Wait."},{"type":"tool_use","id":"t1","name":"look","input":{"at":"sky"}}]},
             {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"blue"}]}]}]
            """
        let reply = try await server.post(Self.path, Self.body(Self.tools, messages: messages))
        #expect(reply.status == 200, "\(reply.text)")
        let own = try Self.prompt(server)
        let chat = """
            {"model":"toy","messages":[{"role":"user","content":"hi"},
             {"role":"assistant","reasoning_content":"hm","content":"Wait.","tool_calls":[
              {"id":"t1","type":"function","function":{"name":"look","arguments":"{\\"at\\": \\"sky\\"}"}}]},
             {"role":"tool","tool_call_id":"t1","content":"blue"}],
             "tools":[{"type":"function","function":{"name":"look","description":"d","parameters":{"type":"object"}}}]}
            """
        #expect(try await server.post("/v1/chat/completions", chat).status == 200)
        #expect(try own == Self.prompt(server) && own.contains("<result>blue</result>"))
        let count = try await server.post(
            Self.path + "/count_tokens", #"{"model":"toy","messages":\#(messages),\#(Self.tools)}"#)
        #expect(count.json["input_tokens"]?.integer == server.engine.received.last?.prompt.count, "\(count.text)")
        #expect(server.engine.received.count == 2, "counting generates nothing")
    }

    @Test(arguments: [(#""""#, "{}"), ("null", "{}"), (#""{\"at\": 1}""#, #"{"at": 1}"#), (#""cut {""#, "cut {")])
    func `the input of an earlier call may be a text`(input: String, arguments: String) async throws {
        let server = ToyServer("x")
        let call = #"{"type":"tool_use","id":"t","name":"look","input":\#(input)}"#
        let messages = """
            [{"role":"user","content":"hi"},{"role":"assistant","content":[\(call)]},
             {"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"blue"}]}]
            """
        let reply = try await server.post(Self.path, Self.body(Self.tools, messages: messages))
        #expect(reply.status == 200, "\(reply.text)")
        let own = try Self.prompt(server)
        let chat = """
            {"model":"toy","messages":[{"role":"user","content":"hi"},{"role":"assistant","tool_calls":[
              {"id":"t","type":"function","function":{"name":"look","arguments":\(JSONValue.string(arguments).pythonText)}}]},
             {"role":"tool","tool_call_id":"t","content":"blue"}],
             "tools":[{"type":"function","function":{"name":"look","description":"d","parameters":{"type":"object"}}}]}
            """
        #expect(try await server.post("/v1/chat/completions", chat).status == 200)
        #expect(try own == Self.prompt(server) && own.contains("blue"))
    }

    @Test func `reasoning that only Anthropic can read is passed over`() async throws {
        func prompt(_ blocks: String) async throws -> String {
            let server = ToyServer("x")
            let reply = try await server.post(
                "/v1/messages",
                #"{"model":"toy","max_tokens":2,"messages":[{"role":"user","content":"a"},"#
                    + #"{"role":"assistant","content":[\#(blocks){"type":"text","text":"b"}]},{"role":"user","content":"c"}]}"#
            )
            #expect(reply.status == 200, "\(reply.text)")
            return try Self.prompt(server)
        }
        let plain = try await prompt("")
        #expect(try await prompt(#"{"type":"redacted_thinking","data":"x"},"#) == plain)
    }

    @Test func `a last message of the assistant is continued`() async throws {
        let server = ToyServer("x")
        let messages = #"[{"role":"user","content":"hi"},{"role":"assistant","content":"Sure"}]"#
        #expect(try await server.post(Self.path, Self.body(messages: messages)).status == 200)
        #expect(try Self.prompt(server).hasSuffix("Sure"))
    }

    @Test func `an answer ends at stop sequences and at the limit of tokens`() async throws {
        let server = ToyServer("one two three")
        let stopped = try await server.post(Self.path, Self.body(#""stop_sequences":["two"]"#))
        #expect(stopped.json["stop_reason"]?.string == "stop_sequence")
        #expect(stopped.json["stop_sequence"]?.string == "two")
        #expect(stopped.json["content"]?[0]?["text"]?.string == "one ")
        let short = try await server.post(
            Self.path, #"{"model":"toy","max_tokens":3,"messages":[{"role":"user","content":"hi"}]}"#)
        #expect(
            short.json["stop_reason"]?.string == "max_tokens" && short.json["content"]?[0]?["text"]?.string == "one")
    }

    @Test(arguments: [
        (#"{"type":"any"}"#, true), (#"{"type":"tool","name":"look"}"#, true), (#"{"type":"auto"}"#, false),
        (#"{"type":"none"}"#, false),
    ])
    func `tool_choice makes calls mandatory`(choice: String, isRequired: Bool) async throws {
        let server = ToyServer(Self.call)
        let reply = try await server.post(Self.path, Self.body(Self.tools + #","tool_choice":\#(choice)"#))
        #expect(reply.status == 200, "\(reply.text)")
        #expect((server.engine.received.last?.grammar != nil) == isRequired)
        #expect(try Self.prompt(server).contains("look") == !choice.contains("none"))
    }

    @Test func `an effort is that of the model's chat format`() async throws {
        func prompt(_ tokenizer: Tokenizer, _ more: String) async throws -> String {
            let server = ToyServer(tokenizer: tokenizer) { _ in [] }
            let reply = try await server.post(Self.path, Self.body(more))
            #expect(reply.status == 200, "\(reply.text)")
            let prompt = server.engine.received.last?.prompt ?? []
            let counted = try await server.post(
                Self.path + "/count_tokens", #"{"model":"toy","messages":[{"role":"user","content":"hi"}],\#(more)}"#)
            #expect(counted.json["input_tokens"]?.integer == prompt.count, "\(counted.text)")
            return tokenizer.decode(prompt, skippingSpecialTokens: false)
        }
        let thinking = #""thinking":{"type":"adaptive"}"#
        let plain = try await prompt(ToyTokenizer.v4, thinking)
        let strong = try await prompt(ToyTokenizer.v4, thinking + #","output_config":{"effort":"max"}"#)
        #expect(strong.contains("Absolute maximum") && !plain.contains("Absolute maximum"))
        // Without reasoning there is no effort.
        #expect(
            try await prompt(ToyTokenizer.v4, #""output_config":{"effort":"max"}"#)
                == prompt(ToyTokenizer.v4, #""stream":false"#))
        #expect(
            try await prompt(ToyTokenizer.shared, thinking + #","output_config":{"effort":"high"}"#)
                == prompt(ToyTokenizer.shared, thinking))
        let refused = try await ToyServer("x").post(Self.path, Self.body(#""output_config":{"effort":"max"}"#))
        #expect(refused.status == 400 && refused.message.contains("output_config.effort 'max'"), "\(refused.text)")
    }

    @Test func `the text of reasoning may be omitted`() async throws {
        let server = ToyServer { _ in Self.tokens("secret</think>open") }
        let more = #""thinking":{"type":"adaptive","display":"omitted"}"#
        let whole = try await server.post(Self.path, Self.body(more))
        #expect(whole.json["content"]?.array?.map { $0["type"]?.string } == ["thinking", "text"])
        #expect(whole.json["content"]?[0]?["thinking"]?.string?.isEmpty == true)
        let stream = try await server.post(Self.path, Self.body(more + #","stream":true"#))
        let starts = stream.namedEvents.filter { $0.name == "content_block_start" }
        #expect(starts.map { $0.data["content_block"]?["type"]?.string } == ["thinking", "text"])
        #expect(!stream.text.contains("thinking_delta") && stream.text.contains("text_delta"))
        let refused = try await server.post(Self.path, Self.body(#""thinking":{"type":"adaptive","display":"x"}"#))
        #expect(refused.status == 400 && refused.message.contains("thinking.display"))
    }

    @Test func `a system message may stand within the conversation`() async throws {
        let server = ToyServer("x")
        let messages = #"[{"role":"user","content":"hi"},{"role":"system","content":"be brief"}]"#
        #expect(try await server.post(Self.path, Self.body(messages: messages)).status == 200)
        #expect(try Self.prompt(server).hasSuffix("hi\n\nbe brief<｜Assistant｜></think>"))
    }

    @Test func `an answer can have a schema`() async throws {
        let server = ToyServer("x")
        let format = #"{"format":{"type":"json_schema","schema":{"type":"object"}}}"#
        #expect(try await server.post(Self.path, Self.body(#""output_config":\#(format)"#)).status == 200)
        #expect(server.engine.received.last?.grammar == .jsonSchema(#"{"type": "object"}"#))
    }

    @Test(arguments: [
        (#"{"model":"toy","messages":[{"role":"user","content":"hi"}]}"#, 400, "invalid_request_error", "max_tokens"),
        (#"{"model":"no","max_tokens":3,"messages":[{"role":"user","content":"hi"}]}"#, 404, "not_found_error", "no"),
        (#"{"model":"toy","max_tokens":3,"messages":[]}"#, 400, "invalid_request_error", "messages"),
        (
            #"{"model":"toy","max_tokens":3,"messages":[{"role":"user","content":[{"type":"image"}]}]}"#, 400,
            "invalid_request_error",
            "messages[0].content[0].type is 'image', which is not supported: this model reads text only"
        ),
        (
            #"{"model":"toy","max_tokens":3,"messages":[{"role":"user","content":"a"}],"tools":[{"type":"bash_20250124","name":"bash"}]}"#,
            400, "invalid_request_error", "tools[0].type"
        ),
        (
            #"{"model":"toy","max_tokens":3,"messages":[{"role":"user","content":"a"}],"tools":[{"name":"f","input_schema":[]}]}"#,
            400, "invalid_request_error", "tools[0].input_schema must be a JSON object"
        ),
        (#"{"model":"toy""#, 400, "invalid_request_error", "body"),
    ])
    func `errors have Anthropic's form`(body: String, status: Int, type: String, word: String) async throws {
        let reply = try await ToyServer("x").post(Self.path, body)
        #expect(reply.status == status && reply.json["type"]?.string == "error", "\(reply.text)")
        #expect(reply.json["error"]?["type"]?.string == type && reply.message.contains(word))
    }

    @Test func `a thread is refused with the details by which Anthropic's client goes on without one`() async throws {
        let reply = try await ToyServer("x").post(Self.path, Self.body(#""thread":{"type":"create"}"#))
        let details = reply.json["error"]?["details"]
        #expect(reply.status == 400 && details?["error_code"]?.string == "thread_unsupported_request", "\(reply.text)")
        #expect(details?["unsupported"]?.array == [.string("thread")])
        let other = try await ToyServer("x").post(Self.path, Self.body(#""mcp_servers":[{"name":"x"}]"#))
        #expect(other.status == 400 && other.json["error"]?["details"] == nil)
    }

    @Test func `a prompt that is too long is refused in words that clients know`() async throws {
        let server = ToyServer(contextLength: 16) { _ in [] }
        let long = String(repeating: "x", count: 40)
        let reply = try await server.post(
            Self.path, #"{"model":"toy","max_tokens":1,"messages":[{"role":"user","content":"\#(long)"}]}"#)
        #expect(reply.status == 400)
        #expect(reply.message.hasPrefix("prompt is too long: 45 tokens > 16 maximum"), "\(reply.message)")
    }

    @Test func `a stream that fails ends with an error event`() async throws {
        let server = ToyServer("x")
        server.engine.requestFailure = "a rank failed"
        let reply = try await server.post(Self.path, Self.body(#""stream":true"#))
        #expect(reply.namedEvents.map(\.name) == ["message_start", "error"])
        #expect(reply.namedEvents.last?.data["error"]?["type"]?.string == "api_error")
    }

    @Test func `the key may come as Anthropic's clients send it`() async throws {
        var server = ToyServer("x")
        server.configuration.apiKeys = ["k"]
        let name = try #require(HTTPField.Name("x-api-key"))
        #expect(try await server.send(.post, Self.path, Self.body(), headers: [name: "k"]).status == 200)
        let refused = try await server.send(.post, Self.path, Self.body(), headers: [name: "kk"])
        #expect(refused.status == 401 && refused.json["error"]?["type"]?.string == "authentication_error")
    }
}
