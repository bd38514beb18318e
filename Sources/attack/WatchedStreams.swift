import Foundation
import JSON
import Synchronization

/// Well-behaved streams beside an attack. Their tokens and log-probabilities must not change, and the times between
/// their events are measured.
final class WatchedStreams: Sendable {
    private struct State {
        var expected: [[String]?]
        var gaps: [Double] = []
        var compared = 0
        var refused = 0
        var findings: [String] = []
    }

    private let port: Int
    private let bodies: [[UInt8]]
    private let state: Mutex<State>

    init(port: Int, model: String) {
        self.port = port
        let prompts = ["Once upon a time", String(repeating: "The cat sat on the mat. ", count: 60), "Alice was"]
        bodies = prompts.enumerated().map { index, prompt in
            Array(
                #"""
                {"model": "\#(model)", "prompt": "\#(prompt)", "max_tokens": 40, "stream": true, "logprobs": 3, \#
                "seed": 7, "ignore_eos": true, "temperature": \#(index == 1 ? 1 : 0)}
                """#.utf8)
        }
        state = Mutex(State(expected: Array(repeating: nil, count: prompts.count)))
    }

    var count: Int { bodies.count }

    /// The times between events in seconds since the last call, the number of streams compared, and of those refused
    /// with 429.
    func takeMeasurements() -> (gaps: [Double], compared: Int, refused: Int) {
        state.withLock { state in
            defer { (state.gaps, state.compared, state.refused) = ([], 0, 0) }
            return (state.gaps, state.compared, state.refused)
        }
    }

    var findings: [String] { state.withLock { $0.findings } }

    /// Runs one stream and compares it with its first run.
    func run(_ index: Int) {
        do {
            guard let (answer, gaps) = try stream(bodies[index]) else {
                state.withLock { $0.refused += 1 }
                usleep(100_000)
                return
            }
            state.withLock { state in
                state.gaps += gaps
                state.compared += 1
                guard let expected = state.expected[index] else {
                    state.expected[index] = answer
                    return
                }
                guard expected != answer else { return }
                let place = zip(expected, answer).prefix { $0 == $1 }.count
                state.findings.append(
                    "stream \(index) has changed: value \(place) of \(expected.count) is "
                        + "\(place < answer.count ? answer[place] : "missing"), was "
                        + "\(place < expected.count ? expected[place] : "absent")")
            }
        } catch {
            state.withLock { $0.findings.append("stream \(index): \(error)") }
        }
    }

    /// Returns a stream's values in order, and the times between its events; `nil` if it was refused for now.
    private func stream(_ body: [UInt8]) throws -> (answer: [String], gaps: [Double])? {
        let exchange = try HTTPExchange(port: port)
        exchange.send("POST", "/v1/completions", body, headers: "Connection: close\r\n")
        var last: ContinuousClock.Instant?
        var (values, gaps): ([String], [Double]) = ([], [])
        let head = try exchange.head(until: .now + Patience.generation)
        if head.status == 429 { return nil }
        guard head.status == 200 else { throw Finding("status \(head.status)") }
        var (text, isDone) = ("", false)
        while let part = try exchange.bodyPart(until: .now + Patience.generation) {
            text += String(decoding: part, as: UTF8.self)
            while let end = text.firstRange(of: "\n\n") {
                let event = text[..<end.lowerBound].dropFirst("data: ".count)
                if event == "[DONE]" {
                    isDone = true
                } else {
                    let now = ContinuousClock.now
                    if let last { gaps.append(last.duration(to: now) / .seconds(1)) }
                    last = now
                    try values += Self.values(JSONValue(parsing: event.utf8))
                }
                text.removeSubrange(..<end.upperBound)
            }
        }
        guard isDone else { throw Finding("it ended without [DONE], after \(values.suffix(3))") }
        return (values.sorted(), gaps)
    }

    /// Returns the tokens and log-probabilities of an event, each with its position, in any order of events the same.
    private static func values(_ event: JSONValue) throws -> [String] {
        if let error = event["error"] { throw Finding("it has an error event: \(error.pythonText)") }
        guard let choice = event["choices"]?.array?.first, let scores = choice["logprobs"], !scores.isNull else {
            return []
        }
        let names = ["tokens", "token_logprobs", "top_logprobs"]
        let offsets = scores["text_offset"]?.array ?? []
        return names.flatMap { name in
            (scores[name]?.array ?? []).enumerated().map { index, value in
                "\(index < offsets.count ? offsets[index].pythonText : "?") \(name) \(value.pythonText)"
            }
        }
    }
}
