import Checkpoints
package import Inference

/// The identifier of a stored block: a SHA-256 of its key, its salt, its tokens and those of all blocks before it.
package struct BlockID: Sendable, Hashable {
    /// 32 bytes.
    package let bytes: [UInt8]

    package init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// Reads the name of a block's file; `nil` if it is none.
    package init?(fileName: String) {
        let digits = Array(fileName.utf8)
        guard digits.count == 64 + Self.suffix.utf8.count, fileName.hasSuffix(Self.suffix) else { return nil }
        var bytes: [UInt8] = []
        for pair in 0..<32 {
            guard let high = Self.value(of: digits[2 * pair]), let low = Self.value(of: digits[2 * pair + 1]) else {
                return nil
            }
            bytes.append(high << 4 | low)
        }
        self.bytes = bytes
    }

    package var fileName: String {
        let digits = Array("0123456789abcdef".utf8)
        let hex = bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }
        return String(decoding: hex, as: UTF8.self) + Self.suffix
    }

    private static let suffix = ".keys"

    private static func value(of digit: UInt8) -> UInt8? {
        switch digit {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
        default: nil
        }
    }
}

/// A block of a prefix: its tokens, its identifier, and that of the block before it.
package struct ChainedBlock: Sendable, Equatable {
    package let id: BlockID
    package let parent: BlockID
    package let tokens: ArraySlice<Int32>
}

/// The blocks of a prefix, computed one after the other: a search ends with the first block that is not stored.
package struct BlockChain: Sequence, IteratorProtocol {
    private let blockTokens: Int
    private var parent: BlockID
    private var rest: ArraySlice<Int32>

    package init(_ prefix: IdentifiedPrefix, _ key: PrefixKey, blockTokens: Int) {
        self.blockTokens = blockTokens
        rest = prefix.tokens
        var sum = SHA256()
        sum.update(key.digest)
        // A missing salt and an empty one differ.
        sum.update(prefix.salt == nil ? [0] : [1] + Array(prefix.salt!.utf8))
        parent = BlockID(sum.finish())
    }

    package mutating func next() -> ChainedBlock? {
        guard rest.count >= blockTokens else { return nil }
        let tokens = rest.prefix(blockTokens)
        rest = rest.dropFirst(blockTokens)
        var sum = SHA256()
        sum.update(parent.bytes)
        sum.update(tokens.littleEndianBytes)
        let block = ChainedBlock(id: BlockID(sum.finish()), parent: parent, tokens: tokens)
        parent = block.id
        return block
    }
}

extension ArraySlice<Int32> {
    var littleEndianBytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(4 * count)
        for token in self { bytes.append(littleEndian: UInt32(bitPattern: token)) }
        return bytes
    }
}

extension [UInt8] {
    mutating func append<Number: FixedWidthInteger>(littleEndian number: Number) {
        for byte in 0..<Number.bitWidth / 8 { append(UInt8(truncatingIfNeeded: number >> (8 * byte))) }
    }
}
