import Disaggregation
import Foundation
import Inference
import Models
import Parallelism
import Synchronization
import TestSupport
import Testing

/// Prefill and decode engines of different layouts in one process, each connected to each by memory.
private final class EngineMesh: Sendable {
    let prefills: [Engine]
    let decodes: [Engine]
    let sending: [PrefillEndpoint]
    let receiving: [DecodeEndpoint]
    private let cards: (prefill: [ServerCard], decode: [ServerCard])
    private let sessions = Atomic<UInt64>(0)

    init(prefills p: [ParallelConfiguration], decodes d: [ParallelConfiguration]) throws {
        let model = try Golden("v32").directory.load()
        func make(_ layout: ParallelConfiguration) -> (Engine, ServerCard) {
            var settings = EngineConfiguration()
            settings.pageSize = 16
            settings.chunkedPrefillSize = 5
            settings.checksInvariants = true
            settings.parallel = layout
            return (Engine(model, settings), ServerCard(model, settings, digest: "v32"))
        }
        let (first, second) = (p.map(make), d.map(make))
        (prefills, decodes) = (first.map(\.0), second.map(\.0))
        cards = (first.map(\.1), second.map(\.1))
        var timing = TransferTiming()
        timing.beatInterval = 40
        timing.peerTimeout = 60_000
        var policy = PrefillPolicy()
        policy.localPrefillTokens = 0
        sending = cards.prefill.map { PrefillEndpoint($0, timing: timing, maxFrameBytes: 2048) }
        receiving = cards.decode.map { DecodeEndpoint($0, policy, servers: p.count, timing: timing) }
        for (engine, endpoint) in zip(prefills, sending) { engine.attach(endpoint) }
        for (engine, endpoint) in zip(decodes, receiving) { engine.attach(endpoint) }
    }

    /// Begins a session, whose link ends after some number of frames.
    func connect(prefill p: Int, decode d: Int, lastFrame: Int? = nil) throws {
        let (one, other) = MemoryLink.pair(limit: 5000, lastFrame: lastFrame)
        let session = sessions.add(1, ordering: .relaxed).newValue
        try sending[p].begin(session, to: cards.decode[d], over: one, for: prefills[p])
        try receiving[d].begin(session, from: cards.prefill[p], server: p, over: other, for: decodes[d])
    }

    func connectAll() throws {
        for p in prefills.indices { for d in decodes.indices { try connect(prefill: p, decode: d) } }
    }

    /// Waits until no request, page or transfer is left; records what is.
    func settle(_ place: SourceLocation = #_sourceLocation) async {
        let isSettled = await eventually {
            (prefills + decodes).allSatisfy {
                let status = $0.status()
                return status.usedPages + status.running + status.queued == 0
            } && sending.allSatisfy { $0.transferCount == 0 } && receiving.allSatisfy { $0.transferCount == 0 }
        }
        #expect(isSettled, sourceLocation: place)
        for engine in prefills + decodes { #expect(engine.checkInvariants() == [], sourceLocation: place) }
    }

    func stop() { for engine in decodes + prefills { engine.stop() } }
}

@Suite(.timeLimit(.minutes(15))) struct `Several servers` {
    private static let layouts = [ParallelConfiguration(context: 2), ParallelConfiguration(tensor: 2)]

    private static func alone(_ requests: [GenerationRequest]) async throws -> [Answer] {
        let engine = Engine(try Golden("v32").directory.load(), EngineConfiguration())
        defer { engine.stop() }
        return try await engine.answers(to: requests)
    }

    @Test func `on both sides answer as one does, and share the prompts`() async throws {
        let mesh = try EngineMesh(prefills: Self.layouts, decodes: Self.layouts.reversed())
        defer { mesh.stop() }
        try mesh.connectAll()
        #expect(mesh.sending.map(\.sessionCount) == [2, 2])
        let requests = GenerationRequest.mixed()
        let alone = try await Self.alone(requests)
        async let first = mesh.decodes[0].answers(to: requests, .decode)
        async let second = mesh.decodes[1].answers(to: requests, .decode)
        #expect(try await first == alone)
        #expect(try await second == alone)
        // Of twelve prompts that are asked for at once, each prefill server computes some.
        for engine in mesh.prefills { #expect(engine.status().promptTokens > 0) }
        await mesh.settle()
    }

    @Test func `answer as one does when sessions end one after the other`() async throws {
        let mesh = try EngineMesh(prefills: Self.layouts, decodes: Self.layouts)
        defer { mesh.stop() }
        for round in 0..<4 {
            for p in 0..<2 {
                for d in 0..<2 { try mesh.connect(prefill: p, decode: d, lastFrame: 1 + p * 7 + d + round) }
            }
            let requests = GenerationRequest.mixed(salt: "\(round)")
            let alone = try await Self.alone(requests)
            async let first = mesh.decodes[0].answers(to: requests, .decode)
            async let second = mesh.decodes[1].answers(to: requests, .decode)
            #expect(try await first == alone, "round \(round)")
            #expect(try await second == alone, "round \(round)")
            await mesh.settle()
            // The first prefill server's links carry a few frames only.
            for endpoint in mesh.receiving { #expect(endpoint.failure(of: 0) != nil, "round \(round)") }
        }
    }

    @Test func `take over what a prefill server that stops has begun`() async throws {
        let mesh = try EngineMesh(prefills: Self.layouts, decodes: [ParallelConfiguration()])
        defer { mesh.stop() }
        try mesh.connectAll()
        let requests = GenerationRequest.mixed()
        let alone = try await Self.alone(requests)
        async let found = mesh.decodes[0].answers(to: requests, .decode)
        #expect(await eventually { mesh.prefills[0].status().steps >= 2 })
        mesh.prefills[0].stop("it is stopped")
        #expect(try await found == alone)
        #expect(await eventually { mesh.receiving[0].failure(of: 0) == "it is stopped" })
        #expect(mesh.receiving[0].failure == nil)
        // All later prompts go to the other one.
        let before = mesh.prefills[1].status().promptTokens
        let later = GenerationRequest.mixed(salt: "later")
        #expect(try await mesh.decodes[0].answers(to: later, .decode) == (try await Self.alone(later)))
        let added = mesh.prefills[1].status().promptTokens - before
        #expect(added == UInt64(later.reduce(0) { $0 + $1.prompt.count }))
        await mesh.settle()
    }

    @Test func `compute a prompt where the request names one, and tell who waits for it`() async throws {
        let mesh = try EngineMesh(prefills: Self.layouts, decodes: [ParallelConfiguration()])
        defer { mesh.stop() }
        try mesh.connectAll()
        let rooms = mesh.sending[1].rooms
        func post(_ room: UInt64) -> Generation {
            rooms.generation(for: room, promptTokens: 1, askedWithin: .seconds(600))
        }
        var request = GenerationRequest.mixed()[1]
        (request.prefillServer, request.room) = (1, 5)
        #expect(
            try await mesh.decodes[0].answers(to: [request], .decode) == (try await Self.alone([request])))
        #expect(mesh.prefills[0].status().promptTokens == 0 && mesh.prefills[1].status().promptTokens > 0)
        #expect(await answers([post(5)])[0].finish == .length)
        // A prompt that nobody wants any more, and those of a session that ends.
        for (room, end) in [
            (6, { mesh.decodes[0].abort($0) }), (7, { _ in mesh.prefills[1].stop("it is stopped") }),
        ] as [(UInt64, (UInt64) -> Void)] {
            request.room = room
            request.cacheSalt = "\(room)"
            request.mode = .decode
            let waiting = post(room)
            let generation = try mesh.decodes[0].submit(request)
            // The prefill server has heard of it; it may even be done.
            #expect(await eventually { mesh.sending[1].transferCount > 0 || rooms.waiterCount == 0 })
            end(generation.id)
            #expect(await answers([waiting])[0].finish == .length)
            _ = await answers([generation])
        }
        await mesh.settle()
    }

    /// Begins a session while the prefill engine's lock is held.
    private static func connectWhileBusy(_ mesh: EngineMesh) throws {
        let (isHeld, letGo) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
        Thread.detachNewThread {
            mesh.prefills[0].exchange { _, _ in
                isHeld.signal()
                _ = letGo.wait(timeout: .now() + 120)
                return []
            }
        }
        try #require(isHeld.wait(timeout: .now() + 120) == .success)
        let hasBegun = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            try? mesh.connect(prefill: 0, decode: 0)
            hasBegun.signal()
        }
        // The session is about to begin, or waits for the engine's lock.
        Thread.sleep(forTimeInterval: 0.05)
        letGo.signal()
        try #require(hasBegun.wait(timeout: .now() + 60) == .success)
    }

    @Test func `begin a session although the engine is busy`() async throws {
        let mesh = try EngineMesh(prefills: [ParallelConfiguration()], decodes: [ParallelConfiguration()])
        defer { mesh.stop() }
        try Self.connectWhileBusy(mesh)
        #expect(mesh.sending[0].sessionCount == 1)
        let requests = GenerationRequest.mixed()
        #expect(try await mesh.decodes[0].answers(to: requests, .decode) == (try await Self.alone(requests)))
        #expect(mesh.prefills[0].status().promptTokens > 0)
        await mesh.settle()
    }

    @Test func `are at most 64 decode servers at a prefill server, and a session that ends makes room`() async throws {
        let mesh = try EngineMesh(prefills: [ParallelConfiguration()], decodes: [ParallelConfiguration()])
        defer { mesh.stop() }
        let card = ServerCard(
            try Golden("v32").directory.load(), EngineConfiguration(), digest: "v32")
        let endpoint = mesh.sending[0]
        var links: [MemoryLink] = []
        for number in 0..<UInt64(PrefillEndpoint.maxSessions) {
            let (one, other) = MemoryLink.pair()
            try endpoint.begin(1000 + number, to: card, over: one, for: mesh.prefills[0])
            links.append(other)
        }
        #expect(endpoint.refusal == "it computes prompts for 64 decode servers already")
        #expect(throws: TransferFailure.self) {
            try endpoint.begin(1, to: card, over: MemoryLink.pair().0, for: mesh.prefills[0])
        }
        links[7].close("it leaves")
        #expect(await eventually { endpoint.refusal == nil && endpoint.sessionCount == 63 })
    }
}
