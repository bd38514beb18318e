import NIOCore
import NIOHTTP1
import Tokenization

/// Sends the requests of a serving benchmark and notes what becomes of them.
package struct ServingClient: Sendable {
    private let client: HTTPClient
    private let backend: ServingBackend
    private let options: ServingBackend.Options

    package init(_ client: HTTPClient, _ backend: ServingBackend, _ options: ServingBackend.Options) {
        self.client = client
        self.backend = backend
        self.options = options
    }

    /// Sends one request. Never throws: a failure is an outcome.
    package func send(_ prompt: [Int32], maxTokens: Int) async -> ServingOutcome {
        let body = ByteBuffer(string: backend.body(prompt: prompt, maxTokens: maxTokens, options).pythonText)
        let outcome = ServingOutcome(inputTokens: prompt.count)
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

    /// Sends requests when they are due, `concurrency` at a time, and waits for the last answer.
    ///
    /// - Parameters:
    ///   - concurrency: requests that are due while so many run wait for one of them; their clocks start when they
    ///     are sent.
    ///   - prompt: makes the prompt of an arrival.
    ///   - onAnswer: called after each answer.
    /// - Returns: outcomes in the order of `arrivals`, and seconds from the first request to the last answer.
    package func run(
        _ arrivals: [ServingTraffic.Arrival], concurrency: Int,
        prompt: @escaping @Sendable (ServingTraffic.Arrival) -> [Int32],
        onAnswer: @escaping @Sendable () -> Void = {}
    ) async -> (outcomes: [ServingOutcome], seconds: Double) {
        precondition(concurrency > 0, "no request could ever be sent")
        var outcomes = arrivals.map { ServingOutcome(inputTokens: $0.inputTokens) }
        let start = ContinuousClock.now
        await withTaskGroup(of: (Int, ServingOutcome).self) { tasks in
            var running = 0
            func collect(_ result: (Int, ServingOutcome)?) {
                guard let (index, outcome) = result else { return }
                outcomes[index] = outcome
                running -= 1
            }
            for (index, arrival) in arrivals.enumerated() {
                // Sleeping ends early only when the whole command is being cancelled.
                try? await Task.sleep(until: start + .seconds(arrival.seconds), clock: .continuous)
                while running >= concurrency { collect(await tasks.next()) }
                running += 1
                tasks.addTask {
                    defer { onAnswer() }
                    return (index, await send(prompt(arrival), maxTokens: arrival.outputTokens))
                }
            }
            while running > 0 { collect(await tasks.next()) }
        }
        return (outcomes, (ContinuousClock.now - start) / .seconds(1))
    }
}

/// Reads the answer to one request as its bytes come.
private struct AnswerReader: Sendable {
    let backend: ServingBackend
    let streams: Bool
    var outcome: ServingOutcome
    private let start = ContinuousClock.now
    private var events = ServerSentEvents()
    private var isDone = false
    /// All of a whole answer, or of an error.
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
