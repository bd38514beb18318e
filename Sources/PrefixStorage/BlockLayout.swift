package import Inference
import KVCache
package import Modeling

/// The order of the entries in a block: set by set, and within a set as `CacheStore.pack` has them.
///
/// A block has the entries of the layers whose keys later steps read: those of the next-token block only if the server
/// drafts tokens.
package struct BlockLayout: Sendable {
    let format: CacheFormat
    let layers: Range<Int>
    let blockTokens: Int
    private let sets: [Part]
    /// The number of bytes of all entries of a block.
    package let entryBytes: Int
    /// Consecutive indices of sets whose entries are copied under one hold of the engine's lock.
    let pieces: [Range<Int>]

    /// The entries of a set in a block.
    private struct Part: Sendable {
        let set: KeySetID
        let start: Int
        let bytes: Int
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
        for set in format.sets where layers.contains(set.layer) {
            let bytes = blockTokens / format[set].tokensPerEntry * format[set].bytesPerEntry
            sets.append(Part(set: set, start: next, bytes: bytes))
            next += bytes
        }
        self.sets = sets
        entryBytes = next
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
            let count = blockTokens / format[part.set].tokensPerEntry
            let entries = Array(block * count..<(block + 1) * count)
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
            let (count, kept) = (blockTokens / set.tokensPerEntry, skipped / set.tokensPerEntry)
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
}
