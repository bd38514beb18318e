package import Disaggregation
import Inference

/// One end of the handshake that begins a connection between two servers. It is a value: records come in and go out.
///
/// | from | record |
/// |---|---|
/// | decode server | greeting: `BRAIDKV`, the version, the purpose of the connection, a nonce of 32 bytes |
/// | prefill server | greeting, with a nonce of its own |
/// | decode server | proof: the tag of its role, the purpose and both nonces |
/// | prefill server | proof |
/// | decode server | its card, or why there will be no session, with a tag |
/// | prefill server | its card, or why there will be no session, with a tag |
///
/// Who does not have the secret learns only that a server is there. As both nonces are new, no record can be used
/// again, and as roles differ, none can be sent back. Number and key of the session follow from the secret and the nonces. The
/// connection for frames names the session, and its proofs are made with the session's key; it has no cards.
package struct TransferHandshake: Sendable {
    package enum Role: UInt8, Sendable {
        case decode = 1
        case prefill = 2

        fileprivate var other: Role { self == .decode ? .prefill : .decode }
    }

    package enum Purpose: Sendable, Equatable {
        /// A session begins; the connection carries its messages.
        case messages
        /// The connection carries the frames of the session with this number.
        case frames(UInt64)
    }

    /// The number of bytes of a random value that a server sends.
    package static let nonceBytes = 32
    /// Before the proof no record is longer, and all of them together are not.
    package static let maxUnprovenBytes = 64 << 10
    private static let magic = Array("BRAIDKV".utf8)
    private static let version: UInt8 = 1

    private enum Stage { case greeting, proof, card, done }

    private let role: Role
    private let card: ServerCard
    /// Returns the secret for the proofs of a connection.
    private let secretFor: @Sendable (Purpose) -> TransferSecret
    private let nonce: [UInt8]
    private var stage = Stage.greeting
    package private(set) var purpose: Purpose
    private var secret = TransferSecret()
    /// Purpose and nonces, the decode server's first.
    private var transcript: [UInt8] = []
    /// The other server's card, once it has come.
    package private(set) var peerCard: ServerCard?
    /// Why this server wants no session; it is told the other one in place of the card.
    package var refusal: String?

    /// Creates the end of a server that listens.
    ///
    /// - Parameter secretFor: returns the secret for the proofs of a connection.
    package init(listening card: ServerCard, _ secretFor: @escaping @Sendable (Purpose) -> TransferSecret) {
        self.init(.prefill, card, .messages, secretFor)
    }

    /// Creates the end of a server that dials.
    package init(dialing card: ServerCard, _ purpose: Purpose, _ secret: TransferSecret) {
        self.init(.decode, card, purpose) { _ in secret }
    }

    private init(
        _ role: Role, _ card: ServerCard, _ purpose: Purpose,
        _ secretFor: @escaping @Sendable (Purpose) -> TransferSecret
    ) {
        self.role = role
        self.card = card
        self.purpose = purpose
        self.secretFor = secretFor
        nonce = Self.randomBytes()
    }

    /// Returns as many random bytes as a nonce has, which nobody can predict.
    static func randomBytes() -> [UInt8] {
        var generator = SystemRandomNumberGenerator()
        return (0..<nonceBytes).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }

    package var isProven: Bool { stage == .card || stage == .done }
    package var isDone: Bool { stage == .done }

    /// The number of the session that follows; it is the same on both sides.
    package var session: UInt64 {
        if case .frames(let session) = purpose { return session }
        return tag("number").prefix(8).reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// The secret of the session that follows; it is the same on both sides.
    package var sessionSecret: TransferSecret { TransferSecret(tag("key")) }

    // MARK: - Records

    /// The first record of the server that dials.
    package var greeting: [UInt8] {
        let (kind, session): (UInt8, UInt64) =
            switch purpose {
            case .messages: (0, 0)
            case .frames(let session): (1, session)
            }
        return Self.magic + [Self.version, kind] + Self.bytes(session) + nonce
    }

    /// Reads the other server's next record.
    ///
    /// - Returns: the record to answer with; `nil` for none.
    /// - Throws: why the connection must be closed. Nothing is to be sent then.
    package mutating func take(_ record: [UInt8]) throws(TransferFailure) -> [UInt8]? {
        switch stage {
        case .greeting: return try takeGreeting(record)
        case .proof:
            guard secret.isTag(record, of: message("proof", role.other)) else {
                throw TransferFailure("the other server does not have this server's secret")
            }
            stage = purpose == .messages ? .card : .done
            if role == .prefill { return tag("proof", role) }
            return stage == .card ? sealedCard : nil
        case .card:
            try takeCard(record)
            stage = .done
            return role == .prefill ? sealedCard : nil
        case .done: throw TransferFailure("a record follows the handshake")
        }
    }

    private mutating func takeGreeting(_ record: [UInt8]) throws(TransferFailure) -> [UInt8] {
        let fixed = Self.magic.count
        guard record.count == fixed + 10 + Self.nonceBytes, Array(record[..<fixed]) == Self.magic else {
            throw TransferFailure("the other side is no server that exchanges keys")
        }
        guard record[fixed] == Self.version else {
            throw TransferFailure(
                "the other server's handshake has version \(record[fixed]), this one's \(Self.version); run the same "
                    + "release on both")
        }
        let session = record[(fixed + 2)..<(fixed + 10)].reduce(0) { $0 << 8 | UInt64($1) }
        let asked = record[fixed + 1] == 0 ? Purpose.messages : .frames(session)
        if role == .prefill { purpose = asked }
        guard asked == purpose, record[fixed + 1] <= 1 else {
            throw TransferFailure("the other server means a connection of another kind")
        }
        let theirs = Array(record.suffix(Self.nonceBytes))
        transcript =
            [record[fixed + 1]] + Self.bytes(session)
            + (role == .decode ? nonce + theirs : theirs + nonce)
        secret = secretFor(purpose)
        stage = .proof
        return role == .prefill ? greeting : tag("proof", role)
    }

    /// The own card, or the refusal, behind its tag.
    var sealedCard: [UInt8] {
        let body = refusal.map { [1] + Array($0.utf8.prefix(Self.maxRefusal)) } ?? [0] + Wire.bytes(of: card)
        return tag("card", role, TransferSecret.digest(of: body)) + body
    }

    private static let maxRefusal = 4096

    private mutating func takeCard(_ record: [UInt8]) throws(TransferFailure) {
        let body = Array(record.dropFirst(TransferSecret.tagBytes))
        let said = message("card", role.other, TransferSecret.digest(of: body))
        guard let kind = body.first, secret.isTag(Array(record.prefix(TransferSecret.tagBytes)), of: said) else {
            throw TransferFailure("the other server's card has been changed on its way")
        }
        guard kind == 0 else {
            throw TransferFailure(
                "the other server refuses: " + String(decoding: body.dropFirst().prefix(Self.maxRefusal), as: UTF8.self)
            )
        }
        do throws(Wire.Failure) {
            peerCard = try Wire.value(in: Array(body.dropFirst()))
        } catch {
            throw TransferFailure(
                "the other server's card cannot be read (\(error)); run the same release on both")
        }
    }

    // MARK: - Tags

    /// The message of a tag. Its parts have fixed lengths except for the last one.
    private func message(_ label: String, _ role: Role? = nil, _ content: [UInt8] = []) -> [UInt8] {
        Array(label.utf8) + [0, role?.rawValue ?? 0, Self.version] + transcript + content
    }

    private func tag(_ label: String, _ role: Role? = nil, _ content: [UInt8] = []) -> [UInt8] {
        secret.tag(of: message(label, role, content))
    }

    private static func bytes(_ number: UInt64) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: number >> (56 - 8 * $0)) }
    }
}
