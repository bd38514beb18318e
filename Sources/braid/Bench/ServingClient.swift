import JSON
import NIOCore
import NIOHTTP1

/// A serving client sends the requests of a serving benchmark and records their outcomes.
package struct ServingClient: Sendable {
    private let client: HTTPClient
    private let backend: ServingBackend
    private let options: ServingBackend.Options

    package init(_ client: HTTPClient, _ backend: ServingBackend, _ options: ServingBackend.Options) {
        self.client = client
        self.backend = backend
        self.options = options
    }

    /// Sends one request and returns its outcome. It never throws: a failure is an outcome.
    package func send(_ prompt: ServingPrompt, maxTokens: Int) async -> ServingOutcome {
        let body = ByteBuffer(string: backend.body(prompt: prompt, maxTokens: maxTokens, options).pythonText)
        let outcome = ServingOutcome(inputTokens: prompt.tokens.count)
        let reader = AnswerReader(backend: backend, streams: options.streams, outcome: outcome)
        do {
            var read = try await client.exchange(.POST, backend.path, body: body, into: reader) {
                try $0.take(status: $1, $2)
            }
            return try read.end()
        } catch {
            var failed = outcome
            failed.error = "\(error)"
            return failed
        }
    }
}

/// An answer reader reads the answer to one request as its bytes arrive.
private struct AnswerReader: Sendable {
    let backend: ServingBackend
    let streams: Bool
    var outcome: ServingOutcome
    private let start = ContinuousClock.now
    private var events = ServerSentEvents()
    private var isDone = false
    /// The bytes of an answer that is not streamed, or of an error.
    private var answer = HTTPClient.Answer()

    init(backend: ServingBackend, streams: Bool, outcome: ServingOutcome) {
        self.backend = backend
        self.streams = streams
        self.outcome = outcome
    }

    private var elapsed: Double { (ContinuousClock.now - start) / .seconds(1) }

    mutating func take(status: Int, _ bytes: ByteBuffer) throws {
        answer.status = status
        guard status == 200, streams else { return try answer.append(bytes) }
        let now = elapsed
        for event in try events.take(bytes.readableBytesView) {
            if event.elementsEqual("[DONE]".utf8) {
                isDone = true
                outcome.finish(at: now)
            } else {
                try backend.read(JSONValue(parsing: event), streams: true, at: now, into: &outcome)
            }
        }
    }

    mutating func end() throws -> ServingOutcome {
        guard answer.status == 200 else {
            let message = answer.message
            throw CommandError("status \(answer.status)" + (message.isEmpty ? "" : ": \(message)"))
        }
        if streams {
            guard isDone else { throw CommandError("the stream ended without [DONE]") }
        } else {
            try backend.read(JSONValue(parsing: answer.body), streams: false, at: elapsed, into: &outcome)
        }
        return outcome
    }
}
