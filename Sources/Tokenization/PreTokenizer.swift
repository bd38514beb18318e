/// Splits a text into words, each of which byte-pair encoding then encodes alone.
///
/// Checkpoints describe the splits with regular expressions. The released ones are few, so each is recognised by its
/// text and implemented by a scanner that is linear in the text, whatever the text. The scanners follow the expressions
/// as Oniguruma runs them (leftmost match, first alternative that matches).
enum PreTokenizer: Sendable, Equatable {
    /// DeepSeek V3 to V4 split numbers of up to three digits, then Chinese and kana runs, then words.
    case deepSeek
    /// GLM uses one expression, that of GPT-4 with case-insensitive contractions.
    case glm

    /// The patterns of `Split` steps, in order, with the scanner that implements them.
    static let known: [(patterns: [String], scanner: PreTokenizer)] = [
        ([numbers, chineseAndKana, deepSeekWords], .deepSeek),
        ([glmWords], .glm),
    ]

    private static let numbers = #"\p{N}{1,3}"#
    private static let chineseAndKana = "[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+"
    private static let deepSeekWords =
        ##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##
        + "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
    private static let glmWords =
        #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"#
        + #"|\s*[\r\n]+|\s+(?!\S)|\s+"#

    /// Calls `word` with the byte range of every word, in order; together the words cover the text.
    func forEachWord(of text: ClassifiedText, _ word: (Range<Int>) -> Void) {
        switch self {
        case .deepSeek: text.splitDeepSeek(word)
        case .glm: text.splitGLM(word)
        }
    }
}

// MARK: - DeepSeek

extension ClassifiedText {
    /// Applies the three steps in order, each within the pieces of the previous step: a step sees each piece as a
    /// separate text with its own end.
    fileprivate func splitDeepSeek(_ word: (Range<Int>) -> Void) {
        var at = 0
        while at < bytes.count {
            let start = at
            if has(.number, at: start) {
                at = endOfNumber(from: start, to: bytes.count)
                word(start..<at)
            } else {
                let isKana = has(.chineseOrKana, at: start)
                while at < bytes.count, !has(.number, at: at), has(.chineseOrKana, at: at) == isKana { at += 1 }
                splitDeepSeekWords(from: start, to: at, word)
            }
        }
    }

    private func splitDeepSeekWords(from start: Int, to end: Int, _ word: (Range<Int>) -> Void) {
        var at = start
        var unmatchedFrom = start
        while at < end {
            guard let matchEnd = deepSeekMatch(at: at, to: end) else {
                at = after(at)
                continue
            }
            if unmatchedFrom < at { word(unmatchedFrom..<at) }
            word(at..<matchEnd)
            at = matchEnd
            unmatchedFrom = matchEnd
        }
        if unmatchedFrom < end { word(unmatchedFrom..<end) }
    }

    /// Returns the end of the match that starts at `start`, if there is one. The alternatives follow in order.
    private func deepSeekMatch(at start: Int, to end: Int) -> Int? {
        // [!-/:-@\[-`{-~][A-Za-z]+
        if isASCIIPunctuation(bytes[start]), start + 1 < end, isASCIILetter(bytes[start + 1]) {
            var at = start + 2
            while at < end, isASCIILetter(bytes[at]) { at += 1 }
            return at
        }
        // [^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+
        let next = after(start)
        if !has([.newline, .letter, .punctuation, .symbol], at: start), next < end, has([.letter, .mark], at: next) {
            return endOfRun(of: [.letter, .mark], from: next, to: end)
        }
        if has([.letter, .mark], at: start) { return endOfRun(of: [.letter, .mark], from: start, to: end) }
        //  ?[\p{P}\p{S}]+[\r\n]*
        let signs = bytes[start] == UInt8(ascii: " ") ? next : start
        if signs < end, has([.punctuation, .symbol], at: signs) {
            let signsEnd = endOfRun(of: [.punctuation, .symbol], from: signs, to: end)
            return endOfRun(of: .newline, from: signsEnd, to: end)
        }
        return endOfSpace(from: start, to: end)
    }

    private func isASCIILetter(_ byte: UInt8) -> Bool {
        UInt8(ascii: "a")...UInt8(ascii: "z") ~= byte | 0x20
    }

    private func isASCIIPunctuation(_ byte: UInt8) -> Bool {
        0x21...0x7E ~= byte && !isASCIILetter(byte) && !(UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte)
    }
}

// MARK: - GLM

extension ClassifiedText {
    fileprivate func splitGLM(_ word: (Range<Int>) -> Void) {
        var at = 0
        while at < bytes.count {
            let matchEnd = glmMatch(at: at)
            word(at..<matchEnd)
            at = matchEnd
        }
    }

    /// Returns the end of the match that starts at `start`; there always is one. The alternatives follow in order.
    private func glmMatch(at start: Int) -> Int {
        let end = bytes.count
        if let contractionEnd = endOfContraction(at: start) { return contractionEnd }
        // [^\r\n\p{L}\p{N}]?\p{L}+
        let next = after(start)
        if !has([.newline, .letter, .number], at: start), next < end, has(.letter, at: next) {
            return endOfRun(of: .letter, from: next, to: end)
        }
        if has(.letter, at: start) { return endOfRun(of: .letter, from: start, to: end) }
        // \p{N}{1,3}
        if has(.number, at: start) { return endOfNumber(from: start, to: end) }
        //  ?[^\s\p{L}\p{N}]+[\r\n]*
        var signs = bytes[start] == UInt8(ascii: " ") ? next : start
        if signs < end, !has([.space, .letter, .number], at: signs) {
            while signs < end, !has([.space, .letter, .number], at: signs) { signs += 1 }
            return endOfRun(of: .newline, from: signs, to: end)
        }
        return endOfSpace(from: start, to: end) ?? next
    }

    /// Matches `(?i:'s|'t|'re|'ve|'m|'ll|'d)`. Case folding is Unicode's, in which the long s (U+017F) is an s too.
    private func endOfContraction(at start: Int) -> Int? {
        guard bytes[start] == UInt8(ascii: "'") else { return nil }
        let rest = bytes[start + 1..<min(start + 3, bytes.count)]
        guard let first = rest.first else { return nil }
        switch first | 0x20 {
        case UInt8(ascii: "s"), UInt8(ascii: "t"), UInt8(ascii: "m"), UInt8(ascii: "d"): return start + 2
        default: break
        }
        if rest.elementsEqual([0xC5, 0xBF]) { return start + 3 }
        let pair = rest.map { $0 | 0x20 }
        return ["re", "ve", "ll"].contains { $0.utf8.elementsEqual(pair) } ? start + 3 : nil
    }
}

// MARK: - Common alternatives

extension ClassifiedText {
    /// Matches `\p{N}{1,3}` at a number.
    fileprivate func endOfNumber(from start: Int, to end: Int) -> Int {
        var at = start
        for _ in 0..<3 where at < end && has(.number, at: at) { at = after(at) }
        return at
    }

    /// Matches `\s*[\r\n]+|\s+(?!\S)|\s+`: through the last line break of the run; else the whole run at the end of the
    /// piece; else the run without its last character, which the next word takes; else one character.
    fileprivate func endOfSpace(from start: Int, to end: Int) -> Int? {
        let runEnd = endOfRun(of: .space, from: start, to: end)
        guard runEnd > start else { return nil }
        if let lineBreak = (start..<runEnd).last(where: { has(.newline, at: $0) }) { return lineBreak + 1 }
        if runEnd == end { return runEnd }
        let last = before(runEnd)
        return last > start ? last : runEnd
    }
}
