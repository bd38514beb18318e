package import Inference
import KVCache
package import Modeling

/// The order of the entries in a block: set by set, and within a set as `CacheStore.pack` has them.
///
/// The entries of key sets with a window follow those of all others: of each set those before the end of the block that
/// rows after it read (`WindowReach.overlap`). A block may lack them, and a prefix can be used up to the end of a block
/// that has them.
///
/// A block has the entries of the layers whose keys later steps read: those of the next-token block only if the server
/// drafts tokens.
package struct BlockLayout: Sendable {
    let format: CacheFormat
    let layers: Range<Int>
    let blockTokens: Int
    private let sets: [Part]
    /// The sets with a window, of which later rows read entries before a block's end.
    private let windowSets: [Part]
    /// The number of bytes of a block's entries, without those of windows.
    package let entryBytes: Int
    /// The number of bytes of the windows before a block's end; 0 if the model has none.
    package let windowBytes: Int
    /// Consecutive indices of sets whose entries are copied under one hold of the engine's lock.
    let pieces: [Range<Int>]

    /// The entries of a set in a block.
    private struct Part: Sendable {
        let set: KeySetID
        let start: Int
        let bytes: Int
        let count: Int
    }

    /// A piece has more bytes than this only if one set's entries of a block have more.
    static let maxPieceBytes = 4 << 20

    package init(_ model: any Model, _ configuration: EngineConfiguration, blockTokens: Int) {
        let format = model.cacheFormat(configuration.cacheType, pageSize: configuration.pageSize)
        let layers = configuration.drafts > 0 ? format.layers.count : model.description.layers.count
        self.init(format, layers: 0..<layers, blockTokens: blockTokens)
    }

    init(_ format: CacheFormat, layers: Range<Int>, blockTokens: Int) {
        self.format = format
        self.layers = layers
        self.blockTokens = blockTokens
        var (sets, next): ([Part], Int) = ([], 0)
        func append(_ set: KeySetID, entries count: Int, to parts: inout [Part]) {
            guard count > 0 else { return }
            let bytes = count * format[set].bytesPerEntry
            parts.append(Part(set: set, start: next, bytes: bytes, count: count))
            next += bytes
        }
        let kept = format.sets.filter { layers.contains($0.layer) }
        for set in kept where format[set].window == nil {
            append(set, entries: blockTokens / format[set].tokensPerEntry, to: &sets)
        }
        self.sets = sets
        entryBytes = next
        var windowSets: [Part] = []
        for set in kept {
            append(set, entries: min(format[set].reach?.overlap ?? 0, blockTokens), to: &windowSets)
        }
        self.windowSets = windowSets
        windowBytes = next - entryBytes
        var (pieces, begin): ([Range<Int>], Int) = ([], 0)
        for index in sets.indices {
            let bytes = sets[index].start + sets[index].bytes - sets[begin].start
            guard bytes > Self.maxPieceBytes, index > begin else { continue }
            pieces.append(begin..<index)
            begin = index
        }
        if begin < sets.count { pieces.append(begin..<sets.count) }
        self.pieces = pieces
    }

    /// Appends the entries of a piece of a block.
    ///
    /// - Parameters:
    ///   - block: the block's index in the prefix.
    ///   - pages: the pages of the prefix.
    /// - Returns: false, with nothing appended, if the pages do not cover the block.
    func pack(
        _ piece: Range<Int>, ofBlock block: Int, in pages: [Int32], _ cache: CacheStore, into bytes: inout [UInt8]
    ) -> Bool {
        guard pages.count * format.pageSize >= (block + 1) * blockTokens else { return false }
        for part in sets[piece] {
            let entries = Array(block * part.count..<(block + 1) * part.count)
            guard cache.pack(entries, of: part.set, in: CacheStore.PageList(pages), into: &bytes) else { return false }
        }
        return true
    }

    /// Writes the entries of a piece of a block.
    ///
    /// - Parameters:
    ///   - entries: the entries of the whole block.
    ///   - first: the position before which the pages have all entries, which stay.
    /// - Returns: false if the pages do not cover the block.
    func unpack(
        _ entries: ArraySlice<UInt8>, _ piece: Range<Int>, ofBlock block: Int, after first: Int, to pages: [Int32],
        _ cache: CacheStore
    ) -> Bool {
        let skipped = min(max(first - block * blockTokens, 0), blockTokens)
        for part in sets[piece] {
            let set = format[part.set]
            let (count, kept) = (part.count, skipped / set.tokensPerEntry)
            let start = entries.startIndex + part.start
            var bytes = entries[start..<start + part.bytes]
            if kept > 0 {
                bytes = []
                var lane = start
                for width in set.lanes.map(\.bytesPerEntry) {
                    bytes += entries[lane + kept * width..<lane + count * width]
                    lane += count * width
                }
            }
            let numbers = Array(block * count + kept..<(block + 1) * count)
            guard cache.unpack(bytes, as: numbers, of: part.set, in: CacheStore.PageList(pages)) else { return false }
        }
        return true
    }

    // MARK: - Windows

    /// Appends the entries of the windows before the end of a block.
    ///
    /// - Parameter window: the window page before the block's end.
    /// - Returns: false if the page does not have them.
    func packWindow(
        beforeEndOf block: Int, in window: CacheStore.PageList, _ cache: CacheStore, into bytes: inout [UInt8]
    ) -> Bool {
        windowSets.allSatisfy { part in
            cache.pack(positions(of: part, beforeEndOf: block), of: part.set, in: window, into: &bytes)
        }
    }

    /// Writes the entries of the windows before the end of a block.
    ///
    /// - Parameter entries: the entries of the whole block, with its windows.
    /// - Returns: false if the window page does not cover them.
    func unpackWindow(
        _ entries: ArraySlice<UInt8>, beforeEndOf block: Int, to window: CacheStore.PageList, _ cache: CacheStore
    ) -> Bool {
        windowSets.allSatisfy { part in
            let start = entries.startIndex + part.start
            return cache.unpack(
                entries[start..<start + part.bytes], as: positions(of: part, beforeEndOf: block), of: part.set,
                in: window)
        }
    }

    private func positions(of part: Part, beforeEndOf block: Int) -> [Int] {
        let end = (block + 1) * blockTokens
        return Array(end - part.count..<end)
    }
}
