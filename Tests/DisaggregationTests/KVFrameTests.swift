import Disaggregation
import Inference
import TestSupport
import Testing

@Suite struct `A frame` {
    private static var frame: KVFrame {
        var frame = KVFrame(
            .window, session: 0x0102_0304_0506_0708, transfer: .max, sender: 3, receiver: 0xFFFF, layers: 2..<61,
            positions: 4096..<Int(UInt32.max))
        frame.sequence = 1 << 40
        frame.payload = (0..<77).map { UInt8($0) }
        return frame
    }

    @Test func `has the checksum of iSCSI`() {
        // RFC 3720, B.4, and the check value of the algorithm.
        for (bytes, expected) in [
            (Array("123456789".utf8), 0xE306_9283 as UInt32), ([UInt8](repeating: 0, count: 32), 0x8A91_36AA),
            ([UInt8](repeating: 0xFF, count: 32), 0x62A8_AB43), (Array(0..<32), 0x46DD_794E),
        ] {
            var sum = Checksum()
            sum.add(bytes[...])
            #expect(sum.value == expected)
            var parts = Checksum()
            parts.add(bytes[..<5])
            parts.add(bytes[5...])
            #expect(parts.value == expected)
        }
    }

    @Test func `is read as it was written`() throws {
        let bytes = Self.frame.bytes
        #expect(bytes.count == KVFrame.headerBytes + 77)
        #expect(try KVFrame(bytes) == Self.frame)
    }

    @Test func `is refused if a bit is wrong, or if it is too short or too long`() {
        let bytes = Self.frame.bytes
        for bit in 0..<bytes.count * 8 {
            var damaged = bytes
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(throws: KVFrame.Failure.self, "bit \(bit)") { try KVFrame(damaged) }
        }
        for count in 0..<bytes.count {
            #expect(throws: KVFrame.Failure.self) { try KVFrame(Array(bytes.prefix(count))) }
        }
        #expect(throws: KVFrame.Failure.self) { try KVFrame(bytes + [0]) }
    }

    /// A peer that computes checksums, but is hostile otherwise.
    @Test func `is refused with fields out of range, whatever its checksum`() {
        func sealed(_ bytes: [UInt8]) -> [UInt8] {
            var (bytes, sum) = (bytes, Checksum())
            sum.add(bytes[..<60])
            sum.add(bytes[64...])
            for index in 0..<4 { bytes[60 + index] = UInt8(truncatingIfNeeded: sum.value >> (8 * index)) }
            return bytes
        }
        let bytes = Self.frame.bytes
        #expect(throws: Never.self) { try KVFrame(sealed(bytes)) }
        for (index, value) in [
            (0, 0), (4, 2), (5, 3), (5, 2), (6, 1), (36, 62), (43, 255), (51, 255), (48, 76), (52, 1),
        ] {
            var damaged = bytes
            damaged[index] = UInt8(value)
            if index == 43 { damaged.replaceSubrange(40..<44, with: [255, 255, 255, 255]) }
            if index == 43 { damaged[44] = 254 }
            #expect(throws: KVFrame.Failure.self, "byte \(index)") { try KVFrame(sealed(damaged)) }
        }
        var random = SplitMix64(seed: 5)
        for _ in 0..<20_000 {
            var damaged = bytes
            for _ in 0..<1 + random.below(6) { damaged[4 + random.below(56)] = UInt8(random.below(256)) }
            // It may be a frame; it must not trap.
            _ = try? KVFrame(sealed(damaged))
        }
    }
}

@Suite struct `A message` {
    private static var messages: [TransferMessage] {
        var request = GenerationRequest(prompt: [1, 2, 3], priority: -4, cacheSalt: "tenant")
        request.sampling.stopTokens = [7]
        request.sampling.maxNewTokens = nil
        request.logProbs = LogProbOptions(topCount: 2, promptStart: 1)
        let scored = TokenLogProbs(token: 4, logProb: -1, top: [ScoredToken(token: 5, logProb: -0.5)])
        return [
            .ask(0, request), .ask(1, GenerationRequest(prompt: [9])),
            .ready(2, group: 1, positions: 64..<100, windowStart: 90), .cancel(3), .started(4, group: 2),
            .scores(5, [scored, TokenLogProbs(token: 1)]),
            .prefilled(6, PrefillResult(token: scored, drafts: [3, 4], cachedTokens: 64)),
            .prefilled(7, PrefillResult(token: nil)), .lost(8, reason: "NaN", isFinal: true), .beat,
        ]
    }

    @Test func `is read as it was written`() throws {
        for (index, message) in Self.messages.enumerated() {
            let sealed = SealedMessage(message, session: 77, sequence: UInt64(index))
            #expect(try SealedMessage(sealed.bytes) == sealed)
        }
    }

    @Test func `is refused if a bit is wrong or if it is cut`() {
        for message in Self.messages {
            let bytes = SealedMessage(message, session: 77, sequence: 5).bytes
            for bit in 0..<bytes.count * 8 {
                var damaged = bytes
                damaged[bit / 8] ^= 1 << UInt8(bit % 8)
                #expect(throws: Wire.Failure.self) { try SealedMessage(damaged) }
            }
            for count in 0..<bytes.count {
                #expect(throws: Wire.Failure.self) { try SealedMessage(Array(bytes.prefix(count))) }
            }
        }
    }

    /// With a right checksum, any bytes are a message or an error.
    @Test func `never traps when it is read`() {
        var random = SplitMix64(seed: 9)
        for message in Self.messages {
            for _ in 0..<3000 {
                var bytes = Array(SealedMessage(message, session: 77, sequence: 5).bytes.dropLast(4))
                for _ in 0..<1 + random.below(4) { bytes[random.below(bytes.count)] = UInt8(random.below(256)) }
                var sum = Checksum()
                sum.add(bytes[...])
                bytes += (0..<4).map { UInt8(truncatingIfNeeded: sum.value >> (8 * $0)) }
                _ = try? SealedMessage(bytes)
            }
        }
    }
}
