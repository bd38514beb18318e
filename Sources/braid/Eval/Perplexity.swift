import Foundation

/// How well a text is predicted, window by window.
package struct Perplexity: Sendable, Equatable {
    /// Tokens shown to the model at once, and those of them that count.
    package struct Window: Sendable, Equatable {
        package let shown: Range<Int>
        /// At the end of `shown`.
        package let scored: Range<Int>
    }

    /// Windows that score every token once, except the first of the text where nothing can come before it.
    ///
    /// - Parameters:
    ///   - tokens: of the text.
    ///   - capacity: tokens of the text that fit a window, at least 2.
    ///   - stride: tokens by which windows move on, at least 1; with less than `capacity`, later tokens see at least
    ///     `capacity - stride` before them.
    ///   - hasPrefix: whether windows begin with a token that is not the text's, so that their first can be scored.
    package static func windows(tokens: Int, capacity: Int, stride: Int, hasPrefix: Bool) -> [Window] {
        precondition(capacity >= 2 && stride >= 1, "a window has to move on")
        var (windows, done) = ([Window](), hasPrefix ? 0 : 1)
        while done < tokens {
            let most = windows.isEmpty ? capacity - done : min(stride, hasPrefix ? capacity : capacity - 1)
            let end = min(done + most, tokens)
            windows.append(Window(shown: max(end - capacity, 0)..<end, scored: done..<end))
            done = end
        }
        return windows
    }

    /// Scored.
    package private(set) var tokens = 0
    /// In nats.
    package private(set) var loss = 0.0
    /// UTF-8 bytes of the whole text.
    package let bytes: Int

    package init(bytes: Int) { self.bytes = bytes }

    /// Adds the natural logarithms of the probabilities of scored tokens.
    package mutating func add(_ logProbs: some Collection<Double>) {
        tokens += logProbs.count
        loss -= logProbs.reduce(0, +)
    }

    /// e to the mean loss of a token; `nil` where there are none.
    package var perplexity: Double? { tokens == 0 ? nil : exp(loss / Double(tokens)) }
    /// Does not depend on the tokenizer, but for a text's first token where that cannot be scored.
    package var bitsPerByte: Double? { bytes == 0 || tokens == 0 ? nil : loss / log(2) / Double(bytes) }
}
