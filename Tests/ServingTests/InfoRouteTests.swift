import Foundation
import HTTPTypes
import Inference
import JSON
import Parallelism
import ServerTesting
import Serving
import TestSupport
import Testing

/// Tests of the routes that describe the server, and of headers.
@Suite struct InfoRouteTests {
    private static func server() -> ToyServer {
        var server = ToyServer("x")
        server.configuration.model = ServedModel(
            path: "/models/toy", type: "deepseek_v32", architectures: ["DeepseekV32ForCausalLM"])
        return server
    }

    @Test func `routers find an engine of SGLang's interface`() async throws {
        let server = Self.server()
        let model = try #require(try await server.send(.get, "/v1/models").json["data"]?[0])
        #expect(model["owned_by"]?.string == "sglang" && model["root"]?.string == "/models/toy")
        #expect(try await server.send(.get, "/version").json["version"]?.string == ServerConfiguration.version)
        for path in ["/model_info", "/get_model_info"] {
            let info = try await server.send(.get, path).json
            #expect(info["model_path"]?.string == "/models/toy" && info["is_generation"]?.bool == true)
            #expect(info["model_type"]?.string == "deepseek_v32")
            #expect(info["architectures"]?.strings == ["DeepseekV32ForCausalLM"])
        }
        for path in ["/server_info", "/get_server_info"] {
            let info = try await server.send(.get, path).json
            #expect(info["model_path"]?.string == "/models/toy" && info["served_model_name"]?.string == "toy")
            #expect(info["dp_size"]?.integer == 1 && info["disaggregation_mode"]?.string == "null")
            #expect(info["max_total_tokens"]?.integer == 64 * 64 && info["context_length"]?.integer == 4096)
        }
        #expect(try await server.send(.get, "/v1/models/toy").json["owned_by"]?.string == "sglang")
    }

    // MARK: - Anthropic's list of models

    private static let anthropic: HTTPFields = [HTTPField.Name("anthropic-version")!: "2023-06-01"]

    /// A server whose models are `toy`, `b`, `c` and `org/d`.
    private static func severalNames() -> ToyServer {
        var server = server()
        server.configuration.otherModelNames = ["b", "c", "org/d"]
        return server
    }

    @Test func `clients of Anthropic get models in their form, and others in OpenAI's`() async throws {
        let server = Self.severalNames()
        let list = try await server.send(.get, "/v1/models", headers: Self.anthropic)
        #expect(list.status == 200 && list.json["object"] == nil && list.json["has_more"]?.bool == false)
        #expect(list.json["first_id"]?.string == "toy" && list.json["last_id"]?.string == "org/d")
        #expect(list.json["data"]?.array?.map { $0["id"]?.string } == ["toy", "b", "c", "org/d"])
        let one = try await server.send(.get, "/v1/models/org%2Fd", headers: Self.anthropic)
        for model in [try #require(list.json["data"]?[3]), one.json] {
            #expect(model["type"]?.string == "model" && model["lifecycle"]?.string == "active")
            #expect(model["id"]?.string == "org/d" && model["display_name"]?.string == "org/d")
            #expect(model["max_input_tokens"]?.integer == 4096 && model["max_tokens"]?.integer == 4095)
            let created = try Date(#require(model["created_at"]?.string), strategy: .iso8601)
            #expect(abs(created.timeIntervalSinceNow) < 3600)
            #expect(model["owned_by"] == nil && model["root"] == nil)
        }
        let plain = try await server.send(.get, "/v1/models")
        #expect(plain.json["object"]?.string == "list" && plain.json["has_more"] == nil)
        #expect(plain.json["data"]?[0]?["object"]?.string == "model" && plain.json["data"]?[0]?["type"] == nil)
    }

    @Test(arguments: [
        ("limit=2", ["toy", "b"], true), ("limit=4", ["toy", "b", "c", "org/d"], false),
        ("after_id=b", ["c", "org/d"], false), ("limit=1&after_id=b", ["c"], true), ("after_id=org%2Fd", [], false),
        ("before_id=c", ["toy", "b"], false), ("limit=1&before_id=c", ["b"], true), ("before_id=toy", [], false),
        ("after_id=toy&before_id=org/d", ["b", "c"], false), ("after_id=c&before_id=b", [], false),
        ("after_id=&limit=1", ["toy"], true),
    ])
    func `clients of Anthropic get the models page by page`(query: String, ids: [String], hasMore: Bool) async throws {
        let reply = try await Self.severalNames().send(.get, "/v1/models?" + query, headers: Self.anthropic)
        #expect(reply.json["data"]?.array?.compactMap { $0["id"]?.string } == ids, "\(reply.text)")
        #expect(reply.json["has_more"]?.bool == hasMore)
        #expect(reply.json["first_id"]?.string == ids.first && reply.json["last_id"]?.string == ids.last)
    }

    @Test(arguments: ["limit=0", "limit=1001", "limit=x", "limit=", "after_id=nope", "before_id=nope"])
    func `clients of Anthropic are told which part of a query is wrong, in Anthropic's form`(query: String) async throws
    {
        let reply = try await Self.severalNames().send(.get, "/v1/models?" + query, headers: Self.anthropic)
        #expect(reply.status == 400 && reply.json["type"]?.string == "error", "\(reply.text)")
        #expect(reply.json["error"]?["type"]?.string == "invalid_request_error")
        let name = try #require(query.split(separator: "=").first)
        #expect(reply.message.hasPrefix(name + " is "), "\(reply.message)")
        #expect(reply.header("request-id") != nil)
    }

    @Test func `an error about a model has the form of the client's interface`() async throws {
        var server = Self.server()
        let missing = try await server.send(.get, "/v1/models/nope", headers: Self.anthropic)
        #expect(missing.status == 404 && missing.json["error"]?["type"]?.string == "not_found_error")
        #expect(try await server.send(.get, "/v1/models/nope").code == "model_not_found")
        server.configuration.apiKeys = ["k"]
        let refused = try await server.send(.get, "/v1/models", headers: Self.anthropic)
        #expect(refused.status == 401 && refused.json["error"]?["type"]?.string == "authentication_error")
        // Other routes are OpenAI's, whoever asks.
        let chat = try await server.send(.post, "/v1/chat/completions", "{}", headers: Self.anthropic)
        #expect(chat.status == 401 && chat.code == "invalid_api_key")
    }

    // MARK: - What the server is

    @Test func `the settings in force are told under SGLang's names`() async throws {
        let server = Self.server()
        let first = try await server.send(.get, "/server_info").json
        #expect(first["enable_dp_attention"]?.bool == false && first["disable_radix_cache"]?.bool == false)
        #expect(first["enable_deepseek_v4_fp4_indexer"]?.bool == false)
        #expect(first["pp_layer_partition"]?.isNull == true && first["layout_notation"]?.string == "one")
        var settings = EngineSettings()
        // Degrees that all differ, so that none can be told under another's name.
        settings.parallel = ParallelConfiguration(
            data: 2, context: 3, tensor: 4, expert: 6, expertTensor: 8, pipeline: 5, stageLayers: [3, 1, 1, 1, 1],
            denseTensor: 7, strategy: .zigzag, exchange: .allToAll,
            kvSharding: KVSharding(ranks: 12, unit: 9, minKeys: 10))
        (settings.chunkedPrefillSize, settings.maxPrefillTokens, settings.processes) = (11, 13, 15)
        (settings.kvCacheDtype, settings.hasFP4Index, settings.prefixCache) = ("fp8_e4m3", true, false)
        server.engine.setSettings(settings)
        let info = try await server.send(.get, "/get_server_info").json
        let sizes = [
            ("tp_size", 24), ("dp_size", 2), ("attn_cp_size", 3), ("attn_tp_size", 4), ("pp_size", 5), ("ep_size", 6),
            ("moe_tp_size", 8), ("moe_dense_tp_size", 7), ("dcp_size", 12), ("dcp_interleave", 9), ("dcp_min_keys", 10),
            ("chunked_prefill_size", 11), ("max_prefill_tokens", 13), ("processes", 15),
        ]
        for (name, size) in sizes { #expect(info[name]?.integer == size, "\(name)") }
        #expect(info["pp_layer_partition"]?.integers == [3, 1, 1, 1, 1])
        #expect(info["layout_notation"]?.string == settings.parallel.notation)
        #expect(info["moe_a2a_backend"]?.string == "alltoall" && info["cp_strategy"]?.string == "zigzag")
        #expect(info["kv_cache_dtype"]?.string == "fp8_e4m3" && info["disable_radix_cache"]?.bool == true)
        #expect(info["enable_dp_attention"]?.bool == true && info["enable_deepseek_v4_fp4_indexer"]?.bool == true)
    }

    @Test func `the exchange of keys with another server is told, and requests take part in it`() async throws {
        let server = ToyServer(
            transfers: TransferService(.decode(server: { _, _ in nil }, engine: { _ in nil })) {
                var status = TransferStatus(
                    mode: "decode", backend: "ucx",
                    peers: [
                        .init(address: "10.0.0.2:8998"), .init(address: "10.0.0.3:8998", problem: "cannot be reached"),
                        .init(address: "10.0.0.4:8998"),
                    ])
                (status.transfers, status.failures, status.receivedBytes) = (2, 3, 4)
                return status
            },
            answer: { ToyTokenizer.tokens($0.mode == .decode ? "yes" : "no") })
        let info = try await server.send(.get, "/server_info").json
        #expect(info["disaggregation_mode"]?.string == "decode")
        let state = try #require(info["disaggregation"])
        #expect(state["mode"]?.string == "decode" && state["connected"]?.bool == true)
        #expect(state["transfer_backend"]?.string == "ucx")
        let peer = try #require(state["peers"]?[1])
        #expect(peer["address"]?.string == "10.0.0.3:8998" && peer["connected"]?.bool == false)
        #expect(peer["problem"]?.string == "cannot be reached" && state["peers"]?[2]?["problem"] == .null)
        let metrics = try await server.send(.get, "/metrics").text
        for line in [
            "braid_disaggregation_sessions{model_name=\"toy\"} 2",
            "braid_disaggregation_transfers{model_name=\"toy\"} 2",
            "braid_disaggregation_session_failures_total{model_name=\"toy\"} 3",
            "braid_kv_transfer_bytes_total{model_name=\"toy\",direction=\"received\",backend=\"ucx\"} 4",
        ] { #expect(metrics.contains(line + "\n"), "\(line)") }
        let answer = try await server.post("/generate", #"{"text":"a"}"#).json
        #expect(answer["text"]?.string == "yes")
        let alone = Self.server()
        #expect(try await alone.send(.get, "/server_info").json["disaggregation"] == .null)
        #expect(!(try await alone.send(.get, "/metrics").text.contains("disaggregation")))
    }

    @Test func `the load is told in both forms`() async throws {
        let server = Self.server()
        server.engine.isHolding = true
        async let answer = server.post("/generate", #"{"text":"a","sampling_params":{"max_new_tokens":1}}"#)
        #expect(await eventually { server.engine.runningCount == 1 })
        let loads = try await server.send(.get, "/v1/loads?include=core").json
        #expect(loads["dp_rank_count"]?.integer == 1 && loads["loads"]?[0]?["num_running_reqs"]?.integer == 1)
        #expect(loads["aggregate"]?["total_running_reqs"]?.integer == 1)
        #expect(loads["served_model_name"]?.string == "toy" && loads["disaggregation_mode"]?.string == "null")
        let load = try await server.send(.get, "/get_load").json
        #expect(load[0]?["num_reqs"]?.integer == 1 && load[0]?["dp_rank"]?.integer == 0)
        server.engine.isHolding = false
        _ = try await answer
    }

    @Test func `health_generate notices an engine that generates nothing`() async throws {
        var server = Self.server()
        let engine = server.engine
        #expect(try await server.send(.get, "/health_generate").status == 200)
        server.configuration.healthTimeout = .milliseconds(200)
        engine.isHolding = true
        let stuck = try await server.send(.get, "/health_generate")
        #expect(stuck.status == 503 && stuck.code == "engine_stuck")
        engine.isHolding = false
        #expect(await eventually { engine.runningCount == 0 })
    }

    @Test func `health_generate gives the reason of a refusal or a failure`() async throws {
        var server = Self.server()
        server.configuration.healthTimeout = .milliseconds(200)
        server.engine.capacity = 0
        let full = try await server.send(.get, "/health_generate")
        #expect(full.status == 503 && full.code == "rate_limit_exceeded", "\(full.text)")
        #expect(try await server.post("/generate", #"{"text":"a"}"#).message == full.message)
        server.engine.capacity = .max
        server.engine.requestFailure = "no number"
        let failed = try await server.send(.get, "/health_generate")
        #expect(failed.status == 503 && failed.code == "generation_failed" && failed.message.contains("no number"))
        server.engine.requestFailure = nil
        let small = ToyServer(contextLength: 1) { _ in [] }
        let refused = try await small.send(.get, "/health_generate")
        #expect(refused.status == 503 && refused.code == "context_length_exceeded", "\(refused.text)")
        server.slot.startDraining()
        let draining = try await server.send(.get, "/health_generate")
        #expect(draining.status == 503 && draining.code == "shutting_down")
    }

    @Test(arguments: [(#"{"rid":"a"}"#, 2), (#"{"abort_all":true}"#, 3)])
    func `requests are aborted by their id`(body: String, count: Int) async throws {
        let server = Self.server()
        server.engine.isHolding = true
        async let generate = server.post("/generate", #"{"text":["a","b"],"rid":"a"}"#)
        async let chat = server.post(
            "/v1/chat/completions", #"{"model":"toy","messages":[{"role":"user","content":"hi"}],"rid":"b"}"#)
        #expect(await eventually { server.engine.runningCount == 3 })
        let unknown = try await server.post("/abort_request", #"{"rid":"ab"}"#)
        #expect(unknown.status == 200 && unknown.json["aborted"]?.integer == 0)
        // The answers end none before this.
        try await server.abort(body, atLeast: count)
        server.engine.isHolding = false
        let answers = try await generate.json
        #expect(answers[0]?["meta_info"]?["finish_reason"]?["type"]?.string == "abort", "\(answers)")
        #expect(answers[1]?["meta_info"]?["finish_reason"]?["type"]?.string == "abort")
        let reason = try await chat.json["choices"]?[0]?["finish_reason"]?.string
        #expect((reason == "abort") == (count == 3))
        #expect(await eventually { server.engine.runningCount == 0 })
    }

    @Test func `a conversation can be tokenized`() async throws {
        let server = Self.server()
        let messages = #""messages":[{"role":"user","content":"hi"}]"#
        let reply = try await server.post("/tokenize", "{\(messages),\"chat_template_kwargs\":{\"thinking\":true}}")
        #expect(reply.json["tokens"]?.integers == [0, 2] + ToyTokenizer.tokens("hi").map(Int.init) + [3, 4])
        #expect(reply.json["count"]?.integer == 6)
        for more in [#""add_special_tokens":false"#, #""continue_final_message":false,"add_generation_prompt":true"#] {
            let same = try await server.post("/tokenize", "{\(messages),\(more)}")
            #expect(same.json["count"]?.integer == 6, "\(same.text)")
        }
        for name in ["add_special_tokens", "add_generation_prompt"] {
            let body = #"{\#(messages),"\#(name)":\#(name == "add_special_tokens")}"#
            let refused = try await server.post("/tokenize", body)
            #expect(refused.status == 400 && refused.parameter == name && refused.code == "unsupported_parameter")
        }
        let begun = #""messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"a"}]"#
        let continued = try await server.post(
            "/tokenize", #"{\#(begun),"continue_final_message":true,"add_generation_prompt":false}"#)
        #expect(continued.json["tokens"]?.integers?.last == Int(ToyTokenizer.tokens("a")[0]), "\(continued.text)")
        let info = try await server.send(.get, "/tokenizer_info").json
        #expect(info["bos_token"]?.string == "<｜begin▁of▁sentence｜>" && info["eos_token_id"]?.integer == 1)
    }

    @Test func `openapi_json describes every route and every member of the tables`() async throws {
        let document = try await Self.server().send(.get, "/openapi.json").json
        for path in AccessTests.paths where path.hasPrefix("/v1/") && !path.hasSuffix("toy") {
            #expect(document["paths"]?[path] != nil, "\(path)")
        }
        let chat = document["paths"]?["/v1/chat/completions"]?["post"]?["requestBody"]?["content"]
        let schema = chat?["application/json"]?["schema"]
        #expect(schema?["required"]?.strings == ["messages"])
        #expect(schema?["properties"]?["temperature"]?["type"]?[0]?.string == "number")
        #expect(schema?["properties"]?["functions"]?["description"]?.string?.contains("use tools") == true)
        #expect(document["paths"]?["/v1/models/{id}"]?["get"] != nil)
    }

    @Test func `monitoring needs no key if the operator says so`() async throws {
        var server = Self.server()
        server.configuration.apiKeys = ["k"]
        for path in ["/ready", "/ping", "/metrics"] { #expect(try await server.send(.get, path).status == 401) }
        server.configuration.opensMonitoring = true
        for path in ["/ready", "/ping", "/metrics"] { #expect(try await server.send(.get, path).status == 200) }
        #expect(try await server.send(.get, "/server_info").status == 401)
    }

    @Test func `pages of origins that are named may use the server`() async throws {
        var server = Self.server()
        server.configuration.apiKeys = ["k"]
        let method = try #require(HTTPField.Name("access-control-request-method"))
        var headers: HTTPFields = [.origin: "https://app.example", method: "POST"]
        #expect(try await server.send(.options, "/v1/models", headers: headers).status == 401)
        server.configuration.corsOrigins = ["https://app.example"]
        let question = try await server.send(.options, "/v1/models", headers: headers)
        #expect(question.status == 204)
        #expect(question.header("access-control-allow-origin") == "https://app.example")
        #expect(question.header("access-control-allow-methods")?.contains("POST") == true)
        let refused = try await server.send(.get, "/v1/models", headers: [.origin: "https://app.example"])
        #expect(refused.status == 401 && refused.header("access-control-allow-origin") == "https://app.example")
        headers[.origin] = "https://other.example"
        let other = try await server.send(.options, "/v1/models", headers: headers)
        #expect(other.status == 401 && other.header("access-control-allow-origin") == nil)
        server.configuration.apiKeys = []
        let post = try await server.send(
            .post, "/generate", #"{"text":"a"}"#, headers: [.origin: "https://app.example"])
        #expect(post.status == 200)
        #expect(!server.configuration.validate().contains { $0.contains("cors") })
        server.configuration.corsOrigins = ["app.example/x"]
        #expect(server.configuration.validate().contains { $0.contains("--cors-allow-origin") })
    }

    @Test(arguments: [["https://app.example"], ["*"]])
    func `no cache gives a page the response to another origin's request, or to none's`(
        origins: [String]
    ) async throws {
        var server = Self.server()
        #expect(try await server.send(.get, "/v1/models").header("vary") == nil)
        server.configuration.corsOrigins = origins
        let method = try #require(HTTPField.Name("access-control-request-method"))
        for headers: HTTPFields in [
            [:], [.origin: "https://app.example"], [.origin: "https://other.example"],
            [.origin: "https://app.example", method: "POST"],
        ] {
            for (verb, path) in [(HTTPRequest.Method.get, "/v1/models"), (.options, "/v1/models"), (.get, "/nope")] {
                let reply = try await server.send(verb, path, headers: headers)
                #expect(reply.header("vary") == "origin", "\(verb) \(path) \(headers)")
            }
        }
    }

    @Test func `a request keeps its id`() async throws {
        let name = try #require(HTTPField.Name("x-request-id"))
        let server = Self.server()
        #expect(try await server.send(.get, "/health", headers: [name: "r-1"]).header("x-request-id") == "r-1")
        #expect(try await server.send(.get, "/nope", headers: [name: "r-2"]).header("x-request-id") == "r-2")
        #expect(try await server.send(.get, "/health").header("x-request-id")?.count == 32)
        let long = String(repeating: "x", count: 300)
        #expect(try await server.send(.get, "/health", headers: [name: long]).header("x-request-id") != long)
    }

    @Test(arguments: [
        ("/v1/completions", #"{"model":"toy","prompt":"a","stream":true}"#),
        ("/v1/messages", #"{"model":"toy","max_tokens":2,"messages":[{"role":"user","content":"a"}],"stream":true}"#),
    ])
    func `a stream shows that it still works while nothing is generated`(path: String, body: String) async throws {
        var server = Self.server()
        server.configuration.keepAliveInterval = .milliseconds(20)
        let engine = server.engine
        engine.isHolding = true
        try await server.application.listening { port in
            try await RawConnection.open(port: port) { connection in
                try await connection.post(path, body)
                #expect(await connection.receive(until: ": keep-alive\n\n").contains(": keep-alive\n\n"))
                engine.isHolding = false
                _ = await connection.receive(until: "0\r\n\r\n")
            }
        }
    }
}
