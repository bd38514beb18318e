/// Caches the tokens of words. It is bounded: when full it is emptied, and long words are never kept.
struct WordCache: Sendable {
    static let wordLimit = 1 << 15
    static let lengthLimit = 64

    private var words = ByteStringTable()
    var count: Int { words.count }

    /// Tokens of word `i` are `tokens[ends[i]..<ends[i + 1]]`.
    private var ends: [Int] = [0]
    private var tokens: [Int32] = []

    /// Appends the tokens of `buffer[range]` to `result`; `encode` computes them unless they are cached.
    mutating func append(
        _ buffer: [UInt8], _ range: Range<Int>, to result: inout [Int32], encode: (inout [Int32]) -> Void
    ) {
        guard range.count <= Self.lengthLimit else { return encode(&result) }
        if words.count == Self.wordLimit { self = WordCache() }
        let (index, isNew) = words.insert(buffer, range)
        if isNew {
            let start = result.count
            encode(&result)
            tokens.append(contentsOf: result[start...])
            ends.append(tokens.count)
        } else {
            result.append(contentsOf: tokens[ends[index]..<ends[index + 1]])
        }
    }
}
