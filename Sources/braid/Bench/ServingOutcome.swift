/// What became of one request: when its tokens came, or why there are none. Times are seconds after it was sent.
package struct ServingOutcome: Sendable, Equatable {
    package var inputTokens: Int
    package private(set) var outputTokens = 0
    /// `nil` until a token came, and for answers that came as a whole.
    package private(set) var firstToken: Double?
    /// Between tokens; where several came at once, their share of the time.
    package private(set) var gaps: [Double] = []
    /// Until the answer was complete.
    package private(set) var latency = 0.0
    /// Why there is no answer; `nil` for success.
    package var error: String?
    private var lastToken = 0.0

    package init(inputTokens: Int) { self.inputTokens = inputTokens }

    /// Notes that `total` tokens have been received by now; fewer than before are ignored.
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

    /// Notes the end of a streamed answer.
    ///
    /// - Parameter total: tokens according to the server, where it counts them only at the end.
    package mutating func finish(total: Int? = nil, at seconds: Double) {
        latency = seconds
        if let total { outputTokens = total }
    }

    /// Seconds per token after the first; `nil` where there was one token or the answer came as a whole.
    package var timePerToken: Double? {
        guard let firstToken, outputTokens > 1 else { return nil }
        return (latency - firstToken) / Double(outputTokens - 1)
    }
}
