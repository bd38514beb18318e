/// What the cache keeps of a request's tokens: the key sets of each layer, in pages of `pageSize` tokens.
///
/// Sets that are kept as long as their request share the numbers of pages: a page is `pageSize` tokens of all of them, and
/// holds `pageSize / tokensPerEntry` entries of each. Sets of windows share *window pages* of the same size, with numbers
/// of their own. Layers need not be alike; one may own no set and read an earlier one's.
package struct CacheFormat: Sendable, Equatable {
    /// The key sets that each layer owns.
    package let layers: [[KeySet]]
    /// Tokens of a page, a power of two.
    package let pageSize: Int
    /// The different groups of key sets, in the order of their first sets.
    package let groups: [PageGroup]

    /// Tokens of the largest pages there can be.
    package static let maxPageSize = 1 << 16

    /// Traps when a page does not hold whole entries of every set; see `positionAlignment`.
    package init(layers: [[KeySet]], pageSize: Int) {
        precondition(pageSize > 0 && pageSize & (pageSize - 1) == 0, "a page holds a power of two of tokens")
        self.layers = layers
        self.pageSize = pageSize
        groups = layers.joined().reduce(into: []) { groups, set in
            let group = PageGroup(of: set, pageSize: pageSize)
            if !groups.contains(group) { groups.append(group) }
        }
    }

    package subscript(set: KeySetID) -> KeySet { layers[set.layer][set.index] }

    /// The index of a set's group among `groups`.
    package func group(of set: KeySetID) -> Int {
        groups.firstIndex { $0.holds(self[set]) }!
    }

    /// All key sets, layer by layer.
    package var sets: [KeySetID] {
        layers.indices.flatMap { layer in layers[layer].indices.map { KeySetID(layer: layer, $0) } }
    }

    /// The tokens of the longest entry: pages are multiples of it, and positions are best divided among ranks in
    /// multiples of it.
    package var positionAlignment: Int { groups.map(\.tokensPerEntry).max() ?? 1 }

    /// The longest window of a set; 0 where there is none.
    package var window: Int { layers.joined().reduce(0) { max($0, $1.window ?? 0) } }

    /// The same sets with an entry for every token, for memory that holds entries on their way.
    package var withOneTokenPerEntry: CacheFormat {
        CacheFormat(
            layers: layers.map { sets in
                sets.map {
                    KeySet($0.name, $0.lanes, lifetime: $0.lifetime, isReadByLaterLayers: $0.isReadByLaterLayers)
                }
            }, pageSize: pageSize)
    }
}

/// Key sets whose entries stand for the same number of tokens and are in the same kind of pages: a row's entries have the
/// same slots in all of them.
package struct PageGroup: Sendable, Equatable {
    package let tokensPerEntry: Int
    /// Whether the entries are in window pages.
    package let isWindow: Bool
    /// Entries of a page, a power of two.
    package let entriesPerPage: Int

    fileprivate init(of set: KeySet, pageSize: Int) {
        precondition(
            pageSize % set.tokensPerEntry == 0,
            "a page of \(pageSize) tokens does not hold whole entries of \(set.tokensPerEntry), as \(set.name) has them"
        )
        tokensPerEntry = set.tokensPerEntry
        isWindow = set.window != nil
        entriesPerPage = pageSize / set.tokensPerEntry
    }

    fileprivate func holds(_ set: KeySet) -> Bool {
        tokensPerEntry == set.tokensPerEntry && isWindow == (set.window != nil)
    }

    /// The number of entries that are complete at a row's position, with that of its own token: where there is no window,
    /// the row sees all of them.
    package func visibleEntries(at position: Int) -> Int { (position + 1) / tokensPerEntry }

    /// Whether the row at this position stores an entry: it has the entry's last token.
    package func closesEntry(at position: Int) -> Bool { (position + 1) % tokensPerEntry == 0 }

    /// The base-2 logarithm of `entriesPerPage`.
    package var shift: Int { entriesPerPage.trailingZeroBitCount }
}

// MARK: - Bytes

extension CacheFormat {
    package var bytesPerPage: Int { layers.indices.reduce(0) { $0 + bytesPerPage(layer: $1) } }

    /// Bytes of a page in one layer.
    package func bytesPerPage(layer: Int) -> Int {
        layers[layer].reduce(0) { $1.window == nil ? $0 + $1.bytesPerEntry * (pageSize / $1.tokensPerEntry) : $0 }
    }

    /// Bytes of a window page in all layers.
    package var bytesPerWindowPage: Int {
        layers.joined().reduce(0) { $1.window == nil ? $0 : $0 + $1.bytesPerEntry * pageSize }
    }

    /// Bytes of one token in one layer, windows left out, rounded up where entries stand for several tokens.
    package func bytesPerToken(layer: Int) -> Int { (bytesPerPage(layer: layer) + pageSize - 1) / pageSize }

    /// Bytes of one token in all layers, windows left out.
    package var bytesPerToken: Double { Double(bytesPerPage) / Double(pageSize) }

    /// Bytes of a copy of an entry on its way to another process: its slot, and whole words of every lane.
    package func bytesPerCopy(_ set: KeySetID) -> Int {
        MemoryLayout<Int32>.size * self[set].lanes.reduce(1) { $0 + $1.wordsPerEntry }
    }

    /// Bytes of the copies of one token in one layer, windows left out, rounded up where entries stand for several tokens.
    package func bytesPerCopy(layer: Int) -> Int {
        layers[layer].indices.filter { layers[layer][$0].window == nil }.reduce(0) { bytes, index in
            let tokens = layers[layer][index].tokensPerEntry
            return bytes + (bytesPerCopy(KeySetID(layer: layer, index)) + tokens - 1) / tokens
        }
    }
}
