/// Encodes one word by byte pairs: it starts with a token per byte and repeatedly merges the neighbours that come first
/// in the merge list (the leftmost of equal ones), until no merge is possible.
struct BytePairEncoding: Sendable {
    /// The token of every single byte.
    private let byteTokens: [Int32]
    /// Maps two tokens to their rank in the merge list (upper half) and the merged token (lower half).
    private let merges: PairTable

    init(byteTokens: [Int32], merges: PairTable) {
        precondition(byteTokens.count == 256, "one token for every byte")
        self.byteTokens = byteTokens
        self.merges = merges
    }

    /// The number of merges between two calls of `mayContinue`, which take about a millisecond.
    private static let slice = 4096

    /// The state of a word while it is merged: a list of symbols linked by index. It is kept between words, so that
    /// encoding a word allocates nothing.
    struct Workspace {
        fileprivate var tokens: [Int32] = []
        fileprivate var next: [Int32] = []
        fileprivate var previous: [Int32] = []
        fileprivate var candidates = MergeHeap()
    }

    /// Appends the tokens of `buffer[range]` in n·log n steps for any n bytes.
    ///
    /// - Parameter mayContinue: is called after every `slice` merges of a long word. If it returns `false`, the word is
    ///   not merged further.
    func encode(
        _ buffer: [UInt8], _ range: Range<Int>, using space: inout Workspace, into result: inout [Int32],
        _ mayContinue: () -> Bool = { true }
    ) {
        let count = range.count
        if count == 1 { return result.append(byteTokens[Int(buffer[range.lowerBound])]) }
        space.tokens.removeAll(keepingCapacity: true)
        space.next.removeAll(keepingCapacity: true)
        space.previous.removeAll(keepingCapacity: true)
        for (index, place) in range.enumerated() {
            space.tokens.append(byteTokens[Int(buffer[place])])
            space.previous.append(Int32(index) - 1)
            space.next.append(index + 1 < count ? Int32(index) + 1 : -1)
        }
        for index in 0..<count - 1 { offer(index, &space) }
        var steps = 0
        while let candidate = space.candidates.popFirst() {
            merge(candidate, &space)
            steps += 1
            if steps.isMultiple(of: Self.slice), !mayContinue() { break }
        }
        space.candidates.removeAll()
        var at: Int32 = 0
        while at >= 0 {
            result.append(space.tokens[Int(at)])
            at = space.next[Int(at)]
        }
    }

    /// Adds a candidate if the symbol at `index` can merge with the next one.
    @inline(__always)
    private func offer(_ index: Int, _ space: inout Workspace) {
        let next = space.next[index]
        guard next >= 0, let merge = merges[space.tokens[index], space.tokens[Int(next)]] else { return }
        space.candidates.insert(
            MergeCandidate(
                order: merge & ~0xFFFF_FFFF | UInt64(index), token: Int32(truncatingIfNeeded: merge & 0xFFFF_FFFF)))
    }

    private func merge(_ candidate: MergeCandidate, _ space: inout Workspace) {
        let index = Int(candidate.order & 0xFFFF_FFFF)
        // The symbols may have changed since the candidate was added: merge only if it still gives the same token.
        guard space.tokens[index] >= 0, space.next[index] >= 0 else { return }
        let absorbed = Int(space.next[index])
        guard let now = merges[space.tokens[index], space.tokens[absorbed]],
            Int32(truncatingIfNeeded: now & 0xFFFF_FFFF) == candidate.token
        else { return }
        space.tokens[index] = candidate.token
        space.tokens[absorbed] = -1
        let after = space.next[absorbed]
        space.next[index] = after
        if after >= 0 { space.previous[Int(after)] = Int32(index) }
        offer(index, &space)
        if space.previous[index] >= 0 { offer(Int(space.previous[index]), &space) }
    }
}

/// A merge that was possible when it was added.
private struct MergeCandidate {
    /// The rank in the merge list in the upper half and the index in the word in the lower half. The candidate with the
    /// smallest value is merged first.
    let order: UInt64
    let token: Int32
}

/// A binary heap, smallest first.
private struct MergeHeap {
    private var items: [MergeCandidate] = []

    mutating func insert(_ item: MergeCandidate) {
        items.append(item)
        var at = items.count - 1
        while at > 0, item.order < items[(at - 1) / 2].order {
            items[at] = items[(at - 1) / 2]
            at = (at - 1) / 2
        }
        items[at] = item
    }

    mutating func removeAll() { items.removeAll(keepingCapacity: true) }

    mutating func popFirst() -> MergeCandidate? {
        guard let first = items.first else { return nil }
        let moved = items.removeLast()
        if items.isEmpty { return first }
        var at = 0
        while true {
            var child = 2 * at + 1
            guard child < items.count else { break }
            if child + 1 < items.count, items[child + 1].order < items[child].order { child += 1 }
            guard items[child].order < moved.order else { break }
            items[at] = items[child]
            at = child
        }
        items[at] = moved
        return first
    }
}
