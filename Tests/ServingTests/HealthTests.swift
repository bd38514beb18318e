import HTTPTypes
import Inference
import JSON
import ServerTesting
import Serving
import TestSupport
import Testing
import Tokenization

@Suite struct HealthTests {
    @Test func `a loaded server is healthy and ready`() async throws {
        let server = ToyServer("x")
        #expect(try await server.send(.get, "/health").status == 200)
        #expect(try await server.send(.head, "/health").status == 200)
        #expect(try await server.send(.get, "/ready").status == 200)
    }

    @Test(arguments: ["/ready", "/server_info", "/v1/models"])
    func `while the model is loading the server is healthy but not ready`(_ path: String) async throws {
        let slot = ModelSlot()
        let application = buildApplication(configuration: ServerConfiguration(servedModelName: "toy"), slot: slot)
        let client = try await RouteClient(application)
        #expect(try await ToyServer.send(client, .get, "/health").status == 200)
        #expect(try await ToyServer.send(client, .get, "/metrics").status == 200)
        let waiting = try await ToyServer.send(client, .get, path)
        #expect(waiting.status == 503)
        #expect(waiting.code == "loading")
        slot.fail("a file is missing")
        #expect(try await ToyServer.send(client, .get, "/health").status == 503)
        #expect(try await ToyServer.send(client, .get, path).message.contains("a file is missing"))
        let server = ToyServer("x")
        slot.fill(with: TextService(engine: server.engine, tokenizer: ToyTokenizer.shared))
        #expect(try await ToyServer.send(client, .get, path).status == 200)
    }

    @Test func `a model without a chat format still completes texts`() async throws {
        let server = ToyServer("x")
        let slot = ModelSlot(TextService(engine: server.engine, tokenizer: ToyTokenizer.withoutChat))
        let client = try await RouteClient(buildApplication(configuration: server.configuration, slot: slot))
        let chat = try await ToyServer.send(
            client, .post, "/v1/chat/completions", #"{"model":"toy","messages":[{"role":"user","content":"a"}]}"#)
        #expect(chat.status == 400)
        #expect(chat.message.contains("/v1/completions"))
        let text = try await ToyServer.send(client, .post, "/generate", #"{"text":"a"}"#)
        #expect(text.status == 200)
    }

    @Test func `a server with a failed engine is neither healthy nor ready, and gives the reason`() async throws {
        let server = ToyServer("x")
        server.engine.failForever("rank 3 died")
        for path in ["/health", "/ready"] {
            let reply = try await server.send(.get, path)
            #expect(reply.status == 503)
            #expect(reply.message.contains("rank 3 died"))
        }
        #expect(try await metrics(server)["braid_engine_up"] == 0)
    }

    @Test func `a draining server refuses new requests`() async throws {
        let server = ToyServer("x")
        server.slot.startDraining()
        #expect(try await server.send(.get, "/ready").status == 503)
        let reply = try await server.post("/generate", #"{"text":"a"}"#)
        #expect(reply.status == 503)
        #expect(reply.code == "shutting_down")
        #expect(try await server.send(.get, "/health").status == 200)
    }

    @Test func `server_info shows the configuration`() async throws {
        let reply = try await ToyServer("x").send(.get, "/server_info")
        #expect(reply.json["served_model_name"]?.string == "toy")
        #expect(reply.json["context_length"]?.integer == 4096)
        #expect(reply.json["page_size"]?.integer == 64)
        #expect(reply.json["max_total_num_tokens"]?.integer == 4096)
        #expect(reply.json["layout"]?.string == "one rank")
        #expect(reply.json["dtype"]?.string == "float32")
        #expect(reply.json["threads_per_rank"]?.integer == 1)
        #expect(reply.json["kv_bytes_per_token"]?.integer == 0)
    }

    @Test func `server_info shows numbers as they were given`() async throws {
        var defaults = SamplingDefaults(temperature: 0.7, topP: 0.95, topK: 20)
        (defaults.minP, defaults.repetitionPenalty) = (0.1, 1.05)
        (defaults.presencePenalty, defaults.frequencyPenalty) = (0.3, -0.2)
        (defaults.maxNewTokens, defaults.skipsSpecialTokens) = (2048, false)
        let reply = try await ToyServer(defaults: defaults) { _ in [] }.send(.get, "/server_info")
        let expected =
            #""default_sampling_params":{"temperature":0.7,"top_p":0.95,"top_k":20,"min_p":0.1,"#
            + #""repetition_penalty":1.05,"presence_penalty":0.3,"frequency_penalty":-0.2,"max_new_tokens":2048,"#
            + #""skip_special_tokens":false}"#
        #expect(reply.text.replacing(" ", with: "").contains(expected), "\(reply.text)")
    }

    @Test func `server_info describes the parallel configuration in words`() async throws {
        let server = ToyServer("x")
        var ranks = Self.ranks
        (ranks[0].ownedTokens, ranks[1].ownedTokens, ranks[1].keyOwner) = (8, 7, 1)
        server.engine.setRanks(ranks, layout: "2 ranks: context 2, zigzag")
        let reply = try await server.send(.get, "/server_info")
        #expect(reply.json["layout"]?.string == "2 ranks: context 2, zigzag")
        #expect(reply.json["ranks"]?.integer == 2)
        let keys = try #require(reply.json["kv_ranks"]?.array)
        #expect(keys.map { $0["rank"]?.integer } == ranks.map(\.rank))
        #expect(keys.map { $0["owner"]?.integer } == [0, 1])
        #expect(keys.map { $0["tokens"]?.integer } == [8, 7])
    }

    @Test func `server_info counts the pages: free, cached, in use, and all`() async throws {
        let server = ToyServer("x")
        server.engine.cachedPages = 5
        let reply = try await server.send(.get, "/server_info")
        #expect(reply.json["kv_pages"]?.integer == 64)
        #expect(reply.json["kv_pages_free"]?.integer == 59)
        #expect(reply.json["kv_pages_cached"]?.integer == 5)
        #expect(reply.json["kv_pages_used"]?.integer == 0)
        #expect(reply.json["kv_owners"]?.integer == 1)
        #expect(reply.json["kv_ranks"]?.array?.isEmpty == true)
        #expect(try await metrics(server)["braid_cached_pages"] == 5)
    }

    @Test func `a flush reports the number of freed pages`() async throws {
        let server = ToyServer("x")
        server.engine.cachedPages = 7
        for freed in [7, 0] {
            let reply = try await server.send(.post, "/flush_cache")
            #expect(reply.status == 200)
            #expect(reply.json["success"]?.bool == true)
            #expect(reply.json["freed_pages"]?.integer == freed)
        }
        #expect(server.engine.cachedPages == 0)
        server.engine.cachedPages = 3
        #expect(try await server.send(.post, "/reset_prefix_cache").json["freed_pages"]?.integer == 3)
    }

    // MARK: - Metrics

    /// Returns the values of `/metrics` by series, without the model's label. Every line must follow the format.
    private func metrics(_ server: ToyServer) async throws -> [String: Double] {
        let reply = try await server.send(.get, "/metrics")
        #expect(reply.header("Content-Type") == "text/plain; version=0.0.4; charset=utf-8")
        var values: [String: Double] = [:]
        var families: Set<String> = []
        for line in reply.text.split(separator: "\n") {
            if line.hasPrefix("# TYPE ") {
                #expect(families.insert(String(line.split(separator: " ")[2])).inserted, "\(line)")
                continue
            }
            guard !line.hasPrefix("# HELP ") else { continue }
            let match = try #require(
                line.wholeMatch(of: /(braid_[a-z0-9_]+)\{model_name="toy"(?:,([^}]*))?\} ([0-9.e+-]+)/), "\(line)")
            let labels = match.2.map { "{\($0)}" } ?? ""
            let value = try #require(Double(match.3))
            #expect(values.updateValue(value, forKey: match.1 + labels) == nil, "\(line)")
        }
        return values
    }

    @Test func `metrics count requests, tokens and times`() async throws {
        let server = ToyServer("abc")
        _ = try await server.post("/generate", #"{"text":"hi"}"#)
        server.engine.cachedTokens = 2
        _ = try await server.post("/generate", #"{"text":"hi"}"#)
        _ = try await server.post("/generate", #"{"text":5}"#)
        _ = try await server.send(.get, "/made/up/path")
        let values = try await metrics(server)
        #expect(values[#"braid_requests_total{route="/generate",status="200"}"#] == 2)
        #expect(values[#"braid_requests_total{route="/generate",status="400"}"#] == 1)
        #expect(values[#"braid_requests_total{route="unknown",status="404"}"#] == 1)
        #expect(values["braid_prompt_tokens_total"] == 6)
        #expect(values["braid_generation_tokens_total"] == 8)
        #expect(values["braid_num_running_reqs"] == 0)
        #expect(values["braid_num_queue_reqs"] == 0)
        #expect(values["braid_kv_pages"] == 64)
        #expect(values["braid_kv_pages_free"] == 64)
        #expect(values["braid_token_usage"] == 0)
        #expect(values["braid_preemptions_total"] == 0)
        #expect(values["braid_engine_restarts_total"] == 0)
        #expect(values["braid_prefix_cache_query_tokens_total"] == 6)
        #expect(values["braid_prefix_cache_hit_tokens_total"] == 2)
        #expect(values["braid_aborted_requests_total"] == 0)
        #expect(values["braid_time_to_first_token_seconds_count"] == 2)
        #expect(values["braid_inter_token_latency_seconds_count"] == 6)
        #expect(values["braid_e2e_request_latency_seconds_count"] == 2)
        #expect(values[#"braid_e2e_request_latency_seconds_bucket{le="+Inf"}"#] == 2)
        #expect(try #require(values["braid_e2e_request_latency_seconds_sum"]) > 0)
        #expect(values["braid_request_prompt_tokens_count"] == 2 && values["braid_request_prompt_tokens_sum"] == 6)
        #expect(values["braid_request_generation_tokens_count"] == 2)
        #expect(values["braid_request_generation_tokens_sum"] == 8)
        #expect(values[#"braid_request_prompt_tokens_bucket{le="2"}"#] == 0)
        #expect(values[#"braid_request_prompt_tokens_bucket{le="5"}"#] == 2)
        #expect(values["braid_busy_seconds_total"] == 0 && values["braid_running_seconds_total"] == 0)
    }

    @Test func `lengths are those of requests that end, by a stop string too, and not of aborted ones`() async throws {
        let server = ToyServer("abcdef")
        _ = try await server.post("/generate", #"{"text":"hi","sampling_params":{"stop":"c"}}"#)
        #expect(try await metrics(server)["braid_request_generation_tokens_count"] == 1)
        #expect(try #require(try await metrics(server)["braid_request_generation_tokens_sum"]) >= 3)
        server.engine.isHolding = true
        async let held = server.post("/generate", #"{"text":"hi","rid":"a"}"#)
        #expect(await eventually { server.engine.runningCount == 1 })
        try await server.abort(#"{"rid":"a"}"#)
        _ = try await held
        let values = try await metrics(server)
        #expect(values["braid_request_generation_tokens_count"] == 1)
        #expect(values["braid_request_prompt_tokens_count"] == 1 && values["braid_aborted_requests_total"] == 1)
    }

    /// The status of two context ranks in the second stage.
    private static var ranks: [RankStatus] {
        (0..<2).map { place in
            var status = RankStatus(
                rank: 2 + place,
                coordinates: [
                    .init(axis: "pipeline", place: 1), .init(axis: "data", place: 0),
                    .init(axis: "context", place: place), .init(axis: "tensor", place: 0),
                ])
            status.steps = 7
            status.rows = 100 + place
            status.busySeconds = 1.5
            var keys = RankStatus.Operation(name: "keys")
            keys.calls = 14
            keys.bytes = 4096
            keys.seconds = 0.25
            keys.skewSeconds = place == 0 ? 0 : 0.125
            var experts = RankStatus.Operation(name: "expert rows")
            experts.seconds = 0.5
            status.operations = [keys, experts]
            return status
        }
    }

    @Test func `metrics show the work of each rank, labelled with its coordinates`() async throws {
        let server = ToyServer("x")
        server.engine.setRanks(Self.ranks, layout: "")
        let values = try await metrics(server)
        let first = #"rank="2",pipeline="1",data="0",context="0",tensor="0""#
        let second = #"rank="3",pipeline="1",data="0",context="1",tensor="0""#
        #expect(values["braid_rank_rows_total{\(first)}"] == 100)
        #expect(values["braid_rank_rows_total{\(second)}"] == 101)
        #expect(values["braid_rank_steps_total{\(second)}"] == 7)
        #expect(values["braid_rank_busy_seconds_total{\(first)}"] == 1.5)
        #expect(values["braid_rank_collective_seconds_total{\(first)}"] == 0.75)
        #expect(values[#"braid_rank_operation_calls_total{\#(first),operation="keys"}"#] == 14)
        #expect(values[#"braid_rank_operation_bytes_total{\#(second),operation="keys"}"#] == 4096)
        #expect(values[#"braid_rank_operation_seconds_total{\#(second),operation="expert rows"}"#] == 0.5)
        #expect(values[#"braid_rank_operation_skew_seconds_total{\#(first),operation="keys"}"#] == 0)
        #expect(values[#"braid_rank_operation_skew_seconds_total{\#(second),operation="keys"}"#] == 0.125)
    }

    @Test func `buckets never decrease`() async throws {
        let server = ToyServer("abcdefgh")
        _ = try await server.post("/generate", #"{"text":"hi"}"#)
        let reply = try await server.send(.get, "/metrics")
        let counts = reply.text.split(separator: "\n").filter { $0.contains("inter_token_latency_seconds_bucket") }
            .compactMap { $0.split(separator: " ").last.flatMap { Double($0) } }
        #expect(counts.count == 19)
        #expect(counts == counts.sorted())
        #expect(counts.last == 8)
    }

    @Test func `failed generations are counted`() async throws {
        let server = ToyServer("abc")
        server.engine.requestFailure = "no number"
        _ = try await server.post("/generate", #"{"text":"hi"}"#)
        let values = try await metrics(server)
        #expect(values["braid_failed_requests_total"] == 1)
        #expect(values[#"braid_requests_total{route="/generate",status="500"}"#] == 1)
    }
}
