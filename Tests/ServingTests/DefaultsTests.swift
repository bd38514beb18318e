import Foundation
import Inference
import JSON
import Serving
import TestSupport
import Testing

@Suite struct `What a server was started with` {
    @Test(arguments: [
        (
            "/generate", #"{"text":"hi","sampling_params":{}}"#,
            #"{"text":"hi","sampling_params":{"repetition_penalty":1,"min_p":0}}"#
        ),
        (
            "/v1/completions", #"{"model":"toy","prompt":"hi"}"#,
            #"{"model":"toy","prompt":"hi","repetition_penalty":1,"min_p":0}"#
        ),
    ])
    func `gives penalties to requests that give none`(path: String, without: String, with: String) async throws {
        var defaults = SamplingDefaults()
        defaults.repetitionPenalty = 1.25
        defaults.minP = 0.5
        let server = ToyServer(defaults: defaults) { _ in ToyTokenizer.tokens("x") }
        for body in [without, with] { #expect(try await server.post(path, body).status == 200) }
        #expect(server.engine.received.map(\.sampling.repetitionPenalty) == [1.25, 1])
        #expect(server.engine.received.map(\.sampling.minP) == [0.5, 0])
    }

    @Test(arguments: [
        ("/v1/chat/completions", #""messages":[{"role":"user","content":"hi"}]"#, "max_tokens", 50),
        ("/v1/responses", #""input":"hi""#, "max_output_tokens", 50),
        // These routes have a limit of their own.
        ("/v1/completions", #""prompt":"hi""#, "max_tokens", 16),
    ])
    func `limits answers to requests that give no limit, and no others`(
        path: String, members: String, name: String, limit: Int
    ) async throws {
        var defaults = SamplingDefaults()
        defaults.maxNewTokens = 50
        let server = ToyServer(defaults: defaults) { _ in ToyTokenizer.tokens("x") }
        for more in ["", #","\#(name)":3"#, #","\#(name)":200"#, #","\#(name)":null"#] {
            let reply = try await server.post(path, #"{"model":"toy",\#(members)\#(more)}"#)
            #expect(reply.status == 200, "\(reply.text)")
        }
        #expect(server.engine.received.map(\.sampling.maxNewTokens) == [limit, 3, 200, limit])
        let refused = try await server.post(path, #"{"model":"toy",\#(members),"min_tokens":51}"#)
        #expect(refused.status == 400 && refused.message.contains("more than the \(limit) tokens"), "\(refused.text)")
    }

    @Test func `does not limit /generate, and makes no prompt too long`() async throws {
        var defaults = SamplingDefaults()
        defaults.maxNewTokens = 5000
        let server = ToyServer(contextLength: 100, defaults: defaults) { _ in ToyTokenizer.tokens("x") }
        #expect(try await server.post("/generate", #"{"input_ids":[300,301]}"#).status == 200)
        let chat = #"{"model":"toy","messages":[{"role":"user","content":"hi"}]}"#
        #expect(try await server.post("/v1/chat/completions", chat).status == 200)
        let received = server.engine.received
        #expect(received[0].sampling.maxNewTokens == 98)
        #expect(received[1].sampling.maxNewTokens == 100 - received[1].prompt.count)
    }

    @Test func `gives penalties of presence and frequency, and shows special tokens`() async throws {
        var defaults = SamplingDefaults()
        (defaults.presencePenalty, defaults.frequencyPenalty) = (1.5, -0.5)
        defaults.skipsSpecialTokens = false
        let server = ToyServer(defaults: defaults) { _ in [353, 2, 354] }
        let body = #"{"model":"toy","prompt":"hi""#
        let first = try await server.post("/v1/completions", body + "}")
        #expect(first.json["choices"]?[0]?["text"]?.string == "a<｜User｜>b")
        let second = try await server.post(
            "/v1/completions", body + #","skip_special_tokens":true,"presence_penalty":0,"frequency_penalty":1}"#)
        #expect(second.json["choices"]?[0]?["text"]?.string == "ab")
        #expect(server.engine.received.map(\.sampling.presencePenalty) == [1.5, 0])
        #expect(server.engine.received.map(\.sampling.frequencyPenalty) == [-0.5, 1])
    }

    @Test func `gives the same seeds again after a start with the same seed`() async throws {
        func seeds(_ seed: UInt64?) async throws -> [UInt64] {
            var defaults = SamplingDefaults()
            defaults.seed = seed
            let server = ToyServer(defaults: defaults) { _ in ToyTokenizer.tokens("x") }
            for body in [#"{"text":"hi"}"#, #"{"text":"hi","sampling_params":{"sampling_seed":5}}"#, #"{"text":"hi"}"#]
            {
                #expect(try await server.post("/generate", body).status == 200)
            }
            return server.engine.received.map(\.sampling.seed)
        }
        let first = try await seeds(7)
        #expect(Set(first).count == 3 && first[1] == 5)
        #expect(try await seeds(7) == first)
        #expect(try await seeds(8)[0] != first[0])
        #expect(try await seeds(nil)[0] != first[0])
    }
}

@Suite struct `A line of the log` {
    private let time = Date(timeIntervalSince1970: 1_700_000_000.25)
    private let fields = [JSONMember("milliseconds", .integer(12)), JSONMember("client", .string("127.0.0.1"))]

    @Test func `is text`() {
        #expect(
            Log.text(.info, "GET /health 200", fields, .text, at: time)
                == "GET /health 200 milliseconds=12 client=127.0.0.1")
    }

    @Test func `is an object of JSON in one line`() throws {
        let line = Log.text(.error, "two\nlines \"quoted\"", fields, .json, at: time)
        #expect(!line.contains("\n"))
        let json = try JSONValue(parsing: line)
        #expect(json["time"]?.string == "2023-11-14T22:13:20.250Z")
        #expect(json["level"]?.string == "error" && json["message"]?.string == "two\nlines \"quoted\"")
        #expect(json["milliseconds"]?.integer == 12 && json["client"]?.string == "127.0.0.1")
    }
}
