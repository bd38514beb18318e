import Grammar
import Inference
import JSON
import TestSupport
import Testing

/// Requests to `/generate` with several prompts, for each of which a member may have a value of its own.
@Suite struct `A batch of prompts` {
    private static func post(_ members: String, to server: ToyServer) async throws -> Reply {
        try await server.post("/generate", #"{"text":["a","bc"],"# + members + "}")
    }

    @Test func `may have sampling parameters for each prompt`() async throws {
        let server = ToyServer("xyz")
        let body = #"""
            "sampling_params":[{"max_new_tokens":1,"temperature":0,"regex":"x+"},
            {"max_new_tokens":2,"stop":"y","sampling_seed":7}]
            """#
        let reply = try await Self.post(body, to: server)
        #expect(reply.json.array?.map { $0["text"]?.string } == ["x", "x"], "\(reply.text)")
        let reasons = reply.json.array?.map { $0["meta_info"]?["finish_reason"]?["type"]?.string }
        #expect(reasons == ["length", "stop"])
        let received = server.engine.received
        #expect(received.map(\.sampling.maxNewTokens) == [1, 2])
        #expect(received.map(\.sampling.temperature) == [0, 1])
        #expect(received[1].sampling.seed == 7)
        #expect(received.map { $0.grammar == nil } == [false, true])
    }

    @Test func `may ask for log-probabilities of each prompt`() async throws {
        let server = ToyServer("x")
        let body = #"""
            "sampling_params":{"max_new_tokens":1},"return_logprob":[false,true],"logprob_start_len":[-1,1],
            "top_logprobs_num":[3,2]
            """#
        let reply = try await Self.post(body, to: server)
        let metas = try #require(reply.json.array?.compactMap { $0["meta_info"] })
        #expect(metas.map { $0["output_token_logprobs"]?.array?.count } == [nil, 1])
        #expect(metas.map { $0["input_token_logprobs"]?.array?.count } == [nil, 2])
        #expect(metas.map { $0["output_top_logprobs"]?[0]?.array?.count } == [nil, 2])
        #expect(server.engine.received.map(\.logProbs) == [nil, LogProbOptions(topCount: 2, promptStart: 1)])
    }

    @Test func `has values that are given once for all of its prompts`() async throws {
        let server = ToyServer("x")
        let body = #"""
            "sampling_params":{"max_new_tokens":1},"return_logprob":true,"logprob_start_len":[0,-1],"cache_salt":"s"
            """#
        #expect(try await Self.post(body, to: server).status == 200)
        let expected = [LogProbOptions(promptStart: 0), LogProbOptions()]
        #expect(server.engine.received.map(\.logProbs) == expected)
        #expect(server.engine.received.map(\.cacheSalt) == ["s", "s"])
    }

    @Test func `may have several answers and a salt for each prompt`() async throws {
        let server = ToyServer("x")
        let body = #"""
            "sampling_params":[{"n":2,"max_new_tokens":1},{"n":2,"max_new_tokens":2}],"cache_salt":["s","t"],
            "return_logprob":[true,false],"rid":["one","two"]
            """#
        let reply = try await Self.post(body, to: server)
        let ids = reply.json.array?.map { $0["meta_info"]?["id"]?.string }
        #expect(ids == ["one_0", "one_1", "two_0", "two_1"], "\(reply.text)")
        let received = server.engine.received
        #expect(received.map(\.sampling.maxNewTokens) == [1, 1, 2, 2])
        #expect(received.map(\.cacheSalt) == ["s", "s", "t", "t"])
        #expect(received.map { $0.logProbs == nil } == [false, false, true, true])
    }

    @Test func `is streamed with the parameters of each prompt`() async throws {
        let server = ToyServer("xyz")
        let body =
            #""stream":true,"sampling_params":[{"max_new_tokens":1},{"max_new_tokens":3}],"return_logprob":[true,false]"#
        let reply = try await Self.post(body, to: server)
        for (index, text) in ["x", "xyz"].enumerated() {
            let own = reply.chunks.filter { $0["index"]?.integer == index }
            #expect(own.last?["text"]?.string == text)
            #expect((own.last?["meta_info"]?["output_token_logprobs"] == nil) == (index == 1))
        }
    }

    @Test func `shows the first scored token of each prompt without a score, as SGLang does`() async throws {
        let server = ToyServer("x")
        let body = #""return_logprob":true,"logprob_start_len":[0,1],"top_logprobs_num":1"#
        let reply = try await Self.post(body, to: server)
        for meta in try #require(reply.json.array?.compactMap { $0["meta_info"] }) {
            let scores = try #require(meta["input_token_logprobs"]?.array)
            #expect(scores.map { $0[0]?.isNull } == [true] + Array(repeating: false, count: scores.count - 1))
            #expect(meta["input_top_logprobs"]?[0]?.isNull == true)
        }
    }

    @Test func `of one prompt may have lists of one value`() async throws {
        let server = ToyServer("xyz")
        let reply = try await server.post(
            "/generate", #"{"text":"a","sampling_params":[{"max_new_tokens":2}],"return_logprob":[true]}"#)
        #expect(reply.json["text"]?.string == "xy")
        #expect(reply.json["meta_info"]?["output_token_logprobs"]?.array?.count == 2)
        let longer = try await server.post("/generate", #"{"text":"a","return_logprob":[true,true]}"#)
        #expect(longer.message.contains("has 2 entries, but there is 1 prompt;"), "\(longer.text)")
    }

    @Test(arguments: [
        (#""sampling_params":[{}]"#, "sampling_params", "1 entry, but there are 2 prompts"),
        (#""sampling_params":[{},{},{}]"#, "sampling_params", "3 entries"),
        (#""sampling_params":[{},5]"#, "sampling_params[1]", "must be a JSON object"),
        (#""sampling_params":[{},null]"#, "sampling_params[1]", "must be a JSON object"),
        (#""sampling_params":[{},{"top_p":2}]"#, "sampling_params[1].top_p", "top_p is 2"),
        (#""sampling_params":[{},{"max_tokens":2}]"#, "sampling_params[1].max_tokens", "use max_new_tokens"),
        (#""sampling_params":[{"n":2},{"n":3}]"#, "sampling_params[1].n", "same number of answers"),
        (#""sampling_params":[{},{"regex":"((("}]"#, "sampling_params[1].regex", "is refused"),
        (#""return_logprob":[true]"#, "return_logprob", "1 entry, but there are 2 prompts"),
        (#""return_logprob":[true,1]"#, "return_logprob[1]", "must be true or false"),
        (#""return_logprob":true,"logprob_start_len":[0]"#, "logprob_start_len", "1 entry"),
        (#""return_logprob":true,"logprob_start_len":[0,9]"#, "logprob_start_len[1]", "the prompt has 3 tokens"),
        (#""return_logprob":true,"logprob_start_len":[0,-2]"#, "logprob_start_len[1]", "at least -1"),
        (#""top_logprobs_num":[1,2,3]"#, "top_logprobs_num", "3 entries"),
        (#""top_logprobs_num":[1,21]"#, "top_logprobs_num[1]", "0...20"),
        (#""cache_salt":["a"]"#, "cache_salt", "1 entry"), (#""cache_salt":["a",""]"#, "cache_salt[1]", "is empty"),
        (#""stream":[true,false]"#, "stream", "must be true or false"),
        (#""rid":["a","b","c"]"#, "rid", "a list of 2 strings"), (#""rid":["a","a"]"#, "rid", "same id twice"),
        (#""sampling_params":{"n":2},"rid":["a","a_0"]"#, "rid", "an answer of another prompt gets too"),
    ])
    func `with a list that does not fit is refused`(members: String, name: String, words: String) async throws {
        let server = ToyServer("x")
        let reply = try await Self.post(members, to: server)
        #expect(reply.status == 400 && reply.parameter == name, "\(reply.text)")
        #expect(reply.message.contains(words), "\(reply.message)")
        #expect(server.engine.received.isEmpty)
    }

    @Test func `with very many forms or prompts is refused before they are compiled`() async throws {
        let server = ToyServer("x")
        let texts = Array(repeating: #""a""#, count: 17).joined(separator: ",")
        // The last form cannot be compiled, so a compilation would be seen by its error.
        let patterns = (0..<16).map { "x\($0)" } + ["((("]
        let forms = patterns.map { "{\"regex\":\"\($0)\"}" }.joined(separator: ",")
        let reply = try await server.post("/generate", "{\"text\":[\(texts)],\"sampling_params\":[\(forms)]}")
        #expect(
            reply.parameter == "sampling_params" && reply.message.contains("more than 16 different"), "\(reply.text)")
        for element in [#""a""#, "5"] {
            let many = Array(repeating: element, count: 5000).joined(separator: ",")
            let long = try await server.post("/generate", "{\"text\":[\(many)],\"sampling_params\":[\(many)]}")
            #expect(long.parameter == "text" && long.message.contains("5000 prompts"), "\(long.text)")
        }
    }

    @Test(arguments: [true, false])
    func `with a form that is too large is refused before forms are compared`(isOne: Bool) async throws {
        let server = ToyServer("x")
        let pattern = String(repeating: "x", count: (1 << 20) + 1)
        let form = #"{"regex":"\#(pattern)"}"#
        let value = isOne ? form : #"[{"n":1},\#(form)]"#
        let reply = try await Self.post(#""sampling_params":\#(value)"#, to: server)
        let name = isOne ? "sampling_params.regex" : "sampling_params[1].regex"
        #expect(reply.status == 400 && reply.parameter == name, "\(reply.message.prefix(300))")
        #expect(reply.message == "\(name): is refused: 1048577 bytes; the most is 1048576")
    }
}

@Suite struct `Alternatives of all tokens` {
    private static let bodies = [
        ("/v1/completions", #"{"model":"toy","prompt":"a","max_tokens":1,"logprobs":-1}"#, "logprobs"),
        (
            "/v1/chat/completions",
            #"{"model":"toy","messages":[{"role":"user","content":"a"}],"max_tokens":1,"logprobs":true,"top_logprobs":-1}"#,
            "top_logprobs"
        ),
    ]

    @Test(arguments: bodies)
    func `are asked for by -1 if the server allows it`(path: String, body: String, name: String) async throws {
        let server = ToyServer(maxTopLogProbs: 1024) { _ in ToyTokenizer.tokens("x") }
        #expect(try await server.post(path, body).status == 200)
        #expect(server.engine.received.map(\.logProbs) == [LogProbOptions(topCount: 1024)])
        let negative = try await server.post(path, body.replacing("-1", with: "-2"))
        #expect(negative.status == 400 && negative.parameter == name, "\(negative.text)")
    }

    @Test(arguments: bodies)
    func `are refused where the limit is lower`(path: String, body: String, name: String) async throws {
        // Such a server does not offer -1 either.
        let negative = try await ToyServer("x").post(path, body.replacing("-1", with: "-2"))
        #expect(negative.status == 400 && negative.message.contains("it must be in 0...20"), "\(negative.text)")
        let reply = try await ToyServer("x").post(path, body)
        #expect(reply.status == 400 && reply.parameter == name, "\(reply.text)")
        #expect(reply.message.contains("all 1024 tokens") && reply.message.contains("--max-logprobs -1"))
    }

    @Test func `in a conversation need logprobs`() async throws {
        let server = ToyServer(maxTopLogProbs: 1024) { _ in ToyTokenizer.tokens("x") }
        let reply = try await server.post(
            "/v1/chat/completions", #"{"model":"toy","messages":[{"role":"user","content":"a"}],"top_logprobs":-1}"#)
        #expect(reply.status == 400 && reply.parameter == "top_logprobs", "\(reply.text)")
    }
}
