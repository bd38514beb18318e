import NIOCore
import NIOPosix
import Routing
import Testing
import braid

@Suite(.timeLimit(.minutes(15))) struct ServingClientTests {
    private func send(
        to answer: String, closes: Bool = true, _ backend: ServingBackend = .braid, streams: Bool = true,
        timeout: Duration = .seconds(20)
    ) async throws -> ServingOutcome {
        let server = try await CannedServer(answer, closes: closes)
        var options = ServingBackend.Options(model: "toy")
        options.streams = streams
        let client = ServingClient(
            HTTPClient(server.address, apiKey: nil, timeout: timeout), backend, options)
        let outcome = await client.send(ServingPrompt(tokens: [1, 2, 3], maxNewTokens: 4), maxTokens: 4)
        try await server.stop()
        return outcome
    }

    private static let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"

    private static func event(_ tokens: Int) -> String {
        "data: {\"text\": \"\", \"meta_info\": {\"completion_tokens\": \(tokens), \"finish_reason\": null}}\n\n"
    }

    @Test func `a stream is counted and timed`() async throws {
        let outcome = try await send(to: Self.head + Self.event(1) + Self.event(4) + "data: [DONE]\n\n")
        #expect(outcome.error == nil)
        #expect(outcome.inputTokens == 3)
        #expect(outcome.outputTokens == 4)
        #expect(outcome.gaps.count == 3)
        #expect(outcome.firstToken! <= outcome.latency)
    }

    @Test func `a stream without its end is a failure`() async throws {
        let outcome = try await send(to: Self.head + Self.event(1))
        #expect(outcome.error == "the stream ended without [DONE]")
        #expect(outcome.outputTokens == 0)
    }

    @Test func `a connection that ends inside an answer is a failure`() async throws {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"
        #expect(try await send(to: head + Self.event(1)).error != nil)
    }

    @Test func `a server that falls silent is a failure in time`() async throws {
        let outcome = try await send(to: Self.head + Self.event(1), closes: false, timeout: .milliseconds(200))
        #expect(outcome.error?.contains("not complete after") == true)
    }

    @Test func `a refusal is reported in the server's words`() async throws {
        let body = #"{"error": {"message": "too many requests wait"}}"#
        let outcome = try await send(
            to: "HTTP/1.1 429 Too Many Requests\r\ncontent-length: \(body.utf8.count)\r\n\r\n" + body)
        #expect(outcome.error == "status 429: too many requests wait")
    }

    @Test func `an error in a stream is a failure`() async throws {
        let outcome = try await send(to: Self.head + Self.event(1) + "data: {\"error\": {\"message\": \"NaN\"}}\n\n")
        #expect(outcome.error == "NaN")
    }

    @Test func `a whole answer has a latency and no first token`() async throws {
        let body = #"{"text": "", "meta_info": {"completion_tokens": 4, "finish_reason": {"type": "length"}}}"#
        let outcome = try await send(
            to: "HTTP/1.1 200 OK\r\ncontent-length: \(body.utf8.count)\r\n\r\n" + body, streams: false)
        #expect(outcome.error == nil)
        #expect(outcome.outputTokens == 4)
        #expect(outcome.firstToken == nil)
        #expect(outcome.latency > 0)
    }

    @Test func `completions are counted by their usage`() async throws {
        let outcome = try await send(
            to: Self.head + """
                data: {"choices": [{"text": "a"}]}\n
                data: {"choices": [{"text": ""}]}\n
                data: {"choices": [{"text": "bc"}]}\n
                data: {"choices": [], "usage": {"completion_tokens": 7}}\n
                data: [DONE]\n\n
                """, .vllm)
        #expect(outcome.error == nil)
        #expect(outcome.outputTokens == 7)
        #expect(outcome.gaps.count == 1)
    }

    @Test func `no server at the address is an outcome with a reason`() async throws {
        let server = try await CannedServer("")
        let address = server.address
        try await server.stop()
        let client = ServingClient(
            HTTPClient(address, apiKey: nil, timeout: .seconds(20)), .braid, ServingBackend.Options(model: "toy"))
        let outcome = await client.send(ServingPrompt(tokens: [1], maxNewTokens: 1), maxTokens: 1)
        #expect(outcome.error?.hasPrefix("cannot connect to http://127.0.0.1:\(address.port)") == true)
    }

    @Test func `addresses are read from URLs`() throws {
        #expect("\(try ServerAddress(url: "http://localhost:123/a/"))" == "http://localhost:123/a")
        #expect(try ServerAddress(url: "http://[::1]:5").host == "::1")
        #expect("\(try ServerAddress(url: "http://[::1]:5"))" == "http://[::1]:5")
        for url in ["", "localhost:1", "https://localhost", "http://", "ftp://a"] {
            #expect(throws: (any Error).self, "\(url)") { try ServerAddress(url: url) }
        }
    }
}
