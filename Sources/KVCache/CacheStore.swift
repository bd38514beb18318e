package import Tensors

/// The memory behind the pages: for every lane of every key set, `pages × pageSize / tokensPerEntry` entries.
///
/// It says nothing about who uses which page; that is `PagePool`'s business. Ranks of a process share it: each writes
/// the entries of its own rows. Where processes divide the keys, each keeps its shard of every page.
package final class CacheStore: @unchecked Sendable {
    package let format: CacheFormat
    package let pages: Int
    package let windowPages: Int
    /// What is kept of every page, for each of the format's groups.
    private let shards: [KVShard]
    private let memory: Buffer
    private let lanes: [[[CacheLane]]]

    /// Reserves the memory; pages become resident when they are first written.
    ///
    /// - Parameters:
    ///   - windowPages: pages of the key sets that have a window.
    ///   - owners: whose entries are kept of every page; all entries when `nil`. Of window pages all entries are kept.
    ///   - keepsOneLayer: layers lie over each other, for what is read before the next one is written. Sets that later
    ///     layers read have memory of their own.
    package init(
        format: CacheFormat, pages: Int, windowPages: Int = 0, owners: KVShard.Owners? = nil,
        keepsOneLayer: Bool = false
    ) {
        self.format = format
        self.pages = pages
        self.windowPages = windowPages
        let shards = format.groups.map { KVShard(pageSize: $0.entriesPerPage, $0.isWindow ? nil : owners) }
        self.shards = shards
        func entries(_ set: KeySetID) -> Int {
            (format[set].window == nil ? pages : windowPages) * shards[format.group(of: set)].entriesPerPage
        }
        var starts = format.layers.map { $0.map { _ in 0 } }
        var end = 0
        func place(_ sets: [KeySetID]) {
            for set in sets {
                starts[set.layer][set.index] = end
                end += format[set].lanes.reduce(0) { $0 + Self.bytes($1, entries(set)) }
            }
        }
        let sets = format.sets
        let overlaid = sets.filter { keepsOneLayer && !format[$0].isReadByLaterLayers }
        place(sets.filter { !overlaid.contains($0) })
        let (first, layers) = (end, format.layers.indices)
        let ends = layers.map { layer in
            end = first
            place(overlaid.filter { $0.layer == layer })
            return end
        }
        end = ends.max() ?? first
        memory = Buffer(bytes: end)
        let base = unsafe memory.pointer
        lanes = format.layers.indices.map { layer in
            format.layers[layer].indices.map { index in
                let count = entries(KeySetID(layer: layer, index))
                var start = starts[layer][index]
                return format.layers[layer][index].lanes.map { lane in
                    defer { start += Self.bytes(lane, count) }
                    return unsafe CacheLane(
                        base + start, dtype: lane.dtype, width: lane.width, group: lane.group, entries: count)
                }
            }
        }
    }

    /// Bytes of so many entries, up to where the next lane begins.
    private static func bytes(_ lane: KeySet.Lane, _ entries: Int) -> Int { (lane.bytesPerEntry * entries + 63) & ~63 }

    /// Bytes reserved.
    package var bytes: Int { memory.bytes }

    /// What is kept of every page of a group of key sets.
    package func shard(ofGroup group: Int) -> KVShard { shards[group] }

    /// A key set's lanes, in the order of its format.
    package func lanes(of set: KeySetID) -> [CacheLane] { lanes[set.layer][set.index] }

    /// One lane of a key set.
    package func lane(_ lane: Int, of set: KeySetID) -> CacheLane { lanes[set.layer][set.index][lane] }

    /// Writes what one page holds to another: for benchmarks, whose contexts must hold something, whatever it is.
    package func copyPage(_ page: Int, to target: Int) {
        for set in format.sets where format[set].window == nil {
            let entries = shards[format.group(of: set)].entriesPerPage
            for lane in lanes(of: set) { lane.copyEntries(page * entries, count: entries, to: target * entries) }
        }
    }
}
