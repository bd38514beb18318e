import Checkpoints
import Foundation
import Testing

@Suite struct `A digest of a model's files` {
    private static func digest(_ bytes: [UInt8], _ coverage: ContentDigest.Coverage) throws -> String {
        let directory = try TemporaryDirectory()
        var digest = ContentDigest(coverage)
        try digest.add(directory.write("a.safetensors", bytes), as: "a")
        return "\(digest)"
    }

    /// The file has two blocks and the beginning of a third.
    private static let bytes = (0..<(64 << 20) + 77).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 13) }

    private static let unchanged = Result { try digest(bytes, .everyByte) }

    @Test(arguments: [0, 5000, 1 << 20, (32 << 20) - 1, 32 << 20, (64 << 20) + 76])
    func `over every byte notices a changed bit anywhere`(place: Int) throws {
        var changed = Self.bytes
        changed[place] ^= 4
        #expect(try Self.digest(changed, .everyByte) != Self.unchanged.get())
    }

    @Test func `over samples notices lengths and the files' ends alone`() throws {
        let sampled = try Self.digest(Self.bytes, .samples)
        var changed = Self.bytes
        changed[1 << 20] ^= 4
        #expect(try Self.digest(changed, .samples) == sampled)
        #expect(try Self.digest(changed, .everyByte) != sampled)
        #expect(try Self.digest(Array(Self.bytes.dropLast()), .samples) != sampled)
    }

    @Test func `tells names apart, and what belongs to which`() throws {
        let directory = try TemporaryDirectory()
        let (a, b) = (try directory.write("a", "x"), try directory.write("b", "yz"))
        func digest(_ files: [(String, String)]) throws -> ContentDigest {
            var digest = ContentDigest(.everyByte)
            for (path, name) in files { try digest.add(path, as: name) }
            return digest
        }
        let digests = try [
            digest([(a, "a"), (b, "b")]), digest([(b, "a"), (a, "b")]), digest([(a, "ab"), (b, "")]),
            digest([(a, "a")]),
        ]
        #expect(Set(digests.map(\.description)).count == 4)
        #expect(try digest([(a, "a"), (b, "b")]) == digests[0])
    }

    /// The expected values are from `hashlib`: the name's length and bytes, the size, and the SHA-256 of each part, in
    /// one SHA-256.
    @Test(arguments: [
        ("", "49a1af1b982d48d444434b4fdd5a935b"), ("abc", "dfad7580053bdadbc283264eab0932a4"),
        (String(repeating: "abcdefghbcdefghicdefghijdefghijkefghijkl", count: 100), "be8889251db8d83d4a70dda90501d73d"),
    ])
    func `is that of another implementation`(text: String, expected: String) throws {
        #expect(try Self.digest(Array(text.utf8), .everyByte) == expected)
    }
}
