import HTTPTypes
import Inference
import JSON
import NIOCore
import ServerTesting
import Serving
import TestSupport
import Testing

/// Tests of requests that are refused, each with the name of the invalid member.
@Suite struct RefusalTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let path: String
        let body: String
        let parameter: String?

        var testDescription: String { "\(path) \(body.prefix(80))" }
    }

    private static let completion = #""model":"toy","prompt":"hi""#

    static let completions: [Case] = [
        ("\"n\":0", "n"), ("\"n\":-1", "n"), ("\"n\":1000000", "n"), ("\"n\":1.5", "n"), ("\"n\":\"1\"", "n"),
        ("\"max_tokens\":-1", "max_tokens"), ("\"max_tokens\":2147483648", "prompt"),
        ("\"max_tokens\":9223372036854775807", "prompt"), ("\"max_tokens\":1e300", "max_tokens"),
        ("\"max_tokens\":18446744073709551616", "max_tokens"), ("\"max_tokens\":true", "max_tokens"),
        ("\"temperature\":-1", "temperature"), ("\"temperature\":1e308", "temperature"),
        ("\"temperature\":2.001", "temperature"), ("\"temperature\":\"hot\"", "temperature"),
        ("\"temperature\":[]", "temperature"), ("\"top_p\":0", "top_p"), ("\"top_p\":1.1", "top_p"),
        ("\"top_p\":-0", "top_p"), ("\"top_k\":-2", "top_k"), ("\"min_p\":1.5", "min_p"), ("\"min_p\":-0.1", "min_p"),
        ("\"frequency_penalty\":3", "frequency_penalty"), ("\"presence_penalty\":-2.5", "presence_penalty"),
        ("\"repetition_penalty\":0", "repetition_penalty"), ("\"repetition_penalty\":2.5", "repetition_penalty"),
        ("\"logprobs\":21", "logprobs"), ("\"logprobs\":-1", "logprobs"), ("\"logprobs\":true", "logprobs"),
        ("\"stop\":\"\"", "stop"), ("\"stop\":[\"a\",\"\"]", "stop"), ("\"stop\":[1]", "stop"), ("\"stop\":{}", "stop"),
        ("\"stop\":[\(repeatElement("\"a\"", count: 17).joined(separator: ","))]", "stop"),
        ("\"stop\":\"\(String(repeating: "x", count: 1 << 20))\"", "stop"),
        ("\"stop_token_ids\":[1024]", "stop_token_ids"), ("\"stop_token_ids\":[\"1\"]", "stop_token_ids"),
        ("\"logit_bias\":{\"x\":1}", "logit_bias"), ("\"logit_bias\":{\"1024\":1}", "logit_bias"),
        ("\"logit_bias\":{\"-1\":1}", "logit_bias"), ("\"logit_bias\":{\"5\":101}", "logit_bias"),
        ("\"logit_bias\":{\"5\":\"1\"}", "logit_bias"), ("\"logit_bias\":[5]", "logit_bias"),
        ("\"seed\":9223372036854775808", "seed"), ("\"seed\":0.5", "seed"), ("\"seed\":\"1\"", "seed"),
        ("\"min_tokens\":17", "min_tokens"), ("\"ignore_eos\":1", "ignore_eos"), ("\"echo\":\"yes\"", "echo"),
        ("\"stream\":\"yes\"", "stream"), ("\"stream_options\":{\"include_usage\":true}", "stream_options"),
        ("\"stream\":true,\"stream_options\":{\"include_usage\":1}", "stream_options.include_usage"),
        ("\"suffix\":\"end\"", "suffix"), ("\"best_of\":2", "best_of"),
    ].map { Case(path: "/v1/completions", body: "{\(completion),\($0.0)}", parameter: $0.1) }

    static let prompts: [Case] = [
        ("", "prompt"), (",\"prompt\":null", "prompt"), (",\"prompt\":[]", "prompt"), (",\"prompt\":5", "prompt"),
        (",\"prompt\":{}", "prompt"), (",\"prompt\":[-1]", "prompt"), (",\"prompt\":[1024]", "prompt"),
        (",\"prompt\":[1.5]", "prompt"), (",\"prompt\":[5,\"a\"]", "prompt"), (",\"prompt\":[\"a\",5]", "prompt"),
        (",\"prompt\":[[5],[4294967296]]", "prompt[1]"), (",\"prompt\":[[]]", "prompt"),
        (",\"prompt\":[\(repeatElement("5", count: 4096).joined(separator: ","))]", "prompt"),
        (",\"n\":100,\"prompt\":[\(repeatElement("[5]", count: 11).joined(separator: ","))]", "prompt"),
    ].map { Case(path: "/v1/completions", body: "{\"model\":\"toy\"\($0.0)}", parameter: $0.1) }

    static let generate: [Case] = [
        ("{}", "text"), (#"{"text":"a","input_ids":[5]}"#, "input_ids"), (#"{"text":[]}"#, "text"),
        (#"{"text":[5]}"#, "text"), (#"{"text":5}"#, "text"), (#"{"input_ids":"a"}"#, "input_ids"),
        (#"{"input_ids":[]}"#, "input_ids"), (#"{"input_ids":[[5],6]}"#, "input_ids"),
        (#"{"input_ids":[[5],[-6]]}"#, "input_ids[1]"), (#"{"input_ids":[[]]}"#, "input_ids"),
        (#"{"text":"a","sampling_params":[]}"#, "sampling_params"),
        (#"{"text":"a","sampling_params":{"temperature":-1}}"#, "sampling_params.temperature"),
        (#"{"text":"a","sampling_params":{"n":129}}"#, "sampling_params.n"),
        (#"{"text":"a","sampling_params":{"max_new_tokens":1.5}}"#, "sampling_params.max_new_tokens"),
        (#"{"text":"a","sampling_params":{"max_new_tokens":5000}}"#, "text"),
        (#"{"text":"a","return_logprob":"yes"}"#, "return_logprob"),
        (#"{"text":"a","return_logprob":true,"top_logprobs_num":21}"#, "top_logprobs_num"),
        (#"{"text":"a","return_logprob":true,"logprob_start_len":3}"#, "logprob_start_len"),
        (#"{"text":"a","logprob_start_len":-2}"#, "logprob_start_len"),
        (#"{"text":["a","b"],"rid":["one"]}"#, "rid"), (#"{"text":"a","rid":5}"#, "rid"),
    ].map { Case(path: "/generate", body: $0.0, parameter: $0.1) }

    static let tokenize: [Case] = [
        ("/tokenize", "{}", "prompt"), ("/tokenize", #"{"prompt":[5]}"#, "prompt"),
        ("/tokenize", #"{"prompt":"a","add_special_tokens":1}"#, "add_special_tokens"),
        ("/detokenize", "{}", "tokens"), ("/detokenize", #"{"tokens":[1024]}"#, "tokens"),
        ("/detokenize", #"{"tokens":[-1]}"#, "tokens"), ("/detokenize", #"{"tokens":[[5],6]}"#, "tokens"),
    ].map { Case(path: $0.0, body: $0.1, parameter: $0.2) }

    /// Bodies that are invalid for every route.
    static let malformed: [String] = [
        "", "{", "nonsense", "[]", "5", "\"text\"", "null", "{\"model\":\"toy\",}", "{\"n\":1e400}", "{\"n\":NaN}",
        "{\"n\":-Infinity}", "{\"n\":01}", "{\"a\":\"\u{1}\"}", "{\"a\":\"\\ud800\"}", "{} {}",
        String(repeating: "[", count: 100_000), String(repeating: "{\"a\":", count: 100_000),
    ]

    @Test(arguments: completions + prompts + generate + tokenize)
    func `an invalid request is refused with the name of the invalid member`(_ refused: Case) async throws {
        let server = ToyServer("x")
        let reply = try await server.post(refused.path, refused.body)
        #expect(reply.status == 400)
        #expect(reply.json["error"]?["type"]?.string == "invalid_request_error")
        #expect(reply.parameter == refused.parameter)
        #expect(!reply.message.isEmpty && reply.message.utf8.count < 1000)
        #expect(server.engine.received.isEmpty)
    }

    @Test(arguments: ["/v1/completions", "/v1/chat/completions", "/generate", "/tokenize", "/detokenize"], malformed)
    func `what is not a JSON object is refused`(_ path: String, _ body: String) async throws {
        let reply = try await ToyServer("x").post(path, body)
        #expect(reply.status == 400)
        #expect(reply.json["error"]?["type"]?.string == "invalid_request_error")
    }

    @Test func `bytes that are not UTF-8 are refused`() async throws {
        let response = try await RouteClient(ToyServer("x").application).execute(
            uri: "/generate", method: .post, body: .init(bytes: [0x7B, 0x22, 0xFF, 0x22, 0x7D]))
        #expect(response.status == .badRequest)
    }

    @Test func `the last of several equal members counts`() async throws {
        let server = ToyServer("x")
        let reply = try await server.post(
            "/v1/completions", #"{"model":"no","prompt":"a","model":"toy","temperature":9,"temperature":0}"#)
        #expect(reply.status == 200)
        #expect(server.engine.received[0].sampling.temperature == 0)
    }

    @Test func `a prompt may fill the context except for the new tokens`() async throws {
        let server = ToyServer(contextLength: 8) { _ in [] }
        let body = #"{"input_ids":[5,5,5,5,5],"sampling_params":{"max_new_tokens":"#
        #expect(try await server.post("/generate", body + "3}}").status == 200)
        let reply = try await server.post("/generate", body + "4}}")
        #expect(reply.status == 400)
        #expect(reply.code == "context_length_exceeded")
        #expect(reply.message.contains("5 tokens and 4 new ones"))
    }

    @Test(arguments: [
        ("/v1/completions", #""prompt":"a"}"#),
        ("/v1/chat/completions", #""messages":[{"role":"user","content":"a"}]}"#),
        ("/v1/responses", #""input":"a"}"#),
        ("/v1/messages", #""max_tokens":2,"messages":[{"role":"user","content":"a"}]}"#),
    ])
    func `another model's name is a 404, and a missing one means the model served`(path: String, rest: String)
        async throws
    {
        let other = try await ToyServer("x").post(path, #"{"model":"gpt-4","# + rest)
        #expect(other.status == 404)
        let missing = try await ToyServer("x").post(path, "{" + rest)
        #expect(missing.status == 200)
        #expect(missing.json["model"]?.string == "toy", "\(missing.text)")
    }

    @Test func `an error of another model's name says which is served`() async throws {
        let other = try await ToyServer("x").post("/v1/completions", #"{"model":"gpt-4","prompt":"a"}"#)
        #expect(other.parameter == "model" && other.code == "model_not_found" && other.message.contains("'toy'"))
    }

    @Test func `an overloaded engine is a 429 that says when to try again`() async throws {
        let server = ToyServer("x")
        server.engine.capacity = 0
        let reply = try await server.post("/v1/completions", #"{"model":"toy","prompt":"a"}"#)
        #expect(reply.status == 429)
        #expect(reply.header("Retry-After") == "3")
        #expect(reply.code == "rate_limit_exceeded")
    }

    @Test func `a request whose last choice is refused leaves nothing running`() async throws {
        let server = ToyServer("x")
        server.engine.isHolding = true
        server.engine.capacity = 2
        let reply = try await server.post("/v1/completions", #"{"model":"toy","prompt":"a","n":3}"#)
        #expect(reply.status == 429)
        #expect(await eventually { server.engine.abortedCount == 2 && server.engine.runningCount == 0 })
    }

    @Test func `an engine that has failed is a 503 with its reason`() async throws {
        let server = ToyServer("x")
        server.engine.failForever("rank 3 died")
        let reply = try await server.post("/generate", #"{"text":"a"}"#)
        #expect(reply.status == 503)
        #expect(reply.message.contains("rank 3 died"))
    }

    @Test func `a body over the limit is refused before it is read`() async throws {
        var server = ToyServer("x")
        server.configuration.maxBodyBytes = 2048
        let text = String(repeating: "a", count: 4096)
        let reply = try await server.post("/generate", #"{"text":"\#(text)"}"#)
        #expect(reply.status == 413)
        #expect(reply.code == "request_too_large")
        #expect(server.engine.received.isEmpty)
    }

    @Test(arguments: [
        (#"{"text":"a","sampling_params":{"temperature":NaN}}"#, "sampling_params.temperature"),
        (#"{"text":"a","stream":Infinity}"#, "stream"), (#"{"text":["a",NaN]}"#, "text[1]"),
        (#"{"text":"a","sampling_params":{"top_p":-Infinity}}"#, "sampling_params.top_p"),
    ])
    func `what is no JSON is an error that names the member`(body: String, parameter: String) async throws {
        let reply = try await ToyServer("x").post("/generate", body)
        #expect(reply.status == 400 && reply.code == "invalid_json", "\(reply.text)")
        #expect(reply.parameter == parameter, "\(reply.text)")
        #expect(try await ToyServer("x").post("/generate", "NaN").parameter == nil)
    }

    @Test func `a configuration lists all its problems at once`() {
        var configuration = ServerConfiguration(servedModelName: "")
        configuration.port = 70000
        configuration.apiKeys = ["a b"]
        configuration.maxBodyBytes = 0
        configuration.idleTimeout = .zero
        configuration.requests.maxChoices = 0
        let problems = configuration.validate()
        #expect(problems.count == 6)
        for name in [
            "--port", "--api-key", "the limit of bytes of a body", "the time of an idle connection", "the limit of n",
            "--served-model-name",
        ] {
            #expect(problems.contains { $0.hasPrefix(name) }, "\(name)")
        }
        #expect(ServerConfiguration(servedModelName: "m").validate().isEmpty)
    }

    @Test(arguments: [
        (#"{"text":"a","sampling_params":{"regex":"(((a"}}"#, "sampling_params.regex"),
        (#"{"text":"a","rid":"\#(String(repeating: "x", count: 257))"}"#, "rid"),
        (#"{"text":[\#(String(repeating: "\"\",", count: 2000))"a"]}"#, "text"),
    ])
    func `unsupported or too large requests are refused before any work`(body: String, parameter: String) async throws {
        let reply = try await ToyServer("ab").post("/generate", body)
        #expect(reply.status == 400)
        #expect(reply.json["error"]?["param"]?.string == parameter)
    }
}
