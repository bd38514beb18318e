import Disaggregation
import Inference
import KVCache
import Parallelism
import Testing

@Suite struct `A server card` {
    @Test func `is read as it was written`() throws {
        var sharded = Cards.card(
            pageSize: 64,
            ParallelConfiguration(
                data: 2, context: 2, tensor: 2, expert: 4, expertTensor: 2, kvSharding: KVSharding(ranks: 4, unit: 2)))
        sharded.placement = CachePlacement(
            sharded.placement.format, sharded.placement.parallel, processes: 2, layers: 3, isSharded: true)
        for card in [Cards.prefill, Cards.decode, sharded, ServerCard.empty] {
            #expect(try Wire.value(in: Wire.bytes(of: card)) == card)
        }
    }

    /// Whatever is read can be compared, and used for a plan if it is found compatible.
    @Test func `of any other bytes is refused, or is legal`() {
        let bytes = Wire.bytes(of: Cards.prefill)
        var legal = 0
        for index in bytes.indices {
            for value in [0, 1, 3, 5, 0x40, 0x7F, 0x80, 0xFF] as [UInt8] where value != bytes[index] {
                var damaged = bytes
                damaged[index] = value
                guard let card = try? Wire.value(ServerCard.self, in: damaged) else { continue }
                legal += 1
                guard ServerCard.differences(prefill: card, decode: Cards.decode).isEmpty else { continue }
                let plan = TransferPlan(
                    from: card.placement, group: 0, to: Cards.decode.placement, group: 0,
                    layers: Cards.decode.receivedLayers)
                _ = plan.layers(from: 0, to: 0, isWindow: false)
            }
            #expect(throws: (any Error).self) { try Wire.value(ServerCard.self, in: Array(bytes.prefix(index))) }
        }
        #expect(legal > 0)
    }

    @Test(arguments: [
        (1, 1, KVSharding(ranks: 3)), (1, 1, KVSharding(ranks: 2)), (4, 2, KVSharding(ranks: 3)),
        (4, 1, KVSharding(ranks: 4)), (4, 2, KVSharding(ranks: 2, unit: 1 << 20)), (8192, 2, KVSharding(ranks: 8192)),
    ])
    func `that divides keys as no server does is refused`(context: Int, processes: Int, sharding: KVSharding) {
        var card = Cards.prefill
        let parallel = ParallelConfiguration(context: context, kvSharding: sharding)
        card.placement = CachePlacement(
            card.placement.format, parallel, processes: processes, layers: 3, isSharded: true)
        #expect(throws: Wire.Failure.self) { try Wire.value(ServerCard.self, in: Wire.bytes(of: card)) }
    }

    @Test func `differs in words if sets have other readers`() {
        var other = Cards.prefill
        let format = other.placement.format
        let sets = format.layers.map { layer in
            layer.map { KeySet($0.name, $0.lanes, tokensPerEntry: $0.tokensPerEntry, lifetime: $0.lifetime) }
        }
        other.placement = CachePlacement(
            CacheFormat(layers: sets, pageSize: format.pageSize), other.placement.parallel, processes: 1, layers: 3,
            isSharded: false)
        let found = ServerCard.differences(prefill: other, decode: Cards.decode)
        #expect(found.map(\.name) == ["cache entries"])
    }
}
