/// Finds added tokens in a text: the leftmost first, and of those with the same start the longest.
struct ControlTokenMatcher: Sendable {
    /// A trie that maps (node, byte) to the next node; node 0 is the root.
    private var children = PairTable()
    /// Maps a node to the token that ends at it; -1 for none.
    private var tokenAtNode: [Int32] = [-1]
    /// True for each byte that starts a token, so that most bytes are skipped at once.
    private var starts = [Bool](repeating: false, count: 256)

    /// Creates a matcher.
    ///
    /// - Parameter tokens: spellings and ids; no spelling is empty.
    init(_ tokens: [(text: String, id: Int32)]) {
        for token in tokens {
            var node: Int32 = 0
            for byte in token.text.utf8 {
                if let child = children[node, Int32(byte)] {
                    node = Int32(child)
                } else {
                    let child = Int32(tokenAtNode.count)
                    tokenAtNode.append(-1)
                    children.set(node, Int32(byte), to: UInt64(child))
                    node = child
                }
            }
            tokenAtNode[Int(node)] = token.id
            if let first = token.text.utf8.first { starts[Int(first)] = true }
        }
    }

    /// Returns the first token in `bytes[start..<end]` and the range it covers.
    func firstMatch(in bytes: [UInt8], from start: Int, to end: Int) -> (range: Range<Int>, id: Int32)? {
        var at = start
        while at < end {
            if starts[Int(bytes[at])], let match = longestMatch(in: bytes, at: at, to: end) { return match }
            at += 1
        }
        return nil
    }

    private func longestMatch(in bytes: [UInt8], at start: Int, to end: Int) -> (range: Range<Int>, id: Int32)? {
        var node: Int32 = 0
        var found: (range: Range<Int>, id: Int32)?
        var at = start
        while at < end, let child = children[node, Int32(bytes[at])] {
            node = Int32(child)
            at += 1
            if tokenAtNode[Int(node)] >= 0 { found = (start..<at, tokenAtNode[Int(node)]) }
        }
        return found
    }
}
