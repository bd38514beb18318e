import Disaggregation
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
    /// The sets in the order of their entries; those with a window are the last.
    let parts: [Part]
    /// The number of bytes of a block's entries, without those of windows.
    package let entryBytes: Int
    /// The number of bytes of the windows before a block's end; 0 if the model has none.
    package let windowBytes: Int
    /// Consecutive indices of sets whose entries are copied under one hold of the engine's lock, without those with a
    /// window.
    let pieces: [Range<Int>]
    /// Consecutive indices of sets with a window.
    let windowPieces: [Range<Int>]

    /// The entries of a set in a block.
    struct Part: Sendable {
        let set: KeySetID
        /// The index of the first byte among those of the block's entries.
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
        var (parts, next): ([Part], Int) = ([], 0)
        func append(_ set: KeySetID, entries count: Int) {
            guard count > 0 else { return }
            let bytes = count * format[set].bytesPerEntry
            parts.append(Part(set: set, start: next, bytes: bytes, count: count))
            next += bytes
        }
        let kept = format.sets.filter { layers.contains($0.layer) }
        for set in kept where format[set].window == nil {
            append(set, entries: blockTokens / format[set].tokensPerEntry)
        }
        (entryBytes, pieces) = (next, Self.pieces(of: parts, parts.indices))
        let first = parts.count
        for set in kept { append(set, entries: min(format[set].reach?.overlap ?? 0, blockTokens)) }
        (windowBytes, windowPieces) = (next - entryBytes, Self.pieces(of: parts, first..<parts.count))
        self.parts = parts
    }

    private static func pieces(of parts: [Part], _ indices: Range<Int>) -> [Range<Int>] {
        var (pieces, begin): ([Range<Int>], Int) = ([], indices.lowerBound)
        for index in indices {
            let bytes = parts[index].start + parts[index].bytes - parts[begin].start
            guard bytes > maxPieceBytes, index > begin else { continue }
            pieces.append(begin..<index)
            begin = index
        }
        if begin < indices.upperBound { pieces.append(begin..<indices.upperBound) }
        return pieces
    }

    /// Returns the numbers of the entries that a block has of a set.
    func numbers(of part: Part, ofBlock block: Int) -> Range<Int> {
        let end = (block + 1) * blockTokens / format[part.set].tokensPerEntry
        return end - part.count..<end
    }

    /// Returns the pages that have the entries of a block, of those that have a prefix; `nil` if they do not cover the
    /// block.
    func pages(ofBlock block: Int, in pages: [Int32]) -> CacheStore.PageList? {
        let positions = block * blockTokens..<(block + 1) * blockTokens
        guard pages.count * format.pageSize >= positions.upperBound else { return nil }
        return KVPages(pages: pages).list(isWindow: false, positions, pageSize: format.pageSize)
    }

    // MARK: - Bytes

    /// Copies what a process has packed to its place among the bytes of a block.
    ///
    /// - Parameters:
    ///   - packed: the entries, as `CacheStore.pack` has them.
    ///   - start: the index in `bytes` at which the block's entries begin.
    func copy(_ packed: [UInt8], of entries: ProcessEntries, into bytes: inout [UInt8], at start: Int) {
        forEachRun(of: entries) { place, next in
            bytes.replaceSubrange(
                start + place.lowerBound..<start + place.upperBound, with: packed[next..<next + place.count])
        }
    }

    /// Returns the bytes of some entries of a block, as `CacheStore.unpack` takes them.
    ///
    /// - Parameter block: the entries of the whole block.
    func bytes(of entries: ProcessEntries, in block: ArraySlice<UInt8>) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(entries.bytes(format))
        forEachRun(of: entries) { place, _ in
            bytes += block[block.startIndex + place.lowerBound..<block.startIndex + place.upperBound]
        }
        return bytes
    }

    /// Calls `body` for each lane of each run of consecutive entries with its place among the bytes of a block, and with
    /// the index of its first byte in those of a process.
    private func forEachRun(of entries: ProcessEntries, _ body: (Range<Int>, Int) -> Void) {
        var next = 0
        for (part, runs) in entries.parts {
            let first = numbers(of: part, ofBlock: entries.block).lowerBound
            var lane = part.start
            for width in format[part.set].lanes.map(\.bytesPerEntry) {
                for run in runs {
                    let start = lane + (run.lowerBound - first) * width
                    body(start..<start + run.count * width, next)
                    next += run.count * width
                }
                lane += part.count * width
            }
        }
    }
}
