package import Tokenization

/// Holds what grammars need to know of a vocabulary: the bytes of each token, as trees that are searched for the tokens
/// that may come next.
///
/// Control tokens are never text: they match only where a grammar names them. Ids without a token never match.
package final class GrammarVocabulary: Sendable {
    /// The number of bits in a mask: the rows of the model's output, which may be more than there are tokens.
    package let size: Int
    /// Each token's bytes; they are empty for control tokens and for ids without a token.
    private let bytes: [[UInt8]]
    /// Maps spellings to control tokens.
    let controlTokens: [String: Int32]
    /// The symbols that represent control tokens in networks, after those of bytes, in the order of ids.
    let controlSymbols: [(symbol: UInt16, token: Int32)]
    let symbolOfControl: [String: UInt16]
    private let symbolOfToken: [Int32: UInt16]
    /// All tokens that are text.
    let trie: TokenTrie
    /// The text tokens that are not plain; see `plainMask`.
    let otherTrie: TokenTrie
    /// The plain tokens: up to `PlainText.maxLength` whole characters of `PlainText`. They need no search
    /// where a grammar admits any such text, as at most places inside strings.
    let plainMask: TokenMask

    package convenience init(_ tokenizer: Tokenizer, size: Int) {
        var (bytes, controlTokens) = ([[UInt8]](), [String: Int32]())
        for id in 0..<Int32(min(tokenizer.vocabularySize, size)) {
            let isText = !tokenizer.isControl(id)
            bytes.append(isText ? tokenizer.bytes(of: id) : [])
            if !isText, let spelling = tokenizer.token(id) { controlTokens[spelling] = id }
        }
        self.init(bytes: bytes, controlTokens: controlTokens, size: size)
    }

    /// Creates a vocabulary.
    ///
    /// - Parameters:
    ///   - bytes: the bytes of each token, by id; empty for ids that are no text.
    ///   - controlTokens: control tokens by their spelling.
    ///   - size: the number of bits in a mask.
    package init(bytes: [[UInt8]], controlTokens: [String: Int32], size: Int) {
        precondition(bytes.count <= size, "more tokens than the model has rows")
        self.size = size
        self.bytes = bytes
        self.controlTokens = controlTokens
        let ordered = controlTokens.sorted { $0.value < $1.value }.prefix(Int(UInt16.max) - 256).enumerated()
        controlSymbols = ordered.map { (UInt16(256 + $0), $1.value) }
        symbolOfControl = Dictionary(uniqueKeysWithValues: ordered.map { ($1.key, UInt16(256 + $0)) })
        symbolOfToken = Dictionary(ordered.map { ($1.value, UInt16(256 + $0)) }) { first, _ in first }
        let entries = bytes.enumerated().filter { 1..<Int(UInt16.max) ~= $1.count }.map { ($1, Int32($0)) }
        trie = TokenTrie(entries)
        otherTrie = TokenTrie(entries.filter { !PlainText.contains($0.0) })
        var mask = TokenMask(size: size)
        for (bytes, token) in entries where PlainText.contains(bytes) { mask.insert(token) }
        plainMask = mask
    }

    /// Returns the bytes that a token adds to the text; they are empty for control tokens and ids without a token.
    package func bytes(of token: Int32) -> [UInt8] { bytes.indices.contains(Int(token)) ? bytes[Int(token)] : [] }

    func controlSymbol(of token: Int32) -> UInt16? { symbolOfToken[token] }
}

/// Describes the characters that most text consists of: all but control characters, quotes, backslashes and `<`, one of
/// which ends or interrupts the free parts of most grammars.
enum PlainText {
    /// A plain token has at most this many characters.
    static let maxLength = 24

    /// The byte ranges of each state's moves; state 0 is between characters.
    static let moves: [[(range: ClosedRange<UInt8>, target: Int)]] = [
        [
            (0x20...0x21, 0), (0x23...0x3B, 0), (0x3D...0x5B, 0), (0x5D...0x7E, 0), (0xC2...0xDF, 1), (0xE0...0xE0, 2),
            (0xE1...0xEC, 3), (0xED...0xED, 4), (0xEE...0xEF, 3), (0xF0...0xF0, 5), (0xF1...0xF3, 6), (0xF4...0xF4, 7),
        ],
        [(0x80...0xBF, 0)], [(0xA0...0xBF, 1)], [(0x80...0xBF, 1)], [(0x80...0x9F, 1)], [(0x90...0xBF, 3)],
        [(0x80...0xBF, 3)], [(0x80...0x8F, 3)],
    ]

    /// The first byte of every range and the byte after it. No range cuts a class of bytes between two
    /// borders.
    static let borders = Set(moves.joined().flatMap { [Int($0.range.lowerBound), Int($0.range.upperBound) + 1] })

    static func contains(_ bytes: [UInt8]) -> Bool {
        var (state, length) = (0, 0)
        for byte in bytes {
            guard let move = moves[state].first(where: { $0.range.contains(byte) }) else { return false }
            state = move.target
            length += state == 0 ? 1 : 0
        }
        return state == 0 && length <= maxLength
    }
}
