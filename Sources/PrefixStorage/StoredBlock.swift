import Disaggregation

/// The form of a block's file. All numbers are little-endian.
///
/// | offset | bytes | |
/// |---|---|---|
/// | 0 | 8 | `BRAIDKEY` |
/// | 8 | 4 | version |
/// | 12 | 4 | number n of tokens |
/// | 16 | 32 | SHA-256 of the key |
/// | 48 | 32 | identifier of the block before, or of key and salt |
/// | 80 | 32 | the block's identifier |
/// | 112 | 8 | number of bytes of entries, windows included |
/// | 120 | 4 n | tokens |
/// | | | entries, in the order of `BlockLayout`; those of windows may be missing |
/// | | 4 | CRC-32C of everything before |
package enum StoredBlock {
    /// The version of this form.
    package static let version: UInt32 = 1
    private static let magic = Array("BRAIDKEY".utf8)
    private static let fixedBytes = 120
    private static let checksumBytes = 4

    /// A refusal of a file: what was found in place of the expected.
    package struct Damage: Error, Equatable {
        package let reason: String
    }

    /// Returns the number of bytes of a file.
    package static func fileBytes(tokens: Int, entryBytes: Int) -> Int {
        fixedBytes + 4 * tokens + entryBytes + checksumBytes
    }

    /// Returns the beginning of a block's file, to which its entries are appended.
    package static func beginning(_ block: ChainedBlock, _ key: PrefixKey, entryBytes: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(fileBytes(tokens: block.tokens.count, entryBytes: entryBytes))
        bytes += magic
        bytes.append(littleEndian: version)
        bytes.append(littleEndian: UInt32(block.tokens.count))
        bytes += key.digest + block.parent.bytes + block.id.bytes
        bytes.append(littleEndian: UInt64(entryBytes))
        bytes += block.tokens.littleEndianBytes
        return bytes
    }

    /// Appends the checksum of a file.
    package static func finish(_ bytes: inout [UInt8]) { bytes.append(littleEndian: checksum(of: bytes[...])) }

    /// Returns the entries in a file, after comparing everything else in it with the block that is expected.
    package static func entries(
        in bytes: [UInt8], of block: ChainedBlock, _ key: PrefixKey, entryBytes: Int
    ) throws(Damage) -> ArraySlice<UInt8> {
        let expected = fileBytes(tokens: block.tokens.count, entryBytes: entryBytes)
        guard bytes.count == expected else {
            throw Damage(reason: "it has \(bytes.count) bytes, not \(expected)")
        }
        let end = bytes.count - checksumBytes
        var checked: [UInt8] = []
        checked.append(littleEndian: checksum(of: bytes[..<end]))
        guard bytes[end...].elementsEqual(checked) else { throw Damage(reason: "its checksum is wrong") }
        // Tokens are compared, too: identifiers alone say nothing about a file that another program has written.
        let beginning = beginning(block, key, entryBytes: entryBytes)
        guard bytes.starts(with: beginning) else {
            throw Damage(reason: "it is no block of this version, model, cache format, salt and text")
        }
        return bytes[beginning.count..<end]
    }

    private static func checksum(of bytes: ArraySlice<UInt8>) -> UInt32 {
        var sum = Checksum()
        sum.add(bytes)
        return sum.value
    }
}
