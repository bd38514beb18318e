import Disaggregation
import Foundation
import KVTransport
import NIOCore
import Synchronization
import TestSupport
import Testing

private final class Flag: Sendable {
    private let value = Atomic(false)

    func set() { value.store(true, ordering: .relaxed) }
    var isSet: Bool { value.load(ordering: .relaxed) }
}

@Suite(.serialized, .timeLimit(.minutes(10))) struct `A link` {
    private static func bytes(_ seed: Int, count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: ($0 &* 31 &+ seed &* 17) >> 1) }
    }

    @Test(arguments: Way.usable)
    func `delivers messages and frames in order, both ways`(_ way: Way) async throws {
        let ends = try TwoEnds(way)
        let dialer = ends.dialer()
        defer { dialer.stop() }
        let (prefill, decode) = (Inbox(), Inbox())
        let links = try await ends.open(prefill: prefill.take, decode: decode.take)
        let messages = (0..<500).map { Self.bytes($0, count: 1 + $0 * 37 % 4000) } + [Self.bytes(1, count: 3 << 20)]
        let frames = (0..<60).map { Self.bytes($0, count: 64 + $0 * 9973 % 200_000) }
        let isWritable: @Sendable () -> Bool = { links.prefill.isWritable }
        for (index, message) in messages.enumerated() {
            links.prefill.send(message: message)
            links.decode.send(message: message.reversed())
            guard index < frames.count else { continue }
            #expect(await eventually(isWritable))
            links.prefill.send(frame: frames[index])
        }
        #expect(await eventually { decode.messages.count == messages.count && decode.frames.count == frames.count })
        #expect(await eventually { prefill.messages.count == messages.count })
        #expect(decode.messages == messages && decode.frames == frames)
        #expect(prefill.messages == messages.map { $0.reversed() })
        let count = UInt64(frames.reduce(0) { $0 + $1.count })
        // UCX tells a sender that a frame was fetched after the receiver has it.
        #expect(await eventually { ends.listener.traffic.sent.load(ordering: .relaxed) == count })
        #expect(dialer.traffic.received.load(ordering: .relaxed) == count)
        links.prefill.close("enough")
    }

    @Test(arguments: Way.usable)
    func `is not writable while the other end does not read, and takes a bounded number of bytes`(_ way: Way)
        async throws
    {
        let ends = try TwoEnds(way)
        let dialer = ends.dialer()
        defer { dialer.stop() }
        let (prefill, decode, gate, held) = (Inbox(), Inbox(), DispatchSemaphore(value: 0), Flag())
        let links = try await ends.open(
            prefill: prefill.take,
            decode: { event in
                if case .message = event {
                    held.set()
                    gate.wait()
                }
                decode.take(event)
            })
        links.prefill.send(message: [1])
        #expect(await eventually { held.isSet })
        let frame = Self.bytes(3, count: 1 << 18)
        var (sent, looks) = (0, 0)
        // With the event loop held, the system takes nothing. Other tests' connections wait for it too, so not for long.
        while sent < 400, looks < 20 {
            if links.prefill.isWritable {
                links.prefill.send(frame: frame)
                sent += 1
            } else {
                looks += 1
                try? await Task.sleep(for: .milliseconds(1))
            }
        }
        #expect(!links.prefill.isWritable && sent * frame.count == SessionLink.limit, "\(sent) frames")
        #expect(!prefill.events.contains(.writable))
        gate.signal()
        #expect(await eventually { decode.frames.count == sent && prefill.events.contains(.writable) })
        #expect(links.prefill.isWritable && decode.frames.allSatisfy { $0 == frame })
        links.decode.close("enough")
    }

    @Test(arguments: Way.usable)
    func `delivers messages and few frames while frames are not read, and then all`(_ way: Way) async throws {
        let ends = try TwoEnds(way)
        let dialer = ends.dialer()
        defer { dialer.stop() }
        let (prefill, decode) = (Inbox(), Inbox())
        let links = try await ends.open(prefill: prefill.take, decode: decode.take)
        links.decode.setReadsFrames(false)
        links.decode.send(message: [1])
        #expect(await eventually { prefill.messages.count == 1 })
        let frame = Self.bytes(3, count: 1 << 20)
        let count = 64
        for _ in 0..<count { links.prefill.send(frame: frame) }
        // The system takes some of these megabytes, but UCX takes none before it is fetched.
        if way == .tcp {
            #expect(await eventually { ends.listener.traffic.sent.load(ordering: .relaxed) >= frame.count })
        }
        links.prefill.send(message: [2])
        #expect(await eventually { decode.messages == [[2]] })
        #expect(decode.frames.count <= 1 && !links.prefill.isWritable, "\(decode.frames.count) frames")
        if way != .tcp { #expect(ends.listener.traffic.sent.load(ordering: .relaxed) == 0) }
        links.decode.setReadsFrames(true)
        #expect(await eventually { decode.frames.count == count && links.prefill.isWritable })
        #expect(decode.frames.allSatisfy { $0 == frame })
        links.decode.setReadsFrames(false)
        links.prefill.close("enough")
        #expect(await eventually { decode.ends == ["enough"] })
    }

    @Test(arguments: Way.usable)
    func `ends once at both ends, whoever ends it`(_ way: Way) async throws {
        let ends = try TwoEnds(way)
        let dialer = ends.dialer()
        defer { dialer.stop() }
        for index in 0..<4 {
            let (prefill, decode) = (Inbox(), Inbox())
            let links = try await ends.open(index, prefill: prefill.take, decode: decode.take)
            let closing = index % 2 == 0 ? links.prefill : links.decode
            for _ in 0..<3 { closing.close("reason \(index)") }
            closing.send(message: [1])
            closing.send(frame: [1])
            #expect(!closing.isWritable)
            #expect(await eventually { prefill.ends.count == 1 && decode.ends.count == 1 })
            #expect(prefill.ends == ["reason \(index)"] && decode.ends == prefill.ends)
            try await Task.sleep(for: .milliseconds(20))
            #expect(prefill.events.count == 1 && decode.events.count == 1)
        }
        #expect(dialer.failures >= 3)
        // Who opens a link that has ended is told at once.
        #expect(await eventually { ends.listening.count > 4 && ends.dialing.count > 4 })
        let late = Inbox()
        ends.dialing[4].link.close("before it was opened")
        #expect(await eventually { ends.listening[4].link.failure == nil && ends.dialing[4].link.failure != nil })
        ends.dialing[4].link.open(late.take)
        ends.listening[4].link.open(late.take)
        #expect(await eventually { late.ends == ["before it was opened", "before it was opened"] })
    }

    @Test func `ends when a server that knows the secret sends what is no record`() async throws {
        let ends = try TwoEnds()
        for garbage in [RawClient.length(.max), RawClient.length(0), RawClient.length(1) + [9], RawClient.length(100)] {
            let before = ends.listening.count
            let messages = try await RawClient(port: ends.port)
            var first = TransferHandshake(dialing: Cards.decode, .messages, TwoEnds.secret)
            try await messages.shake(&first)
            #expect(first.isDone && ends.listening.count == before)
            let frames = try await RawClient(port: ends.port)
            var second = TransferHandshake(dialing: Cards.decode, .frames(first.session), first.sessionSecret)
            try await frames.shake(&second)
            #expect(second.isDone)
            #expect(await eventually { ends.listening.count == before + 1 })
            let inbox = Inbox()
            try #require(ends.listening.last).link.open(inbox.take)
            await messages.send(record: [0, 1, 2])
            #expect(await eventually { inbox.messages == [[1, 2]] })
            await messages.send(garbage)
            // A record that is not whole ends with its connection.
            if garbage == RawClient.length(100) { messages.close() }
            #expect(await eventually { inbox.ends.count == 1 && messages.isClosed && frames.isClosed })
        }
    }

    // MARK: - Strangers

    @Test func `is given to nobody without the secret`() async throws {
        let ends = try TwoEnds()
        let stranger = ends.dialer(TransferSecret(Array("a secret of somebody else".utf8)))
        #expect(await eventually { stranger.failures > 1 })
        #expect(stranger.problem?.contains("do both servers have the same secret") ?? false)
        stranger.stop()
        #expect(ends.lines.contains { $0.contains("the other server does not have this server's secret") })
        #expect(ends.listening.isEmpty && ends.dialing.isEmpty)
        let dialer = ends.dialer()
        defer { dialer.stop() }
        #expect(await eventually { ends.listening.count == 1 && dialer.problem == nil })
    }

    @Test func `is begun despite garbage, long records and records that never end`() async throws {
        var limits = TwoEnds.patient
        limits.handshake = .milliseconds(500)
        let ends = try TwoEnds(.tcp, limits)
        let long = [UInt8](repeating: 7, count: TransferHandshake.maxUnprovenBytes)
        let greeting = TransferHandshake(dialing: Cards.decode, .messages, TwoEnds.secret).greeting
        let attempts: [[UInt8]] = [
            Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8), RawClient.length(.max), RawClient.length(0),
            RawClient.length(UInt32(long.count)) + long, RawClient.length(UInt32(long.count + 1)),
            RawClient.length(UInt32(greeting.count)) + greeting.dropLast(), RawClient.length(3) + [1, 2, 3], [],
            RawClient.length(UInt32(greeting.count)) + greeting.map { $0 &+ 1 },
        ]
        var clients: [RawClient] = []
        for bytes in attempts {
            let client = try await RawClient(port: ends.port)
            await client.send(bytes)
            clients.append(client)
        }
        // None is told anything.
        for (index, client) in clients.enumerated() {
            #expect(await eventually { client.isClosed }, "attempt \(index)")
            #expect(client.received.isEmpty, "attempt \(index)")
        }
        #expect(await eventually { ends.lines.contains { $0.contains("it speaks HTTP") } }, "\(ends.lines)")
        let dialer = ends.dialer()
        defer { dialer.stop() }
        #expect(await eventually { ends.listening.count == 1 })
    }

    @Test func `is begun though many connections say nothing`() async throws {
        var limits = TwoEnds.patient
        limits.handshake = .hours(1)
        limits.maxUnproven = 3
        let ends = try TwoEnds(.tcp, limits)
        var silent: [RawClient] = []
        for _ in 0..<3 { silent.append(try await RawClient(port: ends.port)) }
        // Over the limit, connections are closed at once, while the silent ones have their time.
        let over = try await RawClient(port: ends.port)
        #expect(await eventually { over.isClosed })
        let dialer = ends.dialer()
        defer { dialer.stop() }
        #expect(await eventually { dialer.failures > 0 })
        #expect(ends.listening.isEmpty && silent.allSatisfy { !$0.isClosed })
        silent[1].close()
        #expect(await eventually { ends.listening.count == 1 })
        for client in silent { client.close() }
    }

    @Test func `to a session that nobody has begun is refused`() async throws {
        var limits = TwoEnds.patient
        limits.secondConnection = .milliseconds(300)
        let ends = try TwoEnds(.tcp, limits)
        let alone = try await RawClient(port: ends.port)
        var handshake = TransferHandshake(dialing: Cards.decode, .frames(7), TwoEnds.secret)
        try await alone.shake(&handshake)
        #expect(!handshake.isDone && alone.isClosed)
        // The same if the second connection comes too late.
        let messages = try await RawClient(port: ends.port)
        var first = TransferHandshake(dialing: Cards.decode, .messages, TwoEnds.secret)
        try await messages.shake(&first)
        #expect(await eventually { messages.isClosed })
        let late = try await RawClient(port: ends.port)
        var second = TransferHandshake(dialing: Cards.decode, .frames(first.session), first.sessionSecret)
        try await late.shake(&second)
        #expect(!second.isDone && ends.listening.isEmpty)
    }

    @Test func `is refused with the differences, on both sides`() async throws {
        var card = Cards.decode
        card.model = "def"
        let ends = try TwoEnds()
        let dialer = ends.dialer(card: card)
        let said = "model: abc at the prefill server, def at the decode server"
        #expect(await eventually { ends.lines.contains { $0.contains("refused a session") && $0.contains(said) } })
        #expect(await eventually { dialer.problem?.contains(said) ?? false }, "\(dialer.problem ?? "")")
        dialer.stop()
        #expect(ends.listening.isEmpty && ends.dialing.isEmpty)
        ends.refuse("it computes prompts for another decode server")
        let second = ends.dialer()
        defer { second.stop() }
        #expect(await eventually { second.problem?.contains("it computes prompts for another") ?? false })
        ends.refuse(nil)
        #expect(await eventually { second.problem == nil && ends.listening.count == 1 })
    }
}
