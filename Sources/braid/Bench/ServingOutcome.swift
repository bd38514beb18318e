/// An outcome holds the arrival times of one request's tokens, or why it failed. Times are seconds after the request
/// was sent.
package struct ServingOutcome: Sendable, Equatable {
    package var inputTokens: Int
    package private(set) var outputTokens = 0
    /// The time of the first token; `nil` before it, and for answers that are not streamed.
    package private(set) var firstToken: Double?
    /// The times between tokens; tokens that arrive together share the time before them.
    package private(set) var gaps: [Double] = []
    /// The time until the answer was complete.
    package private(set) var latency = 0.0
    /// The reason of a failure; `nil` for success.
    package var error: String?
    private var lastToken = 0.0

    package init(inputTokens: Int) { self.inputTokens = inputTokens }

    /// Records that `total` tokens have been received by now; fewer than before are ignored.
    package mutating func receive(total: Int, at seconds: Double) {
        latency = seconds
        let new = total - outputTokens
        guard new > 0 else { return }
        if firstToken == nil {
            firstToken = seconds
        } else {
            gaps += Array(repeating: (seconds - lastToken) / Double(new), count: new)
        }
        lastToken = seconds
        outputTokens = total
    }

    /// Records the end of an answer.
    ///
    /// - Parameter total: The number of tokens according to the server, if it counts them only at the end.
    package mutating func finish(total: Int? = nil, at seconds: Double) {
        latency = seconds
        if let total { outputTokens = total }
    }

    /// The seconds per token after the first; `nil` for a single token, or an answer that is not streamed.
    package var timePerToken: Double? {
        guard let firstToken, outputTokens > 1 else { return nil }
        return (latency - firstToken) / Double(outputTokens - 1)
    }
}
