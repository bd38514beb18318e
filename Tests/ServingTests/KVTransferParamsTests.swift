import Inference
import JSON
import Serving
import TestSupport
import Testing

/// Requests that a router like llm-d's sidecar sends to a prefill server first, and then to a decode server.
@Suite(.timeLimit(.minutes(5))) struct `A request for one server after the other` {
    private static let bodies: [(path: String, members: String, limit: String)] = [
        ("/v1/completions", #""model":"toy","prompt":"hello""#, "max_tokens"),
        ("/v1/chat/completions", #""model":"toy","messages":[{"role":"user","content":"hello"}]"#, "max_tokens"),
        ("/v1/responses", #""model":"toy","input":"hello""#, "max_output_tokens"),
    ]

    /// What a router sends to a prefill server.
    private static let asked = #"""
        "kv_transfer_params":{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,
        "remote_block_ids":null,"remote_host":null,"remote_port":null}
        """#

    private static func prefill(host: String = "10.0.0.4") -> ToyServer {
        ToyServer(
            transfers: TransferService(
                .prefill(
                    generation: { _, _ in fatalError("no request has a room") },
                    origin: TransferOrigin(engine: "engine-2", host: host, port: 8998)),
                status: { TransferStatus(mode: "prefill") })
        ) { _ in ToyTokenizer.tokens("a long answer") }
    }

    /// A decode server with three prefill servers, whose answer tells which one was asked.
    private static func decode() -> ToyServer {
        let problems = [nil, "is silent", nil] as [String?]
        return ToyServer(
            transfers: TransferService(
                .decode(
                    server: { host, port in
                        host == "10.0.0.2" && port ?? 8998 == 8998 ? .init(index: 0, problem: nil) : nil
                    },
                    engine: { id in
                        (0..<3).first { id == "engine-\($0)" }.map { .init(index: $0, problem: problems[$0]) }
                    }), status: { TransferStatus(mode: "decode") })
        ) { request in
            ToyTokenizer.tokens("from \(request.prefillServer ?? 9)")
        }
    }

    @Test(arguments: 0..<3) func `is computed by both, with the params as they are`(route: Int) async throws {
        let (path, members, limit) = Self.bodies[route]
        let (prefill, decode) = (Self.prefill(), Self.decode())
        // The client's own least number of tokens is for the decode server.
        let first = try await prefill.post(path, "{\(members),\"\(limit)\":1,\"min_tokens\":3,\(Self.asked)}")
        #expect(first.status == 200, "\(first.text)")
        let params = try #require(first.json["kv_transfer_params"])
        let copied = String(decoding: params.pythonBytes, as: UTF8.self)
        #expect(params["do_remote_prefill"] == .bool(true) && params["do_remote_decode"] == .bool(false))
        #expect(params["remote_engine_id"]?.string == "engine-2" && params["remote_host"]?.string == "10.0.0.4")
        #expect(params["remote_port"]?.integer == 8998 && params["remote_block_ids"]?.array == [])
        #expect(params["remote_request_id"]?.string == first.json["id"]?.string)
        #expect(prefill.engine.status().generatedTokens == 1)
        let second = try await decode.post(path, "{\(members),\"kv_transfer_params\":\(copied)}")
        #expect(second.status == 200 && second.text.contains("from 2"), "\(second.text)")
        #expect(second.json["kv_transfer_params"] == nil)
        let streamed = try await decode.post(path, "{\(members),\"stream\":true,\"kv_transfer_params\":\(copied)}")
        #expect(streamed.status == 200 && streamed.text.contains("2"), "\(streamed.text)")
        #expect(decode.engine.received.map(\.prefillServer) == [2, 2])
    }

    @Test(arguments: ["0.0.0.0", "::"])
    func `goes on by the id of a prefill server that listens on all addresses`(host: String) async throws {
        let (path, members, limit) = Self.bodies[0]
        let first = try await Self.prefill(host: host).post(path, "{\(members),\"\(limit)\":1,\(Self.asked)}")
        let params = try #require(first.json["kv_transfer_params"])
        #expect(params["remote_host"] == .null && params["remote_port"]?.integer == 8998, "\(first.text)")
        let copied = String(decoding: params.pythonBytes, as: UTF8.self)
        let second = try await Self.decode().post(path, "{\(members),\"kv_transfer_params\":\(copied)}")
        #expect(second.status == 200 && second.text.contains("from 2"), "\(second.text)")
    }

    /// A prefill server that cannot say where its keys are answers null, and so do routers without one.
    @Test(arguments: ["null", "{}", #"{"do_remote_prefill":false,"do_remote_decode":false}"#])
    func `without params goes where any other goes`(params: String) async throws {
        for server in [Self.prefill(), Self.decode(), ToyServer("x")] {
            for (path, members, _) in Self.bodies {
                let reply = try await server.post(path, "{\(members),\"kv_transfer_params\":\(params)}")
                #expect(reply.status == 200 && !reply.text.contains("remote_engine_id"), "\(reply.text)")
            }
            #expect(server.engine.received.allSatisfy { $0.prefillServer == nil })
        }
    }

    @Test func `goes to the address if the server was started again`() async throws {
        let (path, members, _) = Self.bodies[0]
        for port in ["8998", "null"] {
            let params =
                #"{"do_remote_prefill":true,"remote_engine_id":"before","remote_host":"10.0.0.2","remote_port":\#(port)}"#
            let reply = try await Self.decode().post(path, "{\(members),\"kv_transfer_params\":\(params)}")
            #expect(reply.text.contains("from 0"), "\(reply.text)")
        }
    }

    @Test(arguments: [
        (#""do_remote_prefill":true,"remote_engine_id":"engine-7","remote_host":"10.0.0.9""#, 503, "prefill_lost"),
        (#""do_remote_prefill":true,"remote_engine_id":"engine-7""#, 503, "was started again, or is none of"),
        (#""do_remote_prefill":true,"remote_host":"10.0.0.2","remote_port":22"#, 503, "was started again, or is none"),
        (#""do_remote_prefill":true,"remote_engine_id":"engine-1""#, 503, "is silent"),
        (#""do_remote_prefill":true"#, 400, "kv_transfer_params.remote_engine_id is missing"),
        (#""do_remote_prefill":true,"remote_engine_id":"""#, 400, "kv_transfer_params.remote_engine_id is missing"),
        (#""do_remote_prefill":1"#, 400, "kv_transfer_params.do_remote_prefill must be true or false"),
        (#""do_remote_decode":"yes""#, 400, "kv_transfer_params.do_remote_decode must be true or false"),
        (#""do_remote_prefill":true,"do_remote_decode":true"#, 400, "are both true"),
        (#""do_remote_decode":true"#, 400, "is not supported by a decode server"),
        (
            #""do_remote_prefill":true,"remote_engine_id":7"#, 400,
            "kv_transfer_params.remote_engine_id must be a string"
        ),
        (#""do_remote_prefill":true,"remote_host":["a"]"#, 400, "kv_transfer_params.remote_host must be a string"),
        (#""do_remote_prefill":true,"remote_host":"a","remote_port":0"#, 400, "remote_port is 0"),
        (#""do_remote_prefill":true,"remote_host":"a","remote_port":65536"#, 400, "remote_port is 65536"),
        (#""do_remote_prefill":true,"remote_host":"a","remote_port":"8998""#, 400, "remote_port must be an integer"),
        (#""do_remote_prefill":true,"remote_engine_id":"engine-2","remote_block_ids":[1,2]"#, 400, "remote_block_ids"),
        (#""do_remote_prefill":true,"remote_bootstrap_addr":"a:1""#, 400, "remote_bootstrap_addr"),
        (#""do_remote_prefill":true,"remote_engine_id":"engine-2","last_token_id":5"#, 400, "last_token_id"),
    ]) func `is refused by a decode server if it asks for what cannot be`(
        members: String, status: Int, expected: String
    ) async throws {
        let server = Self.decode()
        for (path, others, _) in Self.bodies {
            let reply = try await server.post(path, "{\(others),\"kv_transfer_params\":{\(members)}}")
            #expect(reply.status == status && reply.text.contains(expected), "\(path): \(reply.text)")
        }
        #expect(server.engine.received.isEmpty)
    }

    @Test func `is refused by name if it is too long, no object, or has other places too`() async throws {
        let (path, members, _) = Self.bodies[0]
        let long = String(repeating: "a", count: 257)
        for (params, expected) in [
            (#"{"do_remote_prefill":true,"remote_engine_id":"\#(long)"}"#, "remote_engine_id has 257 bytes"),
            (#"{"do_remote_prefill":true,"remote_host":"\#(long)"}"#, "remote_host has 257 bytes"),
            ("[1]", "kv_transfer_params must be a JSON object"), ("\"x\"", "kv_transfer_params must be a JSON object"),
            (
                #"{"do_remote_prefill":true,"remote_engine_id":"engine-2"},"bootstrap_host":"10.0.0.2","bootstrap_room":1"#,
                "together with kv_transfer_params"
            ),
        ] {
            let reply = try await Self.decode().post(path, "{\(members),\"kv_transfer_params\":\(params)}")
            #expect(reply.status == 400 && reply.text.contains(expected), "\(reply.text)")
        }
    }

    @Test func `is refused by a prefill server if it is for a decode server, or is to be streamed`() async throws {
        for (path, members, _) in Self.bodies {
            let other = #""kv_transfer_params":{"do_remote_prefill":true,"remote_engine_id":"engine-2"}"#
            let wrong = try await Self.prefill().post(path, "{\(members),\(other)}")
            #expect(wrong.status == 400 && wrong.text.contains("--disaggregation-mode decode"), "\(wrong.text)")
            let streamed = try await Self.prefill().post(path, "{\(members),\"stream\":true,\(Self.asked)}")
            #expect(streamed.status == 400 && streamed.text.contains("is not streamed"), "\(streamed.text)")
        }
    }

    @Test func `is refused by a server that does everything itself, and on routes of other interfaces`() async throws {
        for (path, members, _) in Self.bodies {
            let reply = try await ToyServer("x").post(path, "{\(members),\(Self.asked)}")
            #expect(reply.status == 400 && reply.text.contains("--disaggregation-mode"), "\(reply.text)")
        }
        let generate = try await Self.prefill().post("/generate", "{\"text\":\"a\",\(Self.asked)}")
        #expect(generate.status == 400 && generate.text.contains("/v1/completions"), "\(generate.text)")
    }
}
