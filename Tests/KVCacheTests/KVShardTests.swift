import KVCache
import Tensors
import TestSupport
import Testing

/// KV shards determine which process keeps which entry of a page.
@Suite struct `A KV shard` {
    /// All combinations of page size, run and number of owners that are possible.
    static let processShardings = [1, 2, 16, 64].flatMap { pageSize in
        [1, 2, 4, 8].flatMap { run in [1, 2, 4, 8].map { (pageSize, run, $0) } }
    }.filter { KVShard.isPossible(pageSize: $0, run: $1, owners: $2) }

    @Test func `is the whole page, or makes it up together with the other shards`() {
        #expect(Self.processShardings.count == 33)
        for (pageSize, run, owners) in Self.processShardings {
            let shares = (0..<owners).map { KVShard(pageSize: pageSize, .init(run: run, count: owners, kept: [$0])) }
            for slot in 0..<3 * pageSize {
                let keepers = (0..<owners).filter { shares[$0].entry(of: slot) != nil }
                #expect(keepers == [slot % pageSize / run % owners], "slot \(slot) of pages of \(pageSize)")
            }
            for share in shares {
                #expect(share.entriesPerPage == pageSize / owners)
                let entries = (0..<3 * pageSize).compactMap { share.entry(of: $0) }
                #expect(entries == Array(0..<3 * share.entriesPerPage), "every entry is used, in order")
            }
        }
    }

    @Test func `maps the positions it keeps to the entries of their slots`() {
        var draw = SplitMix64.printed()
        let scratch = Scratch()
        for (pageSize, run, owners) in Self.processShardings {
            let kept = Set((0..<owners).filter { _ in draw.below(2) == 0 } + [draw.below(owners)])
            let share = KVShard(pageSize: pageSize, .init(run: run, count: owners, kept: kept))
            let pages = (0..<5).map { _ in Int32(draw.below(40)) }
            let map = share.map(pages, scratch)
            for position in 0..<5 * pageSize {
                let slot = Int(pages[position / pageSize]) * pageSize + position % pageSize
                guard let entry = share.entry(of: slot) else { continue }
                #expect(Int(map.slot(of: position)) == entry, "position \(position), pages of \(pageSize)")
            }
        }
    }

    @Test func `divides the entries of every key set, whatever number of tokens an entry covers`() {
        let format = CacheFormat(
            layers: [
                [KeySet("keys", [.init(.f32, width: 2)]), KeySet("closed", [.init(.f32, width: 2)], tokensPerEntry: 4)]
            ],
            pageSize: 16)
        let owned = KVShard.Owners(run: 2, count: 2, kept: [1])
        let half = CacheStore(format: format, pages: 3, owners: owned)
        #expect(format.groups.map(\.entriesPerPage) == [16, 4])
        for (index, kept) in [[2, 3, 6, 7, 10, 11, 14, 15], [2, 3]].enumerated() {
            let shard = half.shard(ofGroup: index)
            let size = format.groups[index].entriesPerPage
            #expect((0..<size).filter { shard.entry(of: $0) != nil } == kept)
            #expect(half.lane(0, of: KeySetID(layer: 0, index)).entries == 3 * kept.count)
        }
    }

    @Test func `stores the entries it keeps, skips others, and refuses slots that do not exist`() {
        let format = CacheFormat(
            layers: [[KeySet("keys", [.init(.f32, width: 3), .init(.f32, width: 1)])]], pageSize: 4)
        let set = KeySetID(layer: 0)
        let whole = CacheStore(format: format, pages: 3)
        let half = CacheStore(format: format, pages: 3, owners: .init(run: 1, count: 2, kept: [1]))
        #expect(half.bytes * 2 <= whole.bytes + 2 * 64, "lanes begin at multiples of 64 bytes")
        let scratch = Scratch()
        let slots = scratch.indices(12)
        for slot in 0..<12 { slots[slot] = Int32(slot) }
        let keys = scratch.rows(12, 3)
        for slot in 0..<12 { for column in 0..<3 { keys[slot, column] = Float(slot * 3 + column) } }
        Kernels.best.store(keys, slots: slots, in: whole.lane(0, of: set))
        let copies = scratch.rows(12, whole.copyColumns(set))
        whole.copy(slots, set, into: copies, .best, scratch)
        #expect(half.store(Kernels.best.synchronize(copies), set))
        let (all, kept) = (whole.lane(0, of: set), half.lane(0, of: set))
        #expect(kept.entries == 6)
        for entry in 0..<6 { #expect(kept.bytes(ofEntry: entry) == all.bytes(ofEntry: 2 * entry + 1)) }
        copies.rows(7..<8).integers[0] = 12
        #expect(!half.store(Kernels.best.synchronize(copies), set), "there is no slot 12")
        copies.rows(7..<8).integers[0] = -1
        #expect(!half.store(Kernels.best.synchronize(copies), set))
    }
}
