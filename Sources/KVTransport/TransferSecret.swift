import Checkpoints

/// A transfer secret is what servers that exchange keys have in common, and nobody else. It is never sent: a server
/// proves that it has it by tags of values that the other one chose.
package struct TransferSecret: Sendable {
    private let key: [UInt8]

    /// - Parameter key: the bytes of the secret; empty where none is needed.
    package init(_ key: [UInt8] = []) { self.key = key }

    /// Returns a secret that nobody else has.
    static func random() -> TransferSecret { TransferSecret(TransferHandshake.randomBytes()) }

    /// The number of bytes of a tag.
    package static let tagBytes = 32
    private static let blockBytes = 64

    /// Returns HMAC-SHA-256 (RFC 2104) of a message.
    package func tag(of message: [UInt8]) -> [UInt8] {
        let short = key.count > Self.blockBytes ? Self.digest(of: key) : key
        let block = short + [UInt8](repeating: 0, count: Self.blockBytes - short.count)
        let inner = Self.digest(of: block.map { $0 ^ 0x36 } + message)
        return Self.digest(of: block.map { $0 ^ 0x5C } + inner)
    }

    /// Returns whether a tag is that of a message, in a time that does not depend on how much of it is right.
    package func isTag(_ tag: [UInt8], of message: [UInt8]) -> Bool {
        let expected = self.tag(of: message)
        guard tag.count == expected.count else { return false }
        return zip(tag, expected).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) } == 0
    }

    static func digest(of bytes: [UInt8]) -> [UInt8] {
        var sum = SHA256()
        sum.update(bytes)
        return sum.finish()
    }
}

extension TransferSecret: CustomStringConvertible {
    /// A text that does not contain the secret, so that logs cannot.
    package var description: String { "a secret" }
}
