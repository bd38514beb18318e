/// A reach determines which rows read an entry of a set with a window, and thereby which ranks need a copy of it.
package struct WindowReach: Sendable, Hashable {
    /// The number of tokens whose entries a row sees, its own included.
    package let tokens: Int
    /// 1 if every attended row reads the entries; n if only own rows that complete an entry of n tokens do.
    package let readEvery: Int

    package init(tokens: Int, readEvery: Int = 1) {
        (self.tokens, self.readEvery) = (tokens, readEvery)
    }

    /// The number of entries before a border between entries of `readEvery` tokens that rows after the border read.
    package var overlap: Int { tokens - readEvery }

    /// Returns true if the row at a position reads the entries of its window.
    package func reads(at position: Int) -> Bool { (position + 1) % readEvery == 0 }
}

extension CacheFormat {
    /// The distinct reaches of the key sets that have a window, in the order in which they first occur.
    package var reaches: [WindowReach] {
        layers.joined().compactMap(\.reach).reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
    }

    /// Returns the first page whose window entries matter after a request has computed the positions before `end`: for
    /// its next rows, and for requests that continue from its last page border.
    package static func firstWindowPage(before end: Int, window: Int, pageSize: Int) -> Int {
        max(0, end / pageSize * pageSize - window + 1) / pageSize
    }

    /// Returns the first position from which on all ranks of a data group receive window entries of a request's rows,
    /// because any of them may compute the next rows, or those of a request that continues from the last page border.
    /// Earlier entries go only to ranks with rows that see them in the same step.
    ///
    /// - Parameter end: the first position that the next step may compute.
    package func firstShared(_ reach: WindowReach, before end: Int) -> Int {
        // The prefix cache keeps the window pages before the border. With pages as long as the longest window that is one
        // page, which is read from its end; several pages may be used up to each of their borders.
        if positionAlignment >= window { return max(0, end / pageSize * pageSize - reach.overlap) }
        return Self.firstWindowPage(before: end, window: window, pageSize: pageSize) * pageSize
    }
}
