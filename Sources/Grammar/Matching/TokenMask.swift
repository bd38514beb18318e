/// A set of tokens, with one bit for each.
package struct TokenMask: Sendable, Equatable {
    /// Token `t` as bit `t % 64` of word `t / 64`.
    package private(set) var words: [UInt64]

    package init(size: Int) { words = Array(repeating: 0, count: (size + 63) / 64) }

    package mutating func insert(_ token: Int32) { words[Int(token) >> 6] |= 1 << UInt64(token & 63) }

    package mutating func remove(_ token: Int32) { words[Int(token) >> 6] &= ~(1 << UInt64(token & 63)) }

    mutating func formUnion(_ other: TokenMask) {
        for index in words.indices { words[index] |= other.words[index] }
    }

    package func contains(_ token: Int32) -> Bool {
        words.indices.contains(Int(token) >> 6) && words[Int(token) >> 6] >> UInt64(token & 63) & 1 == 1
    }

    package var isEmpty: Bool { words.allSatisfy { $0 == 0 } }

    package var count: Int { words.reduce(0) { $0 + $1.nonzeroBitCount } }
}
