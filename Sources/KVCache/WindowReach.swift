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

    /// Returns the first page before whose end every process of a data group has the window, when they have computed the
    /// positions before `end` and the first page has begun with one of these; see `sharedWindows`.
    package static func firstSharedPage(before end: Int, window: Int, pageSize: Int) -> Int {
        firstWindowPage(before: end - 1, window: window, pageSize: pageSize)
    }

    /// Returns the positions whose window entries all ranks of a data group receive, because any of them may compute the
    /// rows that see them: the next rows of the request, and those of a request that continues from the last page border
    /// before the last computed position. Other entries go only to ranks with rows that see them in the same step.
    ///
    /// A prompt that is found again as a whole computes its last token, so a border at `end` itself is not enough.
    ///
    /// - Parameter end: the first position that the next step may compute.
    package func sharedWindows(_ reach: WindowReach, before end: Int) -> [Range<Int>] {
        // A page that is shorter than the window may be used up to each of the borders after it.
        if pageSize < window {
            return [Self.firstSharedPage(before: end, window: window, pageSize: pageSize) * pageSize..<Int.max]
        }
        let border = (end - 1) / pageSize * pageSize
        let next = end / reach.readEvery * reach.readEvery
        return [max(0, border - reach.overlap)..<border, max(0, next - reach.overlap)..<Int.max]
    }

    /// Returns the position from which on all processes of a data group have the window before any of a receiver's page
    /// borders, and before `end`, when they have computed the positions before `end`; see `sharedWindows`. Single entries
    /// after it that no such window has may be missing.
    ///
    /// - Parameter receiverPageSize: the number of tokens of the receiver's pages.
    package func firstWholeEntry(before end: Int, receiverPageSize: Int) -> Int {
        if pageSize < window {
            return Self.firstSharedPage(before: end, window: window, pageSize: pageSize) * pageSize
        }
        let border = max(0, end - 1) / pageSize * pageSize
        // A receiver with shorter pages may have a border behind this one, whose window no process has as a whole.
        if max(0, end - 1) / receiverPageSize * receiverPageSize > border { return max(0, end - window + 1) }
        // As borders are at multiples of the alignment, an earlier one needs entries before the rounded position, too.
        return max(0, border - window + 1) / positionAlignment * positionAlignment
    }
}
