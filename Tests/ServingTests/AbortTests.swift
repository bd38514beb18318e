import Inference
import JSON
import TestSupport
import Testing
import Tokenization

/// Tests of `POST /abort_request`: every route's requests can be aborted, and their answers say so.
@Suite struct `A request that another one aborts` {
    private struct Route: CustomTestStringConvertible {
        let path: String
        let body: String
        var testDescription: String { path }

        static let all = [
            Route(path: "/generate", body: #""text":"hi""#),
            Route(path: "/v1/chat/completions", body: #""model":"toy","messages":[{"role":"user","content":"hi"}]"#),
            Route(path: "/v1/completions", body: #""model":"toy","prompt":"hi","max_tokens":9"#),
            Route(path: "/v1/responses", body: #""model":"toy","input":"hi""#),
            Route(
                path: "/v1/messages",
                body: #""model":"toy","messages":[{"role":"user","content":"hi"}],"max_tokens":9"#),
        ]

        /// Returns the reason with which an answer ended.
        func reason(of reply: Reply, isStreamed: Bool) -> String? {
            switch path {
            case "/generate":
                (isStreamed ? reply.chunks.last : reply.json)?["meta_info"]?["finish_reason"]?["type"]?.string
            case "/v1/responses":
                (isStreamed ? reply.namedEvents.last?.data["response"] : reply.json)?["status"]?.string
            case "/v1/messages":
                isStreamed
                    ? reply.namedEvents.first { $0.name == "message_delta" }?.data["delta"]?["stop_reason"]?.string
                    : reply.json["stop_reason"]?.string
            default: (isStreamed ? reply.chunks.last : reply.json)?["choices"]?[0]?["finish_reason"]?.string
            }
        }

        var expected: String {
            switch path {
            case "/v1/responses": "cancelled"
            case "/v1/messages": "max_tokens"
            default: "abort"
            }
        }
    }

    @Test(arguments: Route.all)
    private func `has an id that no other request has meanwhile`(route: Route) async throws {
        let server = ToyServer("x")
        server.engine.isHolding = true
        async let first = server.post(route.path, #"{\#(route.body),"rid":"a"}"#)
        #expect(await eventually { server.engine.runningCount == 1 })
        for other in Route.all {
            let second = try await server.post(other.path, #"{\#(other.body),"request_id":"a"}"#)
            #expect(second.status == 400, "\(second.text)")
            #expect(second.text.contains("the id \\\"a\\\" is that of a request"), "\(second.text)")
            // Anthropic's errors have neither.
            guard other.path != "/v1/messages" else { continue }
            #expect(second.code == "duplicate_request_id" && second.parameter == "rid")
        }
        // An empty id is none.
        async let second = server.post(route.path, #"{\#(route.body),"rid":""}"#)
        async let third = server.post(route.path, #"{\#(route.body),"rid":""}"#)
        #expect(await eventually { server.engine.runningCount == 3 })
        server.engine.isHolding = false
        for reply in try await [first, second, third] { #expect(reply.status == 200, "\(reply.text)") }
        // The id is free as soon as the first request has been answered.
        for _ in 0..<3 { #expect(try await server.post(route.path, #"{\#(route.body),"rid":"a"}"#).status == 200) }
    }

    @Test func `has an id that no batch has meanwhile`() async throws {
        let server = ToyServer("x")
        let chat = #"{"model":"toy","messages":[{"role":"user","content":"hi"}],"rid":"x"}"#
        let batch = #"{"text":["a","b"],"rid":"x"}"#
        for (first, second) in [
            (("/v1/chat/completions", chat), ("/generate", batch)),
            (("/generate", batch), ("/v1/chat/completions", chat)),
            (("/generate", batch), ("/generate", #"{"text":"a","rid":"x_1"}"#)),
        ] {
            server.engine.isHolding = true
            async let answer = server.post(first.0, first.1)
            #expect(await eventually { server.engine.runningCount >= (first.0 == "/generate" ? 2 : 1) })
            let refused = try await server.post(second.0, second.1)
            #expect(refused.status == 400 && refused.code == "duplicate_request_id", "\(refused.text)")
            server.engine.isHolding = false
            #expect(try await answer.status == 200)
        }
        // An empty id is none, also that of a batch or in a list.
        server.engine.isHolding = true
        let nameless = [#"{"text":["a","b"],"rid":""}"#, #"{"text":["a","b"],"rid":["",""]}"#]
        async let one = server.post("/generate", nameless[0])
        async let two = server.post("/generate", nameless[0])
        async let three = server.post("/generate", nameless[1])
        #expect(await eventually { server.engine.runningCount == 6 })
        server.engine.isHolding = false
        for reply in try await [one, two, three] { #expect(reply.status == 200, "\(reply.text)") }
    }

    @Test func `is found by its id as a whole, or by that of one answer`() async throws {
        let server = ToyServer("x")
        server.engine.isHolding = true
        async let batch = server.post("/generate", #"{"text":["a","b","c"],"rid":"x"}"#)
        async let other = server.post("/generate", #"{"text":"a","rid":"x_y_0"}"#)
        async let similar = server.post("/generate", #"{"text":"a","rid":"x_7"}"#)
        #expect(await eventually { server.engine.runningCount == 5 })
        #expect(try await server.post("/abort_request", #"{"rid":"x_1"}"#).json["aborted"]?.integer == 1)
        try await server.abort(#"{"rid":"x"}"#, atLeast: 2)
        server.engine.isHolding = false
        func reasons(_ reply: Reply) -> [String?] {
            (reply.json.array ?? [reply.json]).map { $0["meta_info"]?["finish_reason"]?["type"]?.string }
        }
        #expect(try await reasons(batch) == ["abort", "abort", "abort"])
        let others = try await [reasons(other), reasons(similar)]
        #expect(others.allSatisfy { $0 != ["abort"] }, "\(others)")
    }

    @Test func `has several answers of different ids`() async throws {
        let server = ToyServer("x")
        let twice = try await server.post("/generate", #"{"text":["a","b"],"rid":["x","x"]}"#)
        #expect(twice.status == 400 && twice.parameter == "rid", "\(twice.text)")
        #expect(try await server.post("/generate", #"{"text":["a","b"],"rid":["x","y"]}"#).status == 200)
        let choices = #"{"model":"toy","messages":[{"role":"user","content":"hi"}],"n":2,"rid":"x"}"#
        #expect(try await server.post("/v1/chat/completions", choices).status == 200)
    }

    @Test(arguments: Route.all, [false, true])
    private func `is answered with status 200 and what was generated`(route: Route, isStreamed: Bool) async throws {
        for name in ["rid", "request_id"] {
            let server = ToyServer("x")
            server.engine.isHolding = true
            async let answer = server.post(
                route.path, #"{\#(route.body),"\#(name)":"a","stream":\#(isStreamed)}"#)
            #expect(await eventually { server.engine.runningCount == 1 })
            #expect(try await server.post("/abort_request", #"{"rid":"b"}"#).json["aborted"]?.integer == 0)
            try await server.abort(#"{"\#(name)":"a"}"#)
            server.engine.isHolding = false
            let reply = try await answer
            #expect(reply.status == 200, "\(reply.text)")
            #expect(route.reason(of: reply, isStreamed: isStreamed) == route.expected, "\(reply.text)")
            #expect(server.engine.runningCount == 0)
        }
    }

    @Test func `keeps a call that it cut as a call`() async throws {
        let begun = ToyTokenizer.shared.encode(
            MessagesTests.call.replacing(/\ sky.*/.dotMatchesNewlines(), with: ""), allowingControlTokens: true)
        let tools = #""tools":[{"type":"function","function":{"name":"look"}}]"#
        for isStreamed in [false, true] {
            let server = ToyServer { _ in begun }
            server.engine.holdsAfter = begun.count
            async let answer = server.post(
                "/v1/chat/completions",
                #"{"model":"toy","messages":[{"role":"user","content":"hi"}],\#(tools),"rid":"a","stream":\#(isStreamed)}"#
            )
            #expect(await eventually { server.engine.status().generatedTokens == UInt64(begun.count) })
            try await server.abort(#"{"rid":"a"}"#)
            server.engine.holdsAfter = nil
            let reply = try await answer
            let deltas = isStreamed ? reply.chunks.compactMap { $0["choices"]?[0]?["delta"] } : []
            let whole = reply.json["choices"]?[0]?["message"].map { [$0] } ?? []
            let functions = (deltas + whole).compactMap { $0["tool_calls"]?[0]?["function"] }
            #expect(functions.compactMap { $0["name"]?.string } == ["look"], "\(reply.text)")
            #expect(functions.compactMap { $0["arguments"]?.string }.joined() == #"{"at": "the"#)
            let last = isStreamed ? reply.chunks.last : reply.json
            #expect(last?["choices"]?[0]?["finish_reason"]?.string == "abort")
        }
    }

    @Test func `needs an id, or abort_all`() async throws {
        let server = ToyServer("x")
        for body in ["{}", #"{"rid":""}"#, #"{"rid":3}"#, #"{"abort_all":false}"#] {
            #expect(try await server.post("/abort_request", body).status == 400)
        }
    }
}
