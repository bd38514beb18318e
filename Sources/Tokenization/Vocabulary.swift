/// Tokens by id, by bytes and by spelling.
///
/// Most tokens stand for bytes and are spelled in `ByteAlphabet`. The others, among them all control tokens, are
/// *literals*: spelled as themselves, and never made by merging.
struct Vocabulary: Sendable {
    private var words: ByteStringTable
    private var idOfWord: [Int32] = []
    /// Index into `words` by id; -1 for literals and for ids that no token has.
    private var wordOfID: [Int32] = []
    private var literals: [Int32: String] = [:]
    /// Keyed by bytes, since `String` would take canonically equivalent spellings for one.
    private var idOfLiteral: [[UInt8]: Int32] = [:]

    init(capacity: Int) {
        words = ByteStringTable(capacity: capacity)
    }

    /// The largest id plus one.
    var idBound: Int { wordOfID.count }

    /// Adds a token that stands for `bytes`; both must be new.
    mutating func add(bytes: [UInt8], id: Int32) {
        let (_, isNew) = words.insert(bytes, bytes.indices)
        precondition(isNew && !contains(id), "token \(id) is added twice")
        idOfWord.append(id)
        reach(id)
        wordOfID[Int(id)] = Int32(words.count - 1)
    }

    /// Adds a token that stands for itself; the spelling must be new among literals.
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

    /// The token that stands for exactly `buffer[range]`.
    func id(of buffer: [UInt8], _ range: Range<Int>) -> Int32? {
        words.index(of: buffer, range).map { idOfWord[$0] }
    }

    func id(ofLiteral text: String) -> Int32? { idOfLiteral[Array(text.utf8)] }

    /// The token with this spelling, as it stands in the file.
    func id(ofSpelling text: String) -> Int32? {
        if let id = id(ofLiteral: text) { return id }
        return ByteAlphabet.bytes(of: text).flatMap { id(of: $0, $0.indices) }
    }

    /// The spelling of a token in the file.
    func spelling(of id: Int32) -> String? {
        literals[id] ?? word(of: id).map { ByteAlphabet.spelling(of: $0) }
    }

    /// What a token adds to a text; `nil` for ids that no token has.
    func bytes(of id: Int32) -> [UInt8]? {
        literals[id].map { Array($0.utf8) } ?? word(of: id).map { Array($0) }
    }

    private func word(of id: Int32) -> ArraySlice<UInt8>? {
        guard 0..<wordOfID.count ~= Int(id), wordOfID[Int(id)] >= 0 else { return nil }
        return words[Int(wordOfID[Int(id)])]
    }
}
