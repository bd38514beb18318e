import KVTransport
import Testing

/// The test cases of RFC 4231.
@Suite struct `A transfer secret` {
    private static func bytes(_ hexadecimal: String) -> [UInt8] {
        let digits = Array(hexadecimal)
        return stride(from: 0, to: digits.count, by: 2).map { UInt8(String(digits[$0...$0 + 1]), radix: 16)! }
    }

    private static let cases: [(key: [UInt8], message: [UInt8], tag: String)] = [
        (
            .init(repeating: 0x0B, count: 20), Array("Hi There".utf8),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        ),
        (
            Array("Jefe".utf8), Array("what do ya want for nothing?".utf8),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        ),
        (
            .init(repeating: 0xAA, count: 20), .init(repeating: 0xDD, count: 50),
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"
        ),
        (
            Array(1...25), .init(repeating: 0xCD, count: 50),
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"
        ),
        (
            .init(repeating: 0xAA, count: 131), Array("Test Using Larger Than Block-Size Key - Hash Key First".utf8),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        ),
        (
            .init(repeating: 0xAA, count: 131),
            Array(
                ("This is a test using a larger than block-size key and a larger than block-size data. The key needs to "
                    + "be hashed before being used by the HMAC algorithm.").utf8),
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"
        ),
    ]

    @Test(arguments: cases.indices) func `makes the tags of RFC 4231`(index: Int) {
        let (key, message, tag) = Self.cases[index]
        let secret = TransferSecret(key)
        #expect(secret.tag(of: message) == Self.bytes(tag))
        #expect(secret.isTag(Self.bytes(tag), of: message))
        for bit in 0..<8 * TransferSecret.tagBytes {
            var wrong = Self.bytes(tag)
            wrong[bit / 8] ^= 1 << (bit % 8)
            #expect(!secret.isTag(wrong, of: message))
        }
        #expect(!secret.isTag([], of: message) && !secret.isTag(Array(Self.bytes(tag).dropLast()), of: message))
    }

    @Test func `is never part of a text`() {
        #expect(!"\(TransferSecret(Array("hunter2".utf8)))".contains("hunter2"))
    }
}
