import Foundation

/// Perplexity measures how well a text is predicted, window by window.
package struct Perplexity: Sendable, Equatable {
    /// A window is the range of tokens shown to the model at once, and the range of those that are scored.
    package struct Window: Sendable, Equatable {
        package let shown: Range<Int>
        /// The scored tokens, at the end of `shown`.
        package let scored: Range<Int>
    }

    /// Returns windows that score every token once, except the first of the text where nothing can precede it.
    ///
    /// - Parameters:
    ///   - tokens: The number of tokens of the text.
    ///   - capacity: The number of tokens of the text that fit a window, at least 2.
    ///   - stride: The number of tokens by which windows advance, at least 1; if it is less than `capacity`, later
    ///     tokens see at least `capacity - stride` tokens before them.
    ///   - hasPrefix: True if windows begin with a token that is not part of the text, so that their first token can be
    ///     scored.
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

    /// The number of scored tokens.
    package private(set) var tokens = 0
    /// The sum of the tokens' losses in nats.
    package private(set) var loss = 0.0
    /// The number of UTF-8 bytes of the whole text.
    package let bytes: Int

    package init(bytes: Int) { self.bytes = bytes }

    /// Adds the natural logarithms of the probabilities of scored tokens.
    package mutating func add(_ logProbs: some Collection<Double>) {
        tokens += logProbs.count
        loss -= logProbs.reduce(0, +)
    }

    /// The exponential of the mean loss of a token; `nil` without tokens.
    package var perplexity: Double? { tokens == 0 ? nil : exp(loss / Double(tokens)) }
    /// The loss in bits per byte of the text; `nil` without tokens. It does not depend on the tokenizer, except for a
    /// text's first token if that cannot be scored.
    package var bitsPerByte: Double? { bytes == 0 || tokens == 0 ? nil : loss / log(2) / Double(bytes) }
}
