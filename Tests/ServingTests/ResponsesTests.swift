import Grammar
import Inference
import JSON
import Serving
import TestSupport
import Testing
import Tokenization

/// Tests of OpenAI's `/v1/responses`.
@Suite struct ResponsesTests {
    private static let path = "/v1/responses"

    private static func body(_ more: String = "", input: String = #""hi""#) -> String {
        #"{"model":"toy","input":\#(input)\#(more.isEmpty ? "" : ",")\#(more)}"#
    }

    private static func tokens(_ text: String) -> [Int32] {
        ToyTokenizer.shared.encode(text, allowingControlTokens: true)
    }

    private static func prompt(_ server: ToyServer) throws -> String {
        let prompt = try #require(server.engine.received.last?.prompt)
        return ToyTokenizer.shared.decode(prompt, skippingSpecialTokens: false)
    }

    private static let tools =
        #""tools":[{"type":"function","name":"look","description":"d","parameters":{"type":"object"}}]"#

    @Test func `an answer has the form of a response`() async throws {
        let server = ToyServer("hello")
        server.engine.cachedTokens = 3
        let reply = try await server.post(
            Self.path, Self.body(#""instructions":"be brief","metadata":{"a":"b"},"temperature":0.5"#))
        #expect(reply.status == 200, "\(reply.text)")
        let json = reply.json
        #expect(json["object"]?.string == "response" && json["id"]?.string?.hasPrefix("resp_") == true)
        #expect(json["status"]?.string == "completed" && json["error"]?.isNull == true)
        #expect(json["output"]?.array?.count == 1 && json["output"]?[0]?["type"]?.string == "message")
        #expect(json["output"]?[0]?["content"]?[0]?["text"]?.string == "hello")
        #expect(json["output"]?[0]?["content"]?[0]?["type"]?.string == "output_text")
        #expect(json["instructions"]?.string == "be brief" && json["temperature"]?.double == 0.5)
        #expect(json["metadata"] == .fields(["a": .string("b")]) && json["store"]?.bool == false)
        #expect(try Self.prompt(server).contains("be brief<｜User｜>hi<｜Assistant｜></think>"))
        let usage = try #require(json["usage"])
        #expect(usage["input_tokens"]?.integer == server.engine.received[0].prompt.count)
        #expect(usage["input_tokens_details"]?["cached_tokens"]?.integer == 3)
        #expect(usage["output_tokens"]?.integer == 6)
    }

    @Test(arguments: [
        (#""temperature":0.7,"top_p":0.123456789"#, "0.7", "0.123456789"), (#""temperature":1"#, "1", "0.95"),
        (#""top_p":null"#, "0.6", "0.95"),
    ])
    func `numbers are shown as they were given`(more: String, temperature: String, topP: String) async throws {
        let server = ToyServer(defaults: SamplingDefaults(temperature: 0.6, topP: 0.95)) { _ in [] }
        let text = try await server.post(Self.path, Self.body(more)).text.replacing(" ", with: "")
        #expect(text.contains("\"temperature\":\(temperature),") && text.contains("\"top_p\":\(topP),"), "\(text)")
    }

    @Test func `a stream's events are numbered, and end with the whole response`() async throws {
        let server = ToyServer { _ in Self.tokens("hm, </think>" + MessagesTests.call) }
        let more = #""reasoning":{"effort":"high"},"# + Self.tools
        let whole = try await server.post(Self.path, Self.body(more))
        let kinds = ["reasoning", "message", "function_call"]
        #expect(whole.json["output"]?.array?.map { $0["type"]?.string } == kinds, "\(whole.text)")
        #expect(whole.json["output"]?[0]?["content"]?[0]?["text"]?.string == "hm, ")
        #expect(whole.json["output"]?[2]?["arguments"]?.string == #"{"at": "the sky"}"#)
        #expect(whole.json["output"]?[2]?["call_id"]?.string?.hasPrefix("call_") == true)
        #expect(whole.json["usage"]?["output_tokens_details"]?["reasoning_tokens"]?.integer == 4)

        let stream = try await server.post(Self.path, Self.body(more + #","stream":true"#))
        let events = stream.namedEvents
        #expect(events.map { $0.data["sequence_number"]?.integer } == Array(0..<events.count))
        #expect(events.allSatisfy { $0.data["type"]?.string == $0.name })
        #expect(events.prefix(2).map(\.name) == ["response.created", "response.in_progress"])
        #expect(events.last?.name == "response.completed")
        let output = try #require(events.last?.data["response"]?["output"]?.array)
        let done = events.filter { $0.name == "response.output_item.done" }.compactMap { $0.data["item"] }
        #expect(output == done && output.map { $0["type"]?.string } == kinds)
        for (place, item) in output.enumerated() {
            let own = events.filter { $0.data["output_index"]?.integer == place }
            let deltas = own.filter { $0.name.hasSuffix(".delta") }.compactMap { $0.data["delta"]?.string }.joined()
            #expect(deltas == item["content"]?[0]?["text"]?.string ?? item["arguments"]?.string)
            #expect(own.first?.name == "response.output_item.added")
            #expect(own.allSatisfy { $0.data["item_id"] == nil || $0.data["item_id"] == item["id"] })
            let texts = whole.json["output"]?[place]
            #expect(texts?["content"]?[0]?["text"] == item["content"]?[0]?["text"])
        }
        #expect(events.last?.data["response"]?["usage"] == whole.json["usage"])
    }

    @Test func `items of input are one conversation`() async throws {
        let server = ToyServer("x")
        let input = """
            [{"role":"developer","content":"d"},{"role":"user","content":[{"type":"input_text","text":"hi"}]},
             {"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]},
             {"type":"message","role":"assistant","id":"m","content":[{"type":"output_text","text":"Wait.","annotations":[]}]},
             {"type":"function_call","call_id":"c1","name":"look","arguments":"{\\"at\\": \\"sky\\"}","id":"fc_1"},
             {"type":"function_call","call_id":"c2","name":"look","arguments":"{}"},
             {"type":"function_call_output","call_id":"c1","output":"blue"},
             {"type":"function_call_output","call_id":"c2","output":[{"type":"input_text","text":"grey"}]}]
            """
        let reply = try await server.post(Self.path, Self.body(Self.tools, input: input))
        #expect(reply.status == 200, "\(reply.text)")
        let own = try Self.prompt(server)
        let call = #"{"id":"c1","type":"function","function":{"name":"look","arguments":"{\"at\": \"sky\"}"}}"#
        let other = #"{"id":"c2","type":"function","function":{"name":"look","arguments":"{}"}}"#
        let chat = """
            {"model":"toy","messages":[{"role":"developer","content":"d"},{"role":"user","content":"hi"},
             {"role":"assistant","reasoning_content":"hm","content":"Wait.","tool_calls":[\(call),\(other)]},
             {"role":"tool","tool_call_id":"c1","content":"blue"},{"role":"tool","tool_call_id":"c2","content":"grey"}],
             "tools":[{"type":"function","function":{"name":"look","description":"d","parameters":{"type":"object"}}}]}
            """
        #expect(try await server.post("/v1/chat/completions", chat).status == 200)
        #expect(try own == Self.prompt(server) && own.contains("<result>grey</result>"))
    }

    @Test func `an answer that the limit cuts is incomplete`() async throws {
        let reply = try await ToyServer("hello").post(Self.path, Self.body(#""max_output_tokens":2"#))
        #expect(reply.json["status"]?.string == "incomplete")
        #expect(reply.json["incomplete_details"]?["reason"]?.string == "max_output_tokens")
        #expect(reply.json["output"]?[0]?["status"]?.string == "incomplete")
        let stream = try await ToyServer("hello").post(
            Self.path, Self.body(#""max_output_tokens":2,"stream":true"#))
        #expect(stream.namedEvents.last?.name == "response.incomplete")
    }

    @Test func `text format and tool_choice constrain the answer`() async throws {
        let server = ToyServer("x")
        let format = #"{"format":{"type":"json_schema","name":"n","schema":{"type":"object"},"strict":true}}"#
        let reply = try await server.post(Self.path, Self.body(#""text":\#(format)"#))
        #expect(reply.status == 200, "\(reply.text)")
        #expect(server.engine.received.last?.grammar == .jsonSchema(#"{"type": "object"}"#))
        #expect(reply.json["text"]?["format"]?["name"]?.string == "n")
        for choice in [#""required""#, #"{"type":"function","name":"look"}"#] {
            _ = try await server.post(Self.path, Self.body(Self.tools + #","tool_choice":\#(choice)"#))
            guard case .toolCalls? = server.engine.received.last?.grammar else {
                Issue.record("no call is required by \(choice)")
                continue
            }
        }
    }

    @Test(arguments: [
        (#""tools":[{"type":"web_search"}]"#, "tools[0].type"),
        (#""tools":[{"type":"function","name":"f","strict":"yes"}]"#, "tools[0].strict"),
        (#""tools":[{"type":"function","name":"f","parameters":[]}]"#, "tools[0].parameters"),
        (#""text":{"verbosity":"low"}"#, "text.verbosity"),
        (#""reasoning":{"effort":"max"}"#, "reasoning.effort"), (#""tool_choice":"some""#, "tool_choice"),
        (#""text":{"format":{"type":"x"}}"#, "text.format"), (#""max_output_tokens":0"#, "max_output_tokens"),
        // What is only repeated is bounded.
        (#""user":"\#(String(repeating: "u", count: 513))""#, "user"),
        (#""metadata":{"a":"\#(String(repeating: "m", count: 2049))"}"#, "metadata"),
        (#""metadata":{\#((0..<17).map { "\"\($0)\":\"\"" }.joined(separator: ","))}"#, "metadata"),
    ])
    func `what is not supported is refused by name`(member: String, name: String) async throws {
        let reply = try await ToyServer("x").post(Self.path, Self.body(member))
        #expect(reply.status == 400 && reply.parameter == name, "\(reply.text)")
    }

    @Test(arguments: [
        (#"[{"type":"item_reference","id":"x"}]"#, "input[0].type"),
        (#"[{"role":"user","content":[{"type":"input_image"}]}]"#, "input[0].content[0].type"),
        (#"[{"role":"user","content":["a",{"type":"poem"}]}]"#, "input[0].content[1].type"),
        (#"[{"role":"tool","content":"x"}]"#, "input[0].role"), ("[]", "input"), ("null", "input"),
        (#"[{"type":"function_call","call_id":"c"}]"#, "input[0].name"),
    ])
    func `input that cannot be read is refused by its place`(input: String, name: String) async throws {
        let reply = try await ToyServer("x").post(Self.path, Self.body(input: input))
        #expect(reply.status == 400 && reply.parameter == name, "\(reply.text)")
    }

    @Test func `a stream that fails ends with a failed response`() async throws {
        let server = ToyServer("x")
        server.engine.requestFailure = "a rank failed"
        let last = try await server.post(Self.path, Self.body(#""stream":true"#)).namedEvents.last
        #expect(last?.name == "response.failed")
        #expect(last?.data["response"]?["error"]?["code"]?.string == "server_error")
    }
}
