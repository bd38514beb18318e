/// CRC-32C (Castagnoli), the checksum of iSCSI (RFC 3720, appendix B.4): reflected polynomial 0x82F63B78, initial value
/// and final exclusive-or of all ones. It finds every burst of errors of up to 32 bits.
package struct Checksum: Sendable {
    private var state: UInt32 = .max

    package init() {}

    package var value: UInt32 { ~state }

    /// Adds bytes, eight at a time: table i holds the remainders of a byte that i zero bytes follow.
    package mutating func add(_ bytes: ArraySlice<UInt8>) {
        let tables = Self.tables
        var (state, next) = (state, bytes.startIndex)
        while bytes.endIndex - next >= 8 {
            let low =
                state
                ^ (UInt32(bytes[next]) | UInt32(bytes[next + 1]) << 8 | UInt32(bytes[next + 2]) << 16
                    | UInt32(bytes[next + 3]) << 24)
            var sum = tables[7 << 8 | Int(low & 0xFF)] ^ tables[6 << 8 | Int(low >> 8 & 0xFF)]
            sum ^= tables[5 << 8 | Int(low >> 16 & 0xFF)] ^ tables[4 << 8 | Int(low >> 24)]
            sum ^= tables[3 << 8 | Int(bytes[next + 4])] ^ tables[2 << 8 | Int(bytes[next + 5])]
            sum ^= tables[1 << 8 | Int(bytes[next + 6])] ^ tables[Int(bytes[next + 7])]
            (state, next) = (sum, next + 8)
        }
        for byte in bytes[next...] { state = tables[Int((state ^ UInt32(byte)) & 0xFF)] ^ state >> 8 }
        self.state = state
    }

    private static let tables: [UInt32] = {
        var tables = [UInt32](repeating: 0, count: 8 << 8)
        for byte in 0..<256 {
            tables[byte] = (0..<8).reduce(UInt32(byte)) { sum, _ in sum & 1 == 0 ? sum >> 1 : sum >> 1 ^ 0x82F6_3B78 }
        }
        for index in 256..<tables.count {
            let before = tables[index - 256]
            tables[index] = tables[Int(before & 0xFF)] ^ before >> 8
        }
        return tables
    }()
}
