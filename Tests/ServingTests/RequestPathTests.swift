import CAllocations
import HTTPTypes
import Inference
import JSON
import Serving
import TestSupport
import Testing

@Suite struct `The path of a request` {
    @Test(arguments: [
        ("GET", "/health", ""), ("GET", "/ready", ""), ("GET", "/v1/models", ""), ("GET", "/v1/models/toy", ""),
        ("POST", "/generate", #"{"text":"hi"}"#), ("POST", "/v1/completions", #"{"model":"toy","prompt":"hi"}"#),
        ("POST", "/v1/chat/completions", #"{"model":"toy","messages":[{"role":"user","content":"hi"}]}"#),
        ("POST", "/tokenize", #"{"prompt":"hi"}"#), ("POST", "/detokenize", #"{"tokens":[300]}"#),
        ("POST", "/flush_cache", ""),
    ])
    func `reads no state of ranks`(method: String, path: String, body: String) async throws {
        let server = ToyServer("x")
        let reply = try await server.send(method == "GET" ? .get : .post, path, body.isEmpty ? nil : body)
        #expect(reply.status == 200)
        #expect(server.engine.statusReads == 0)
    }

    @Test func `reads the state of ranks if the answer shows it`() async throws {
        let server = ToyServer("x")
        _ = try await server.send(.get, "/metrics")
        _ = try await server.send(.get, "/server_info")
        #expect(server.engine.statusReads == 2)
    }

    /// Returns the number of allocations for one stream of events, each of which shows the whole answer so far.
    private func allocations(tokens: Int) -> UInt64 {
        var answer = GenerateAnswer(
            id: "r", promptTokens: 1, returnsLogProbs: true, returnsTop: true, textOfToken: { "<\($0)>" })
        let before = braid_allocations()
        var bytes = 0
        for token in 0..<Int32(tokens) {
            let scored = ToyEngine.scores(of: token, topCount: 3)
            if answer.take(.token(scored, text: "é\n")) {
                bytes += answer.json(elapsed: .seconds(1), index: nil).count
            }
        }
        #expect(bytes > tokens * tokens)
        return braid_allocations() - before
    }

    @Test(.enabled(if: braid_counts_allocations()))
    func `of a stream that repeats itself encodes each token once`() {
        _ = allocations(tokens: 10)
        let (short, long) = (allocations(tokens: 100), allocations(tokens: 400))
        #expect(long < 5 * short, "4 times the tokens took \(long) allocations after \(short)")
    }
}
