/// Holds the byte strings of tokens as a tree in preorder: a node's children follow it, and skipping them is one
/// addition.
struct TokenTrie: Sendable {
    /// The byte on the edge to each node; the root is left out.
    private(set) var bytes: [UInt8] = []
    /// The number of bytes that lead to each node, minus one.
    private(set) var depths: [UInt16] = []
    /// The first node after each node's descendants.
    private(set) var ends: [Int32] = []
    /// The token that ends at each node; -1 for none.
    private(set) var tokens: [Int32] = []
    private(set) var maxDepth = 0

    /// Builds the tree.
    ///
    /// - Parameter entries: byte strings, none empty or longer than `UInt16.max`, with their tokens. All tokens of
    ///   equal strings are kept, in separate nodes.
    init(_ entries: [(bytes: [UInt8], token: Int32)]) {
        let sorted = entries.sorted {
            $0.bytes == $1.bytes ? $0.token < $1.token : $0.bytes.lexicographicallyPrecedes($1.bytes)
        }
        var path: [Int] = []
        var last: [UInt8] = []
        for entry in sorted {
            var common = zip(last, entry.bytes).prefix { $0 == $1 }.count
            // A second token of the same bytes gets a node beside the first.
            if common == entry.bytes.count { common -= 1 }
            for node in path[common...] { ends[node] = Int32(bytes.count) }
            path.removeSubrange(common...)
            for depth in common..<entry.bytes.count {
                path.append(bytes.count)
                bytes.append(entry.bytes[depth])
                depths.append(UInt16(depth))
                ends.append(0)
                tokens.append(-1)
            }
            tokens[path.last!] = entry.token
            maxDepth = max(maxDepth, path.count)
            last = entry.bytes
        }
        for node in path { ends[node] = Int32(bytes.count) }
    }

    var nodeCount: Int { bytes.count }
}
