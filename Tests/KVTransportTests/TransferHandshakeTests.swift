import Disaggregation
import KVTransport
import Testing

@Suite struct `A handshake` {
    private static let secret = TransferSecret(Array("a secret of the two servers".utf8))

    private static func listener(_ secret: TransferSecret = secret) -> TransferHandshake {
        TransferHandshake(listening: Cards.prefill) { _ in secret }
    }

    private static func dialer(_ secret: TransferSecret = secret) -> TransferHandshake {
        TransferHandshake(dialing: Cards.decode, .messages, secret)
    }

    /// Passes records between both ends until one throws or both are done. Returns all records, the dialer's first.
    @discardableResult
    private static func run(_ dialer: inout TransferHandshake, _ listener: inout TransferHandshake) throws -> [[UInt8]]
    {
        var records = [dialer.greeting]
        while true {
            guard let answer = try listener.take(records.last!) else { return records }
            records.append(answer)
            guard let next = try dialer.take(answer) else { return records }
            records.append(next)
        }
    }

    @Test func `gives both servers the other's card, and a session of their own`() throws {
        var sessions: Set<UInt64> = []
        for _ in 0..<3 {
            var (dialer, listener) = (Self.dialer(), Self.listener())
            #expect(try Self.run(&dialer, &listener).count == 6)
            #expect(dialer.isDone && listener.isDone)
            #expect(dialer.peerCard == Cards.prefill && listener.peerCard == Cards.decode)
            #expect(dialer.session == listener.session)
            #expect(dialer.sessionSecret.tag(of: [1]) == listener.sessionSecret.tag(of: [1]))
            sessions.insert(dialer.session)
            var second = TransferHandshake(dialing: Cards.decode, .frames(dialer.session), dialer.sessionSecret)
            let key = listener.sessionSecret
            var accepting = TransferHandshake(listening: Cards.prefill) { _ in key }
            #expect(try Self.run(&second, &accepting).count == 4)
            #expect(second.isDone && accepting.isDone && accepting.session == dialer.session)
        }
        #expect(sessions.count == 3)
    }

    @Test func `without the secret teaches nothing`() throws {
        for wrong in ["", "a secret of the two server", "a secret of the two servers "] {
            var (dialer, listener) = (Self.dialer(TransferSecret(Array(wrong.utf8))), Self.listener())
            let greeting = try listener.answer(to: dialer.greeting)
            let proof = try dialer.answer(to: greeting)
            // The listener has said nothing but its nonce before it refuses.
            #expect(greeting.count == dialer.greeting.count)
            #expect(throws: TransferFailure("the other server does not have this server's secret")) {
                try listener.take(proof)
            }
            // A listener without the secret learns neither card nor session.
            var (honest, thief) = (Self.dialer(), Self.listener(TransferSecret(Array(wrong.utf8))))
            let asked = try honest.answer(to: try thief.answer(to: honest.greeting))
            #expect(throws: TransferFailure.self) { try thief.take(asked) }
            #expect(throws: TransferFailure.self) { try honest.take(thief.tagOfItsOwn) }
        }
    }

    @Test func `takes no record twice, and none of another connection`() throws {
        var (dialer, listener) = (Self.dialer(), Self.listener())
        let records = try Self.run(&dialer, &listener)
        // A listener's nonce is new, so what was said to the last one proves nothing.
        var next = Self.listener()
        _ = try next.take(records[0])
        #expect(throws: TransferFailure.self) { try next.take(records[2]) }
        // A dialer's nonce is, too.
        var another = Self.dialer()
        _ = try another.take(records[1])
        #expect(throws: TransferFailure.self) { try another.take(records[3]) }
        // A proof sent back is no proof.
        var mirror = Self.dialer()
        let proof = try mirror.answer(to: records[1])
        #expect(throws: TransferFailure.self) { try mirror.take(proof) }
        // Cards of another connection are refused.
        var (third, fourth) = (Self.dialer(), Self.listener())
        let challenge = try fourth.answer(to: third.greeting)
        _ = try third.take(try fourth.answer(to: try third.answer(to: challenge)))
        #expect(throws: TransferFailure.self) { try fourth.take(records[4]) }
        #expect(throws: TransferFailure.self) { try third.take(records[5]) }
    }

    @Test func `refuses every damaged record`() throws {
        var (dialer, listener) = (Self.dialer(), Self.listener())
        let records = try Self.run(&dialer, &listener)
        for (index, record) in records.enumerated() {
            // Of a greeting, the nonce may be anything; the proof then fails.
            let bytes = index < 2 ? record.count - TransferHandshake.nonceBytes : record.count
            for byte in stride(from: 0, to: bytes, by: index < 4 ? 1 : 7) {
                var damaged = record
                damaged[byte] ^= 0x40
                #expect(throws: (any Error).self, "record \(index), byte \(byte)") {
                    try Self.replay(records.count, damaged, at: index)
                }
            }
            for count in [0, 1, record.count - 1] {
                #expect(throws: (any Error).self) {
                    try Self.replay(records.count, Array(record.prefix(count)), at: index)
                }
            }
            #expect(throws: (any Error).self) { try Self.replay(records.count, record + [0], at: index) }
        }
    }

    /// Runs a handshake of new nonces in which one record is replaced.
    private static func replay(_ count: Int, _ record: [UInt8], at index: Int) throws {
        var (dialer, listener) = (Self.dialer(), Self.listener())
        var last = index == 0 ? record : dialer.greeting
        for number in 1...count {
            let answer = number % 2 == 1 ? try listener.take(last) : try dialer.take(last)
            guard let answer else { break }
            last = number == index ? record : answer
        }
        guard dialer.isDone && listener.isDone else { throw TransferFailure("not done") }
    }

    @Test func `tells why there will be no session`() throws {
        var (dialer, listener) = (Self.dialer(), Self.listener())
        listener.refusal = "another server was first"
        let failure = #expect(throws: TransferFailure.self) { try Self.run(&dialer, &listener) }
        #expect(failure?.description == "the other server refuses: another server was first")
        #expect(dialer.peerCard == nil)
    }
}

extension TransferHandshake {
    /// Returns the answer to a record that has one.
    fileprivate mutating func answer(to record: [UInt8]) throws -> [UInt8] {
        guard let answer = try take(record) else { throw TransferFailure("there is no answer") }
        return answer
    }

    /// The proof that a listener would send, which it never does to a server without the secret.
    fileprivate var tagOfItsOwn: [UInt8] { sessionSecret.tag(of: []) }
}
