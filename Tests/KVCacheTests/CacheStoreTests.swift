import KVCache
import Tensors
import TestSupport
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

@Suite struct `A cache store` {
    /// Layers that differ in widths and types and have none, one or two key sets; one set has an entry for two tokens.
    static let format = CacheFormat(
        layers: [
            [KeySet("keys", [.init(.f32, width: 5), .init(.bf16, width: 3)])],
            [],
            [
                KeySet("keys", [.init(.bf16, width: 33), .init(.f32, width: 1)]),
                KeySet("pairs", [.init(.f32, width: 7)], tokensPerEntry: 2, isReadByLaterLayers: true),
            ],
            [KeySet("keys", [.init(.bf16, width: 2), .init(.f32, width: 16)])],
        ], pageSize: 4)

    @Test func `keeps every entry of every lane apart`() {
        let store = CacheStore(format: Self.format, pages: 5)
        let scratch = Scratch()
        var written: [[Float]] = []
        for lane in Self.lanes(of: store) {
            let count = lane.entries * lane.width
            let first = written.joined().count
            let values = (0..<count).map { Self.number(first + $0) }
            Self.write(values, to: lane, scratch)
            written.append(values)
        }
        // All lanes are written before the first is read, so an overlap would show in one of the two.
        let read = Self.lanes(of: store).map { Self.read($0, scratch) }
        withExtendedLifetime(store) {}
        #expect(Set(written.joined()).count == written.joined().count, "the numbers are distinct")
        for (index, values) in written.enumerated() { #expect(read[index] == values, "lane \(index) of all layers") }
    }

    @Test func `keeps FP8 entries apart, each with its scales`() {
        let layer = [
            KeySet("grouped", [.init(.fp8, width: 37, group: 16)]),
            KeySet("pairs", [.init(.fp8, width: 9)], tokensPerEntry: 2),
            KeySet("powers of two", [.init(.fp8, width: 37, group: 16, scaleType: .e8m0)]),
        ]
        let store = CacheStore(format: CacheFormat(layers: [layer, layer], pageSize: 4), pages: 5)
        // 37 values, three zeros and three scales; nine values, three zeros and a scale for two tokens; three scales in
        // four bytes.
        #expect(store.format.bytesPerPage == 4 * 2 * (60 + 44))
        let scratch = Scratch()
        let written = Self.lanes(of: store).enumerated().map { number, lane in
            // The largest of each group makes its scale a power of two; integers up to 16 are then kept exactly.
            let values = (0..<lane.entries * lane.width).map { index in
                let (entry, column) = (index / lane.width, index % lane.width)
                let scale = exp2(Float((entry + column / lane.group) % 7))
                return (column % lane.group == 0 ? 448 : Float((entry + 3 * column + number) % 16)) * scale
            }
            Self.write(values, to: lane, scratch)
            return values
        }
        let read = Self.lanes(of: store).map { Self.read($0, scratch) }
        withExtendedLifetime(store) {}
        #expect(read == written)
    }

    @Test func `keeps FP4 entries apart, each with its scales`() {
        let index = KeySet.Lane(indexAs: CacheType(.bfloat16, hasFP4Index: true), width: 128)
        let layer = [
            KeySet("ragged", [.init(.fp4, width: 37, group: 16, scaleType: .e8m0)]),
            KeySet("pairs", [.init(.fp4, width: 9, scaleType: .e8m0)], tokensPerEntry: 2),
            KeySet("index", [index], tokensPerEntry: 4),
        ]
        let store = CacheStore(format: CacheFormat(layers: [layer, layer], pageSize: 4), pages: 5)
        // Nineteen bytes of values, a zero and three scales in four bytes; five, three zeros and a scale in four bytes for
        // two tokens; 64 and four scales for four.
        #expect(store.format.bytesPerPage == 2 * (4 * 24 + 2 * 12 + 68))
        let scratch = Scratch()
        let written = Self.lanes(of: store).enumerated().map { number, lane in
            // The largest of each group makes its scale that power of two; the others are magnitudes of E2M1.
            let values = (0..<lane.entries * lane.width).map { index in
                let (entry, column) = (index / lane.width, index % lane.width)
                let scale = exp2(Float((entry + column / lane.group) % 7))
                let magnitudes: [Float] = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
                return (column % lane.group == 0 ? 6 : magnitudes[(entry + 3 * column + number) % 8]) * scale
            }
            Self.write(values, to: lane, scratch)
            return values
        }
        let read = Self.lanes(of: store).map { Self.read($0, scratch) }
        withExtendedLifetime(store) {}
        #expect(read == written)
    }

    @Test func `copies whole pages and nothing else`() {
        let store = CacheStore(format: Self.format, pages: 4)
        let scratch = Scratch()
        let lanes = Self.lanes(of: store)
        for (number, lane) in lanes.enumerated() {
            Self.write((0..<lane.entries * lane.width).map { Self.number(100 * number + $0) }, to: lane, scratch)
        }
        let before = lanes.map { Self.read($0, scratch) }
        store.copyPage(1, to: 3)
        for (lane, before) in zip(lanes, before) {
            let page = before.count / 4
            let after = Self.read(lane, scratch)
            #expect(Array(after[..<(3 * page)]) == Array(before[..<(3 * page)]))
            #expect(Array(after[(3 * page)...]) == Array(before[page..<2 * page]))
        }
        withExtendedLifetime(store) {}
    }

    @Test func `contains zeros before it is written`() {
        let store = CacheStore(format: Self.format, pages: 2)
        let scratch = Scratch()
        let read = Self.lanes(of: store).map { Self.read($0, scratch) }
        withExtendedLifetime(store) {}
        #expect(read.joined().allSatisfy { $0 == 0 } && read.joined().count == 8 * (5 + 3 + 33 + 1 + 2 + 16) + 4 * 7)
    }

    @Test func `has the lanes of every key set, with the set's number of tokens per entry`() {
        let store = CacheStore(format: Self.format, pages: 3)
        #expect(Self.format.sets.count == 4 && Self.format.groups.map(\.tokensPerEntry) == [1, 2])
        #expect(Self.format.positionAlignment == 2)
        for set in Self.format.sets {
            let wanted = Self.format[set]
            #expect(store.lanes(of: set).map(\.dtype) == wanted.lanes.map(\.dtype))
            #expect(store.lanes(of: set).map(\.width) == wanted.lanes.map(\.width))
            #expect(store.lanes(of: set).allSatisfy { $0.entries == 3 * 4 / wanted.tokensPerEntry })
        }
    }

    @Test func `keeps one layer at a time if asked to, and key sets for later layers apart`() {
        let store = CacheStore(format: Self.format, pages: 3, keepsOneLayer: true)
        let scratch = Scratch()
        let pairs = store.lane(0, of: KeySetID(layer: 2, 1))
        let values = (0..<pairs.entries * pairs.width).map { Self.number($0) }
        Self.write(values, to: pairs, scratch)
        for set in Self.format.sets where set != KeySetID(layer: 2, 1) {
            for lane in store.lanes(of: set) {
                let others = (0..<lane.entries * lane.width).map { Self.number(1000 + $0) }
                Self.write(others, to: lane, scratch)
                #expect(Self.read(lane, scratch) == others)
            }
        }
        #expect(Self.read(pairs, scratch) == values)
        #expect(store.bytes < CacheStore(format: Self.format, pages: 3).bytes)
        withExtendedLifetime(store) {}
    }

    @Test func `says which rows store an entry, and which entries a row sees`() {
        let group = Self.format.groups[1]
        #expect((0..<6).map { group.closesEntry(at: $0) } == [false, true, false, true, false, true])
        #expect((0..<6).map { group.visibleEntries(at: $0) } == [0, 1, 1, 2, 2, 3])
        #expect((0..<3).map { Self.format.groups[0].visibleEntries(at: $0) } == [1, 2, 3])
    }

    @Test func `has the number of bytes that its format says`() {
        // F32 has 4 bytes, BF16 2; the set "pairs" has one entry for two tokens.
        let token = 5 * 4 + 3 * 2 + 33 * 2 + 7 * 4 / 2 + 1 * 4 + 2 * 2 + 16 * 4
        #expect(Self.format.bytesPerPage == 4 * token)
        #expect(Self.format.bytesPerToken == Double(token))
    }

    private static func lanes(of store: CacheStore) -> [CacheLane] {
        store.format.sets.flatMap { store.lanes(of: $0) }
    }

    /// Returns distinct positive numbers that BF16 represents exactly.
    private static func number(_ index: Int) -> Float { Float(bitPattern: UInt32(0x3000 + index) << 16) }

    private static func write(_ values: [Float], to lane: CacheLane, _ scratch: Scratch) {
        let rows = scratch.rows(lane.entries, lane.width)
        let slots = scratch.indices(lane.entries)
        for entry in 0..<lane.entries {
            slots[entry] = Int32(entry)
            for column in 0..<lane.width { rows[entry, column] = values[entry * lane.width + column] }
        }
        Kernels.best.store(rows, slots: slots, in: lane)
    }

    /// Reads every entry of a lane of non-negative numbers, as index scores of queries that are 1 in one dimension.
    private static func read(_ lane: CacheLane, _ scratch: Scratch) -> [Float] {
        let (queries, weights) = (scratch.rows(lane.width, lane.width), scratch.rows(lane.width, 1))
        queries.fill(0)
        weights.fill(1)
        for column in 0..<lane.width { queries[column, column] = 1 }
        let pages = scratch.indices(lane.entries)
        pages.copy((0..<lane.entries).map { Int32($0) })
        let scores = scratch.rows(lane.width, lane.entries)
        Kernels.best.indexScores(
            queries, weights: weights, keys: lane, PageMap(pages: pages, shift: 0), into: scores, scratch)
        return (0..<lane.entries).flatMap { entry in (0..<lane.width).map { scores[$0, entry] } }
    }
}

@Suite struct `Copies of cache entries` {
    /// A key set with a lane of each type; the FP8 and FP4 lanes have scales.
    static let format = CacheFormat(
        layers: [
            [
                KeySet(
                    "keys",
                    [
                        .init(.fp8, width: 130, group: 64), .init(.bf16, width: 3), .init(.f32, width: 7),
                        .init(.fp8, width: 70, group: 16, scaleType: .e8m0),
                        .init(.fp4, width: 70, group: 32, scaleType: .e8m0),
                    ])
            ]
        ], pageSize: 4)
    private static let set = KeySetID(layer: 0)

    /// Returns a cache with numbers in every entry.
    private static func store(_ scratch: Scratch, seed: Float) -> CacheStore {
        let store = CacheStore(format: format, pages: 3)
        for lane in store.lanes(of: set) {
            let (rows, slots) = (scratch.rows(lane.entries, lane.width), scratch.indices(lane.entries))
            slots.copy((0..<Int32(lane.entries)).map { $0 })
            for row in 0..<rows.rows {
                for column in 0..<rows.columns { rows[row, column] = seed * Float(row * 17 + column * 5 % 13 + 1) }
            }
            Kernels.best.store(rows, slots: slots, in: lane)
        }
        return store
    }

    /// Returns copies of all entries of a cache, scales included.
    private static func contents(_ store: CacheStore, _ scratch: Scratch) -> [Int32] {
        let (slots, rows) = (scratch.indices(12), scratch.rows(12, store.copyColumns(Self.set)))
        slots.copy((0..<12).map { Int32($0) })
        store.copy(slots, Self.set, into: rows, .best, scratch)
        return rows.integers.elements
    }

    @Test func `have the same bytes in another cache, and change no others`() {
        let scratch = Scratch(bytes: 1 << 24)
        let (one, other) = (Self.store(scratch, seed: 0.3), Self.store(scratch, seed: -1.7))
        let (before, wanted) = (Self.contents(other, scratch), Self.contents(one, scratch))
        let slots = scratch.indices(3)
        slots.copy([7, 0, 11] as [Int32])
        let columns = one.copyColumns(Self.set)
        let rows = scratch.rows(3, columns)
        one.copy(slots, Self.set, into: rows, .best, scratch)
        #expect(other.store(Kernels.best.synchronize(rows), Self.set))
        let after = Self.contents(other, scratch)
        for slot in 0..<12 {
            let part = slot * columns..<(slot + 1) * columns
            let source = [7, 0, 11].contains(slot) ? wanted : before
            #expect(after[part] == source[part], "slot \(slot)")
        }
        #expect(before != wanted)
    }

    @Test func `are all refused if one of them is invalid`() {
        let scratch = Scratch(bytes: 1 << 24)
        let (store, other) = (Self.store(scratch, seed: 1), Self.store(scratch, seed: 2))
        let before = Self.contents(store, scratch)
        let slots = scratch.indices(2)
        slots.copy([1, 2] as [Int32])
        let rows = scratch.rows(2, store.copyColumns(Self.set))
        for wrong in [12, -1, Int32.max, .min] {
            other.copy(slots, Self.set, into: rows, .best, scratch)
            rows.rows(1..<2).integers[0] = wrong
            #expect(!store.store(Kernels.best.synchronize(rows), Self.set))
        }
        #expect(!store.store(Kernels.best.synchronize(rows.columns(0..<rows.columns - 1)), Self.set))
        #expect(Self.contents(store, scratch) == before)
    }
}

@Suite struct `A page map` {
    @Test func `leads from a position to the entry of its page`() {
        let scratch = Scratch(bytes: 1 << 16)
        let numbers = scratch.indices(3)
        numbers.copy([7, 2, 0] as [Int32])
        let map = PageMap(pages: numbers, shift: 2)
        #expect(map.capacity == 12)
        #expect((0..<12).map { map.slot(of: $0) } == [28, 29, 30, 31, 8, 9, 10, 11, 0, 1, 2, 3])
        withExtendedLifetime(scratch) {}
    }

    @Test func `has pages of a single token, too`() {
        let scratch = Scratch(bytes: 1 << 16)
        let numbers = scratch.indices(2)
        numbers.copy([5, 3] as [Int32])
        let map = PageMap(pages: numbers, shift: 0)
        #expect(map.capacity == 2 && map.slot(of: 0) == 5 && map.slot(of: 1) == 3)
        withExtendedLifetime(scratch) {}
    }

    @Test func `reaches the last entry that 32 bits can name`() {
        let scratch = Scratch(bytes: 1 << 16)
        let numbers = scratch.indices(1)
        numbers[0] = .max >> 6
        #expect(PageMap(pages: numbers, shift: 6).slot(of: 63) == .max)
        withExtendedLifetime(scratch) {}
    }
}
