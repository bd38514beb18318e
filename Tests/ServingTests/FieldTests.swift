import Grammar
import HTTPTypes
import Inference
import JSON
import TestSupport
import Testing
import Tokenization

/// A valid body for each route, to which a test adds a member.
private struct Body {
    let path: String
    private let members: String
    private let inner: String?

    static let chat = Body(
        "/v1/chat/completions", #""model":"toy","messages":[{"role":"user","content":"hi"}],"max_tokens":2"#)
    static let completion = Body("/v1/completions", #""model":"toy","prompt":"hi","max_tokens":2"#)
    static let generate = Body("/generate", #""text":"hi","sampling_params":{"max_new_tokens":2}"#)
    static let sampling = Body("/generate", #""text":"hi""#, inner: #""max_new_tokens":2"#)
    static let tokenize = Body("/tokenize", #""prompt":"hi""#)
    static let tokenizedChat = Body("/tokenize", #""messages":[{"role":"user","content":"hi"}]"#)
    static let messages = Body(
        "/v1/messages", #""model":"toy","messages":[{"role":"user","content":"hi"}],"max_tokens":2"#)
    static let responses = Body("/v1/responses", #""model":"toy","input":"hi","max_output_tokens":2"#)
    static let all: [String: Body] = [
        "chat": chat, "completion": completion, "generate": generate, "sampling": sampling, "tokenize": tokenize,
        "messages": messages, "responses": responses,
    ]

    private init(_ path: String, _ members: String, inner: String? = nil) {
        (self.path, self.members, self.inner) = (path, members, inner)
    }

    func with(_ member: String) -> String {
        if let inner { return "{\(members),\"sampling_params\":{\(inner),\(member)}}" }
        return "{\(members),\(member)}"
    }
}

@Suite struct `Members of a request` {
    @Test(arguments: [
        ("chat", #""system":"a""#), ("chat", #""instructions":"a""#), ("chat", #""max_output_tokens":3"#),
        ("completion", #""system":"a""#), ("completion", #""input":"a""#), ("completion", #""max_output_tokens":3"#),
        ("chat", #""structural_tag":"a""#), ("chat", #""stop_regex":"a""#),
        ("chat", #""reasoning_effort":"max""#), ("chat", #""think":true"#), ("chat", #""thinking_mode":"on""#),
        ("chat", #""guided_decoding_disable_any_whitespace":true"#), ("chat", #""grammar":"root ::= a""#),
        ("responses", #""guided_whitespace_pattern":"[ ]""#), ("messages", #""guided_whitespace_pattern":"[ ]""#),
        ("responses", #""guided_decoding_disable_any_whitespace":true"#), ("chat", #""web_search_options":{}"#),
        ("chat", #""enable_search":true"#), ("chat", #""data_sources":[{"type":"x"}]"#),
        ("chat", #""do_sample":false"#), ("completion", #""num_beams":4"#), ("messages", #""max_length":5"#),
        ("completion", #""num_return_sequences":2"#), ("chat", #""random_seed":5"#), ("responses", #""mirostat":2"#),
        ("chat", #""guided_options_request":{"guided_json":{}}"#), ("chat", #""format":"json""#),
        ("chat", #""extra_body":{"top_k":1}"#), ("completion", #""extra_body":{"top_k":1}"#),
        ("messages", #""n":2"#), ("messages", #""stop":["a"]"#), ("messages", #""mcp_servers":[{"name":"x"}]"#),
        ("messages", #""container":"c""#), ("messages", #""response_format":{"type":"json_object"}"#),
        ("messages", #""kv_transfer_params":{"a":1}"#), ("messages", #""logprobs":true"#),
        ("messages", #""context_management":{"edits":[{"type":"clear_tool_uses_20250919"}]}"#),
        ("responses", #""background":true"#), ("responses", #""previous_response_id":"resp_1""#),
        ("responses", #""conversation":"conv_1""#), ("responses", #""prompt":{"id":"p"}"#),
        ("responses", #""truncation":"auto""#), ("responses", #""max_tokens":3"#), ("responses", #""messages":[]"#),
        ("responses", #""response_format":{"type":"json_object"}"#), ("responses", #""top_logprobs":3"#),
        ("responses", #""include":["message.output_text.logprobs"]"#), ("responses", #""bootstrap_room":7"#),
        ("responses", #""include":["reasoning.encrypted_content","usage"]"#), ("responses", #""include":[1]"#),
        ("chat", #""functions":[{"name":"f"}]"#), ("chat", #""modalities":["text","audio"]"#),
        ("chat", #""allowed_token_ids":[1]"#), ("chat", #""bad_words":["a"]"#), ("chat", #""max_new_tokens":1"#),
        ("chat", #""prompt":"x""#), ("chat", #""prompt_logprobs":1"#), ("chat", #""bootstrap_room":7"#),
        ("chat", #""kv_transfer_params":{"do_remote_decode":true}"#), ("chat", #""lora_path":"x""#),
        ("chat", #""return_token_ids":true"#), ("chat", #""truncate_prompt_tokens":3"#), ("chat", #""echo":true"#),
        ("chat", #""use_beam_search":true"#), ("chat", #""length_penalty":1.5"#), ("chat", #""priority":3"#),
        ("chat", #""add_generation_prompt":false"#), ("chat", #""stop_sequences":["a"]"#),
        ("completion", #""best_of":4"#), ("chat", #""best_of":4"#), ("messages", #""best_of":2"#),
        ("responses", #""best_of":2"#), ("completion", #""suffix":"x""#), ("completion", #""messages":[]"#),
        ("completion", #""min_new_tokens":1"#), ("completion", #""prompt_embeds":"x""#),
        ("generate", #""max_new_tokens":1"#), ("generate", #""temperature":0"#), ("generate", #""lora_path":"x""#),
        ("generate", #""regex":"a""#),
        ("generate", #""bootstrap_host":"h""#), ("generate", #""return_hidden_states":true"#),
        ("generate", #""image_data":"x""#), ("generate", #""token_ids_logprob":[1]"#), ("generate", #""prompt":"x""#),
        ("sampling", #""max_tokens":3"#),
        ("sampling", #""custom_params":{"a":1}"#), ("sampling", #""temprature":1"#), ("sampling", #""stop_regex":"a""#),
        ("messages", #""output_config":{"task_budget":{"type":"tokens","total":9}}"#),
        ("messages", #""thread":{"type":"create"}"#), ("chat", #""web_search_options":{}"#),
        ("chat", #""function_call":"auto""#), ("chat", #""typical_p":0.9"#), ("sampling", #""top_a":0.1"#),
        ("messages", #""enable_thinking":true"#), ("messages", #""reasoning_effort":"high""#),
        ("chat", #""options":{"num_ctx":9}"#), ("chat", #""repeat_penalty":1.1"#), ("chat", #""task":"query""#),
        ("chat", #""watermarking":true"#), ("chat", #""repetition_detection":{"max_pattern_size":3}"#),
        ("chat", #""return_prompt_text":true"#), ("chat", #""return_meta_info":true"#),
        ("chat", #""ec_transfer_params":{"a":1}"#), ("completion", #""enable_thinking":true"#),
        ("completion", #""n_predict":3"#), ("generate", #""chat_template_kwargs":{"thinking":true}"#),
        ("generate", #""grammar":"root ::= a""#), ("generate", #""return_sampling_mask":true"#),
        ("generate", #""max_thinking_tokens":3"#), ("generate", #""multi_item_delimiter_indices":[1]"#),
        ("responses", #""previous_input_messages":[{"role":"user"}]"#),
        ("tokenize", #""return_token_strs":true"#), ("tokenize", #""messages":[{"role":"user","content":"x"}]"#),
    ])
    func `that are unsupported and change the answer are refused by name`(place: String, member: String) async throws {
        let body = try #require(Body.all[place])
        let reply = try await ToyServer("x").post(body.path, body.with(member))
        let name = try #require(member.split(separator: "\"").first.map(String.init))
        let path = place == "sampling" ? "sampling_params." + name : name == "task" ? "messages[0]" : name
        // Anthropic's form of errors names no member apart from the message.
        #expect(reply.status == 400 && (reply.parameter == path || place == "messages"), "\(reply.text)")
        #expect(reply.message.contains(name))
    }

    @Test(arguments: [
        ("chat", #""user":"u","metadata":{"a":"b"},"store":true,"service_tier":"auto","safety_identifier":"s""#),
        ("chat", #""prompt_cache_key":"k","prediction":{"type":"content","content":"x"},"request_id":"r""#),
        ("chat", #""response_format":{"type":"text"},"modalities":["text"],"verbosity":"medium""#),
        ("chat", #""use_beam_search":false,"length_penalty":1.0,"priority":0,"echo":false,"best":"unknown""#),
        ("chat", #""guided_json":null,"regex":null,"lora_path":null,"reasoning_effort":null"#),
        (
            "chat",
            #""add_generation_prompt":true,"include_reasoning":true,"stream_reasoning":true,"return_token_ids":false"#
        ),
        ("chat", #""session_id":"s","routed_dp_rank":0,"ngram_corpus_id":"c","mm_hashes":["a"],"watermarking":false"#),
        ("messages", #""thinking":{"type":"enabled","budget_tokens":1024,"display":"summarized"},"output_config":{}"#),
        ("completion", #""best_of":1,"suffix":"","use_beam_search":false,"bad_words":[],"user":"u""#),
        ("completion", #""enable_thinking":false,"chat_template_kwargs":{},"truncation_side":"left""#),
        (
            "generate",
            #""lora_path":null,"return_hidden_states":false,"data_parallel_rank":0,"model":"x","log_metrics":true,"background":false"#
        ),
        ("sampling", #""stop_regex":[],"structural_tag":"","typical_p":1,"top_a":0.0,"min_length":0"#),
        ("chat", #""functions":[],"function_call":"none","stop_sequences":[],"stop_regex":[],"logprob_token_ids":[]"#),
        ("messages", #""stop":[],"grammar":"","thread":null"#), ("generate", #""stop_regex":[],"regex":"""#),
        ("sampling", #""spaces_between_special_tokens":false,"regex":null,"stream_interval":4,"custom_params":null"#),
        ("tokenize", #""model":"toy","return_token_strs":false"#),
        ("chat", #""best_of":1,"do_sample":true,"num_beams":1,"enable_search":false,"web_search_options":null"#),
        ("chat", #""thinking":{"type":"enabled","budget_tokens":null,"display":"summarized"}"#),
        ("responses", #""reasoning":{"effort":"high","summary":"auto"}"#),
        ("chat", #""guided_decoding_disable_fallback":true,"guided_decoding_disable_any_whitespace":false"#),
        (
            "messages",
            #""metadata":{"user_id":"u"},"service_tier":"auto","context_management":{"edits":[{"type":"clear_thinking_20251015","keep":"all"}]}"#
        ),
        (
            "responses",
            #""store":true,"background":false,"previous_response_id":null,"include":["reasoning.encrypted_content"],"metadata":{}"#
        ),
    ])
    func `that change nothing are accepted`(place: String, members: String) async throws {
        let body = try #require(Body.all[place])
        let reply = try await ToyServer("x").post(body.path, body.with(members))
        #expect(reply.status == 200, "\(reply.text)")
    }

    @Test(arguments: ["enabled", "disabled"]) func `thinking is DeepSeek's own switch`(type: String) async throws {
        let server = ToyServer("x")
        let chat = #"{"model":"toy","messages":[{"role":"user","content":"hi"}],"thinking":{"type":"\#(type)"}"#
        #expect(try await server.post("/v1/chat/completions", chat + "}").status == 200)
        let prompt = try #require(server.engine.received.first?.prompt)
        #expect(
            ToyTokenizer.shared.decode(prompt, skippingSpecialTokens: false)
                .hasSuffix(type == "enabled" ? "<think>" : "</think>"))
        let opposite = try await server.post(
            "/v1/chat/completions", chat + #","chat_template_kwargs":{"thinking":\#(type == "disabled")}}"#)
        #expect(opposite.status == 400 && opposite.parameter == "chat_template_kwargs.thinking")
        let other = try await server.post(
            "/v1/chat/completions",
            #"{"model":"toy","messages":[{"role":"user","content":"hi"}],"thinking":{"type":"x"}}"#)
        #expect(other.status == 400 && other.parameter == "thinking")
    }

    @Test(arguments: [
        ("chat", "thinking", #"{"type":"enabled","budget_tokens":1024}"#, "budget_tokens"),
        ("responses", "thinking", #"{"type":"enabled","budget_tokens":1024}"#, "budget_tokens"),
        ("tokenize", "thinking", #"{"type":"enabled","budget_tokens":1024}"#, "budget_tokens"),
        ("chat", "thinking", #"{"type":"enabled","effort":"high"}"#, "effort"),
        ("chat", "thinking", #"{"type":"enabled","display":"omitted"}"#, "display"),
        ("chat", "chat_template_kwargs", #"{"thinking":true,"thinking_budget":9}"#, "thinking_budget"),
        ("responses", "reasoning", #"{"effort":"high","max_tokens":1024}"#, "max_tokens"),
        ("responses", "reasoning", #"{"enabled":true}"#, "enabled"),
        ("responses", "text", #"{"verbosity":"low"}"#, "verbosity"),
    ])
    func `that stand in objects and are unsupported are refused by name`(
        place: String, object: String, value: String, name: String
    ) async throws {
        let body = place == "tokenize" ? Body.tokenizedChat : try #require(Body.all[place])
        let reply = try await ToyServer("x").post(body.path, body.with(#""\#(object)":\#(value)"#))
        #expect(reply.status == 400 && reply.parameter == "\(object).\(name)", "\(reply.text)")
        #expect(reply.message.contains("\(object).\(name)"))
    }

    @Test(arguments: [
        #""input_examples":[{"city":"Paris"}]"#, #""defer_loading":true"#, #""allowed_callers":["code"]"#,
    ])
    func `of Anthropic's tools that are unsupported are refused by name`(member: String) async throws {
        func reply(_ member: String) async throws -> Reply {
            let tool = #"{"name":"f","input_schema":{"type":"object"},\#(member)}"#
            return try await ToyServer("x").post(Body.messages.path, Body.messages.with(#""tools":[\#(tool)]"#))
        }
        let name = try #require(member.split(separator: "\"").first)
        let refusal = try await reply(member)
        #expect(
            refusal.status == 400 && refusal.message.contains("tools[0].\(name) is not supported"), "\(refusal.text)")
        let harmless = #""cache_control":{"type":"ephemeral"},"input_examples":[],"defer_loading":false"#
        #expect(try await reply(harmless).status == 200)
    }

    @Test(arguments: [
        (#""reasoning_effort":"none""#, false), (#""reasoning_effort":"high""#, true),
        (#""reasoning_effort":"low""#, true), (#""enable_thinking":true"#, true), (#""enable_thinking":false"#, false),
    ])
    func `say whether the model thinks`(member: String, isOn: Bool) async throws {
        let server = ToyServer("x")
        #expect(try await server.post(Body.chat.path, Body.chat.with(member)).status == 200)
        let prompt = try #require(server.engine.received.first?.prompt)
        #expect(prompt.last == (isOn ? 4 : 5))
        // An effort says how to think where a switch says whether; only `none` contradicts a switch.
        let isEffort = isOn && member.contains("effort")
        let opposite = #","thinking":{"type":"\#(isOn ? "disabled" : "enabled")"}"#
        let status = try await server.post(Body.chat.path, Body.chat.with(member + opposite)).status
        #expect(status == (isEffort ? 200 : 400))
        if isEffort { #expect(server.engine.received.last?.prompt.last == 5) }
    }

    @Test(arguments: [
        (#""thinking":{"type":"disabled"}"#, "thinking"), (#""enable_thinking":false"#, "enable_thinking"),
        (#""chat_template_kwargs":{"thinking":false}"#, "chat_template_kwargs.thinking"),
        (#""reasoning_effort":"none""#, "reasoning_effort"), (#""thinking":{"type":"enabled"}"#, nil), ("", nil),
    ])
    func `cannot keep R1 from thinking`(member: String, field: String?) async throws {
        let server = ToyServer(tokenizer: ToyTokenizer.r1) { _ in ToyTokenizer.tokens("x") }
        let more = member.isEmpty ? "" : ",\(member)"
        for (path, message) in [("/v1/chat/completions", "messages"), ("/tokenize", "messages")] {
            let reply = try await server.post(
                path, #"{"model":"toy","\#(message)":[{"role":"user","content":"hi"}]\#(more)}"#)
            #expect(reply.status == (field == nil ? 200 : 400) && reply.parameter == field, "\(path) \(reply.text)")
        }
        // Anthropic's requests do not ask for reasoning unless they say so, which is no wish that there be none.
        let plain = #"{"model":"toy","max_tokens":9,"messages":[{"role":"user","content":"hi"}]"#
        #expect(try await server.post("/v1/messages", plain + "}").status == 200)
        let reply = try await server.post("/v1/messages", plain + #","thinking":{"type":"disabled"}}"#)
        #expect(reply.status == 400 && reply.message.contains("thinking"))
    }

    @Test(arguments: ["18446744073709551616", "-9223372036854775809", "1e300"])
    func `that are whole numbers beyond 64 bits are out of range`(number: String) async throws {
        let reply = try await ToyServer("x").post(
            "/v1/completions", #"{"model":"toy","prompt":"hi","max_tokens":\#(number)}"#)
        #expect(reply.status == 400 && reply.parameter == "max_tokens")
        #expect(reply.message.contains("must be in 0...9223372036854775807"), "\(reply.message)")
        let fraction = try await ToyServer("x").post(
            "/v1/completions", #"{"model":"toy","prompt":"hi","max_tokens":2.5}"#)
        #expect(fraction.message.contains("must be an integer"))
    }

    @Test func `may name no model by an empty name`() async throws {
        let reply = try await ToyServer("x").post("/v1/completions", #"{"model":"","prompt":"hi"}"#)
        #expect(reply.status == 200 && reply.json["model"]?.string == "toy", "\(reply.text)")
    }

    @Test func `may stand behind a byte order mark`() async throws {
        let body = #"{"model":"toy","prompt":"hi"}"#
        #expect(try await ToyServer("x").post("/v1/completions", "\u{FEFF}" + body).status == 200)
        #expect(try await ToyServer("x").post("/v1/completions", "\u{FEFF}\u{FEFF}" + body).status == 400)
    }

    @Test(arguments: [
        ("/v1/completions", #""prompt":["hi","you"],"n":1"#),
        ("/v1/chat/completions", #""messages":[{"role":"user","content":"hi"}],"n":2"#),
    ])
    func `can ask for the usage of each choice in every chunk, as in vLLM`(path: String, members: String) async throws {
        func chunks(_ options: String) async throws -> [JSONValue] {
            let body = #"{"model":"toy",\#(members),"stream":true,"max_tokens":3,"stream_options":{\#(options)}}"#
            return try await ToyServer("abcd").post(path, body).chunks
        }
        let all = try await chunks(#""include_usage":true,"continuous_usage_stats":true"#)
        for index in 0..<2 {
            let usage = all.filter { $0["choices"]?[0]?["index"]?.integer == index }.compactMap { $0["usage"] }
            let counts = usage.compactMap { $0["completion_tokens"]?.integer }
            #expect(counts == counts.sorted() && counts.last == 3 && Set(counts).count >= 3, "\(counts)")
            for one in usage {
                let parts = ["prompt_tokens", "completion_tokens"].compactMap { one[$0]?.integer }
                #expect(parts.count == 2 && parts.reduce(0, +) == one["total_tokens"]?.integer)
            }
        }
        #expect(all.last?["usage"]?["completion_tokens"]?.integer == 6)
        // Without the usage at the end there is none on the way.
        #expect(try await chunks(#""continuous_usage_stats":true"#).allSatisfy { $0["usage"] == nil })
    }

    @Test func `can ask for any JSON object by vLLM's older name`() async throws {
        let server = ToyServer("x")
        #expect(try await server.post(Body.chat.path, Body.chat.with(#""guided_json_object":true"#)).status == 200)
        #expect(server.engine.received.first?.grammar == .jsonObject)
    }

    @Test func `can give the beginning of the answer`() async throws {
        let server = ToyServer("x")
        let messages = #"[{"role":"user","content":"hi"},{"role":"assistant","content":"Sure","prefix":true}]"#
        #expect(
            try await server.post("/v1/chat/completions", #"{"model":"toy","messages":\#(messages)}"#).status == 200)
        let prompt = try #require(server.engine.received.first?.prompt)
        #expect(ToyTokenizer.shared.decode(prompt, skippingSpecialTokens: false).hasSuffix("</think>Sure"))
        let early = #"[{"role":"assistant","content":"Sure","prefix":true},{"role":"user","content":"hi"}]"#
        let reply = try await server.post("/v1/chat/completions", #"{"model":"toy","messages":\#(early)}"#)
        #expect(reply.status == 400 && reply.parameter == "messages[0].prefix")
    }

    @Test(arguments: [#""""#, "null", "{}", #"{"city":"Paris"}"#, #""{\"city\": \"Paris\"}""#])
    func `arguments of earlier calls may be missing, empty or an object`(arguments: String) async throws {
        let server = ToyServer("x")
        let call = #"{"id":"c","type":"function","function":{"name":"f","arguments":\#(arguments)}}"#
        let messages = """
            [{"role":"user","content":"hi"},{"role":"assistant","content":null,"tool_calls":[\(call)]},
             {"role":"tool","tool_call_id":"c","content":"1"}]
            """
        let reply = try await server.post("/v1/chat/completions", #"{"model":"toy","messages":\#(messages)}"#)
        #expect(reply.status == 200, "\(reply.text)")
        let prompt = try #require(server.engine.received.first?.prompt)
        let text = ToyTokenizer.shared.decode(prompt, skippingSpecialTokens: false)
        #expect(text.contains("Paris</｜DSML｜parameter>") == arguments.contains("Paris"))
    }
}

@Suite struct `The end of an answer` {
    private static let chat = #"{"model":"toy","messages":[{"role":"user","content":"hi"}],"#

    @Test(arguments: ["include_stop_str_in_output", "no_stop_trim"])
    func `shows its stop string if the request asks for it`(name: String) async throws {
        let server = ToyServer("Hello there you")
        let reply = try await server.post("/v1/chat/completions", Self.chat + #""stop":["there"],"\#(name)":true}"#)
        #expect(reply.json["choices"]?[0]?["message"]?["content"]?.string == "Hello there")
        let streamed = try await server.post(
            "/v1/completions", #"{"model":"toy","prompt":"hi","stream":true,"stop":["there"],"\#(name)":true}"#)
        #expect(streamed.chunks.compactMap { $0["choices"]?[0]?["text"]?.string }.joined() == "Hello there")
        let without = try await server.post("/v1/chat/completions", Self.chat + #""stop":["there"]}"#)
        #expect(without.json["choices"]?[0]?["message"]?["content"]?.string == "Hello ")
    }

    @Test func `is not searched for in reasoning`() async throws {
        let server = ToyServer("I think about it</think>All about it.")
        for stream in [true, false] {
            let reply = try await server.post(
                "/v1/chat/completions",
                Self.chat + #""thinking":{"type":"enabled"},"stop":["about"],"stream":\#(stream)}"#)
            let messages =
                stream
                ? reply.chunks.compactMap { $0["choices"]?[0]?["delta"] }
                : [try #require(reply.json["choices"]?[0]?["message"])]
            #expect(messages.compactMap { $0["reasoning_content"]?.string }.joined() == "I think about it")
            #expect(messages.compactMap { $0["content"]?.string }.joined() == "All ")
        }
        let usage = try await server.post("/v1/chat/completions", Self.chat + #""thinking":{"type":"enabled"}}"#)
        let tokens = usage.json["usage"]?["completion_tokens_details"]?["reasoning_tokens"]?.integer
        // Each byte is a token here, including those of `</think>`.
        #expect(tokens == "I think about it</think".utf8.count)
    }

    @Test func `is not searched for in reasoning that the model opens itself`() async throws {
        for (beginning, opens) in [("", true), (" \n", true), ("", false)] {
            let server = ToyServer { _ in
                ToyTokenizer.tokens(beginning + (opens ? "<think>I about it</think>" : ""))
                    + ToyTokenizer.tokens("All about it.")
            }
            for stream in [true, false] {
                let reply = try await server.post(
                    "/v1/chat/completions", Self.chat + #""stop":["about", "\n<think"],"stream":\#(stream)}"#)
                let messages =
                    stream
                    ? reply.chunks.compactMap { $0["choices"]?[0]?["delta"] }
                    : [try #require(reply.json["choices"]?[0]?["message"])]
                let reasoning = messages.compactMap { $0["reasoning_content"]?.string }.joined()
                #expect(reasoning == (opens ? "I about it" : ""), "\(reply.text)")
                #expect(messages.compactMap { $0["content"]?.string }.joined() == "All ")
            }
        }
        // What only looks like the mark is text, in which stop strings count.
        for (text, expected) in [("<thin about", "<thin "), ("<th", "<th"), (" \nabout", " \n")] {
            let reply = try await ToyServer(text).post("/v1/chat/completions", Self.chat + #""stop":["about"]}"#)
            #expect(reply.json["choices"]?[0]?["message"]?["content"]?.string == expected)
        }
    }

    @Test func `is not searched for in the minimum number of tokens`() async throws {
        let server = ToyServer("one two one two one")
        let body = #"{"model":"toy","prompt":"hi","max_tokens":40,"stop":["two"],"min_tokens":"#
        for (least, expected) in [(0, "one "), (6, "one "), (7, "one two one "), (15, "one two one two one")] {
            let reply = try await server.post("/v1/completions", body + "\(least)}")
            #expect(reply.json["choices"]?[0]?["text"]?.string == expected, "\(least)")
        }
    }

    @Test func `reports the cached tokens, even after a stop string`() async throws {
        let server = ToyServer("one two")
        server.engine.cachedTokens = 3
        let chat = try await server.post("/v1/chat/completions", Self.chat + #""stop":["two"]}"#)
        #expect(chat.json["usage"]?["prompt_tokens_details"]?["cached_tokens"]?.integer == 3)
        let generate = try await server.post("/generate", #"{"text":"a","sampling_params":{"stop":["two"]}}"#)
        #expect(generate.json["meta_info"]?["cached_tokens"]?.integer == 3)
        #expect(generate.json["meta_info"]?["completion_tokens"]?.integer == 7)
        #expect(await eventually { server.engine.runningCount == 0 })
    }

    @Test func `comes with the message that clients know if the prompt is too long`() async throws {
        let server = ToyServer(contextLength: 16) { _ in [] }
        let long = String(repeating: "x", count: 40)
        for (path, body) in [
            ("/v1/chat/completions", #"{"model":"toy","messages":[{"role":"user","content":"\#(long)"}]}"#),
            ("/v1/completions", #"{"model":"toy","prompt":"\#(long)"}"#), ("/generate", #"{"text":"\#(long)"}"#),
            ("/v1/completions", #"{"model":"toy","prompt":"\#(String(repeating: long, count: 300))"}"#),
            (
                "/v1/chat/completions",
                #"{"model":"toy","messages":[{"role":"user","content":"\#(String(repeating: long, count: 300))"}]}"#
            ),
        ] {
            let reply = try await server.post(path, body)
            #expect(reply.status == 400 && reply.code == "context_length_exceeded")
            #expect(reply.message.contains("This model's maximum context length is 16 tokens"))
            #expect(reply.message.contains("prompt is too long"))
        }
    }

    @Test func `that can never fit is refused without advice to retry`() async throws {
        let server = ToyServer("x")
        let reply = try await server.post("/v1/completions", #"{"model":"toy","prompt":"hi","n":9}"#)
        #expect(reply.status == 400 && reply.parameter == "n", "a queue of 8 has no place for 9")
        let penalty = try await server.post(
            "/v1/completions", #"{"model":"toy","prompt":"hi","repetition_penalty":1e-38}"#)
        #expect(penalty.status == 400 && penalty.parameter == "repetition_penalty")
    }
}

@Suite struct `Tool calls in answers` {
    private static let tools = #""tools":[{"type":"function","function":{"name":"f"}}]"#
    private static func body(_ more: String) -> String {
        #"{"model":"toy","messages":[{"role":"user","content":"hi"}],\#(tools)\#(more)}"#
    }
    private static func tokens(_ text: String) -> [Int32] {
        ToyTokenizer.shared.encode(text, allowingControlTokens: true)
    }
    private static func call(_ value: String, close: String = "</｜DSML｜parameter>\n</｜DSML｜invoke>") -> String {
        "\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n"
            + "<｜DSML｜parameter name=\"p\" string=\"true\">\(value)\(close)"
    }

    /// Returns a streamed answer that is joined as clients do it.
    private static func joined(_ reply: Reply) -> (content: String, arguments: [String], finish: String?) {
        var (content, arguments, finish) = ("", [String](), String?.none)
        for choice in reply.chunks.compactMap({ $0["choices"]?[0] }) {
            content += choice["delta"]?["content"]?.string ?? ""
            for call in choice["delta"]?["tool_calls"]?.array ?? [] {
                if call["id"] != nil { arguments.append("") }
                arguments[call["index"]?.integer ?? 0] += call["function"]?["arguments"]?.string ?? ""
            }
            finish = choice["finish_reason"]?.string ?? finish
        }
        return (content, arguments, finish)
    }

    @Test func `are streamed while they are generated: first the name, then pieces of arguments`() async throws {
        let value = String(repeating: "wordé ", count: 200)
        let server = ToyServer { _ in Self.tokens("Sure." + Self.call(value) + "\n</｜DSML｜function_calls>") }
        let reply = try await server.post("/v1/chat/completions", Self.body(#","stream":true"#))
        let calls = reply.chunks.compactMap { $0["choices"]?[0]?["delta"]?["tool_calls"]?[0] }
        #expect(calls.count > 100)
        #expect(calls[0]["function"]?["name"]?.string == "f" && calls[0]["function"]?["arguments"]?.string == "")
        let (content, arguments, finish) = Self.joined(reply)
        #expect(content == "Sure." && finish == "tool_calls")
        #expect(arguments == [JSONValue.fields(["p": .string(value)]).pythonText])
        let whole = try await server.post("/v1/chat/completions", Self.body(""))
        let call = whole.json["choices"]?[0]?["message"]?["tool_calls"]?[0]
        #expect(call?["function"]?["arguments"]?.string == arguments[0])
    }

    @Test(arguments: ["short", String(repeating: "long", count: 100)])
    func `without an end are text, or a call if the token limit cut them`(value: String) async throws {
        let text = "Sure." + Self.call(value, close: "")
        let server = ToyServer { _ in Self.tokens(text) }
        for limit in [false, true] {
            let length = limit ? #","max_tokens":\#(Self.tokens(text).count)"# : ""
            let whole = try await server.post("/v1/chat/completions", Self.body(length))
            let message = whole.json["choices"]?[0]?["message"]
            let streamed = Self.joined(
                try await server.post("/v1/chat/completions", Self.body(length + #","stream":true"#)))
            #expect(whole.json["choices"]?[0]?["finish_reason"]?.string == (limit ? "length" : "stop"))
            // A stream cannot take back what it has sent of a long call, and does not send it again.
            if limit || value != "short" {
                #expect(streamed.content == "Sure." && streamed.arguments == [#"{"p": "\#(value)"#])
            } else {
                #expect(streamed.content == text && streamed.arguments.isEmpty)
            }
            #expect(streamed.finish == (limit ? "length" : "stop"))
            if limit {
                #expect(message?["content"]?.string == "Sure.")
                #expect(message?["tool_calls"]?[0]?["function"]?["arguments"]?.string == #"{"p": "\#(value)"#)
            } else {
                #expect(message?["content"]?.string == text && message?["tool_calls"] == nil)
            }
        }
    }

    @Test func `end the reasoning in which they are made`() async throws {
        let server = ToyServer { _ in Self.tokens("Need it." + Self.call("Oslo") + "\n</｜DSML｜function_calls>") }
        let reply = try await server.post("/v1/chat/completions", Self.body(#","thinking":{"type":"enabled"}"#))
        let choice = try #require(reply.json["choices"]?[0])
        #expect(choice["message"]?["reasoning_content"]?.string?.hasPrefix("Need it.") == true)
        #expect(choice["message"]?["reasoning_content"]?.string?.contains("DSML") == false)
        #expect(choice["message"]?["tool_calls"]?.array?.count == 1)
        #expect(choice["finish_reason"]?.string == "tool_calls")
    }
}
