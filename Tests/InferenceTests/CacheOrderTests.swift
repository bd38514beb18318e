import Inference
import KVCache
import TestSupport
import Testing

@Suite struct `Orders about entries of caches` {
    private static func order(_ draw: inout SplitMix64) -> CacheOrder {
        let entries = (0..<draw.below(4)).map { _ in
            CacheEntries(
                (0..<draw.below(30)).map { 3 * $0 + draw.below(3) },
                of: KeySetID(layer: draw.below(61), draw.below(3)),
                in: CacheStore.PageList(
                    (0..<draw.below(9)).map { _ in Int32(draw.below(1000)) }, first: draw.below(50)))
        }
        let bytes = (0..<draw.below(100)).map { _ in UInt8(truncatingIfNeeded: draw.next()) }
        return CacheOrder(draw.next(), entries, bytes: bytes)
    }

    /// The order of another process, as it was sent.
    private static func read(_ bytes: [UInt8]) throws -> CacheOrder? {
        switch try Order(bytes) {
        case .pack(let order), .place(let order): order
        default: nil
        }
    }

    @Test func `arrive as they were sent`() throws {
        var draw = SplitMix64.printed()
        for _ in 0..<200 {
            let order = Self.order(&draw)
            #expect(try Self.read(Order.pack(order).bytes) == order)
            #expect(try Self.read(Order.place(order).bytes) == order)
            let reply = CacheReply(order.number, bytes: order.bytes)
            #expect(try Wire.value(in: Wire.bytes(of: reply)) == reply)
        }
    }

    /// Lengths that are announced reserve no memory, and whatever is read is in ascending order.
    @Test func `of any other bytes are refused, or are legal`() {
        var draw = SplitMix64.printed()
        for _ in 0..<20 {
            let bytes = Order.place(Self.order(&draw)).bytes
            for index in bytes.indices {
                #expect(throws: Wire.Failure.self) { try Order(Array(bytes.prefix(index))) }
                for value in [0, 0x7F, 0x80, 0xFF] as [UInt8] {
                    var damaged = bytes
                    damaged[index] = value
                    guard let order = try? Self.read(damaged) else { continue }
                    for entries in order.entries {
                        #expect(entries.pages.first >= 0 && entries.numbers.first ?? 0 >= 0)
                        #expect(entries.numbers == Set(entries.numbers).sorted())
                    }
                }
            }
            #expect(throws: Wire.Failure.self) { try Order(bytes + [0]) }
        }
    }
}
