/// A frame carries entries from one process of the prefill server to one of the decode server: those of a range of
/// layers whose last tokens are at a range of positions. Which entries these are follows from the transfer plan, so the
/// payload is their bytes alone: for each layer, for each key set, for each lane, the entries in ascending order.
///
/// A frame is a header of 64 bytes and a payload. Numbers are little-endian:
///
/// | bytes | field |
/// |---|---|
/// | 0–3 | `BKVT` |
/// | 4, 5 | version 1, kind |
/// | 6, 7 | 0 |
/// | 8–15, 16–23 | session, transfer |
/// | 24–31 | sequence number on the connection, from 0 |
/// | 32–33, 34–35 | sending and receiving process |
/// | 36–37, 38–39 | first layer, layer after the last one |
/// | 40–43, 44–47 | first position, position after the last one |
/// | 48–51 | bytes of the payload |
/// | 52–59 | 0 |
/// | 60–63 | CRC-32C of bytes 0–59 and the payload |
package struct KVFrame: Sendable, Equatable {
    package var kind: Kind
    package var session: UInt64
    package var transfer: UInt64
    package var sequence: UInt64 = 0
    package var sender: Int
    package var receiver: Int
    package var layers: Range<Int>
    package var positions: Range<Int>
    package var payload: [UInt8] = []

    package enum Kind: UInt8, Sendable {
        /// Entries of key sets that live as long as their request.
        case keys
        /// Entries of key sets with a window.
        case window
        /// No entries: the connection is alive, and the sequence number tells whether a frame was lost.
        case beat
    }

    /// A failure describes why bytes are no frame.
    package struct Failure: Error, Equatable, CustomStringConvertible {
        package let description: String
    }

    package static let headerBytes = 64
    /// The largest payload that a receiver reads.
    package static let maxPayload = 1 << 26

    private static let magic: [UInt8] = Array("BKVT".utf8)
    private static let version: UInt8 = 1

    package init(
        _ kind: Kind, session: UInt64, transfer: UInt64 = 0, sender: Int, receiver: Int, layers: Range<Int> = 0..<0,
        positions: Range<Int> = 0..<0
    ) {
        self.kind = kind
        self.session = session
        self.transfer = transfer
        self.sender = sender
        self.receiver = receiver
        self.layers = layers
        self.positions = positions
    }

    /// The frame as it is sent. Layers and processes must fit 16 bits, positions and the payload 32.
    package var bytes: [UInt8] {
        var bytes = Self.magic + [Self.version, kind.rawValue, 0, 0]
        bytes.reserveCapacity(Self.headerBytes + payload.count)
        for word in [session, transfer, sequence] { Self.append(word, to: &bytes) }
        for number in [sender, receiver, layers.lowerBound, layers.upperBound] {
            Self.append(UInt16(number), to: &bytes)
        }
        for number in [positions.lowerBound, positions.upperBound, payload.count] {
            Self.append(UInt32(number), to: &bytes)
        }
        Self.append(UInt64(0), to: &bytes)
        Self.append(Self.checksum(bytes[...], payload[...]), to: &bytes)
        return bytes + payload
    }

    /// Reads a frame, which must be all of the bytes.
    package init(_ bytes: [UInt8]) throws(Failure) {
        guard bytes.count >= Self.headerBytes else {
            throw Failure(description: "\(bytes.count) bytes are no header of \(Self.headerBytes)")
        }
        guard Array(bytes[0..<4]) == Self.magic, bytes[4] == Self.version else {
            throw Failure(description: "the bytes are no frame of version \(Self.version)")
        }
        func number(_ first: Int, _ count: Int) -> UInt64 {
            bytes[first..<first + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        let length = Int(number(48, 4))
        guard length <= Self.maxPayload, length == bytes.count - Self.headerBytes else {
            throw Failure(description: "\(length) bytes are announced, \(bytes.count - Self.headerBytes) follow")
        }
        guard Self.checksum(bytes[..<60], bytes[Self.headerBytes...]) == UInt32(number(60, 4)) else {
            throw Failure(description: "the checksum is wrong")
        }
        let (layers, layersEnd) = (Int(number(36, 2)), Int(number(38, 2)))
        let (first, end) = (Int(number(40, 4)), Int(number(44, 4)))
        guard let kind = Kind(rawValue: bytes[5]), number(6, 2) == 0, number(52, 8) == 0, layers <= layersEnd,
            first <= end, kind != .beat || length == 0
        else {
            throw Failure(description: "layers \(layers)..<\(layersEnd), positions \(first)..<\(end), kind \(bytes[5])")
        }
        self.init(
            kind, session: number(8, 8), transfer: number(16, 8), sender: Int(number(32, 2)),
            receiver: Int(number(34, 2)), layers: layers..<layersEnd, positions: first..<end)
        sequence = number(24, 8)
        payload = Array(bytes[Self.headerBytes...])
    }

    private static func checksum(_ header: ArraySlice<UInt8>, _ payload: ArraySlice<UInt8>) -> UInt32 {
        var sum = Checksum()
        sum.add(header)
        sum.add(payload)
        return sum.value
    }

    private static func append(_ value: some FixedWidthInteger, to bytes: inout [UInt8]) {
        for shift in stride(from: 0, to: value.bitWidth, by: 8) {
            bytes.append(UInt8(truncatingIfNeeded: value >> shift))
        }
    }
}
