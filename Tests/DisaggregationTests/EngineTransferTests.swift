import Disaggregation
import Foundation
import Inference
import KVCache
import Modeling
import Models
import Parallelism
import Synchronization
import Tensors
import TestSupport
import Testing

/// A prefill and a decode engine in one process, whose endpoints are connected by memory.
final class EnginePair: Sendable {
    let prefill: Engine
    let decode: Engine
    let sending: PrefillEndpoint
    let receiving: DecodeEndpoint
    private let cards: (prefill: ServerCard, decode: ServerCard)
    private let sessions = Atomic<UInt64>(0)

    init(
        _ name: String, _ policy: PrefillPolicy, beatInterval: UInt64 = 40,
        prefill p: (inout EngineConfiguration) -> Void, decode d: (inout EngineConfiguration) -> Void,
        wrapping: (any Model) -> any Model = { $0 }
    ) throws {
        var prefillSettings = EngineConfiguration()
        prefillSettings.pageSize = 128
        prefillSettings.checksInvariants = true
        prefillSettings.chunkedPrefillSize = 7
        var decodeSettings = prefillSettings
        p(&prefillSettings)
        d(&decodeSettings)
        let directory = try Golden(name).directory
        let prefillModel = wrapping(try directory.load(drafts: prefillSettings.drafts > 0))
        let decodeModel = try directory.load(drafts: decodeSettings.drafts > 0)
        prefill = Engine(prefillModel, prefillSettings)
        decode = Engine(decodeModel, decodeSettings)
        var timing = TransferTiming()
        timing.beatInterval = beatInterval
        timing.peerTimeout = max(60_000, 4 * beatInterval)
        cards = (
            ServerCard(prefillModel, prefillSettings, digest: name),
            ServerCard(decodeModel, decodeSettings, digest: name)
        )
        sending = PrefillEndpoint(cards.prefill, timing: timing, maxFrameBytes: 2048)
        receiving = DecodeEndpoint(cards.decode, policy, timing: timing)
        prefill.attach(sending)
        decode.attach(receiving)
    }

    /// Begins a session, whose link ends after some number of frames.
    ///
    /// - Parameter wrapping: returns the link that the prefill server uses.
    /// - Returns: the prefill server's end of the link.
    @discardableResult
    func connect(lastFrame: Int? = nil, wrapping: (MemoryLink) -> any TransferLink = { $0 }) throws -> MemoryLink {
        let (one, other) = MemoryLink.pair(limit: 5000, lastFrame: lastFrame)
        let session = sessions.add(1, ordering: .relaxed).newValue
        try sending.begin(session, to: cards.decode, over: wrapping(one), for: prefill)
        try receiving.begin(session, from: cards.prefill, over: other, for: decode)
        return one
    }

    /// Waits until no request, page or transfer is left; records what is.
    func settle(_ place: SourceLocation = #_sourceLocation) async throws {
        _ = await eventually {
            let (p, d) = (prefill.status(), decode.status())
            let transfers = sending.transferCount + receiving.transferCount
            return transfers + p.usedPages + d.usedPages + p.running + d.running + p.queued + d.queued == 0
        }
        #expect(sending.transferCount == 0 && receiving.transferCount == 0, sourceLocation: place)
        for engine in [prefill, decode] {
            let status = engine.status()
            #expect(status.usedPages == 0 && status.running == 0 && status.queued == 0, sourceLocation: place)
            #expect(engine.checkInvariants() == [], sourceLocation: place)
        }
    }

    func stop() {
        decode.stop()
        prefill.stop()
    }
}

@Suite(.timeLimit(.minutes(15))) struct `Two engines` {
    private static var askingAlways: PrefillPolicy {
        var policy = PrefillPolicy()
        policy.localPrefillTokens = 0
        return policy
    }

    @inline(never)
    private static func alone(_ name: String, _ requests: [GenerationRequest]) async throws -> [Answer] {
        var configuration = EngineConfiguration()
        configuration.pageSize = 128
        let engine = Engine(try Golden(name).directory.load(), configuration)
        defer { engine.stop() }
        return try await engine.answers(to: requests, .none)
    }

    @inline(never)
    private static func pair(
        _ name: String, _ policy: PrefillPolicy = askingAlways,
        prefill: (inout EngineConfiguration) -> Void = { _ in }, decode: (inout EngineConfiguration) -> Void = { _ in }
    ) throws -> EnginePair {
        try EnginePair(name, policy, prefill: prefill, decode: decode)
    }

    @Test(arguments: ["v3-drafts", "v32", "glm-shared", "v4-drafts"])
    func `answer as one does, in layouts of their own`(name: String) async throws {
        let requests = GenerationRequest.mixed()
        let alone = try await Self.alone(name, requests)
        let drafts = Golden.draftingCases.contains(name) ? 2 : 0
        let pair = try Self.pair(
            name,
            prefill: {
                $0.parallel = ParallelConfiguration(context: 2, pipeline: 2)
                $0.drafts = drafts
            },
            decode: {
                $0.parallel = ParallelConfiguration(tensor: 2)
                $0.pageSize = 256
                $0.drafts = drafts / 2
            })
        defer { pair.stop() }
        try pair.connect()
        #expect(try await pair.decode.answers(to: requests, .decode) == alone)
        #expect(pair.prefill.status().promptTokens >= UInt64(requests.reduce(0) { $0 + $1.prompt.count }))
        // Again, when both find prefixes, and beside requests of the prefill server's own clients.
        async let own = pair.prefill.answers(to: requests, .none)
        #expect(try await pair.decode.answers(to: requests, .decode) == alone)
        #expect(try await own == alone)
        // A decode server that computed everything itself would answer the same.
        #expect(pair.receiving.failure == nil)
        try await pair.settle()
    }

    /// A server that drafts tokens keeps more layers; the other one takes those that it has.
    @Test func `exchange keys if only the prefill server drafts tokens`() async throws {
        let requests = GenerationRequest.mixed()
        let alone = try await Self.alone("v32-drafts", requests)
        let pair = try Self.pair("v32-drafts", prefill: { $0.drafts = 1 })
        defer { pair.stop() }
        try pair.connect()
        #expect(try await pair.decode.answers(to: requests, .decode) == alone)
        #expect(pair.receiving.failure == nil)
        try await pair.settle()
    }

    @Test(arguments: ["v32", "v4"]) func `answer as one does when the link is cut, after any frame`(name: String)
        async throws
    {
        let pair = try Self.pair(name)
        defer { pair.stop() }
        for lastFrame in [1, 2, 3, 5, 8, 13, 21, 34] {
            // With another salt nothing is found in either prefix cache.
            let requests = GenerationRequest.mixed(salt: "\(lastFrame)")
            let alone = try await Self.alone(name, requests)
            try pair.connect(lastFrame: lastFrame)
            #expect(try await pair.decode.answers(to: requests, .decode) == alone, "\(lastFrame) frames")
            // The prompts need more frames than these.
            if lastFrame <= 5 { #expect(pair.receiving.failure != nil, "\(lastFrame) frames") }
            try await pair.settle()
        }
    }

    @Test func `answer as one does without a session, or fail if the decode server must not compute prompts`()
        async throws
    {
        let requests = GenerationRequest.mixed()
        let alone = try await Self.alone("v3", requests)
        let pair = try Self.pair("v3")
        defer { pair.stop() }
        #expect(try await pair.decode.answers(to: requests, .decode) == alone)
        var strict = Self.askingAlways
        strict.computesLost = false
        let other = try Self.pair("v3", strict)
        defer { other.stop() }
        for answer in try await other.decode.answers(to: requests, .decode) {
            #expect(answer.failure?.contains("there is no prefill server yet") ?? false)
        }
        try await other.settle()
    }

    @Test func `answer as one does when the prefill engine stops`() async throws {
        let requests = GenerationRequest.mixed()
        let alone = try await Self.alone("v32", requests)
        let pair = try Self.pair("v32", prefill: { $0.chunkedPrefillSize = 1 })
        defer { pair.stop() }
        try pair.connect()
        async let found = pair.decode.answers(to: requests, .decode)
        #expect(await eventually { pair.prefill.status().steps >= 3 })
        pair.prefill.stop()
        #expect(try await found == alone)
        try await pair.settle()
    }

    @Test(arguments: [true, false])
    func `end their session when one is stopped, and take no other`(stopsPrefill: Bool) async throws {
        let pair = try Self.pair("v3")
        defer { pair.stop() }
        try pair.connect()
        #expect(pair.sending.failure == nil && pair.receiving.failure == nil)
        (stopsPrefill ? pair.prefill : pair.decode).stop("it is stopped")
        _ = await eventually { pair.sending.failure != nil && pair.receiving.failure != nil }
        // The reason came with the end of the link; nobody had to wait for silence.
        #expect(pair.sending.failure == "it is stopped" && pair.receiving.failure == "it is stopped")
        #expect(throws: TransferFailure.self) { try pair.connect() }
    }

    @Test func `end a prefill whose client is gone, on both sides`() async throws {
        let pair = try Self.pair("v32", prefill: { $0.chunkedPrefillSize = 1 })
        defer { pair.stop() }
        try pair.connect()
        for round in 0..<20 {
            var requests = GenerationRequest.mixed(salt: "\(round)")
            for index in requests.indices { requests[index].mode = .decode }
            let generations = try requests.map { try pair.decode.submit($0) }
            if round % 2 == 0 { try await Task.sleep(for: .milliseconds(round)) }
            for generation in generations { pair.decode.abort(generation.id) }
            for answer in await answers(generations) { #expect(answer.failure == nil && answer.finish != nil) }
            try await pair.settle()
        }
    }

    @Test func `refuse each other if their keys differ`() throws {
        let pair = try Self.pair("v32", prefill: { $0.cacheType = .bfloat16 })
        defer { pair.stop() }
        let failure = #expect(throws: TransferFailure.self) { try pair.connect() }
        #expect(failure?.description.contains("cache entries: ") ?? false, "\(failure as Any)")
        let drafting = try Self.pair("v32-drafts", decode: { $0.drafts = 1 })
        defer { drafting.stop() }
        #expect(throws: TransferFailure.self) { try drafting.connect() }
        let rounding = try Self.pair("v32", prefill: { $0.profile = .bf16 })
        defer { rounding.stop() }
        #expect(throws: TransferFailure.self) { try rounding.connect() }
    }

    @Test func `without a link refuse requests for another server`() throws {
        let engine = Engine(try Golden("v3").directory.load(), EngineConfiguration())
        defer { engine.stop() }
        for mode in [DisaggregationMode.prefill, .decode] {
            var request = GenerationRequest.mixed()[0]
            request.mode = mode
            #expect(throws: EngineError.self) { try engine.submit(request) }
        }
        // A prefill server has nobody to ask either.
        let pair = try Self.pair("v3")
        defer { pair.stop() }
        var request = GenerationRequest.mixed()[0]
        request.mode = .decode
        #expect(throws: EngineError.self) { try pair.prefill.submit(request) }
    }
}
