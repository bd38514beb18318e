import Foundation
import JSON
import NIOHTTP1
import Routing
import Serving
import Synchronization
import TestSupport
import Testing

/// The routes of a router's operator.
@Suite(.timeLimit(.minutes(15))) struct `The operator of a router` {
    @Test func `adds, lists and removes workers`() async throws {
        let worker = try await ToyWorker { _ in .json("{}") }
        try await RouterClient.run([]) { router async throws in
            #expect(try await router.send("/generate", "{}").status == 503)
            let body = #"{"url":"\#(worker.address)"}"#
            #expect(try await router.send("/workers", body).status == 202)
            #expect(try await router.send("/workers", body).status == 400, "it is there already")
            #expect(await eventually { router.workers.first?.health.state == .ready })
            let list = try await router.send("/workers", method: .GET).json
            #expect(list["total"]?.integer == 1 && list["workers"]?.array?[0]["state"]?.string == "ready")
            #expect(try await router.send("/generate", "{}").status == 200)
            #expect(try await router.send("/workers", body, method: .DELETE).status == 200)
            #expect(try await router.send("/workers", body, method: .DELETE).status == 404)
            #expect(try await router.send("/generate", "{}").status == 503)
        }
    }

    @Test(arguments: [
        "", "7", "{}", #"{"url":7}"#, #"{"url":"https://x"}"#, #"{"url":"http://x","worker_type":"boss"}"#,
    ])
    func `is told what is wrong with a worker`(_ body: String) async throws {
        try await RouterClient.run([]) { router async throws in
            #expect(try await router.send("/workers", body).status == 400)
            #expect(router.workers.isEmpty)
        }
    }

    @Test func `needs the key if there is one`() async throws {
        try await RouterClient.run([], RouterClient.configuration { $0.server.apiKeys = ["k"] }) {
            router async throws in
            #expect(try await router.send("/workers", method: .GET).status == 401)
            #expect(
                try await router.send("/workers", method: .GET, headers: ["authorization": "Bearer k"]).status == 200)
        }
    }

    @Test func `sees each model once, and what all workers say to what concerns all`() async throws {
        let odd = #"{"id":"b","created":9223372036854775807,"max_model_len":-5}"#
        let models = [#"{"data":[{"id":"a"},\#(odd)]}"#, #"{"data":[{"id":"b"},{"id":"c"},7]}"#, "no JSON"]
        let workers = try await models.asyncMap { models in
            try await ToyWorker { $0.hasPrefix("GET /v1/models ") ? .json(models) : .json(#"{"aborted":1}"#) }
        }
        try await RouterClient.run(workers) { router async throws in
            let list = try await router.send("/v1/models", method: .GET).json
            #expect(list["data"]?.array?.compactMap { $0["id"]?.string } == ["a", "b", "c"])
            let page = try await router.send(
                "/v1/models?limit=2", method: .GET, headers: ["anthropic-version": "2023-06-01"])
            #expect(page.json["data"]?.array?.compactMap { $0["display_name"]?.string } == ["a", "b"], "\(page.body)")
            #expect(page.json["has_more"]?.bool == true && page.json["last_id"]?.string == "b")
            // Workers say what they like about the time and the context, or nothing.
            let listed = try #require(page.json["data"]?.array)
            #expect(listed.map { $0["created_at"]?.string } == ["1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
            #expect(listed.map { $0["max_tokens"] } == [.null, .integer(0)])
            let reply = try await router.send("/abort_request", #"{"rid":"x"}"#)
            #expect(reply.status == 200 && reply.json["workers"]?.array?.count == 3)
            #expect(workers.allSatisfy { $0.requests.last?.hasSuffix(#"{"rid":"x"}"#) == true })
        }
    }

    @Test func `sees the loads of all workers that are ready as those of one server's ranks`() async throws {
        let older = [#"[{"dp_rank":0,"num_reqs":4}]"#, #"[{"dp_rank":0,"num_reqs":9},7]"#, "no JSON"]
        let workers = try await older.asyncMap { load in
            try await ToyWorker { $0.hasPrefix("GET /get_load ") ? .json(load) : .json("{}") }
        }
        for (worker, (running, usage)) in zip(workers, [(3, 0.25), (5, 0.75)]) {
            worker.setLoads(
                .json(
                    """
                    {"served_model_name":"m","loads":[{"dp_rank":0,"num_running_reqs":\(running)}],
                     "aggregate":{"total_running_reqs":\(running),"total_waiting_reqs":1,"total_reqs":\(running + 1),
                      "avg_token_usage":\(usage)}}
                    """))
        }
        workers[2].setLoads(.json("", status: "500 Internal Server Error"))
        try await RouterClient.run(workers) { router async throws in
            let report = try await router.send("/v1/loads", method: .GET).json
            let loads = try #require(report["loads"]?.array)
            #expect(loads.map { $0["dp_rank"]?.integer } == [0, 1] && report["dp_rank_count"]?.integer == 2)
            #expect(loads.map { $0["num_running_reqs"]?.integer } == [3, 5])
            let aggregate = try #require(report["aggregate"])
            #expect(aggregate["total_running_reqs"]?.integer == 8 && aggregate["total_waiting_reqs"]?.integer == 2)
            #expect(aggregate["total_reqs"]?.integer == 10 && aggregate["avg_token_usage"]?.double == 0.5)
            // A router before this one reads it as it reads a worker's.
            #expect(LoadReport(report).requests == 10 && LoadReport(report).modelName == "m")
            let older = try await router.send("/get_load", method: .GET).json.array ?? []
            #expect(older.map { $0["dp_rank"]?.integer } == [0, 1])
            #expect(older.map { $0["num_reqs"]?.integer } == [4, 9])
        }
        try await RouterClient.run([]) { router async throws in
            for path in ["/v1/loads", "/get_load"] { #expect(try await router.send(path, method: .GET).status == 503) }
        }
    }

    @Test func `sees all routes with the members of their bodies in openapi_json`() async throws {
        try await RouterClient.run([]) { router async throws in
            let paths = try await router.send("/openapi.json", method: .GET).json["paths"]
            for path in ["/v1/loads", "/get_load", "/server_info", "/v1/models"] {
                #expect(paths?[path]?["get"] != nil, "\(path)")
            }
            let body = paths?["/v1/chat/completions"]?["post"]?["requestBody"]?["content"]?["application/json"]
            #expect(body?["schema"]?["properties"]?["temperature"] != nil)
            #expect(paths?["/workers"]?["post"] != nil && paths?["/workers"]?["delete"] != nil)
        }
    }

    @Test(arguments: [
        (["400 Bad Request", "400 Bad Request"], 400), (["200 OK", "503 Service Unavailable"], 502),
        (["401 Unauthorized", "401 Unauthorized"], 502),
    ])
    func `hears of a fault of its own what all workers say, and of others that there are some`(
        statuses: [String], expected: Int
    ) async throws {
        let workers = try await statuses.asyncMap { status in
            try await ToyWorker { _ in .json(#"{"error":{"param":"rid"}}"#, status: status) }
        }
        try await RouterClient.run(workers) { router async throws in
            let reply = try await router.send("/abort_request", "{}")
            #expect(reply.status == expected)
            #expect((reply.json["error"]?["param"]?.string == "rid") == (expected == 400))
        }
    }

    @Test func `flushes the workers that answer, without waiting for those that are known to be dead`() async throws {
        let workers = try await [0, 1, 2].asyncMap { _ in try await ToyWorker { _ in .json(#"{"success":true}"#) } }
        let configuration = RouterClient.configuration { $0.checkTimeout = .seconds(1) }
        try await RouterClient.run(workers, configuration) { router async throws in
            try await workers[1].kill()
            // A process that was stopped accepts connections and answers nothing.
            workers[2].setReady(ToyWorker.Answer(bytes: "", end: .stays))
            #expect(await eventually { router.workers.dropFirst().allSatisfy { $0.health.state == .unreachable } })
            #expect(await eventually { router.workers[0].health.state == .ready })
            let reply = try await router.send("/flush_cache")
            #expect(reply.status == 200 && reply.json["success"]?.bool == true, "\(reply.body)")
            #expect(reply.json["workers"]?.array?.map { $0["url"]?.string } == ["\(workers[0].address)"])
            let skipped = reply.json["skipped"]?.array ?? []
            #expect(skipped.map { $0["url"]?.string } == router.workers.dropFirst().map { "\($0.address)" })
            #expect(skipped.allSatisfy { $0["reason"]?.string?.isEmpty == false })
            #expect(workers[0].requests.count == 1 && workers[2].requests.isEmpty)
            try await workers[0].kill()
            #expect(await eventually { router.workers[0].health.state == .unreachable })
            let none = try await router.send("/abort_request", #"{"abort_all":true}"#)
            #expect(none.status == 503 && none.json["success"]?.bool == false)
            #expect(none.json["skipped"]?.array?.count == 3)
        }
    }

    @Test(arguments: ["/flush_cache", "/reset_prefix_cache"])
    func `flushes all workers under the names of SGLang and of vLLM`(path: String) async throws {
        let workers = try await [0, 1].asyncMap { _ in try await ToyWorker { _ in .json(#"{"success":true}"#) } }
        try await RouterClient.run(workers) { router async throws in
            let reply = try await router.send(path)
            #expect(reply.status == 200 && reply.json["workers"]?.array?.count == 2, "\(reply.body)")
            #expect(workers.allSatisfy { $0.requests.count == 1 && $0.requests[0].hasPrefix("POST \(path) ") })
        }
    }

    @Test func `does not fail for a worker whose requests fail, and tells it all the same`() async throws {
        // What it is asked to compute is lost at once; what concerns all workers is answered, or never.
        let answers = Mutex(true)
        let failing = try await ToyWorker { request in
            if request.hasPrefix("POST /generate ") { return ToyWorker.Answer(bytes: "", end: .breaksOff) }
            return answers.withLock { $0 } ? .json("{}") : ToyWorker.Answer(bytes: "", end: .stays)
        }
        let good = try await ToyWorker { _ in .json("{}") }
        let configuration = RouterClient.configuration { configuration in
            configuration.checkTimeout = .seconds(1)
            configuration.pool.breaker.failureThreshold = 1
            configuration.pool.breaker.openTime = .seconds(3600)
        }
        try await RouterClient.run([failing, good], configuration) { router async throws in
            for _ in 0..<2 { _ = try await router.send("/generate", "{}") }
            #expect(router.workers[0].breaker.state(at: .now) == .open)
            let before = failing.requests.count
            let told = try await router.send("/flush_cache")
            #expect(told.status == 200 && told.json["workers"]?.array?.count == 2 && failing.requests.count > before)
            answers.withLock { $0 = false }
            let reply = try await router.send("/flush_cache")
            #expect(reply.status == 200 && reply.json["workers"]?.array?.count == 1, "\(reply.body)")
            #expect(reply.json["skipped"]?.array?.map { $0["url"]?.string } == ["\(failing.address)"])
        }
    }

    @Test func `reads metrics of workers, and every name once`() async throws {
        let worker = try await ToyWorker { _ in .json("{}") }
        try await RouterClient.run([worker]) { router async throws in
            #expect(try await router.send("/generate", #"{"text":"a"}"#).status == 200)
            #expect(await eventually { router.isIdle })
            let page = try await router.send("/metrics", method: .GET).body
            let up = #"braid_router_worker_up{worker="\#(worker.address)",role="regular"} 1"#
            #expect(page.contains(up + "\n"))
            #expect(page.contains(#"braid_router_requests_total{worker="\#(worker.address)",status="200"} 1"#))
            #expect(page.contains(#"braid_router_responses_total{route="/generate",status="200"} 1"#))
            let names = page.split(separator: "\n").filter { $0.hasPrefix("# TYPE ") }.map {
                $0.split(separator: " ")[2]
            }
            #expect(names.count == 15 && Set(names).count == names.count)
            #expect(names.allSatisfy { $0.hasPrefix("braid_router_") && !$0.contains(":") })
            let documented = try String(contentsOfFile: Golden.root + "/Docs/metrics.md", encoding: .utf8)
            for name in names {
                let short = name.dropFirst("braid_".count)
                #expect(
                    documented.contains("`\(short)`") || documented.contains("`\(short){"), "\(name) is not documented")
            }
        }
    }

    @Test func `is not told of answers of workers that are gone`() async throws {
        let worker = try await ToyWorker { _ in .json("{}") }
        try await RouterClient.run([worker]) { router async throws in
            #expect(try await router.send("/generate", #"{"text":"a"}"#).status == 200)
            #expect(try await router.metric("requests_total") == "1")
            #expect(router.service.fleet.remove(worker.address))
            #expect(try await router.metric("requests_total") == nil)
            try router.service.fleet.add(worker.address, .regular)
            #expect(try await router.metric("requests_total") == nil)
        }
    }

    @Test(arguments: [
        ("127.0.0.1", "http://127.0.0.1:7", true), ("127.0.0.1", "http://localhost:7", true),
        ("0.0.0.0", "http://127.0.0.1:7", true), ("::", "http://[::1]:7", true),
        ("10.0.0.1", "http://10.0.0.1:7", true),
        ("127.0.0.1", "http://127.0.0.1:8", false), ("127.0.0.1", "http://10.0.0.1:7", false),
        ("10.0.0.1", "http://127.0.0.1:7", false), ("localhost", "http://[::1]:7", true),
        ("127.0.0.1", "http://127.0.0.2:7", false), ("127.0.0.1", "http://[::1]:7", false),
    ])
    func `cannot make the router its own worker`(host: String, url: String, isOwn: Bool) throws {
        var configuration = RouterConfiguration()
        (configuration.server.host, configuration.server.port) = (host, 7)
        #expect(try configuration.isOwn(ServerAddress(url)) == isOwn)
        configuration.server.port = 0
        #expect(try !configuration.isOwn(ServerAddress(url)))
    }

    @Test func `changes the workers to those of a list, and leaves the others alone`() throws {
        let fleet = Fleet(WorkerPool.Settings())
        let addresses = try (1...3).map { try ServerAddress("http://10.0.0.\($0):30000") }
        #expect(fleet.set(addresses.prefix(2).map { ($0, .regular) }).count == 2)
        let kept = fleet.workers[1].id
        #expect(fleet.set(addresses.suffix(2).map { ($0, .regular) }).count == 2)
        #expect(fleet.workers.map(\.address) == Array(addresses.suffix(2)) && fleet.workers[0].id == kept)
        #expect(fleet.set(addresses.suffix(2).map { ($0, .regular) }) == [])
    }
}
