import Synchronization

/// A piece of a prompt, distinguished by its author.
package enum PromptSegment: Sendable, Equatable {
    /// The chat format wrote it: control tokens in it are recognised.
    case template(String)
    /// A user or client wrote it: the spelling of a control token in it is ordinary text.
    case text(String)
}

/// Converts text to tokens and back: byte-level byte-pair encoding as DeepSeek's and GLM's `tokenizer.json` describe
/// it.
///
/// A text is first cut at control tokens ("added tokens" in the file). The pre-tokenizer splits the text between them
/// into words, and every word is encoded alone. `encode` adds nothing: the chat format writes the beginning-of-sentence
/// token, and `encodePrompt` adds it if the model's files require it. Many tasks may use one tokenizer at once.
package final class Tokenizer: Sendable {
    /// The tokens for beginning of sentence, end of sentence and padding, if `tokenizer_config.json` names them.
    package let bosToken: Int32?
    package let eosToken: Int32?
    package let padToken: Int32?
    /// True if the model's files require the beginning-of-sentence token before a raw prompt.
    package let addsBeginning: Bool
    /// The Jinja template of `tokenizer_config.json`. It is never executed; it only distinguishes some models.
    let chatTemplate: String?

    private let vocabulary: Vocabulary
    private let preTokenizer: PreTokenizer
    private let encoding: BytePairEncoding
    /// True if a word that is a token is encoded as that token, without merging.
    private let ignoresMerges: Bool
    /// Finds control tokens in the order of the search: those found before normalization, then the others. Only an
    /// empty normalizer is accepted, so the order decides only between tokens that overlap.
    private let controlTokens: [ControlTokenMatcher]
    private let specialTokens: Set<Int32>
    private let cache = Mutex(WordCache())

    /// Holds everything that `init(directory:)` reads; see there.
    struct Parts {
        var vocabulary: Vocabulary
        var preTokenizer: PreTokenizer
        var encoding: BytePairEncoding
        var ignoresMerges: Bool
        var controlTokens: [ControlTokenMatcher]
        var specialTokens: Set<Int32>
        var bosToken: Int32?
        var eosToken: Int32?
        var padToken: Int32?
        var addsBeginning = false
        /// True if the tokenizer's class says whether a prompt begins with that token, whatever the post-processor says.
        var classSaysBeginning = false
        var chatTemplate: String?
    }

    init(_ parts: Parts) {
        vocabulary = parts.vocabulary
        preTokenizer = parts.preTokenizer
        encoding = parts.encoding
        ignoresMerges = parts.ignoresMerges
        controlTokens = parts.controlTokens
        specialTokens = parts.specialTokens
        bosToken = parts.bosToken
        eosToken = parts.eosToken
        padToken = parts.padToken
        addsBeginning = parts.addsBeginning
        chatTemplate = parts.chatTemplate
    }

    /// The largest token id plus one. A model may have more embedding rows.
    package var vocabularySize: Int { vocabulary.idBound }

    /// Returns the token spelled `text` in the file: control tokens literally, others in the byte alphabet (`Ġthe`).
    package func id(of text: String) -> Int32? { vocabulary.id(ofSpelling: text) }

    /// Returns the control token that is spelled `text`.
    package func controlToken(_ text: String) -> Int32? { vocabulary.id(ofLiteral: text) }

    /// Returns a token's spelling in the file; `nil` for ids without a token.
    package func token(_ id: Int32) -> String? { vocabulary.spelling(of: id) }

    /// Returns the bytes that a token adds to a text, not always whole characters. It is empty for ids without a token.
    package func bytes(of id: Int32) -> [UInt8] { vocabulary.bytes(of: id) ?? [] }

    /// Returns true if the token is literal, like all control tokens: merging never creates it from text.
    package func isControl(_ id: Int32) -> Bool { vocabulary.isLiteral(id) }

    /// Returns true if the file marks the token as special; decoders may leave it out.
    package func isSpecial(_ id: Int32) -> Bool { specialTokens.contains(id) }

    /// Returns the tokens of a text, with nothing added before or after.
    ///
    /// - Parameter allowingControlTokens: whether spellings such as `<｜User｜>` in the text become control tokens. It
    ///   must be `false` for text that users write.
    package func encode(
        _ text: String, allowingControlTokens: Bool, mayContinue: () -> Bool = { true }
    ) -> [Int32] {
        encode(segments: [allowingControlTokens ? .template(text) : .text(text)], mayContinue: mayContinue)
    }

    /// Returns the tokens of a raw prompt. Control tokens in it count as such, and the beginning-of-sentence token is
    /// added if the model's files require it and the prompt does not begin with it.
    package func encodePrompt(_ text: String, mayContinue: () -> Bool = { true }) -> [Int32] {
        let tokens = encode(text, allowingControlTokens: true, mayContinue: mayContinue)
        guard addsBeginning, let bosToken, tokens.first != bosToken else { return tokens }
        return [bosToken] + tokens
    }

    /// Returns the tokens of a prompt. Control tokens are recognized only within single template segments; between
    /// control tokens, neighbouring segments are encoded as one text. The result is therefore that of the whole prompt
    /// as one string, unless a `text` segment contains the spelling of a control token.
    ///
    /// - Parameter mayContinue: is called repeatedly while a long text is encoded. If it returns `false`, the tokens so
    ///   far are returned.
    package func encode(segments: [PromptSegment], mayContinue: () -> Bool = { true }) -> [Int32] {
        var cache = WordCache()
        // The cache is taken out rather than locked: a concurrent call starts with an empty one.
        self.cache.withLock { swap(&$0, &cache) }
        var encoder = TextEncoder(tokenizer: self, cache: cache)
        for segment in segments {
            switch segment {
            case .text(let text): encoder.pending.append(contentsOf: text.utf8)
            case .template(let text): cut(Array(text.utf8), at: controlTokens[...], into: &encoder, mayContinue)
            }
        }
        encoder.flush(mayContinue)
        self.cache.withLock { if $0.count < encoder.cache.count { swap(&$0, &encoder.cache) } }
        return encoder.result
    }

    private func cut(
        _ bytes: [UInt8], at matchers: ArraySlice<ControlTokenMatcher>, into encoder: inout TextEncoder,
        _ mayContinue: () -> Bool
    ) {
        guard let matcher = matchers.first else { return encoder.pending.append(contentsOf: bytes) }
        var start = 0
        while let match = matcher.firstMatch(in: bytes, from: start, to: bytes.count) {
            cut(Array(bytes[start..<match.range.lowerBound]), at: matchers.dropFirst(), into: &encoder, mayContinue)
            encoder.flush(mayContinue)
            encoder.result.append(match.id)
            start = match.range.upperBound
        }
        cut(Array(bytes[start...]), at: matchers.dropFirst(), into: &encoder, mayContinue)
    }

    /// Encodes text piece by piece; `pending` collects the text between two control tokens.
    private struct TextEncoder {
        let tokenizer: Tokenizer
        var cache: WordCache
        var pending: [UInt8] = []
        var result: [Int32] = []
        private var workspace = BytePairEncoding.Workspace()
        /// The number of words between two calls of `mayContinue`.
        private static let slice = 4096
        private var words = 0
        private var isGivenUp = false

        init(tokenizer: Tokenizer, cache: consuming WordCache) {
            self.tokenizer = tokenizer
            self.cache = cache
        }

        mutating func flush(_ mayContinue: () -> Bool) {
            guard !pending.isEmpty, !isGivenUp else { return pending.removeAll() }
            precondition(pending.count < Int32.max, "texts of 2 GiB and more must be refused before")
            let text = ClassifiedText(pending)
            pending.removeAll(keepingCapacity: true)
            tokenizer.preTokenizer.forEachWord(of: text) { range in
                words += 1
                if words.isMultiple(of: Self.slice), !mayContinue() { isGivenUp = true }
                guard !isGivenUp else { return }
                cache.append(text.bytes, range, to: &result) { result in
                    tokenizer.encodeWord(text.bytes, range, using: &workspace, into: &result, mayContinue)
                }
            }
        }
    }

    private func encodeWord(
        _ bytes: [UInt8], _ range: Range<Int>, using workspace: inout BytePairEncoding.Workspace,
        into result: inout [Int32], _ mayContinue: () -> Bool
    ) {
        // A control token is not a word, even if the file also lists it among the words.
        if ignoresMerges, let id = vocabulary.id(of: bytes, range), !vocabulary.isLiteral(id) {
            result.append(id)
        } else {
            encoding.encode(bytes, range, using: &workspace, into: &result, mayContinue)
        }
    }
}
