import Disaggregation
import Inference
import KVCache
import Parallelism
import Tensors
import Testing

@Suite struct `A server card` {
    @Test func `is read as it was written`() throws {
        var sharded = Cards.card(
            pageSize: 64,
            ParallelConfiguration(
                data: 2, context: 2, tensor: 2, expert: 4, expertTensor: 2, kvSharding: KVSharding(ranks: 4, unit: 2)))
        sharded.placement = CachePlacement(
            sharded.placement.format, sharded.placement.parallel, processes: 2, layers: 3, isSharded: true)
        sharded.backend = .ucx
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

    @Test(arguments: [(3, 1), (2, 1), (4, 1), (3, 2), (0, 2), (200, 2)] as [(UInt8, UInt8)])
    func `that divides keys as no server does is refused`(owners: UInt8, processes: UInt8) throws {
        func bytes(owners: Int, processes: Int) -> [UInt8] {
            var card = Cards.prefill
            card.placement = CachePlacement(
                card.placement.format, ParallelConfiguration(context: 4, kvSharding: KVSharding(ranks: owners)),
                processes: processes, layers: 3, isSharded: true)
            return Wire.bytes(of: card)
        }
        // Such a card cannot be written, so the two bytes of a legal one are replaced.
        var card = bytes(owners: 4, processes: 2)
        let ownersByte = try #require(
            zip(card, bytes(owners: 2, processes: 2)).enumerated().first { $1.0 != $1.1 }?.offset)
        let processesByte = try #require(
            zip(card, bytes(owners: 4, processes: 4)).enumerated().first { $1.0 != $1.1 }?.offset)
        #expect(try Wire.value(ServerCard.self, in: card).placement.owners == 4)
        (card[ownersByte], card[processesByte]) = (owners, processes)
        #expect(throws: Wire.Failure.self) { try Wire.value(ServerCard.self, in: card) }
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

    @Test func `differs in words if scales are of another type`() throws {
        let format = Cards.decode.placement.format
        let sets = format.layers.map { layer in
            layer.map { set in
                KeySet(
                    set.name, set.lanes.map { KeySet.Lane($0.dtype, width: $0.width, group: $0.group) },
                    tokensPerEntry: set.tokensPerEntry, lifetime: set.lifetime,
                    isReadByLaterLayers: set.isReadByLaterLayers)
            }
        }
        var other = Cards.prefill
        other.placement = CachePlacement(
            CacheFormat(layers: sets, pageSize: format.pageSize), other.placement.parallel, processes: 1, layers: 3,
            isSharded: false)
        let found = try #require(ServerCard.differences(prefill: other, decode: Cards.decode).first)
        #expect(found.values[0].contains("fp8 448 by 64,"))
        #expect(found.values[1].contains("fp8 448 by 64 with e8m0 scales,"))
    }

    @Test func `differs in words if one server keeps index keys in FP4`() throws {
        func card(_ type: CacheType) throws -> ServerCard {
            let card = Cards.card(
                pageSize: 64, ParallelConfiguration(), index: KeySet.Lane(indexAs: type, width: 128))
            let read = try Wire.value(ServerCard.self, in: Wire.bytes(of: card))
            #expect(read == card)
            return read
        }
        let (with, without) = (try card(CacheType(.fp8, hasFP4Index: true)), try card(.fp8))
        #expect(ServerCard.differences(prefill: with, decode: with).isEmpty)
        for (prefill, decode, fp4) in [(with, without, 0), (without, with, 1)] {
            let found = ServerCard.differences(prefill: prefill, decode: decode)
            try #require(found.map(\.name) == ["cache entries"])
            #expect(found[0].values[fp4].contains(", fp4 128 by 32 with e8m0 scales,"), "\(found[0])")
            #expect(found[0].values[1 - fp4].contains(", fp8 128,"), "\(found[0])")
        }
    }

    /// Returns the places of a text in bytes.
    private func places(of text: String, in bytes: [UInt8]) -> [Int] {
        bytes.indices.filter { bytes[$0...].starts(with: Array(text.utf8)) }
    }

    @Test func `with FP4 elements whose scales are not E8M0 is refused`() throws {
        for scaleType in [ScaleType.f32, .e8m0] {
            // The last lane of the card. No server writes one of FP4 with other scales, so that FP8 becomes FP4 here.
            let lane = KeySet.Lane(.fp8, width: 128, group: 32, scaleType: scaleType)
            var bytes = Wire.bytes(of: Cards.card(pageSize: 64, ParallelConfiguration(), index: lane))
            let place = try #require(places(of: "fp8", in: bytes).last)
            bytes.replaceSubrange(place..<place + 3, with: Array("fp4".utf8))
            if scaleType == .e8m0 {
                let read = try Wire.value(ServerCard.self, in: bytes)
                #expect(read.placement.format.layers.joined().flatMap(\.lanes).last?.dtype == .fp4)
            } else {
                #expect(throws: Wire.Failure.self) { try Wire.value(ServerCard.self, in: bytes) }
            }
        }
    }

    @Test func `with scales of a type that is none, or where there are none, is refused`() throws {
        let bytes = Wire.bytes(of: Cards.prefill)
        func replacing(_ from: String, _ to: String, times: Int) -> [UInt8] {
            var bytes = bytes
            let starts = places(of: from, in: bytes)
            for start in starts { bytes.replaceSubrange(start..<start + from.utf8.count, with: Array(to.utf8)) }
            #expect(starts.count == times)
            return bytes
        }
        #expect(throws: Wire.Failure.self) {
            try Wire.value(ServerCard.self, in: replacing("e8m0", "e8m1", times: 1))
        }
        // An array of elements that have no scales.
        #expect(throws: Wire.Failure.self) { try Wire.value(ServerCard.self, in: replacing("fp8", "f32", times: 2)) }
    }
}
