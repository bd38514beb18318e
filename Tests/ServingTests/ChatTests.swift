import Grammar
import Inference
import JSON
import TestSupport
import Testing
import Tokenization

@Suite struct ChatTests {
    private static let path = "/v1/chat/completions"

    /// Returns a request of one user message with further members.
    private static func body(_ more: String = "") -> String {
        #"{"model":"toy","messages":[{"role":"user","content":"hi"}]\#(more.isEmpty ? "" : ",")\#(more)}"#
    }

    private static let tools = #""tools":[{"type":"function","function":{"name":"look","parameters":{}}}]"#
    private static let thinking = #""chat_template_kwargs":{"thinking":true}"#
    private static let call =
        """
        Wait.

        <｜DSML｜function_calls>
        <｜DSML｜invoke name="look">
        <｜DSML｜parameter name="at" string="true">the sky</｜DSML｜parameter>
        </｜DSML｜invoke>
        <｜DSML｜invoke name="look">
        <｜DSML｜parameter name="times" string="false">2</｜DSML｜parameter>
        </｜DSML｜invoke>
        </｜DSML｜function_calls>
        """

    @Test func `a conversation is answered in OpenAI's format`() async throws {
        let server = ToyServer("hello")
        server.engine.cachedTokens = 3
        let reply = try await server.post(Self.path, Self.body())
        #expect(reply.status == 200)
        #expect(reply.json["object"]?.string == "chat.completion")
        #expect(reply.json["id"]?.string?.hasPrefix("chatcmpl-") == true)
        #expect(reply.json["model"]?.string == "toy")
        #expect(reply.json["system_fingerprint"] == nil)
        let choice = try #require(reply.json["choices"]?[0])
        #expect(choice["message"]?["role"]?.string == "assistant")
        #expect(choice["message"]?["content"]?.string == "hello")
        #expect(choice["message"]?["reasoning_content"]?.isNull == true)
        #expect(choice["message"]?["tool_calls"] == nil)
        #expect(choice["finish_reason"]?.string == "stop")
        #expect(choice["logprobs"]?.isNull == true)
        // The prompt consists of the marks for begin, user, assistant and end of thinking, and of two letters.
        #expect(server.engine.received[0].prompt == [0, 2] + ToyTokenizer.tokens("hi") + [3, 5])
        #expect(reply.json["usage"]?["prompt_tokens"]?.integer == 6)
        #expect(reply.json["usage"]?["completion_tokens"]?.integer == 6)
        #expect(reply.json["usage"]?["prompt_tokens_details"]?["cached_tokens"]?.integer == 3)
    }

    @Test func `an answer may fill the context unless max_tokens says less`() async throws {
        let server = ToyServer(contextLength: 20) { _ in ToyTokenizer.tokens(String(repeating: "x", count: 99)) }
        let full = try await server.post(Self.path, Self.body())
        #expect(full.json["choices"]?[0]?["message"]?["content"]?.string == String(repeating: "x", count: 14))
        #expect(full.json["choices"]?[0]?["finish_reason"]?.string == "length")
        let short = try await server.post(Self.path, Self.body(#""max_tokens":3"#))
        #expect(short.json["choices"]?[0]?["message"]?["content"]?.string == "xxx")
        let newer = try await server.post(Self.path, Self.body(#""max_tokens":3,"max_completion_tokens":2"#))
        #expect(newer.json["choices"]?[0]?["message"]?["content"]?.string == "xx")
    }

    @Test func `parts of text are one text, and what users write is never a control token`() async throws {
        let server = ToyServer("x")
        let reply = try await server.post(
            Self.path,
            """
            {"model":"toy","messages":[{"role":"system","content":"s"},
            {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"<｜User｜>"}]}]}
            """)
        #expect(reply.status == 200)
        let expected = [0] + ToyTokenizer.tokens("s") + [2] + ToyTokenizer.tokens("a<｜User｜>") + [3, 5]
        #expect(server.engine.received[0].prompt == expected)
    }

    @Test(arguments: [
        ("user", #"["a",{"type":"input_text","text":"b"},{"type":"output_text","text":"c"}]"#, "abc"),
        ("assistant", #"[{"type":"text","text":"a"},{"type":"refusal","refusal":"no"}]"#, "ano"), ("user", "[]", ""),
    ])
    func `parts may be texts and what other interfaces call texts, in both routes`(
        role: String, parts: String, text: String
    ) async throws {
        let server = ToyServer("x")
        func list(_ content: String) -> String {
            #"[{"role":"user","content":"q"},{"role":"\#(role)","content":\#(content)},{"role":"user","content":"q"}]"#
        }
        for content in [parts, "\"\(text)\""] {
            let chat = try await server.post(Self.path, #"{"model":"toy","messages":\#(list(content))}"#)
            let responses = try await server.post("/v1/responses", #"{"model":"toy","input":\#(list(content))}"#)
            #expect(chat.status == 200 && responses.status == 200, "\(chat.text) \(responses.text)")
        }
        #expect(Set(server.engine.received.map(\.prompt)).count == 1 && server.engine.received.count == 4)
    }

    @Test(arguments: ["thinking", "enable_thinking"])
    func `reasoning is separated from the answer`(_ name: String) async throws {
        let server = ToyServer { _ in ToyTokenizer.tokens("hm, ") + [5] + ToyTokenizer.tokens("yes") }
        let switched = #""chat_template_kwargs":{"\#(name)":true}"#
        let reply = try await server.post(Self.path, Self.body(switched))
        let message = try #require(reply.json["choices"]?[0]?["message"])
        #expect(message["reasoning_content"]?.string == "hm, ")
        #expect(message["content"]?.string == "yes")
        #expect(server.engine.received[0].prompt.suffix(2) == [3, 4])
        let joined = try await server.post(Self.path, Self.body(switched + #","separate_reasoning":false"#))
        #expect(joined.json["choices"]?[0]?["message"]?["content"]?.string == "hm, </think>yes")
    }

    @Test func `tool calls become tool_calls, with ids and finish_reason tool_calls`() async throws {
        let server = ToyServer(Self.call)
        let reply = try await server.post(Self.path, Self.body(Self.tools))
        let choice = try #require(reply.json["choices"]?[0])
        #expect(choice["finish_reason"]?.string == "tool_calls")
        #expect(choice["message"]?["content"]?.string == "Wait.")
        let calls = try #require(choice["message"]?["tool_calls"]?.array)
        #expect(calls.map { $0["function"]?["arguments"]?.string } == [#"{"at": "the sky"}"#, #"{"times": 2}"#])
        #expect(calls.map { $0["function"]?["name"]?.string } == ["look", "look"])
        #expect(calls.allSatisfy { $0["type"]?.string == "function" && $0["id"]?.string?.hasPrefix("call_") == true })
        #expect(calls[0]["id"] != calls[1]["id"])
    }

    @Test func `a client that disables parallel tool calls sees only the first one`() async throws {
        let reply = try await ToyServer(Self.call).post(
            Self.path, Self.body(Self.tools + #","parallel_tool_calls":false"#))
        #expect(reply.json["choices"]?[0]?["message"]?["tool_calls"]?.array?.count == 1)
    }

    @Test func `a broken call does not take the place of the one that a client wants`() async throws {
        let broken = Self.call.replacing(#"name="at" string="true">the sky</｜DSML｜parameter>"#, with: #"name="at">"#)
        let reply = try await ToyServer(broken).post(
            Self.path, Self.body(Self.tools + #","parallel_tool_calls":false"#))
        let choice = try #require(reply.json["choices"]?[0])
        let calls = try #require(choice["message"]?["tool_calls"]?.array, "\(reply.text)")
        #expect(calls.map { $0["function"]?["arguments"]?.string } == [#"{"times": 2}"#])
        #expect(choice["finish_reason"]?.string == "tool_calls")
    }

    @Test func `without tools, or with tool_choice none, nothing is a tool call`() async throws {
        let server = ToyServer(Self.call)
        let none = try await server.post(Self.path, Self.body(Self.tools + #","tool_choice":"none""#))
        #expect(none.json["choices"]?[0]?["message"]?["content"]?.string == Self.call)
        #expect(none.json["choices"]?[0]?["finish_reason"]?.string == "stop")
        let plain = try await server.post(Self.path, Self.body())
        #expect(plain.json["choices"]?[0]?["message"]?["content"]?.string == Self.call)
        #expect(server.engine.received[0].prompt == server.engine.received[1].prompt)
    }

    @Test func `a conversation with tool results is rendered`() async throws {
        let server = ToyServer("x")
        let reply = try await server.post(
            Self.path,
            """
            {"model":"toy","messages":[{"role":"user","content":"hi"},
            {"role":"assistant","content":null,"tool_calls":[
            {"id":"call_1","type":"function","function":{"name":"look","arguments":"{\\"at\\":\\"sky\\"}"}}]},
            {"role":"tool","tool_call_id":"call_1","content":"blue"}],\(Self.tools)}
            """)
        #expect(reply.status == 200)
        let prompt = ToyTokenizer.shared.decode(server.engine.received[0].prompt, skippingSpecialTokens: false)
        #expect(prompt.contains("<result>blue</result>"))
    }

    @Test func `a conversation goes on after what a model or a tool left out or wrote wrongly`() async throws {
        let answers = [
            #"{"role":"assistant","content":null,"reasoning_content":"hm"}"#, #"{"role":"assistant"}"#,
            #"{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"look","arguments":"{\"at\": \"th"}}]}"#,
            #"{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"look","arguments":"[1]"}}]}"#,
            #"{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"look","arguments":[1]}}]}"#,
            #"{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"look","arguments":null}}]}"#,
        ]
        let result = #"{"role":"tool","tool_call_id":"1","content":null}"#
        for tokenizer in [ToyTokenizer.shared, ToyTokenizer.v4, ToyTokenizer.glm] {
            for answer in answers {
                let server = ToyServer(tokenizer: tokenizer) { _ in ToyTokenizer.tokens("x") }
                let user = #"{"role":"user","content":"hi"}"#
                let turns = [user, answer] + (answer.contains("tool_calls") ? [result] : []) + [user]
                let reply = try await server.post(
                    Self.path, #"{"model":"toy","messages":[\#(turns.joined(separator: ","))]}"#)
                #expect(reply.status == 200, "\(answer): \(reply.message)")
                let prompt = tokenizer.decode(server.engine.received[0].prompt, skippingSpecialTokens: false)
                #expect(!answer.contains("[1]") || prompt.contains("[1]"))
            }
        }
    }

    @Test(arguments: [7, 12])
    func `a call that max_tokens cuts is returned as far as it got`(_ kept: Int) async throws {
        let opening = "\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"look\">\n"
        let text = opening + "<｜DSML｜parameter name=\"at\" string=\"true\">the whole sky"
        let cut = kept == 7 ? opening + "<｜DSML｜par" : text
        let server = ToyServer { _ in ToyTokenizer.tokens(text + "…</｜DSML｜parameter>") }
        let limit = #","max_tokens":\#(cut.utf8.count)"#
        let reply = try await server.post(Self.path, Self.body(Self.tools + limit))
        let choice = try #require(reply.json["choices"]?[0])
        #expect(choice["finish_reason"]?.string == "length" && choice["message"]?["content"]?.isNull == true)
        let function = choice["message"]?["tool_calls"]?[0]?["function"]
        let arguments = kept == 7 ? "" : #"{"at": "the whole sky"#
        #expect(function?["name"]?.string == "look" && function?["arguments"]?.string == arguments)
        let stream = try await server.post(Self.path, Self.body(Self.tools + limit + #","stream":true"#))
        let deltas = stream.chunks.compactMap { $0["choices"]?[0]?["delta"] }
        #expect(deltas.allSatisfy { $0["content"]?.string ?? "" == "" })
        let pieces = deltas.compactMap { $0["tool_calls"]?[0]?["function"] }
        #expect(pieces.first?["name"]?.string == "look")
        #expect(pieces.compactMap { $0["arguments"]?.string }.joined() == arguments)
    }

    @Test func `DeepSeek-V4 has efforts, tasks, reminders and its own markup`() async throws {
        let call = Self.call.replacing("function_calls", with: "tool_calls")
        func server() -> ToyServer { ToyServer(tokenizer: ToyTokenizer.v4) { _ in ToyTokenizer.tokens(call) } }
        func prompt(_ more: String) async throws -> String {
            let server = server()
            let reply = try await server.post(Self.path, Self.body(more))
            #expect(reply.status == 200, "\(more): \(reply.message)")
            return ToyTokenizer.v4.decode(server.engine.received[0].prompt, skippingSpecialTokens: false)
        }
        let plain = "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜>"
        #expect(try await prompt(#""user":"x""#) == plain + "</think>")
        #expect(try await prompt(#""reasoning_effort":"none""#) == plain + "</think>")
        #expect(try await prompt(#""reasoning_effort":"high""#) == plain + "<think>")
        #expect(try await prompt(#""chat_template_kwargs":{"reasoning_effort":"low"}"#) == plain + "<think>")
        // SGLang's clients may give the task of the last message beside the messages.
        #expect(try await prompt(#""task":"query""#).hasSuffix("hi<｜query｜>"))
        let most = try await prompt(#""reasoning_effort":"max""#)
        #expect(most.contains("Reasoning Effort: Absolute maximum") && most.hasSuffix("<think>"))
        #expect(try await prompt(#""reasoning_effort":"max","thinking":{"type":"disabled"}"#) == plain + "</think>")
        for (wrong, parameter) in [
            (#""reasoning_effort":"much""#, "reasoning_effort"),
            (#""reasoning_effort":"none","thinking":{"type":"enabled"}"#, "reasoning_effort"),
        ] {
            let reply = try await server().post(Self.path, Self.body(wrong))
            #expect(reply.status == 400 && reply.parameter == parameter, "\(reply.message)")
        }
        let asking = server()
        let reply = try await asking.post(
            Self.path,
            #"{"model":"toy","messages":[{"role":"latest_reminder","content":"R"},"#
                + #"{"role":"user","content":"q","task":"query"}],"tool_choice":"required",\#(Self.tools)}"#)
        #expect(reply.json["choices"]?[0]?["message"]?["tool_calls"]?.array?.count == 2, "\(reply.message)")
        let asked = ToyTokenizer.v4.decode(asking.engine.received[0].prompt, skippingSpecialTokens: false)
        #expect(asked.hasSuffix("<｜latest_reminder｜>R<｜User｜>q<｜query｜>"))
        guard case .toolCalls(let source) = asking.engine.received[0].grammar else {
            Issue.record("the calls are not enforced")
            return
        }
        #expect(source.markup == .deepSeekV4)
        let wrong = try await server().post(
            Self.path, #"{"model":"toy","messages":[{"role":"user","content":"q","task":"nap"}]}"#)
        #expect(wrong.status == 400 && wrong.parameter == "messages[0].task")
        for older in [#"{"role":"user","content":"q","task":"query"}"#, #"{"role":"latest_reminder","content":"q"}"#] {
            let reply = try await ToyServer("x").post(Self.path, #"{"model":"toy","messages":[\#(older)]}"#)
            #expect(reply.status == 400 && reply.parameter == "messages[0]")
        }
    }

    @Test func `a final message of the assistant can be continued`() async throws {
        let server = ToyServer("x")
        _ = try await server.post(
            Self.path,
            """
            {"model":"toy","continue_final_message":true,
            "messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"he"}]}
            """)
        #expect(server.engine.received[0].prompt.suffix(2) == ToyTokenizer.tokens("he").suffix(2))
    }

    @Test func `log-probabilities list every token with its bytes and its alternatives`() async throws {
        let server = ToyServer("é")
        let reply = try await server.post(Self.path, Self.body(#""logprobs":true,"top_logprobs":2,"max_tokens":2"#))
        let entries = try #require(reply.json["choices"]?[0]?["logprobs"]?["content"]?.array)
        #expect(entries.map { $0["bytes"]?.integers } == [[0xC3], [0xA9]])
        #expect(entries.map { $0["token"]?.string } == ["\u{FFFD}", "\u{FFFD}"])
        #expect(entries[0]["logprob"]?.double == Double(ToyEngine.logProb(of: 256 + 0xC3)))
        #expect(entries[0]["top_logprobs"]?.array?.map { $0["bytes"]?.integers } == [[0xC3], [0xC4]])
        let bare = try await server.post(Self.path, Self.body(#""logprobs":true,"max_tokens":1"#))
        #expect(bare.json["choices"]?[0]?["logprobs"]?["content"]?[0]?["top_logprobs"]?.array?.isEmpty == true)
    }

    // MARK: - Streams

    @Test func `a stream begins with the role and ends with the finish reason, the usage and DONE`() async throws {
        let reply = try await ToyServer("ab").post(
            Self.path, Self.body(#""stream":true,"stream_options":{"include_usage":true}"#))
        #expect(reply.header("Content-Type") == "text/event-stream; charset=utf-8")
        #expect(reply.events.last == "[DONE]")
        let chunks = reply.chunks
        #expect(chunks.allSatisfy { $0["object"]?.string == "chat.completion.chunk" })
        #expect(Set(chunks.map { $0["id"]?.string }).count == 1)
        #expect(chunks.count == 5)
        let choices = chunks.compactMap { $0["choices"]?[0] }
        #expect(choices[0]["delta"]?["role"]?.string == "assistant")
        #expect(choices[1...2].map { $0["delta"]?["content"]?.string } == ["a", "b"])
        #expect(choices[0...2].allSatisfy { $0["finish_reason"]?.isNull == true })
        #expect(choices[3]["delta"]?.object?.isEmpty == true)
        #expect(choices[3]["finish_reason"]?.string == "stop")
        #expect(chunks[0...3].allSatisfy { $0["usage"]?.isNull == true })
        #expect(chunks[4]["choices"]?.array?.isEmpty == true)
        #expect(chunks[4]["usage"]?["completion_tokens"]?.integer == 3)
    }

    @Test func `a stream has no usage unless the request asks for it`() async throws {
        let reply = try await ToyServer("ab").post(Self.path, Self.body(#""stream":true"#))
        #expect(reply.chunks.allSatisfy { $0["usage"] == nil })
    }

    @Test func `streamed reasoning, content and tool calls add up to the whole message`() async throws {
        // A call is streamed once its values have so many bytes that it is one.
        let sky = String(repeating: "the sky ", count: 16)
        let call = Self.call.replacing("the sky", with: sky)
        let server = ToyServer { _ in ToyTokenizer.tokens("hm 👍") + [5] + ToyTokenizer.tokens(call) }
        let reply = try await server.post(Self.path, Self.body("\(Self.tools),\(Self.thinking),\"stream\":true"))
        let deltas = reply.chunks.compactMap { $0["choices"]?[0]?["delta"] }
        #expect(deltas.compactMap { $0["reasoning_content"]?.string }.joined() == "hm 👍")
        #expect(deltas.compactMap { $0["content"]?.string }.joined() == "Wait.")
        let calls = deltas.compactMap { $0["tool_calls"]?.array }.joined()
        // Each call begins with its id and name, and its arguments follow as they come.
        #expect(calls.filter { $0["id"] != nil }.map { $0["index"]?.integer } == [0, 1])
        #expect(calls.compactMap { $0["function"]?["name"]?.string } == ["look", "look"])
        let arguments = (0...1).map { index in
            calls.filter { $0["index"]?.integer == index }.compactMap { $0["function"]?["arguments"]?.string }.joined()
        }
        #expect(arguments == [#"{"at": "\#(sky)"}"#, #"{"times": 2}"#] && calls.count > 10)
        #expect(reply.chunks.last?["choices"]?[0]?["finish_reason"]?.string == "tool_calls")
    }

    @Test func `several choices stream under their own index`() async throws {
        let server = ToyServer { ToyTokenizer.tokens(String(repeating: "x", count: Int($0.sampling.seed))) }
        let reply = try await server.post(Self.path, Self.body(#""stream":true,"n":3,"seed":1"#))
        for index in 0..<3 {
            let own = reply.chunks.compactMap { $0["choices"]?[0] }.filter { $0["index"]?.integer == index }
            #expect(own.first?["delta"]?["role"]?.string == "assistant")
            let text = own.compactMap { $0["delta"]?["content"]?.string }.joined()
            #expect(text == String(repeating: "x", count: index + 1))
            #expect(own.last?["finish_reason"]?.string == "stop")
        }
    }

    @Test func `every token's log-probability is streamed once, even if its text is held back`() async throws {
        let server = ToyServer("aEN")
        let reply = try await server.post(
            Self.path, Self.body(#""stream":true,"logprobs":true,"stop":"END""#))
        let entries = reply.chunks.compactMap { $0["choices"]?[0]?["logprobs"]?["content"]?.array }.joined()
        #expect(entries.compactMap { $0["token"]?.string } == ["a", "E", "N", "<｜end▁of▁sentence｜>"])
        let text = reply.chunks.compactMap { $0["choices"]?[0]?["delta"]?["content"]?.string }.joined()
        #expect(text == "aEN")
    }

    // MARK: - Refusals

    static let refused: [(body: String, parameter: String)] = [
        (#"{"model":"toy"}"#, "messages"),
        (#"{"model":"toy","messages":[]}"#, "messages"),
        (#"{"model":"toy","messages":"hi"}"#, "messages"),
        (#"{"model":"toy","messages":["hi"]}"#, "messages[0]"),
        (#"{"model":"toy","messages":[{"content":"hi"}]}"#, "messages[0].role"),
        (#"{"model":"toy","messages":[{"role":"robot","content":"hi"}]}"#, "messages[0].role"),
        (#"{"model":"toy","messages":[{"role":"user"}]}"#, "messages[0].content"),
        (#"{"model":"toy","messages":[{"role":"user","content":5}]}"#, "messages[0].content"),
        (#"{"model":"toy","messages":[{"role":"user","content":[5]}]}"#, "messages[0].content[0]"),
        (
            #"{"model":"toy","messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#,
            "messages[0].content[0].type"
        ),
        (#"{"model":"toy","messages":[{"role":"user","content":[{"text":"a"}]}]}"#, "messages[0].content[0].type"),
        (
            #"{"model":"toy","messages":[{"role":"user","content":["a",{"type":"text","refusal":"b"}]}]}"#,
            "messages[0].content[1].text"
        ),
        (
            #"{"model":"toy","messages":[{"role":"user","content":"a"},{"role":"tool","content":"b"}]}"#,
            "messages[1]"
        ),
        (body(#""max_tokens":0"#), "max_tokens"),
        (body(#""max_tokens":99999"#), "messages"),
        (body(#""top_logprobs":2"#), "top_logprobs"),
        (body(#""logprobs":true,"top_logprobs":21"#), "top_logprobs"),
        (body(#""logprobs":3"#), "logprobs"),
        (body(#""response_format":{"type":"xml"}"#), "response_format"),
        (body(#""response_format":{}"#), "response_format"),
        (body(#""response_format":{"type":"json_schema","json_schema":{}}"#), "response_format"),
        (body(#""response_format":"json""#), "response_format"),
        (body(#""tool_choice":"required""#), "tool_choice"),
        (body(#""tool_choice":"sometimes",\#(tools)"#), "tool_choice"),
        (body(#""tool_choice":{"type":"function","function":{"name":"jump"}},\#(tools)"#), "tool_choice"),
        (body(#""tool_choice":{"type":"function"},\#(tools)"#), "tool_choice"),
        (
            body(#""response_format":{"type":"json_schema","json_schema":{"schema":{"contains":{}}}}"#),
            "response_format"
        ),
        (body(#""response_format":{"type":"json_object"},"regex":"a""#), "regex"),
        (body(#""guided_choice":[]"#), "guided_choice"), (body(#""guided_json":5"#), "guided_json"),
        (body(#""guided_regex":"(?=a)""#), "guided_regex"), (body(#""guided_grammar":"root ::= x""#), "guided_grammar"),
        (body(#""ebnf":"x""#), "ebnf"), (body(#""json_schema":"{""#), "json_schema"),
        (body(#""structured_outputs":{"regex":"("}"#), "structured_outputs.regex"),
        (body(#""structured_outputs":{"structural_tag":"x"}"#), "structured_outputs.structural_tag"),
        (body(#""structured_outputs":{}"#), "structured_outputs"),
        (body(#""structured_outputs":{"jsn":{}}"#), "structured_outputs.jsn"),
        (body(#""structured_outputs":{"json":null}"#), "structured_outputs"),
        (body(#""structured_outputs":{"json_object":false}"#), "structured_outputs"),
        (body(#""tools":[\#(tool("a")),\#(tool("a"))]"#), "tools"),
        (body(#""tools":[\#(tool("a<b"))]"#), "tools"),
        (body(#""structural_tag":"x""#), "structural_tag"), (body(#""stop_regex":"x""#), "stop_regex"),
        (body(#""tool_choice":{"type":"function","function":{"name":"look"}}"#), "tool_choice"),
        (body(#""tools":{}"#), "tools"),
        (body(#""tools":[{"type":"web_search"}]"#), "tools[0].type"),
        (body(#""tools":[{"type":"function"}]"#), "tools[0].function"),
        (body(#""tools":[{"type":"function","function":{}}]"#), "tools[0].function"),
        (
            body(#""tools":[{"type":"function","function":{"name":"a","strict":"yes"}}]"#),
            "tools[0].function.strict"
        ),
        (
            body(#""tools":[{"type":"function","function":{"name":"a","parameters":[]}}]"#),
            "tools[0].function.parameters"
        ),
        (
            body(#""tools":[{"type":"function","function":{"name":"a","parameters":"{}"}}]"#),
            "tools[0].function.parameters"
        ),
        (
            body(#""tools":[{"type":"function","function":{"name":"a","description":5}}]"#),
            "tools[0].function.description"
        ),
        (body(#""chat_template_kwargs":{"evil":true}"#), "chat_template_kwargs.evil"),
        (body(#""thinking":{"type":"enabled","clear_thinking":1}"#), "thinking.clear_thinking"),
        (body(#""chat_template_kwargs":{"thinking":"yes"}"#), "chat_template_kwargs.thinking"),
        (body(#""chat_template_kwargs":{"clear_thinking":"no"}"#), "chat_template_kwargs.clear_thinking"),
        (body(#""reasoning_effort":"max""#), "reasoning_effort"),
        (body(#""functions":[{"name":"look"}]"#), "functions"),
        (body(#""temperature":3"#), "temperature"),
        (body(#""stop":[""]"#), "stop"),
        (body(#""n":129"#), "n"),
    ]

    private static func tool(_ name: String) -> String { #"{"type":"function","function":{"name":"\#(name)"}}"# }

    @Test(arguments: [
        (#""response_format":{"type":"json_schema"}"#, "response_format.json_schema is missing"),
        (
            #""response_format":{"type":"json_schema","json_schema":{}}"#,
            "response_format.json_schema.schema is missing"
        ),
        (#""structured_outputs":{"jsn":{}}"#, "use one of json, regex, choice, grammar, json_object"),
        (#""tools":[\#(tool("a")),\#(tool("a"))]"#, "two tools have the name 'a'"),
        (
            #""messages":[{"role":"user","content":[{"type":"image_url"}]}]"#,
            "this model reads text only; leave images out"
        ),
        (#""messages":[{"role":"user","content":[{"type":"input_audio"}]}]"#, "leave audio out"),
        (#""messages":[{"role":"user","content":[{"type":"poem"}]}]"#, "use text, input_text, output_text or refusal"),
        (#""messages":[{"role":"user","content":[{"type":"poem"}]}]"#, "poem"),
    ])
    func `a refusal names what is missing or wrong`(_ more: String, _ words: String) async throws {
        let body = more.contains("messages") ? #"{"model":"toy",\#(more)}"# : Self.body(more)
        let reply = try await ToyServer("x").post(Self.path, body)
        #expect(reply.status == 400 && reply.message.contains(words), "\(reply.text)")
    }

    @Test(arguments: refused)
    func `an invalid conversation is refused with the name of the invalid member`(_ body: String, _ parameter: String)
        async throws
    {
        let server = ToyServer("x")
        let reply = try await server.post(Self.path, body)
        #expect(reply.status == 400)
        #expect(reply.parameter == parameter)
        #expect(server.engine.received.isEmpty)
    }

    @Test(
        arguments: [
            (#""response_format":{"type":"json_object"}"#, GrammarSource.jsonObject),
            (
                #""response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"null"}}}"#,
                .jsonSchema(#"{"type": "null"}"#)
            ),
            (#""guided_json":"true""#, .jsonSchema("true")), (#""guided_choice":["a","b"]"#, .choice(["a", "b"])),
            (#""guided_regex":"a+""#, .pattern("a+")), (#""guided_grammar":"root ::= \"a\"""#, .ebnf("root ::= \"a\"")),
            (#""regex":"a+""#, .pattern("a+")), (#""structured_outputs":{"json_object":true}"#, .jsonObject),
            (#""structured_outputs":{"choice":["a"]},\#(thinking)"#, .afterReasoning(.choice(["a"]))),
            (#""tool_choice":"required",\#(tools)"#, .toolCalls(calls(isRequired: true))),
            (
                #""tool_choice":"required","parallel_tool_calls":false,\#(tools)"#,
                .toolCalls(calls(isRequired: true, allowsSeveral: false))
            ),
            (
                #""tool_choice":{"type":"function","function":{"name":"look"}},\#(tools)"#,
                .toolCalls(calls(isRequired: true, allowsSeveral: false))
            ),
            (
                #""response_format":{"type":"json_object"},\#(tools)"#,
                .toolCalls(calls(isRequired: false, answer: #"{"type": "object"}"#))
            ),
        ] as [(String, GrammarSource)])
    func `an answer follows the form that the request requires`(_ more: String, _ source: GrammarSource) async throws {
        let server = ToyServer("x")
        #expect(try await server.post(Self.path, Self.body(more)).status == 200)
        #expect(server.engine.received[0].grammar == source)
        #expect(!server.engine.received[0].sampling.stopTokens.isEmpty)
    }

    private static func calls(
        isRequired: Bool, allowsSeveral: Bool = true, answer: String? = nil
    ) -> ToolCallSource {
        ToolCallSource(
            tools: [ToolCallSource.Tool(name: "look", parameters: "{}", isStrict: false)], isRequired: isRequired,
            allowsSeveral: allowsSeveral, answerSchema: answer)
    }

    @Test func `tools alone do not restrict the answer, strict ones do, and an end is always possible`() async throws {
        let server = ToyServer("x")
        _ = try await server.post(Self.path, Self.body(Self.tools))
        let strict = #""ignore_eos":true,"tools":[{"type":"function","function":{"name":"look","strict":true}}]"#
        _ = try await server.post(Self.path, Self.body(strict))
        #expect(server.engine.received[0].grammar == nil)
        let tool = ToolCallSource.Tool(name: "look", parameters: nil, isStrict: true)
        let expected = ToolCallSource(tools: [tool], isRequired: false, allowsSeveral: true)
        #expect(server.engine.received[1].grammar == .toolCalls(expected))
        #expect(!server.engine.received[1].sampling.stopTokens.isEmpty)
    }

    @Test(arguments: [#""response_format":{"type":"text"}"#, #""tool_choice":"auto""#, #""reasoning_effort":null"#])
    func `members that change nothing are accepted`(_ more: String) async throws {
        #expect(try await ToyServer("x").post(Self.path, Self.body(more)).status == 200)
    }
}
