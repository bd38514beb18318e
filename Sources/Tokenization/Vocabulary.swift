/// Finds tokens by id, by bytes and by spelling.
///
/// Most tokens represent bytes and are spelled in `ByteAlphabet`. The others, among them all control tokens, are
/// *literals*: they are spelled as themselves, and merging never creates them.
struct Vocabulary: Sendable {
    private var words: ByteStringTable
    private var idOfWord: [Int32] = []
    /// Maps an id to its index in `words`; -1 for literals and for ids without a token.
    private var wordOfID: [Int32] = []
    private var literals: [Int32: String] = [:]
    /// The ids of literals, keyed by bytes, since `String` treats canonically equivalent spellings as equal.
    private var idOfLiteral: [[UInt8]: Int32] = [:]

    init(capacity: Int) {
        words = ByteStringTable(capacity: capacity)
    }

    /// The largest id plus one.
    var idBound: Int { wordOfID.count }

    /// Adds a token that represents `bytes`; both must be new.
    mutating func add(bytes: [UInt8], id: Int32) {
        let (_, isNew) = words.insert(bytes, bytes.indices)
        precondition(isNew && !contains(id), "token \(id) is added twice")
        idOfWord.append(id)
        reach(id)
        wordOfID[Int(id)] = Int32(words.count - 1)
    }

    /// Adds a token that represents itself; the spelling must be new among literals.
    mutating func add(literal: String, id: Int32) {
        let old = idOfLiteral.updateValue(id, forKey: Array(literal.utf8))
        precondition(old == nil && literals[id] == nil, "token \(id) is added twice")
        reach(id)
        literals[id] = literal
    }

    private mutating func reach(_ id: Int32) {
        let missing = Int(id) + 1 - wordOfID.count
        if missing > 0 { wordOfID.append(contentsOf: repeatElement(-1, count: missing)) }
    }

    func contains(_ id: Int32) -> Bool {
        literals[id] != nil || word(of: id) != nil
    }

    func isLiteral(_ id: Int32) -> Bool { literals[id] != nil }

    /// Returns the token that represents exactly `buffer[range]`.
    func id(of buffer: [UInt8], _ range: Range<Int>) -> Int32? {
        words.index(of: buffer, range).map { idOfWord[$0] }
    }

    func id(ofLiteral text: String) -> Int32? { idOfLiteral[Array(text.utf8)] }

    /// Returns the token with this spelling in the file.
    func id(ofSpelling text: String) -> Int32? {
        if let id = id(ofLiteral: text) { return id }
        return ByteAlphabet.bytes(of: text).flatMap { id(of: $0, $0.indices) }
    }

    /// Returns a token's spelling in the file.
    func spelling(of id: Int32) -> String? {
        literals[id] ?? word(of: id).map { ByteAlphabet.spelling(of: $0) }
    }

    /// Returns the bytes that a token adds to a text; `nil` for ids without a token.
    func bytes(of id: Int32) -> [UInt8]? {
        literals[id].map { Array($0.utf8) } ?? word(of: id).map { Array($0) }
    }

    private func word(of id: Int32) -> ArraySlice<UInt8>? {
        guard 0..<wordOfID.count ~= Int(id), wordOfID[Int(id)] >= 0 else { return nil }
        return words[Int(wordOfID[Int(id)])]
    }
}
