/// The format of a KV cache: the key sets of each layer, stored in pages of `pageSize` tokens.
///
/// All key sets that live as long as their request use the same page numbers: a page covers `pageSize` tokens and holds
/// `pageSize / tokensPerEntry` entries of each such set. Key sets with a window use *window pages*, which cover as many
/// tokens and have numbers of their own. Layers may differ; a layer may own no key set and read those of an earlier
/// layer.
package struct CacheFormat: Sendable, Equatable {
    /// The key sets that each layer owns, by layer.
    package let layers: [[KeySet]]
    /// The number of tokens in a page, a power of two.
    package let pageSize: Int
    /// The distinct page groups of the key sets, in the order in which they first occur.
    package let groups: [PageGroup]

    /// The largest number of tokens that a page may have.
    package static let maxPageSize = 1 << 16

    /// Creates a format. It traps if a page does not hold whole entries of every key set; see `positionAlignment`.
    package init(layers: [[KeySet]], pageSize: Int) {
        precondition(pageSize > 0 && pageSize & (pageSize - 1) == 0, "a page holds a power of two of tokens")
        self.layers = layers
        self.pageSize = pageSize
        window = layers.joined().reduce(0) { max($0, $1.window ?? 0) }
        groups = layers.joined().reduce(into: []) { groups, set in
            let group = PageGroup(of: set, pageSize: pageSize)
            if !groups.contains(group) { groups.append(group) }
        }
        precondition(
            Self.windowWithoutEntry(in: layers) == nil, "a window is read every so many tokens as no entry has")
    }

    package subscript(set: KeySetID) -> KeySet { layers[set.layer][set.index] }

    /// Returns a key set with a window that is read only every n tokens although no set has entries of n tokens or of a
    /// multiple; `nil` if there is none. Page borders and the parts of ranks would not be multiples of n, so that a rank
    /// could read entries that it was not sent.
    package static func windowWithoutEntry(in layers: [[KeySet]]) -> KeySet? {
        layers.joined().first { set in
            set.readEvery > 1 && !layers.joined().contains { $0.tokensPerEntry % set.readEvery == 0 }
        }
    }

    /// Returns the index in `groups` of a key set's page group.
    package func group(of set: KeySetID) -> Int {
        groups.firstIndex { $0.holds(self[set]) }!
    }

    /// The identifiers of all key sets, layer by layer.
    package var sets: [KeySetID] {
        layers.indices.flatMap { layer in layers[layer].indices.map { KeySetID(layer: layer, $0) } }
    }

    /// The number of tokens of the longest entry. Page sizes are multiples of it, and partitions assign positions to
    /// ranks in aligned runs of it, so that one rank has all tokens of an entry.
    package var positionAlignment: Int { groups.map(\.tokensPerEntry).max() ?? 1 }

    /// The number of tokens in the longest window of a key set; 0 if no set has a window.
    package let window: Int

    /// Returns the least number of pages for the windows of so many requests: those of the last page border's window, of one
    /// row, and of drafts, whatever the others hold.
    package static func minWindowPages(of window: Int, requests: Int, drafts: Int, pageSize: Int) -> Int {
        window > 0 && pageSize > 0 ? requests * ((window + 2 * drafts + pageSize - 1) / pageSize + 2) : 0
    }

    /// Returns the number of window pages with which no request waits for another's: the least number, as many again for
    /// prefixes that later requests find, and those of all rows in flight.
    package static func windowPages(atLeast least: Int, rows: Int, pageSize: Int) -> Int {
        2 * least + (rows + pageSize - 1) / pageSize
    }

    /// The same key sets with an entry for every token. Staging buffers use this format, because a rank may have as
    /// many entries of any set as it has rows.
    package var withOneTokenPerEntry: CacheFormat {
        CacheFormat(
            layers: layers.map { sets in
                sets.map {
                    KeySet($0.name, $0.lanes, lifetime: $0.lifetime, isReadByLaterLayers: $0.isReadByLaterLayers)
                }
            }, pageSize: pageSize)
    }
}

/// A group of key sets whose entries cover the same number of tokens and are in the same kind of pages. A row's entries
/// have the same slots in all sets of a group.
package struct PageGroup: Sendable, Equatable {
    package let tokensPerEntry: Int
    /// True if the entries are in window pages.
    package let isWindow: Bool
    /// The number of entries in a page, a power of two.
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

    /// Returns the number of entries that are complete at a position, including the one that the position's own token
    /// completes. The row at that position sees all of them, unless the sets have a window.
    package func visibleEntries(at position: Int) -> Int { (position + 1) / tokensPerEntry }

    /// Returns true if the token at this position is the last one of an entry. Its row then stores the entry.
    package func closesEntry(at position: Int) -> Bool { (position + 1) % tokensPerEntry == 0 }

    /// The base-2 logarithm of `entriesPerPage`.
    package var shift: Int { entriesPerPage.trailingZeroBitCount }
}

// MARK: - Bytes

extension CacheFormat {
    package var bytesPerPage: Int { layers.indices.reduce(0) { $0 + bytesPerPage(layer: $1) } }

    /// Returns the number of bytes of a page in one layer. Key sets with a window are not counted.
    package func bytesPerPage(layer: Int) -> Int {
        layers[layer].reduce(0) { $1.window == nil ? $0 + $1.bytesPerEntry * (pageSize / $1.tokensPerEntry) : $0 }
    }

    /// The number of bytes of a window page in all layers.
    package var bytesPerWindowPage: Int {
        layers.joined().reduce(0) { $1.window == nil ? $0 : $0 + $1.bytesPerEntry * pageSize }
    }

    /// Returns the number of bytes of one token in one layer, without key sets that have a window. It is rounded up
    /// where an entry covers several tokens.
    package func bytesPerToken(layer: Int) -> Int { (bytesPerPage(layer: layer) + pageSize - 1) / pageSize }

    /// The number of bytes of one token in all layers, without key sets that have a window.
    package var bytesPerToken: Double { Double(bytesPerPage) / Double(pageSize) }

    /// Returns the number of bytes of an entry that is sent to another process: its slot, and whole 32-bit words of
    /// every lane.
    package func bytesPerCopy(_ set: KeySetID) -> Int {
        MemoryLayout<Int32>.size * self[set].lanes.reduce(1) { $0 + $1.wordsPerEntry }
    }

    /// Returns the number of bytes that are sent of one token in one layer, without key sets that have a window. It is
    /// rounded up where an entry covers several tokens.
    package func bytesPerCopy(layer: Int) -> Int {
        layers[layer].indices.filter { layers[layer][$0].window == nil }.reduce(0) { bytes, index in
            let tokens = layers[layer][index].tokensPerEntry
            return bytes + (bytesPerCopy(KeySetID(layer: layer, index)) + tokens - 1) / tokens
        }
    }
}
