/// Converts tokens to text as they arrive. A character whose bytes are spread over tokens is held back until it is
/// complete. Bytes that can never become a character become U+FFFD, one for each maximal part that begins a character,
/// as in Unicode's recommendation, Python's `errors="replace"` and the reference library.
package struct StreamingDecoder: Sendable {
    private let tokenizer: Tokenizer
    private let skipsSpecialTokens: Bool
    private let keptTokens: Set<Int32>
    /// The beginning of a character, fewer than four bytes.
    private var held: [UInt8] = []

    /// Creates a decoder of one output.
    ///
    /// - Parameters:
    ///   - skippingSpecialTokens: leaves out tokens that the tokenizer's file marks as special.
    ///   - kept: special tokens that are not left out, because a parser reads them (`ChatFormat.keptTokens`).
    package init(_ tokenizer: Tokenizer, skippingSpecialTokens: Bool = true, keeping kept: Set<Int32> = []) {
        self.tokenizer = tokenizer
        skipsSpecialTokens = skippingSpecialTokens
        keptTokens = kept
    }

    /// Returns the text that `token` completes; often it is empty. Ids without a token add nothing.
    package mutating func feed(_ token: Int32) -> String {
        if skipsSpecialTokens, tokenizer.isSpecial(token), !keptTokens.contains(token) { return "" }
        held += tokenizer.bytes(of: token)
        let unfinished = Self.unfinishedSuffix(of: held)
        let text = String(decoding: held.dropLast(unfinished), as: UTF8.self)
        held.removeFirst(held.count - unfinished)
        return text
    }

    package mutating func feed(_ tokens: some Sequence<Int32>) -> String {
        tokens.reduce(into: "") { $0 += feed($1) }
    }

    /// Ends the text: held bytes can no longer become a character. Afterwards the decoder can begin a new text.
    package mutating func finish() -> String {
        defer { held = [] }
        return String(decoding: held, as: UTF8.self)
    }

    /// Returns the number of bytes at the end that begin a character which more bytes may complete.
    private static func unfinishedSuffix(of bytes: [UInt8]) -> Int {
        for count in 1..<4 where count <= bytes.count {
            let lead = bytes[bytes.count - count]
            if lead & 0xC0 == 0x80 { continue }
            return isUnfinished(bytes.suffix(count)) ? count : 0
        }
        return 0
    }

    /// Returns true if `bytes`, one non-continuation byte and then continuations, begin a character but do not complete
    /// it.
    private static func isUnfinished(_ bytes: ArraySlice<UInt8>) -> Bool {
        guard let lead = bytes.first, 0xC2...0xF4 ~= lead else { return false }
        guard bytes.count < (lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4) else { return false }
        guard let second = bytes.dropFirst().first else { return true }
        // Overlong forms, surrogates and scalars beyond U+10FFFF are no characters.
        switch lead {
        case 0xE0: return second >= 0xA0
        case 0xED: return second < 0xA0
        case 0xF0: return second >= 0x90
        case 0xF4: return second < 0x90
        default: return true
        }
    }
}

extension Tokenizer {
    /// Returns the text of some tokens; see `StreamingDecoder`.
    package func decode(
        _ tokens: some Sequence<Int32>, skippingSpecialTokens: Bool = true, keeping kept: Set<Int32> = []
    ) -> String {
        var decoder = StreamingDecoder(self, skippingSpecialTokens: skippingSpecialTokens, keeping: kept)
        return decoder.feed(tokens) + decoder.finish()
    }
}
