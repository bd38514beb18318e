import Inference
import JSON
import Serving
import TestSupport
import Testing

/// Requests that a router has sent to a prefill and to a decode server.
@Suite(.timeLimit(.minutes(5))) struct `A request for two servers` {
    private static let peers = [
        TransferStatus.Peer(address: "10.0.0.2:8998"), TransferStatus.Peer(address: "10.0.0.3:7", problem: "is silent"),
        TransferStatus.Peer(address: "10.0.0.4:8998"),
    ]

    /// A decode server whose answer tells which prefill server was asked, and in which room.
    private static func decode() -> ToyServer {
        ToyServer(
            transfers: TransferService(
                .decode(
                    server: { host, port in
                        peers.firstIndex { $0.address == "\(host):\(port ?? 8998)" }.map {
                            .init(index: $0, problem: peers[$0].problem)
                        }
                    },
                    engine: { id in
                        id.hasPrefix("engine-")
                            ? Int(id.dropFirst(7)).map { .init(index: $0, problem: peers[$0].problem) } : nil
                    }),
                status: { TransferStatus(mode: "decode", peers: peers) })
        ) { request in
            ToyTokenizer.tokens("\(request.prefillServer ?? 9) \(request.room ?? 99)")
        }
    }

    private static let place = #""bootstrap_host":"10.0.0.4","bootstrap_port":null,"bootstrap_room":5"#

    @Test func `is computed by the prefill server that it names, on the routes of SGLang's routers`() async throws {
        let server = Self.decode()
        let generated = try await server.post("/generate", #"{"text":"a",\#(Self.place)}"#).json
        #expect(generated["text"]?.string == "2 5")
        let completed = try await server.post("/v1/completions", #"{"model":"toy","prompt":"a",\#(Self.place)}"#).json
        #expect(completed["choices"]?[0]?["text"]?.string == "2 5")
        let free = try await server.post("/generate", #"{"text":"a","bootstrap_host":null,"bootstrap_room":null}"#).json
        #expect(free["text"]?.string == "9 99")
    }

    @Test func `may have lists for its prompts and choices`() async throws {
        let body = #"""
            {"text":["a","b"],"sampling_params":{"n":2},"bootstrap_host":["10.0.0.2","10.0.0.4"],
             "bootstrap_port":[8998,null],"bootstrap_room":[1,2,3,4]}
            """#
        let answers = try await Self.decode().post("/generate", body).json
        #expect((0..<4).map { answers[$0]?["text"]?.string } == ["0 1", "0 2", "2 3", "2 4"])
    }

    @Test(arguments: [
        (#""bootstrap_host":"10.0.0.9","bootstrap_room":5"#, 400, "is no prefill server of this one"),
        (#""bootstrap_host":"10.0.0.4","bootstrap_port":1,"bootstrap_room":5"#, 400, "is no prefill server of this"),
        (#""bootstrap_host":"10.0.0.3","bootstrap_port":7,"bootstrap_room":5"#, 503, "10.0.0.3:7: is silent"),
        (#""bootstrap_room":5"#, 400, "bootstrap_host is missing"),
        (#""bootstrap_host":"10.0.0.4""#, 400, "bootstrap_room is missing"),
        (#""bootstrap_host":"10.0.0.4","bootstrap_room":-1"#, 400, "bootstrap_room must be a number from 0 on"),
        (#""bootstrap_host":[],"bootstrap_room":1"#, 400, "bootstrap_host has 0 entries for 1 answers"),
        (#""bootstrap_host":["a","b"],"bootstrap_room":1"#, 400, "bootstrap_host has 2 entries for 1 answers"),
        (#""bootstrap_host":"a","bootstrap_port":0,"bootstrap_room":1"#, 400, "bootstrap_port must be a port"),
        (#""bootstrap_host":"a","bootstrap_port":"1","bootstrap_room":1"#, 400, "bootstrap_port must be a port"),
        (#""bootstrap_host":"","bootstrap_room":1"#, 400, "bootstrap_host must be the name or address"),
    ]) func `is refused if its servers cannot serve it`(members: String, status: Int, expected: String) async throws {
        let reply = try await Self.decode().post("/generate", "{\"text\":\"a\",\(members)}")
        #expect(reply.status == status)
        #expect(reply.text.contains(expected), "\(reply.text)")
    }

    @Test func `is refused by a server that does everything itself`() async throws {
        let server = ToyServer("x")
        for (path, prompt) in [
            ("/generate", #""text":"a""#), ("/v1/completions", #""model":"toy","prompt":"a""#),
            ("/v1/chat/completions", #""model":"toy","messages":[{"role":"user","content":"a"}]"#),
        ] {
            let reply = try await server.post(path, "{\(prompt),\(Self.place)}")
            #expect(reply.status == 400 && reply.text.contains("--disaggregation-mode"), "\(reply.text)")
        }
    }

    @Test func `waits at the prefill server for the decode server's, and ends without a token`() async throws {
        let server = ToyServer(
            transfers: TransferService(
                .prefill(
                    generation: { room, count in
                        // Of all rooms a decode server has asked for this one.
                        let usage = Usage(promptTokens: count, completionTokens: 0)
                        let end =
                            room == 5 ? GenerationEvent.finished(.length, usage) : .failed("bootstrap_room \(room)")
                        let (events, continuation) = AsyncStream.makeStream(of: GenerationEvent.self)
                        continuation.yield(end)
                        continuation.finish()
                        return Generation(id: 0, events: events)
                    }, origin: TransferOrigin(engine: "engine", host: "10.0.0.2", port: 8998)),
                status: { TransferStatus(mode: "prefill") })
        ) { _ in ToyTokenizer.tokens("a long answer") }
        // It may ask for more tokens than fit: those are the decode server's.
        let body = #"{"text":"a","sampling_params":{"max_new_tokens":4096},\#(Self.place)}"#
        let answer = try await server.post("/generate", body).json
        #expect(answer["output_ids"]?.array?.count == 0 && answer["meta_info"]?["prompt_tokens"]?.integer == 2)
        #expect(server.engine.status().generatedTokens == 0)
        let late = try await server.post("/generate", #"{"text":"a","bootstrap_host":"b","bootstrap_room":77}"#)
        #expect(late.status >= 500 && late.text.contains("bootstrap_room 77"), "\(late.text)")
        // The router takes scores of the prompt from here.
        let scored = try await server.post(
            "/generate", #"{"text":"ab","return_logprob":true,"logprob_start_len":0,\#(Self.place)}"#
        ).json
        #expect(scored["meta_info"]?["input_token_logprobs"]?.array?.count == 3)
        #expect(scored["output_ids"]?.array?.count == 1)
        // Requests of its own clients do not wait.
        let own = try await server.post("/generate", #"{"text":"a","sampling_params":{"max_new_tokens":3}}"#).json
        #expect(own["output_ids"]?.array?.count == 3)
    }
}
