import HTTPTypes
import Inference
import JSON
import TestSupport
import Testing

@Suite struct GenerateTests {
    @Test(arguments: ["POST", "PUT"]) func `a text is continued in SGLang's format`(_ method: String) async throws {
        let server = ToyServer("yes")
        server.engine.cachedTokens = 1
        let reply = try await server.send(
            method == "PUT" ? .put : .post, "/generate",
            #"{"text":"hi","sampling_params":{"temperature":0},"rid":"r1"}"#)
        #expect(reply.status == 200)
        #expect(reply.json["text"]?.string == "yes")
        #expect(reply.json["output_ids"]?.integers == (ToyTokenizer.tokens("yes") + [ToyTokenizer.eos]).map(Int.init))
        let meta = try #require(reply.json["meta_info"])
        #expect(meta["id"]?.string == "r1")
        #expect(meta["prompt_tokens"]?.integer == 3)
        #expect(meta["completion_tokens"]?.integer == 4)
        #expect(meta["cached_tokens"]?.integer == 1)
        #expect(meta["finish_reason"]?["type"]?.string == "stop")
        #expect(meta["finish_reason"]?["matched"]?.integer == Int(ToyTokenizer.eos))
        #expect(try #require(meta["e2e_latency"]?.double) > 0)
        #expect(meta["output_token_logprobs"] == nil)
        #expect(server.engine.received[0].sampling.temperature == 0)
    }

    @Test func `without max_new_tokens 128 tokens are generated`() async throws {
        let server = ToyServer(String(repeating: "x", count: 999))
        let reply = try await server.post("/generate", #"{"input_ids":[360]}"#)
        #expect(reply.json["output_ids"]?.array?.count == 128)
        #expect(reply.json["meta_info"]?["finish_reason"]?["type"]?.string == "length")
        #expect(reply.json["meta_info"]?["finish_reason"]?["length"]?.integer == 128)
    }

    @Test(arguments: [
        ("/generate", #""text":"hi""#), ("/v1/completions", #""model":"toy","prompt":"hi""#),
        ("/v1/chat/completions", #""model":"toy","messages":[{"role":"user","content":"hi"}]"#),
    ])
    func `a cache salt reaches the engine, and an invalid one is refused`(
        _ path: String, _ prompt: String
    ) async throws {
        let server = ToyServer("x")
        #expect(try await server.post(path, "{\(prompt)}").status == 200)
        #expect(try await server.post(path, "{\(prompt),\"cache_salt\":\"mine\"}").status == 200)
        #expect(server.engine.received.map(\.cacheSalt) == [nil, "mine"])
        for salt in ["\u{E9}", "e\u{301}", "utf8:c3a9"] {
            #expect(try await server.post(path, "{\(prompt),\"cache_salt\":\"\(salt)\"}").status == 200)
        }
        #expect(Set(server.engine.received.compactMap(\.cacheSalt)).count == 4, "equal strings are not equal salts")
        let longest = String(repeating: "s", count: 256)
        #expect(try await server.post(path, "{\(prompt),\"cache_salt\":\"\(longest)\"}").status == 200)
        for salt in ["\"\"", "5", "\"\(longest)s\""] {
            let reply = try await server.post(path, "{\(prompt),\"cache_salt\":\(salt)}")
            #expect(reply.status == 400)
            #expect(reply.json["error"]?["param"]?.string == "cache_salt")
        }
    }

    @Test func `a stop string is reported as matched`() async throws {
        let server = ToyServer("one two")
        let reply = try await server.post("/generate", #"{"text":"hi","sampling_params":{"stop":["x","e t"]}}"#)
        #expect(reply.json["text"]?.string == "on")
        #expect(reply.json["meta_info"]?["finish_reason"]?["matched"]?.string == "e t")
        #expect(reply.json["output_ids"]?.array?.count == 5)
    }

    @Test func `the sampling parameters of this interface reach the engine`() async throws {
        let server = ToyServer("abcdef")
        _ = try await server.post(
            "/generate",
            """
            {"text":"hi","sampling_params":{"max_new_tokens":5,"min_new_tokens":2,"sampling_seed":11,"ignore_eos":true,
            "stop_token_ids":[9],"min_p":0.5,"top_k":-1,"logit_bias":{"3":1}}}
            """)
        let sampling = try #require(server.engine.received.first?.sampling)
        #expect(sampling.maxNewTokens == 5)
        #expect(sampling.minNewTokens == 2)
        #expect(sampling.seed == 11)
        #expect(sampling.stopTokens == [9])
        #expect(sampling.logitBias == [3: 1])
    }

    @Test func `a top_p above 0 that no float has is legal`() async throws {
        let server = ToyServer("x")
        let reply = try await server.post("/generate", #"{"text":"hi","sampling_params":{"top_p":1e-300}}"#)
        #expect(reply.status == 200, "\(reply.text)")
        #expect(server.engine.received.allSatisfy { (0...1e-30).contains($0.sampling.topP) && $0.sampling.topP > 0 })
    }

    @Test func `log-probabilities cover only the output unless the request includes the prompt`() async throws {
        let server = ToyServer("ab")
        let body = #"{"input_ids":[360,361],"sampling_params":{"max_new_tokens":2},"return_logprob":true"#
        let output = try await server.post("/generate", body + "}")
        let meta = try #require(output.json["meta_info"])
        #expect(meta["input_token_logprobs"]?.array == [])
        #expect(meta["output_top_logprobs"] == nil)
        // The id 353 ends in the bits 0001, so its log-probability is -2/16; that of 354 is lower by 1/16.
        #expect(meta["output_token_logprobs"]?.pythonText == "[[-0.125, 353, null], [-0.1875, 354, null]]")

        let prompt = try await server.post(
            "/generate", body + #","logprob_start_len":0,"top_logprobs_num":2,"return_text_in_logprobs":true}"#)
        let scored = try #require(prompt.json["meta_info"])
        #expect(scored["input_token_logprobs"]?.pythonText == #"[[null, 360, "h"], [-0.625, 361, "i"]]"#)
        #expect(scored["input_top_logprobs"]?.pythonText == #"[null, [[-0.625, 361, "i"], [-1.625, 362, "j"]]]"#)
        #expect(
            scored["output_top_logprobs"]?[0]?.pythonText == #"[[-0.125, 353, "a"], [-1.125, 354, "b"]]"#)
    }

    @Test func `a prompt is scored from logprob_start_len on, even without new tokens`() async throws {
        let server = ToyServer("ab")
        let reply = try await server.post(
            "/generate",
            """
            {"input_ids":[352,353,354],"sampling_params":{"max_new_tokens":0},"return_logprob":true,
            "logprob_start_len":1}
            """)
        let meta = try #require(reply.json["meta_info"])
        #expect(meta["input_token_logprobs"]?.pythonText == "[[null, 353, null], [-0.1875, 354, null]]")
        #expect(meta["output_token_logprobs"]?.pythonText == "[]")
        #expect(reply.json["text"]?.string == "")
        let none = try await server.post(
            "/generate", #"{"input_ids":[352,353,354],"return_logprob":true,"logprob_start_len":3}"#)
        #expect(none.status == 200 && none.json["meta_info"]?["input_token_logprobs"]?.array == [], "\(none.text)")
    }

    @Test func `a batch and several choices are answered with a list`() async throws {
        let server = ToyServer { [$0.prompt.last ?? 0] }
        let texts = try await server.post("/generate", #"{"text":["a","b"],"rid":["x","y"]}"#)
        #expect(texts.json.array?.map { $0["text"]?.string } == ["a", "b"])
        #expect(texts.json.array?.map { $0["meta_info"]?["id"]?.string } == ["x", "y"])
        let ids = try await server.post("/generate", #"{"input_ids":[[353],[354]],"sampling_params":{"n":2}}"#)
        #expect(ids.json.array?.map { $0["text"]?.string } == ["a", "a", "b", "b"])
        let one = try await server.post("/generate", #"{"text":["a"]}"#)
        #expect(one.json.array?.count == 1)
    }

    @Test func `every event of a stream shows the whole text so far`() async throws {
        let server = ToyServer("abc")
        let reply = try await server.post(
            "/generate", #"{"text":"hi","stream":true,"return_logprob":true,"sampling_params":{"max_new_tokens":3}}"#)
        #expect(reply.chunks.map { $0["text"]?.string } == ["a", "ab", "abc", "abc"])
        #expect(reply.chunks.map { $0["meta_info"]?["output_token_logprobs"]?.array?.count } == [1, 2, 3, 3])
        #expect(reply.chunks.dropLast().allSatisfy { $0["meta_info"]?["finish_reason"]?.isNull == true })
        #expect(reply.chunks.last?["meta_info"]?["finish_reason"]?["type"]?.string == "length")
        #expect(reply.events.last == "[DONE]")
    }

    @Test func `events of a streamed batch have the index of their answer`() async throws {
        let server = ToyServer { [$0.prompt.last ?? 0] }
        let reply = try await server.post("/generate", #"{"text":["a","b"],"stream":true}"#)
        for (index, text) in ["a", "b"].enumerated() {
            let own = reply.chunks.filter { $0["index"]?.integer == index }
            #expect(own.last?["text"]?.string == text)
            #expect(own.last?["meta_info"]?["finish_reason"]?["type"]?.string == "stop")
        }
    }

    @Test(arguments: ["", "/v1"]) func `text becomes tokens and tokens become text`(prefix: String) async throws {
        let server = ToyServer("")
        let tokens = try await server.post(prefix + "/tokenize", #"{"model":"toy","prompt":"hé"}"#)
        #expect(tokens.json["tokens"]?.integers == [0] + ToyTokenizer.tokens("hé").map(Int.init))
        #expect(tokens.json["count"]?.integer == 4)
        #expect(tokens.json["max_model_len"]?.integer == 4096)
        let list = try await server.post("/tokenize", #"{"prompt":["a",""],"add_special_tokens":false}"#)
        #expect(list.json["tokens"]?.pythonText == "[[353], []]")
        #expect(list.json["count"]?.integers == [1, 0])
        let text = try await server.post(prefix + "/detokenize", #"{"tokens":[0,353,2,354]}"#)
        let all = try await server.post(
            prefix + "/detokenize", #"{"tokens":[[353],[2,354]],"skip_special_tokens":false}"#)
        // The first is SGLang's member, the other one vLLM's.
        for name in ["text", "prompt"] {
            #expect(text.json[name]?.string == "ab")
            #expect(all.json[name]?.strings == ["a", "<｜User｜>b"])
        }
    }

    @Test(arguments: ["/generate", "/v1/completions"])
    func `a default limit does not make a prompt too long`(path: String) async throws {
        let server = ToyServer(contextLength: 8) { _ in ToyTokenizer.tokens("xxxxxxxxxxxx") }
        let prompt = path == "/generate" ? "input_ids" : "prompt"
        let reply = try await server.post(path, "{\"model\":\"toy\",\"\(prompt)\":[360,361,362,363,364,365]}")
        #expect(reply.status == 200)
        let full = try await server.post(path, "{\"model\":\"toy\",\"\(prompt)\":[360,361,362,363,364,365,366,367]}")
        #expect(full.status == 400)
    }

    @Test func `every event of a stream tells the cached tokens`() async throws {
        let server = ToyServer("abc")
        server.engine.cachedTokens = 7
        let reply = try await server.post("/generate", #"{"text":"hi","stream":true}"#)
        let counts = reply.chunks.map { $0["meta_info"]?["cached_tokens"]?.integer }
        #expect(counts.count > 2 && counts.allSatisfy { $0 == 7 }, "\(counts)")
    }
}
