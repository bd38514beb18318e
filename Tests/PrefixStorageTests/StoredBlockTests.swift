import Inference
import PrefixStorage
import TestSupport
import Testing

@Suite struct `A stored block` {
    private static let key = PrefixKey("a model")
    private static let entries = (0..<100).map { UInt8($0 * 7 % 251) }

    private static func block(_ tokens: [Int32] = [1, 2, 3, -4, 5, 6, 7, 8], salt: String? = nil) -> ChainedBlock {
        chain(tokens, salt: salt).last!
    }

    private static func chain(
        _ tokens: [Int32], salt: String? = nil, _ key: PrefixKey = key, blockTokens: Int = 4
    ) -> [ChainedBlock] {
        Array(BlockChain(IdentifiedPrefix(tokens: tokens[...], salt: salt), key, blockTokens: blockTokens))
    }

    private static func file(_ block: ChainedBlock) -> [UInt8] {
        var bytes = StoredBlock.beginning(block, key, entryBytes: entries.count)
        bytes += entries
        StoredBlock.finish(&bytes)
        return bytes
    }

    @Test func `is read as it was written`() throws {
        let block = Self.block()
        let file = Self.file(block)
        #expect(file.count == StoredBlock.fileBytes(tokens: 4, entryBytes: Self.entries.count))
        #expect(Array(try StoredBlock.entries(in: file, of: block, Self.key, entryBytes: 100)) == Self.entries)
    }

    @Test func `is refused if it is cut off anywhere, or longer`() {
        let block = Self.block()
        let file = Self.file(block)
        for length in 0..<file.count {
            #expect(throws: StoredBlock.Damage.self, "\(length) bytes") {
                try StoredBlock.entries(in: Array(file[..<length]), of: block, Self.key, entryBytes: 100)
            }
        }
        #expect(throws: StoredBlock.Damage.self) {
            try StoredBlock.entries(in: file + [0], of: block, Self.key, entryBytes: 100)
        }
    }

    @Test func `is refused if any bit is wrong`() {
        let block = Self.block()
        let file = Self.file(block)
        for index in file.indices {
            for bit in 0..<8 {
                var damaged = file
                damaged[index] ^= 1 << UInt8(bit)
                #expect(throws: StoredBlock.Damage.self, "bit \(bit) of byte \(index)") {
                    try StoredBlock.entries(in: damaged, of: block, Self.key, entryBytes: 100)
                }
            }
        }
    }

    /// A file with a right checksum may still be another block's, or be written by another program.
    @Test func `is refused under another block's name`() {
        let file = Self.file(Self.block())
        let others = [
            Self.block([1, 2, 3, -4, 5, 6, 7, 9]), Self.block([0, 2, 3, -4, 5, 6, 7, 8]), Self.block(salt: "a"),
        ]
        for other in others {
            #expect(throws: StoredBlock.Damage.self) {
                try StoredBlock.entries(in: file, of: other, Self.key, entryBytes: 100)
            }
        }
        #expect(throws: StoredBlock.Damage.self) {
            try StoredBlock.entries(in: file, of: Self.block(), PrefixKey("another model"), entryBytes: 100)
        }
    }

    @Test func `has an identifier that depends on all tokens before, the salt and the key`() {
        let base = Self.chain([1, 2, 3, 4, 5, 6, 7, 8, 9])
        #expect(base.count == 2)
        #expect(base[1].parent == base[0].id && Array(base[1].tokens) == [5, 6, 7, 8])
        let others = [
            Self.chain([0, 2, 3, 4, 5, 6, 7, 8]), Self.chain([1, 2, 3, 4, 5, 6, 7, 0]),
            Self.chain([1, 2, 3, 4, 5, 6, 7, 8], salt: ""), Self.chain([1, 2, 3, 4, 5, 6, 7, 8], salt: "a"),
            Self.chain([1, 2, 3, 4, 5, 6, 7, 8], PrefixKey("another")),
            Self.chain([1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0], blockTokens: 8),
        ]
        #expect(Set(others.map(\.last!.id) + [base[1].id]).count == others.count + 1)
        #expect(Self.chain([1, 2, 3, 4, 9, 9, 9, 9])[0] == base[0])
        #expect(Self.chain([1, 2, 3]).isEmpty)
    }

    @Test func `has a file name from which the identifier is read`() {
        let id = Self.block().id
        #expect(BlockID(fileName: id.fileName) == id)
        let name = id.fileName
        for bad in [
            "", "lock", name + "x", name + ".part", String(name.dropFirst()), name.uppercased(), "x" + name.dropFirst(),
        ] {
            #expect(BlockID(fileName: bad) == nil, "\(bad)")
        }
    }
}

@Suite struct `The index of stored blocks` {
    private static func id(_ number: UInt8) -> BlockID { BlockID([UInt8](repeating: number, count: 32)) }

    @Test func `counts what files occupy`() {
        var index = BlockIndex()
        index.add(Self.id(1), fileBytes: 1, used: 0)
        index.add(Self.id(2), fileBytes: 4097, used: 0)
        #expect(index.bytes == 3 * 4096)
        index.add(Self.id(2), fileBytes: 4096, used: 0)
        #expect(index.bytes == 2 * 4096)
        index.remove(Self.id(1))
        index.remove(Self.id(1))
        #expect(index.bytes == 4096 && index.contains(Self.id(2)) && !index.contains(Self.id(1)))
    }

    @Test func `evicts what was used least recently, and a prefix from its end`() {
        var index = BlockIndex()
        for number in UInt8(1)...4 { index.add(Self.id(number), fileBytes: 1, used: Int64(number)) }
        #expect(index.leastRecentlyUsed == [1, 2, 3, 4].map(Self.id))
        let shown = index.use([Self.id(1), Self.id(2), Self.id(9)], at: 1_000_000, interval: 0)
        #expect(shown.map(\.id) == [Self.id(1), Self.id(2)] && shown[0].time > shown[1].time)
        #expect(index.leastRecentlyUsed == [3, 4, 2, 1].map(Self.id))
        // Files that show a recent use are left alone.
        #expect(index.use([Self.id(1)], at: 2_000_000, interval: 10_000_000).isEmpty)
        index.note(Self.id(3), used: 5_000_000)
        #expect(index.leastRecentlyUsed == [4, 2, 1, 3].map(Self.id))
    }
}
