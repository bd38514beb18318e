package import Tensors

/// The memory behind the pages: for every layer and lane, `pages × pageSize / tokensPerEntry` entries.
///
/// It says nothing about who uses which page; that is `PagePool`'s business. Ranks of a process share it: each writes
/// the entries of its own rows. Where processes divide the keys, each keeps its share of every page.
package final class CacheStore: @unchecked Sendable {
    package let format: CacheFormat
    package let pages: Int
    package let share: KVShard
    private let memory: Buffer
    private let lanes: [[CacheLane]]

    /// Reserves the memory; pages become resident when they are first written.
    ///
    /// - Parameters:
    ///   - share: what is kept of every page; all of it when `nil`.
    ///   - keepsOneLayer: layers lie over each other: for what is read before the next one is written.
    package init(format: CacheFormat, pages: Int, share: KVShard? = nil, keepsOneLayer: Bool = false) {
        let share = share ?? KVShard(wholePagesOf: format.pageSize)
        precondition(share.pageSize == format.pageSize, "shares of pages of another size")
        self.format = format
        self.pages = pages
        self.share = share
        let tokens = pages * share.tokensPerPage
        let sizes = format.layers.map { $0.map { ($0.bytes(forTokens: tokens) + 63) & ~63 } }
        let layers = sizes.map { $0.reduce(0, +) }
        memory = Buffer(bytes: keepsOneLayer ? layers.max() ?? 0 : layers.reduce(0, +))
        let first = unsafe memory.pointer
        var next = unsafe first
        lanes = zip(format.layers, sizes).map { layer, sizes in
            if keepsOneLayer { unsafe next = first }
            return zip(layer, sizes).map { lane, size in
                defer { unsafe next += size }
                return unsafe CacheLane(
                    next, dtype: lane.dtype, width: lane.width, group: lane.group,
                    entries: tokens / lane.tokensPerEntry)
            }
        }
    }

    /// Bytes reserved.
    package var bytes: Int { memory.bytes }

    /// A layer's lanes, in the order of its format.
    package func lanes(of layer: Int) -> [CacheLane] { lanes[layer] }

    /// A layer's lane. Traps when the layer has none of this kind.
    package func lane(_ kind: CacheFormat.LaneKind, layer: Int) -> CacheLane {
        for (index, lane) in format.layers[layer].enumerated() where lane.kind == kind { return lanes[layer][index] }
        preconditionFailure("layer \(layer) has no \(kind.rawValue) lane")
    }

    /// Writes what one page holds to another: for benchmarks, whose contexts must hold something, whatever it is.
    package func copyPage(_ page: Int, to target: Int) {
        for (layer, formats) in zip(lanes, format.layers) {
            for (lane, format) in zip(layer, formats) {
                let entries = share.tokensPerPage / format.tokensPerEntry
                lane.copyEntries(page * entries, count: entries, to: target * entries)
            }
        }
    }
}
