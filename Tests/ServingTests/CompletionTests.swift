import Inference
import JSON
import Serving
import TestSupport
import Testing

@Suite struct CompletionTests {
    private static let hi = ToyTokenizer.tokens("hi")

    @Test func `a text prompt is continued in OpenAI's format`() async throws {
        let server = ToyServer("yes")
        server.engine.cachedTokens = 2
        let reply = try await server.post("/v1/completions", #"{"model":"toy","prompt":"hi","max_tokens":20}"#)
        #expect(reply.status == 200)
        #expect(reply.header("Content-Type") == "application/json")
        #expect(reply.json["object"]?.string == "text_completion")
        #expect(reply.json["id"]?.string?.hasPrefix("cmpl-") == true)
        #expect(reply.json["model"]?.string == "toy")
        let choice = try #require(reply.json["choices"]?[0])
        #expect(choice["text"]?.string == "yes")
        #expect(choice["index"]?.integer == 0)
        #expect(choice["logprobs"]?.isNull == true)
        #expect(choice["finish_reason"]?.string == "stop")
        // The answer is three letters and the end of the text; the prompt has its beginning-of-sentence token.
        let usage = try #require(reply.json["usage"])
        #expect(usage["prompt_tokens"]?.integer == 3)
        #expect(usage["completion_tokens"]?.integer == 4)
        #expect(usage["total_tokens"]?.integer == 7)
        #expect(usage["prompt_tokens_details"]?["cached_tokens"]?.integer == 2)
        #expect(server.engine.received[0].prompt == [ToyTokenizer.bos] + Self.hi)
    }

    @Test func `without max_tokens sixteen tokens are generated, and the reason is length`() async throws {
        let server = ToyServer(String(repeating: "x", count: 99))
        let reply = try await server.post("/v1/completions", #"{"model":"toy","prompt":"hi"}"#)
        #expect(reply.json["choices"]?[0]?["text"]?.string == String(repeating: "x", count: 16))
        #expect(reply.json["choices"]?[0]?["finish_reason"]?.string == "length")
        #expect(reply.json["usage"]?["completion_tokens"]?.integer == 16)
    }

    @Test func `lists of texts, tokens and lists of tokens are prompts`() async throws {
        let server = ToyServer { $0.prompt.suffix(1) + [] }
        let texts = try await server.post("/v1/completions", #"{"model":"toy","prompt":["a","b"]}"#)
        #expect(texts.json["choices"]?.array?.map { $0["text"]?.string } == ["a", "b"])
        #expect(texts.json["usage"]?["prompt_tokens"]?.integer == 4)
        let tokens = try await server.post("/v1/completions", #"{"model":"toy","prompt":[353,354]}"#)
        #expect(tokens.json["choices"]?.array?.map { $0["text"]?.string } == ["b"])
        let lists = try await server.post("/v1/completions", #"{"model":"toy","prompt":[[353],[354,355]]}"#)
        #expect(lists.json["choices"]?.array?.map { $0["text"]?.string } == ["a", "c"])
        #expect(server.engine.received.last?.prompt == [354, 355])
    }

    @Test func `control tokens written in a raw prompt are control tokens, and the first is not doubled`() async throws
    {
        let server = ToyServer("x")
        _ = try await server.post(
            "/v1/completions", #"{"model":"toy","prompt":"<｜begin▁of▁sentence｜><｜User｜>hi"}"#)
        #expect(server.engine.received[0].prompt == [0, 2] + Self.hi)
    }

    @Test func `an echo scores the prompt, and its first token has no score`() async throws {
        let server = ToyServer("ok")
        let reply = try await server.post(
            "/v1/completions",
            #"{"model":"toy","prompt":"hi","max_tokens":1,"echo":true,"logprobs":2}"#)
        let choice = try #require(reply.json["choices"]?[0])
        #expect(choice["text"]?.string == "hio")
        let scores = try #require(choice["logprobs"])
        #expect(scores["tokens"]?.strings == ["<｜begin▁of▁sentence｜>", "h", "i", "o"])
        let expected = ToyTokenizer.tokens("hio").map { Double(ToyEngine.logProb(of: $0)) }
        #expect(scores["token_logprobs"]?[0]?.isNull == true)
        #expect(scores["token_logprobs"]?.array?.dropFirst().map(\.double) == expected)
        #expect(scores["top_logprobs"]?[0]?.isNull == true)
        #expect(scores["top_logprobs"]?[1]?.object?.map(\.key) == ["h", "i"])
        #expect(scores["text_offset"]?.integers == [0, 0, 1, 2])
        #expect(server.engine.received[0].logProbs == LogProbOptions(topCount: 2, promptStart: 0))
    }

    @Test(arguments: [true, false])
    func `special tokens within a prompt count to the offsets, as they are in its text`(skips: Bool) async throws {
        let server = ToyServer("k")
        let reply = try await server.post(
            "/v1/completions",
            #"{"model":"toy","prompt":[0,360,1,361],"echo":true,"logprobs":0,"skip_special_tokens":\#(skips)}"#)
        let choice = try #require(reply.json["choices"]?[0])
        let text = try #require(choice["text"]?.string)
        #expect(text.hasPrefix("h<"), "\(text)")
        let scores = try #require(choice["logprobs"])
        let found = try #require(scores["text_offset"]?.integers)
        for (token, offset) in zip(scores["tokens"]?.strings ?? [], found).dropFirst().dropLast() {
            #expect(String(text.unicodeScalars.dropFirst(offset)).hasPrefix(token), "\(token) at \(offset)")
        }
        #expect(found.first == 0 && found.count == 6, "\(found)")
    }

    @Test func `special tokens of an answer count to the offsets if its text has them`() async throws {
        let server = ToyServer { _ in ToyTokenizer.tokens("a") + [2] + ToyTokenizer.tokens("b") }
        for (skips, expected) in [(true, [0, 1, 1, 2]), (false, [0, 1, 9, 10])] {
            let reply = try await server.post(
                "/v1/completions",
                #"{"model":"toy","prompt":"hi","logprobs":0,"skip_special_tokens":\#(skips)}"#)
            #expect(reply.json["choices"]?[0]?["logprobs"]?["text_offset"]?.integers == expected, "\(reply.text)")
        }
    }

    @Test func `a prompt can be scored without generating anything`() async throws {
        let server = ToyServer("ok")
        let reply = try await server.post(
            "/v1/completions",
            #"{"model":"toy","prompt":[360,361],"max_tokens":0,"echo":true,"logprobs":0}"#)
        let choice = try #require(reply.json["choices"]?[0])
        #expect(choice["text"]?.string == "hi")
        #expect(choice["logprobs"]?["tokens"]?.strings == ["h", "i"])
        // The token itself is always among the alternatives that are listed.
        #expect(choice["logprobs"]?["top_logprobs"]?[1]?.object?.map(\.key) == ["i"])
        #expect(choice["finish_reason"]?.string == "length")
    }

    @Test func `the stop token is scored too, since clients count tokens by scores`() async throws {
        let server = ToyServer("a")
        let reply = try await server.post(
            "/v1/completions", #"{"model":"toy","prompt":"hi","max_tokens":5,"logprobs":1}"#)
        #expect(reply.json["choices"]?[0]?["text"]?.string == "a")
        #expect(reply.json["choices"]?[0]?["logprobs"]?["tokens"]?.strings == ["a", "<｜end▁of▁sentence｜>"])
    }

    @Test func `pieces of a character are scored by their bytes and counted once`() async throws {
        let server = ToyServer("é!")
        let reply = try await server.post(
            "/v1/completions", #"{"model":"toy","prompt":"hi","max_tokens":3,"logprobs":0}"#)
        let scores = try #require(reply.json["choices"]?[0]?["logprobs"])
        #expect(scores["tokens"]?.strings == [#"bytes:\xc3"#, #"bytes:\xa9"#, "!"])
        #expect(scores["text_offset"]?.integers == [0, 1, 1])
    }

    @Test func `n choices have consecutive seeds and count their prompt once`() async throws {
        let server = ToyServer("ab")
        let reply = try await server.post(
            "/v1/completions", #"{"model":"toy","prompt":["h","i"],"n":3,"seed":7}"#)
        #expect(reply.json["choices"]?.array?.map { $0["index"]?.integer } == [0, 1, 2, 3, 4, 5])
        #expect(server.engine.received.map(\.sampling.seed) == [7, 8, 9, 7, 8, 9])
        #expect(reply.json["usage"]?["prompt_tokens"]?.integer == 4)
        #expect(reply.json["usage"]?["completion_tokens"]?.integer == 18)
    }

    @Test func `without a seed every choice gets a random one`() async throws {
        let server = ToyServer("ab")
        _ = try await server.post("/v1/completions", #"{"model":"toy","prompt":"h","n":4}"#)
        #expect(Set(server.engine.received.map(\.sampling.seed)).count == 4)
    }

    @Test func `a stream sends the echo, then pieces, then the usage, then DONE`() async throws {
        let server = ToyServer("abc")
        let reply = try await server.post(
            "/v1/completions",
            """
            {"model":"toy","prompt":"hi","max_tokens":9,"stream":true,"echo":true,
            "stream_options":{"include_usage":true}}
            """)
        #expect(reply.header("Content-Type") == "text/event-stream; charset=utf-8")
        #expect(reply.events.last == "[DONE]")
        let choices = reply.chunks.compactMap { $0["choices"]?[0] }
        #expect(choices.map { $0["text"]?.string } == ["hia", "b", "c", ""])
        #expect(choices.map { $0["finish_reason"]?.string } == [nil, nil, nil, "stop"])
        #expect(Set(reply.chunks.map { $0["id"]?.string }).count == 1)
        let last = try #require(reply.chunks.last)
        #expect(last["choices"]?.array?.isEmpty == true)
        #expect(last["usage"]?["total_tokens"]?.integer == 7)
    }

    @Test func `streamed scores continue their offsets`() async throws {
        let server = ToyServer("ab")
        let reply = try await server.post(
            "/v1/completions", #"{"model":"toy","prompt":"hi","max_tokens":2,"stream":true,"logprobs":1}"#)
        let scores = reply.chunks.compactMap { $0["choices"]?[0]?["logprobs"] }
        #expect(scores.compactMap { $0["text_offset"]?.integers } == [[0], [1], []])
        #expect(scores.compactMap { $0["tokens"]?.strings } == [["a"], ["b"], []])
    }

    @Test func `every sampling parameter reaches the engine`() async throws {
        let server = ToyServer("a")
        let reply = try await server.post(
            "/v1/completions",
            """
            {"model":"toy","prompt":"hi","max_tokens":9,"temperature":0.5,"top_p":0.25,"top_k":7,"min_p":0.125,
            "frequency_penalty":-0.5,"presence_penalty":1.5,"repetition_penalty":1.25,"logit_bias":{"5":-100,"6":2.5},
            "min_tokens":2,"ignore_eos":true,"stop_token_ids":[9],"seed":-1,"user":"x","some_future_field":[{}]}
            """)
        #expect(reply.status == 200)
        var expected = SamplingParameters()
        expected.temperature = 0.5
        expected.topP = 0.25
        expected.topK = 7
        expected.minP = 0.125
        expected.frequencyPenalty = -0.5
        expected.presencePenalty = 1.5
        expected.repetitionPenalty = 1.25
        expected.logitBias = [5: -100, 6: 2.5]
        expected.minNewTokens = 2
        expected.maxNewTokens = 9
        expected.stopTokens = [9]
        expected.seed = .max
        #expect(server.engine.received.map(\.sampling) == [expected])
    }

    @Test func `the model's own defaults apply to parameters that a request omits`() async throws {
        let server = ToyServer(defaults: .init(temperature: 0.625, topP: 0.75, topK: 3)) { _ in [] }
        _ = try await server.post("/v1/completions", #"{"model":"toy","prompt":"hi","temperature":null}"#)
        let sampling = try #require(server.engine.received.first?.sampling)
        #expect(sampling.temperature == 0.625)
        #expect(sampling.topP == 0.75)
        #expect(sampling.topK == 3)
        #expect(sampling.stopTokens == [ToyTokenizer.eos])
    }

    @Test(arguments: ["-1", "0"]) func `top_k has two values that mean all tokens`(_ value: String) async throws {
        let server = ToyServer("a")
        _ = try await server.post("/v1/completions", #"{"model":"toy","prompt":"hi","top_k":\#(value)}"#)
        #expect(server.engine.received.map(\.sampling.topK) == [0])
    }
}
