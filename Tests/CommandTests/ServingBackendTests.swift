import JSON
import Testing
import braid

@Suite struct ServingBackendTests {
    private func body(
        _ backend: ServingBackend, _ change: (inout ServingBackend.Options) -> Void = { _ in }
    ) -> JSONValue {
        var options = ServingBackend.Options(model: "toy")
        change(&options)
        return backend.body(
            prompt: ServingPrompt(tokens: [5, 6], text: "hi", maxNewTokens: 9), maxTokens: 7, options)
    }

    @Test func `generate gets its own shape`() {
        let body = body(.sglang)
        #expect(ServingBackend.sglang.path == "/generate")
        #expect(body["input_ids"]?.array?.map(\.integer) == [5, 6])
        #expect(body["stream"]?.bool == true)
        #expect(body["sampling_params"]?["max_new_tokens"]?.integer == 7)
        #expect(body["sampling_params"]?["temperature"]?.integer == 0)
        #expect(body["sampling_params"]?["ignore_eos"]?.bool == true)
    }

    @Test func `completions get theirs`() {
        let body = body(.vllm) { $0.ignoresEndOfText = false }
        #expect(ServingBackend.vllm.path == "/v1/completions")
        #expect(body["prompt"]?.array?.map(\.integer) == [5, 6])
        #expect(body["model"]?.string == "toy")
        #expect(body["max_tokens"]?.integer == 7)
        #expect(body["ignore_eos"]?.bool == false)
        #expect(body["stream_options"]?["include_usage"]?.bool == true)
        #expect(self.body(.vllm) { $0.streams = false }["stream_options"] == nil)
    }

    @Test(arguments: [ServingBackend.sglangChat, .vllmChat, .openAIChat])
    func `chats get text, and count the pieces of an answer`(backend: ServingBackend) throws {
        let body = body(backend)
        #expect(backend.path == "/v1/chat/completions")
        #expect(body["messages"]?.array?.map { $0["content"]?.string } == ["hi"])
        #expect(body["prompt"] == nil && body["max_tokens"]?.integer == 7)
        var outcome = ServingOutcome(inputTokens: 2)
        for event in [
            #"{"choices": [{"delta": {"role": "assistant", "content": ""}}]}"#,
            #"{"choices": [{"delta": {"reasoning_content": "a"}}]}"#, #"{"choices": [{"delta": {"content": "b"}}]}"#,
        ] {
            try backend.read(JSONValue(parsing: event), streams: true, at: 1, into: &outcome)
        }
        #expect(outcome.outputTokens == 2)
        try backend.read(
            JSONValue(parsing: #"{"choices": [], "usage": {"completion_tokens": 3}}"#), streams: true, at: 2,
            into: &outcome)
        #expect(outcome.outputTokens == 3)
    }

    @Test func `extra members take the place of those with the same key`() {
        let body = body(.sglangCompletions) {
            $0.extra = [JSONMember("temperature", .null), JSONMember("top_p", .bool(true))]
        }
        #expect(body.object?.count { $0.key == "temperature" } == 1)
        #expect(body["temperature"]?.isNull == true)
        #expect(body["top_p"]?.bool == true)
    }

    @Test func `an answer of another interface is an error`() {
        var outcome = ServingOutcome(inputTokens: 1)
        #expect(throws: (any Error).self) {
            try ServingBackend.braid.read(.object([]), streams: true, at: 1, into: &outcome)
        }
        #expect(throws: (any Error).self) {
            try ServingBackend.vllm.read(.object([]), streams: true, at: 1, into: &outcome)
        }
    }

    @Test func `an aborted generation is an error`() throws {
        let answer = try JSONValue(
            parsing: #"{"meta_info": {"completion_tokens": 1, "finish_reason": {"type": "abort", "message": "gone"}}}"#)
        var outcome = ServingOutcome(inputTokens: 1)
        let error = #expect(throws: (any Error).self) {
            try ServingBackend.braid.read(answer, streams: true, at: 1, into: &outcome)
        }
        #expect(error.map { "\($0)" } == "gone")
    }
}

@Suite struct ServerSentEventsTests {
    private func events(_ text: String, pieces: Int) throws -> [String] {
        var events = ServerSentEvents()
        var found: [String] = []
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            found += try events.take(rest.prefix(pieces)).map { String(decoding: $0, as: UTF8.self) }
            rest = rest.dropFirst(pieces)
        }
        return found
    }

    @Test(arguments: 1...40)
    func `events do not depend on how their bytes arrive`(pieces: Int) throws {
        let text = ": hello\nevent: x\ndata: é1\n\ndata:2\r\ndata:  3\r\n\r\nid: 4\n\ndata\n\ndata: 5\r\rdata: lost"
        #expect(try events(text, pieces: pieces) == ["é1", "2\n 3", "", "5"])
    }

    @Test func `an event that never ends is refused`() throws {
        var events = ServerSentEvents(limit: 10)
        #expect(try events.take("data: 1\n\n".utf8).count == 1)
        #expect(throws: (any Error).self) { try events.take("data: 123456".utf8) }
    }
}
