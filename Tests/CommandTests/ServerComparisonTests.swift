import ArgumentParser
import Foundation
import JSON
import KVCache
import Models
import Parallelism
import Planning
import Routing
import TestSupport
import Testing
import braid

/// A server as its two pages describe it, changed as a test wants.
private struct Described {
    var info: [(String, String)] = [
        ("model_path", #""\#(Golden.root)/Models/demo""#), ("vocab_size", "129280"),
        ("layout_notation", #""one""#), ("threads_per_rank", "1"), ("processes", "1"), ("chunked_prefill_size", "1024"),
        ("page_size", "64"), ("kv_cache_dtype", #""float32""#), ("speculative_num_steps", "0"),
        ("dtype", #""float32""#), ("kernels", #""reference""#),
    ]
    var metrics: [(String, String)] = [
        ("request_prompt_tokens_sum", "1005"), ("request_prompt_tokens_count", "10"),
        ("request_generation_tokens_sum", "500"), ("request_generation_tokens_count", "10"),
        ("time_to_first_token_seconds_sum", "3"), ("time_to_first_token_seconds_count", "12"),
        ("inter_token_latency_seconds_sum", "9.8"), ("inter_token_latency_seconds_count", "490"),
        ("busy_seconds_total", "20"), ("running_seconds_total", "58"), ("generation_tokens_total", "500"),
        ("prefix_cache_query_tokens_total", "1000"), ("prefix_cache_hit_tokens_total", "250"),
        ("spec_steps_total", "0"), ("spec_accepted_tokens_total", "0"), ("preemptions_total", "0"),
    ]

    mutating func set(_ name: String, _ value: String?) {
        for list in [\Described.info, \Described.metrics] as [WritableKeyPath<Described, [(String, String)]>] {
            guard let place = self[keyPath: list].firstIndex(where: { $0.0 == name }) else { continue }
            if let value { self[keyPath: list][place].1 = value } else { self[keyPath: list].remove(at: place) }
        }
    }

    static func with(_ changes: [(String, String?)] = []) -> Described {
        var described = Described()
        for change in changes { described.set(change.0, change.1) }
        return described
    }

    /// A server of the demonstration model, whose directory is here.
    static func demo(_ changes: [(String, String?)] = []) -> Described { with([("vocab_size", "1536")] + changes) }

    var infoText: String { "{" + info.map { "\"\($0.0)\":\($0.1)" }.joined(separator: ",") + "}" }
    var metricsText: String {
        metrics.map { "braid_\($0.0){model_name=\"demo\"} \($0.1)\n" }.joined()
    }

    func engine() throws -> ServedEngine { try ServedEngine(JSONValue(parsing: infoText)) }
    func traffic() throws -> ServedTraffic { try ServedTraffic(MetricsText(Array(metricsText.utf8))) }

    /// A server with these pages.
    func serve(status: String = "200 OK") async throws -> CannedServer {
        let (info, metrics) = (infoText, metricsText)
        return try await CannedServer { request in
            let body = request.hasPrefix("GET /metrics ") ? metrics : info
            return "HTTP/1.1 \(status)\r\ncontent-length: \(body.utf8.count)\r\nconnection: close\r\n\r\n\(body)"
        }
    }
}

@Suite struct `What a server says of itself` {
    @Test func `are means and ratios of its metrics`() throws {
        let traffic = try Described().traffic()
        #expect(traffic.prompt.value == 100.5 && traffic.prompt.count == 10)
        #expect(traffic.answer.value == 50 && traffic.answer.count == 10)
        #expect(traffic.firstToken.value == 0.25 && traffic.firstToken.count == 12)
        #expect(abs(traffic.perToken.value - 0.02) < 1e-12 && traffic.perToken.count == 490)
        #expect(traffic.concurrency == 2.9 && traffic.throughput == 25 && traffic.hitRate == 0.25)
        #expect(traffic.tokensPerStep == 1)
    }

    @Test func `is predicted with the nearest whole numbers`() throws {
        let planned = try Described().traffic().planned(Described().engine())
        #expect(planned.input == 101 && planned.output == 50 && planned.concurrency == 3 && planned.chunk == 1024)
        #expect(planned.prefixHitRate == 0.25 && planned.drafts == 0)
        let idle = try Described.with([("running_seconds_total", "2")]).traffic().planned(Described().engine())
        #expect(idle.concurrency == 1)
    }

    @Test func `gives drafts the acceptance that explains its tokens a step`() throws {
        let described = Described.with([
            ("speculative_num_steps", "2"), ("spec_steps_total", "100"), ("spec_accepted_tokens_total", "75"),
        ])
        let planned = try described.traffic().planned(described.engine())
        #expect(planned.drafts == 2 && abs(planned.acceptanceRate - 0.5) < 1e-9)
    }

    @Test func `is refused where requests are few, and their number is said`() throws {
        let described = Described.with([("request_prompt_tokens_count", "4")])
        let error = try #require(throws: (any Error).self) { try described.traffic() }
        #expect("\(error)".contains("4 finished requests") && "\(error)".contains("bench serving"))
    }

    @Test(arguments: Described().metrics.map(\.0)) func `is refused where a metric is missing`(name: String) throws {
        let error = try #require(throws: (any Error).self) { try Described.with([(name, nil)]).traffic() }
        #expect("\(error)".contains("braid_" + name), "\(error)")
    }

    @Test(arguments: [
        ("request_prompt_tokens_sum", "1e14"), ("request_prompt_tokens_sum", "1e300"),
        ("request_prompt_tokens_sum", "1"), ("request_generation_tokens_count", "1e18"),
        ("running_seconds_total", "1e9"),
        ("busy_seconds_total", "0"), ("inter_token_latency_seconds_sum", "0"), ("generation_tokens_total", "0"),
        ("preemptions_total", "-1"), ("busy_seconds_total", "NaN"),
    ])
    func `is refused where numbers cannot be true`(name: String, value: String) throws {
        #expect(throws: (any Error).self) { try Described.with([(name, value)]).traffic() }
    }

    @Test(arguments: Described().info.map(\.0)) func `is refused where a setting is missing`(name: String) throws {
        let error = try #require(throws: (any Error).self) { try Described.with([(name, nil)]).engine() }
        #expect("\(error)".contains("'\(name)'"), "\(error)")
    }

    @Test(arguments: [true, false]) func `has index keys in FP4 only where it says so`(hasFP4Index: Bool) throws {
        var described = Described()
        #expect(try described.engine().cache == .float32)
        described.info.append(("enable_deepseek_v4_fp4_indexer", "\(hasFP4Index)"))
        #expect(try described.engine().cache == CacheType(.float32, hasFP4Index: hasFP4Index))
        described.info[described.info.count - 1].1 = "1"
        let error = try #require(throws: (any Error).self) { try described.engine() }
        #expect("\(error)".contains("'enable_deepseek_v4_fp4_indexer'"), "\(error)")
    }

    @Test(arguments: [
        ("threads_per_rank", "0"), ("processes", "1.5"), ("kv_cache_dtype", #""int4""#), ("layout_notation", "7"),
        ("speculative_num_steps", "-1"), ("model_path", #""""#), ("chunked_prefill_size", "-1"),
    ])
    func `is refused where a setting is none`(name: String, value: String) throws {
        let error = try #require(throws: (any Error).self) { try Described.with([(name, value)]).engine() }
        #expect("\(error)".contains("'\(name)'"), "\(error)")
    }
}

@Suite(.timeLimit(.minutes(15))) struct `A comparison with a server` {
    private func comparison(_ described: Described) throws -> ServerComparison {
        let engine = try described.engine()
        return try ServerComparison(
            address: "http://here:1", engine, described.traffic(), PlanExample.model(.v32, cache: engine.cache),
            PlanExample.hardware(), .builtIn())
    }

    @Test func `predicts the layout and the traffic that the server has`() throws {
        let described = Described.with([("layout_notation", #""cp2 ep2 gathered""#)])
        let comparison = try comparison(described)
        let model = try PlanExample.model(.v32, cache: .float32)
        let parallel = ParallelConfiguration(context: 2, expert: 2)
        let time = try PlanExample.time(model, PlanExample.hardware(), parallel)
        let expected = Prediction(
            time, PlannedTraffic(input: 101, output: 50, concurrency: 3, prefixHitRate: 0.25, chunk: 1024))
        #expect(comparison.rows.map(\.quantity) == [.firstToken, .perToken, .throughput])
        #expect(comparison.rows[0].predicted == expected.firstToken.total)
        #expect(comparison.rows[1].predicted == expected.perToken.total)
        #expect(comparison.rows[2].predicted == expected.throughput)
        #expect(comparison.rows[0].ratio == 0.25 / expected.firstToken.total)
        #expect(abs(comparison.promptsPerToken - 2 * expected.occupancy / 50) < 1e-12)
    }

    @Test func `gives a rank as many cores as it has threads`() throws {
        let (one, four) = (try comparison(Described()), try comparison(.with([("threads_per_rank", "4")])))
        #expect(abs(one.rows[0].predicted / four.rows[0].predicted - 4) < 1e-9)
        #expect(four.text.contains("4 of a round device"))
    }

    @Test func `says that there is no interval where nothing near was published`() throws {
        let comparison = try comparison(Described())
        #expect(comparison.rows.allSatisfy { $0.isInside == nil && $0.confidence == .notMeasured })
        #expect(comparison.text.contains("not measured") && comparison.text.contains("250 ms"))
        #expect(comparison.text.contains("10 finished requests: 100.5 tokens in, 50.0 out, 2.90 at a time"))
    }

    @Test func `says whether a measurement lies in the interval where something near was published`() throws {
        var described = Described.with([
            ("layout_notation", #""cp8 etp8 gathered""#), ("kv_cache_dtype", #""bfloat16""#),
            ("request_prompt_tokens_sum", "163850"), ("prefix_cache_hit_tokens_total", "0"),
            ("chunked_prefill_size", "16384"), ("time_to_first_token_seconds_sum", "20.28"),
        ])
        func first() throws -> ServerComparison.Row {
            try ServerComparison(
                address: "", described.engine(), described.traffic(), PlanExample.model(.v32, cache: .bfloat16),
                Cluster(name: "h20-141x8").hardware, .builtIn()
            ).rows[0]
        }
        #expect(try first().isInside == true)
        described.set("time_to_first_token_seconds_sum", "40")
        #expect(try first().isInside == false)
    }

    @Test(arguments: [
        ("vocab_size", "7", "vocabulary"), ("layout_notation", #""tp3""#, "heads"),
        ("layout_notation", #""x""#, "layout"), ("layout_notation", #""cp1024 tp2""#, "ranks"),
        ("request_prompt_tokens_sum", "1e8", "context"),
    ])
    func `is refused with another model than the server's`(name: String, value: String, words: String) throws {
        let error = try #require(throws: (any Error).self) { try comparison(.with([(name, value)])) }
        #expect("\(error)".contains(words) && "\(error)".contains("--model-path"), "\(error)")
    }

    @Test func `is JSON that says what is in the table`() throws {
        let comparison = try comparison(Described())
        let json = try JSONValue(parsing: comparison.json.pythonText)
        #expect(json["kind"]?.string == "comparison" && json["layout"]?.string == "one")
        #expect(
            json["measured"]?["input_tokens"]?.double == 100.5 && json["predicted"]?["input_tokens"]?.integer == 101)
        let row = try #require(json["quantities"]?.array?.first)
        #expect(row["quantity"]?.string == "ttft" && row["measured"]?.double == 0.25 && row["count"]?.integer == 12)
        #expect(row["predicted"]?.double == comparison.rows[0].predicted && row["inside"]?.isNull == true)
    }

    // MARK: - The command

    private func run(_ arguments: [String]) async throws {
        var plan = try #require(try Braid.parseAsRoot(["plan"] + arguments) as? any AsyncParsableCommand)
        try await plan.run()
    }

    @Test func `asks the server, whose model is read here`() async throws {
        let server = try await Described.demo().serve()
        let client = HTTPClient(server.address, apiKey: nil, timeout: .seconds(60))
        let (engine, traffic) = try await ServerComparison.facts(client)
        #expect(try engine == Described.demo().engine() && traffic == Described().traffic())
        try await run(["--compare", "\(server.address)", "--hardware", "epyc-9654"])
        try await run(["--compare", "\(server.address)", "--hardware", "epyc-9654", "--json"])
        try await server.stop()
    }

    @Test func `says what is wrong with a server`() async throws {
        func refusal(_ described: Described, status: String = "200 OK") async throws -> String {
            let server = try await described.serve(status: status)
            let error = await #expect(throws: (any Error).self) {
                try await run(["--compare", "\(server.address)", "--hardware", "epyc-9654"])
            }
            try await server.stop()
            return "\(try #require(error))"
        }
        #expect(try await refusal(.demo(), status: "401 Unauthorized").contains("BRAID_API_KEY"))
        #expect(try await refusal(.demo([("model_path", #""no/such""#)])).contains("--model-path"))
        #expect(try await refusal(.demo([("kernels", "no JSON")])).contains("is no JSON"))
        #expect(try await refusal(.demo([("preemptions_total", "x")])).contains("/metrics"))
        #expect(try await refusal(.demo([("busy_seconds_total", nil)])).contains("braid_busy_seconds_total"))
    }

    @Test func `needs devices for a server on another machine, a server that runs, and http`() async throws {
        let server = try await Described.demo().serve()
        // An address of this machine that does not say so.
        let far = await #expect(throws: (any Error).self) {
            try await run(["--compare", "http://0.0.0.0:\(server.address.port)"])
        }
        try await server.stop()
        #expect("\(try #require(far))".contains("--measure FILE"))
        let https = await #expect(throws: (any Error).self) { try await run(["--compare", "https://localhost:1"]) }
        #expect("\(try #require(https))".contains("ssh -L"))
        let nobody = await #expect(throws: (any Error).self) { try await run(["--compare", "http://127.0.0.1:1"]) }
        #expect("\(try #require(nobody))".contains("does a server run there?"))
    }

    @Test func `is told from a comparison of models by the scheme`() throws {
        _ = try Braid.parseAsRoot(["plan", "--compare", "http://a:1", "--json"])
        #expect(throws: (any Error).self) { try Braid.parseAsRoot(["plan", "--compare", "v3.1,v3.2", "--json"]) }
        let error = try #require(throws: (any Error).self) {
            try Braid.parseAsRoot(["plan", "--compare", "http://a:1", "--input-tokens", "7"])
        }
        #expect(Braid.fullMessage(for: error).contains("--input-tokens: not with a server"))
        for mode in [
            ["--compare", "http://a:1"], ["--compare", "v3.1,v3.2"], ["--scaling", "cp=1..2"], ["--errors"],
        ] {
            let error = try #require(throws: (any Error).self) {
                try Braid.parseAsRoot(["plan", "--top", "3"] + mode)
            }
            #expect(Braid.fullMessage(for: error).contains("--top: \(mode[0]) ranks no layouts"))
        }
    }
}
