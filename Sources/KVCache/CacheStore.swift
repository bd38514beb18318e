package import Tensors

/// The memory of a KV cache. Each lane of each key set has `pages × pageSize / tokensPerEntry` entries, or
/// `windowPages × pageSize` if the set has a window.
///
/// The store does not know which request uses which page; `PagePool` does. The ranks of a process share a store, and
/// each writes the entries of its own rows. Where processes shard the keys, each process stores its KV shard of every
/// page.
package final class CacheStore: @unchecked Sendable {
    package let format: CacheFormat
    package let pages: Int
    package let windowPages: Int
    /// The part of every page that is kept, for each of the format's page groups.
    private let shards: [KVShard]
    private let memory: Buffer
    private let lanes: [[[CacheLane]]]

    /// Reserves the memory; its pages become resident when they are first written.
    ///
    /// - Parameters:
    ///   - windowPages: the number of window pages.
    ///   - owners: the owners whose entries are kept of every page; all entries are kept when `nil`. Window pages
    ///     always keep all entries.
    ///   - keepsOneLayer: true to place all layers at the same addresses, for keys that are read before the next layer
    ///     is written. Key sets that later layers read have memory of their own.
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
                        base + start, dtype: lane.dtype, width: lane.width, group: lane.group,
                        scaleType: lane.scaleType, entries: count)
                }
            }
        }
    }

    /// Returns the number of bytes that `entries` entries occupy, rounded up to a multiple of 64, where the next lane
    /// begins.
    private static func bytes(_ lane: KeySet.Lane, _ entries: Int) -> Int { (lane.bytesPerEntry * entries + 63) & ~63 }

    /// The number of bytes reserved.
    package var bytes: Int { memory.bytes }

    /// Returns the part of every page that is kept, for the page group at an index of `CacheFormat.groups`.
    package func shard(ofGroup group: Int) -> KVShard { shards[group] }

    /// Returns a key set's lanes, in the order of its format.
    package func lanes(of set: KeySetID) -> [CacheLane] { lanes[set.layer][set.index] }

    /// Returns one lane of a key set.
    package func lane(_ lane: Int, of set: KeySetID) -> CacheLane { lanes[set.layer][set.index][lane] }

    /// Copies all entries of one page to another, except those of window pages. Benchmarks use it to fill long
    /// contexts, whose keys may have any values.
    package func copyPage(_ page: Int, to target: Int) {
        for set in format.sets where format[set].window == nil {
            let entries = shards[format.group(of: set)].entriesPerPage
            for lane in lanes(of: set) { lane.copyEntries(page * entries, count: entries, to: target * entries) }
        }
    }
}
