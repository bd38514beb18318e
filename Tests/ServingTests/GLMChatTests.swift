import Grammar
import Inference
import JSON
import TestSupport
import Testing
import Tokenization

/// These tests serve a model with GLM-5's chat format.
@Suite struct `A conversation with GLM` {
    private static let tools = """
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}}]
        """
    private static let call =
        "<tool_call>weather<arg_key>city</arg_key><arg_value>7</arg_value><arg_key>days</arg_key><arg_value>3</arg_value>"
        + "</tool_call>"

    private func server(_ text: String) -> ToyServer {
        ToyServer(tokenizer: ToyTokenizer.glm) { _ in ToyTokenizer.tokens(text) }
    }

    private func body(_ more: String) -> String {
        #"{"model": "toy", "messages": [{"role": "user", "content": "Hi"}], \#(more)}"#
    }

    @Test func `has reasoning, content and calls`() async throws {
        let reply = try await server("why</think>So: \(Self.call)").post("/v1/chat/completions", body(Self.tools))
        let message = reply.json["choices"]?[0]?["message"]
        #expect(message?["reasoning_content"]?.string == "why" && message?["content"]?.string == "So: ")
        let function = message?["tool_calls"]?[0]?["function"]
        #expect(function?["name"]?.string == "weather")
        #expect(function?["arguments"]?.string == #"{"city": "7", "days": 3}"#)
        #expect(reply.json["choices"]?[0]?["finish_reason"]?.string == "tool_calls")
    }

    @Test func `streams them`() async throws {
        let reply = try await server("why</think>So: \(Self.call)")
            .post("/v1/chat/completions", body(Self.tools + #", "stream": true"#))
        let deltas = reply.chunks.compactMap { $0["choices"]?[0]?["delta"] }
        #expect(deltas.compactMap { $0["reasoning_content"]?.string }.joined() == "why")
        #expect(deltas.compactMap { $0["content"]?.string }.joined() == "So: ")
        let calls = deltas.compactMap { $0["tool_calls"]?[0]?["function"] }
        #expect(calls.compactMap { $0["name"]?.string } == ["weather"])
        #expect(calls.compactMap { $0["arguments"]?.string }.joined() == #"{"city": "7", "days": 3}"#)
    }

    @Test func `thinks unless it is told not to`() async throws {
        let answer = "all of this is reasoning"
        let thinking = try await server(answer).post("/v1/chat/completions", body(#""max_tokens": 100"#))
        #expect(thinking.json["choices"]?[0]?["message"]?["reasoning_content"]?.string == answer)
        let plain = try await server(answer)
            .post("/v1/chat/completions", body(#""chat_template_kwargs": {"enable_thinking": false}"#))
        #expect(plain.json["choices"]?[0]?["message"]?["content"]?.string == answer)
    }

    private static let conversation = """
        "model": "toy", "messages": [{"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "reasoning_content": "why"}, {"role": "user", "content": "c"}]
        """

    @Test(arguments: [
        #""thinking": {"type": "enabled", "clear_thinking": false}"#,
        #""chat_template_kwargs": {"clear_thinking": false}"#,
    ])
    func `has the reasoning of earlier answers if the request keeps it`(member: String) async throws {
        func prompt(_ more: String, _ tokenizer: Tokenizer) async throws -> String {
            let server = ToyServer(tokenizer: tokenizer) { _ in ToyTokenizer.tokens("x") }
            let reply = try await server.post("/v1/chat/completions", "{\(Self.conversation)\(more)}")
            #expect(reply.status == 200, "\(reply.text)")
            return tokenizer.decode(try #require(server.engine.received.first).prompt, skippingSpecialTokens: false)
        }
        #expect(try await prompt(", \(member)", ToyTokenizer.glm).contains("<think>why</think>b"))
        let cleared = member.replacing("false", with: "true")
        for other in ["", ", \(cleared)"] {
            #expect(try await !prompt(other, ToyTokenizer.glm).contains("why"))
        }
        // DeepSeek's formats have no such switch.
        #expect(try await !prompt(", \(member)", ToyTokenizer.shared).contains("why"))
    }

    @Test(arguments: [
        #""tool_choice": "required""#, #""tool_choice": {"type": "function", "function": {"name": "weather"}}"#,
    ])
    func `has calls that the request requires`(choice: String) async throws {
        let server = server("x")
        let reply = try await server.post("/v1/chat/completions", body(Self.tools + ", " + choice))
        #expect(reply.status == 200)
        guard case .afterReasoning(.toolCalls(let source)) = server.engine.received[0].grammar else {
            Issue.record("the calls are not enforced")
            return
        }
        #expect(source.markup == .glm && source.isRequired && source.tools.map(\.name) == ["weather"])
    }
}
