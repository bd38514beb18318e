import Inference
import JSON
import TestSupport
import Testing

/// Tests of turning tokens into text, through `/v1/completions`.
@Suite struct StreamingTests {
    private static func stream(_ text: String, stop: String = "null", maxTokens: Int = 99) async throws -> Reply {
        try await ToyServer(text).post(
            "/v1/completions",
            #"{"model":"toy","prompt":"p","stream":true,"max_tokens":\#(maxTokens),"stop":\#(stop)}"#)
    }

    private static func texts(_ reply: Reply) -> [String] {
        reply.chunks.compactMap { $0["choices"]?[0]?["text"]?.string }
    }

    @Test func `a character whose bytes are spread over tokens is sent whole`() async throws {
        let reply = try await Self.stream("a👍🏽é中")
        #expect(Self.texts(reply) == ["a", "👍", "🏽", "é", "中", ""])
    }

    @Test func `an unfinished character at the end becomes a replacement character`() async throws {
        let reply = try await Self.stream("a👍", maxTokens: 3)
        #expect(Self.texts(reply) == ["a", "\u{FFFD}"])
        #expect(reply.chunks.last?["choices"]?[0]?["finish_reason"]?.string == "length")
    }

    @Test func `a stop string spread over tokens ends the text before it`() async throws {
        let reply = try await Self.stream("one END two", stop: #"["END","two"]"#)
        #expect(Self.texts(reply).joined() == "one ")
        #expect(reply.chunks.last?["choices"]?[0]?["finish_reason"]?.string == "stop")
    }

    @Test func `text that turns out to be no stop string is sent`() async throws {
        let reply = try await Self.stream("xENDURE EN", stop: #""ENDED""#)
        #expect(Self.texts(reply) == ["x", "ENDU", "R", "E ", "EN"])
    }

    @Test func `a stop string that ends with a character's last byte is found`() async throws {
        let reply = try await Self.stream("a中b", stop: #""中""#)
        #expect(Self.texts(reply).joined() == "a")
    }

    @Test func `finding a stop string aborts the generation in the engine`() async throws {
        let server = ToyServer { _ in ToyTokenizer.tokens(String(repeating: "ab", count: 2000)) }
        let reply = try await server.post(
            "/v1/completions", #"{"model":"toy","prompt":"p","max_tokens":4000,"stop":"ba"}"#)
        #expect(reply.json["choices"]?[0]?["text"]?.string == "a")
        #expect(reply.json["usage"]?["completion_tokens"]?.integer == 3)
        #expect(await eventually { server.engine.runningCount == 0 })
    }

    @Test func `a stop token ends the text and is not in it`() async throws {
        let server = ToyServer("abc")
        let reply = try await server.post(
            "/v1/completions", #"{"model":"toy","prompt":"p","stop_token_ids":[354]}"#)
        #expect(reply.json["choices"]?[0]?["text"]?.string == "a")
        #expect(reply.json["choices"]?[0]?["finish_reason"]?.string == "stop")
        #expect(reply.json["usage"]?["completion_tokens"]?.integer == 2)
    }

    @Test func `ignore_eos generates tokens up to the limit`() async throws {
        let server = ToyServer("ab")
        let reply = try await server.post(
            "/v1/completions", #"{"model":"toy","prompt":"p","max_tokens":6,"ignore_eos":true}"#)
        #expect(reply.json["choices"]?[0]?["text"]?.string == "ab")
        #expect(reply.json["choices"]?[0]?["finish_reason"]?.string == "length")
        #expect(reply.json["usage"]?["completion_tokens"]?.integer == 6)
    }

    @Test func `special tokens are shown if a request asks for them`() async throws {
        let server = ToyServer { _ in [353, 2, 354] }
        let hidden = try await server.post("/v1/completions", #"{"model":"toy","prompt":"p"}"#)
        #expect(hidden.json["choices"]?[0]?["text"]?.string == "ab")
        let shown = try await server.post(
            "/v1/completions", #"{"model":"toy","prompt":"p","skip_special_tokens":false}"#)
        #expect(shown.json["choices"]?[0]?["text"]?.string == "a<｜User｜>b")
    }

    @Test func `a failure of the generation is the last event, and DONE does not follow`() async throws {
        let server = ToyServer("abc")
        server.engine.requestFailure = "a logit was not a number"
        let reply = try await server.post(
            "/v1/completions", #"{"model":"toy","prompt":"p","stream":true}"#)
        #expect(reply.status == 200)
        #expect(reply.events.count == 1)
        let error = try #require(reply.chunks.last?["error"])
        #expect(error["message"]?.string?.contains("a logit was not a number") == true)
        #expect(error["type"]?.string == "server_error")
    }

    @Test func `a failure of a request that does not stream is a 500 with the reason`() async throws {
        let server = ToyServer("abc")
        server.engine.requestFailure = "a logit was not a number"
        let reply = try await server.post("/v1/completions", #"{"model":"toy","prompt":"p"}"#)
        #expect(reply.status == 500)
        #expect(reply.message.contains("a logit was not a number"))
        #expect(reply.code == "generation_failed")
    }
}
