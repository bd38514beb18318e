import KVCache
import Tensors
import TestSupport
import Testing

/// Entries that one store packs are the same bytes in another one, whatever its pages and shards are.
@Suite struct `Packed entries` {
    private static let sets = [
        KeySet("f32", [KeySet.Lane(.f32, width: 3), KeySet.Lane(.f32, width: 1)]),
        KeySet("fp8", [KeySet.Lane(.fp8, width: 32, group: 16), KeySet.Lane(.bf16, width: 5)], tokensPerEntry: 2),
        KeySet("e8m0", [KeySet.Lane(.fp8, width: 37, group: 16, scaleType: .e8m0)]),
        KeySet("fp4", [KeySet.Lane(.fp4, width: 37, group: 32, scaleType: .e8m0)], tokensPerEntry: 2),
        KeySet("window", [KeySet.Lane(.fp8, width: 16)], lifetime: .window(tokens: 20)),
    ]

    private static func store(_ pageSize: Int, _ owners: KVShard.Owners? = nil) -> CacheStore {
        CacheStore(
            format: CacheFormat(layers: [sets], pageSize: pageSize), pages: 96 / pageSize, windowPages: 96 / pageSize,
            owners: owners)
    }

    private static func pages(_ pageSize: Int, _ random: inout SplitMix64) -> CacheStore.PageList {
        let pages = (0..<96 / pageSize).map { Int32($0) }.shuffled(using: &random)
        let skipped = random.below(2)
        return CacheStore.PageList(Array(pages.prefix(64 / pageSize).dropFirst(skipped)), first: skipped)
    }

    private static func bytes(
        _ entry: Int, _ set: KeySetID, _ lane: Int, _ list: CacheStore.PageList, _ store: CacheStore
    )
        -> [UInt8]?
    {
        let group = store.format.group(of: set)
        let size = store.format.groups[group].entriesPerPage
        let slot = Int(list.pages[entry / size - list.first]) * size + entry % size
        return store.shard(ofGroup: group).entry(of: slot).map { store.lane(lane, of: set).bytes(ofEntry: $0) }
    }

    @Test(arguments: [2, 8, 32], [2, 4, 16])
    func `are the same bytes in a store with other pages`(pageSize: Int, otherSize: Int) throws {
        var random = SplitMix64(seed: UInt64(pageSize * 100 + otherSize))
        let owners = pageSize >= 8 ? KVShard.Owners(run: 1, count: 4, kept: [1, 2]) : nil
        let (source, target) = (Self.store(pageSize, owners), Self.store(otherSize))
        for set in source.format.sets {
            for lane in source.lanes(of: set) {
                for entry in 0..<lane.entries {
                    lane.overwrite(entry, with: (0..<lane.entryBytes).map { _ in UInt8(random.below(256)) })
                }
            }
            let (list, other) = (Self.pages(pageSize, &random), Self.pages(otherSize, &random))
            let tokens = source.format[set].tokensPerEntry
            let first = max(list.first * pageSize, other.first * otherSize) / tokens
            let isDivided = owners != nil && source.format[set].window == nil
            let entries = (first..<64 / tokens).filter { !isDivided || [1, 2].contains($0 % 4) }
            var packed: [UInt8] = [7]
            #expect(source.pack(entries, of: set, in: list, into: &packed))
            #expect(packed.count == 1 + entries.count * source.format[set].bytesPerEntry)
            #expect(target.unpack(packed[1...], as: entries, of: set, in: other))
            for entry in entries {
                for lane in source.format[set].lanes.indices {
                    let expected = try #require(Self.bytes(entry, set, lane, list, source))
                    #expect(Self.bytes(entry, set, lane, other, target) == expected, "\(set), entry \(entry)")
                }
            }
        }
    }

    @Test func `are refused where a store does not keep them`() {
        let whole = Self.store(16)
        let part = Self.store(16, KVShard.Owners(run: 2, count: 2, kept: [0]))
        let set = KeySetID(layer: 0)
        let list = CacheStore.PageList([3, 1], first: 1)
        var bytes: [UInt8] = []
        #expect(whole.pack([16, 47], of: set, in: list, into: &bytes))
        #expect(!whole.pack([15], of: set, in: list, into: &bytes), "the entry's page is not listed")
        #expect(!whole.pack([48], of: set, in: list, into: &bytes), "the entry's page is not listed")
        #expect(!whole.pack([-1], of: set, in: list, into: &bytes))
        #expect(!whole.pack([16], of: set, in: CacheStore.PageList([6], first: 1), into: &bytes), "there is no page 6")
        #expect(!whole.pack([16], of: set, in: CacheStore.PageList([-1], first: 1), into: &bytes))
        #expect(!part.pack([18], of: set, in: list, into: &bytes), "another process keeps the entry")
        #expect(bytes.count == 32)
        #expect(!whole.unpack(bytes.dropLast(), as: [16, 47], of: set, in: list))
        #expect(!whole.unpack(bytes[...], as: [16], of: set, in: list))
        #expect(!part.unpack(bytes[...], as: [16, 18], of: set, in: list))
    }
}
