import Disaggregation
import Foundation
import Inference
import KVCache
import Modeling
import Models
import Parallelism
import Synchronization
import TestSupport
import Testing

/// A prefill and a decode engine of several processes each, which are connected by memory.
private final class ProcessPair: Sendable {
    let prefill: ProcessEngine
    let decode: ProcessEngine
    private let cards: (prefill: ServerCard, decode: ServerCard)
    let sending: PrefillEndpoint
    let receiving: DecodeEndpoint

    init(
        _ model: any Model, prefill p: (ParallelConfiguration, processes: Int),
        decode d: (ParallelConfiguration, processes: Int), drafts: Int = 0, pageSize: Int = 128,
        decodePageSize: Int? = nil, tokens: Int? = nil, chunk: Int = 7
    ) {
        var settings = EngineConfiguration()
        settings.pageSize = pageSize
        settings.maxTotalTokens = tokens
        settings.checksInvariants = true
        settings.chunkedPrefillSize = chunk
        settings.drafts = drafts
        (settings.parallel, settings.processes) = p
        prefill = ProcessEngine(model, settings)
        let card = ServerCard(model, settings, digest: "the same")
        (settings.parallel, settings.processes) = d
        settings.pageSize = decodePageSize ?? 2 * pageSize
        decode = ProcessEngine(model, settings)
        cards = (card, ServerCard(model, settings, digest: "the same"))
        var timing = TransferTiming()
        timing.beatInterval = 40
        timing.peerTimeout = 60_000
        var policy = PrefillPolicy()
        policy.localPrefillTokens = 0
        sending = PrefillEndpoint(cards.prefill, timing: timing, maxFrameBytes: Self.maxFrameBytes)
        receiving = DecodeEndpoint(cards.decode, policy, timing: timing, maxPlacingBytes: Self.maxPlacingBytes)
        prefill.engine.attach(sending)
        decode.engine.attach(receiving)
    }

    /// So few that transfers wait for other processes to write.
    static let maxPlacingBytes = 4096

    /// The largest number of bytes of entries in a frame.
    static let maxFrameBytes = 2048

    /// Begins a session, whose link ends after some number of frames.
    ///
    /// - Returns: the prefill server's end of the link.
    @discardableResult
    func connect(_ session: UInt64 = 1, lastFrame: Int? = nil) throws -> MemoryLink {
        let (one, other) = MemoryLink.pair(limit: 5000, lastFrame: lastFrame)
        try sending.begin(session, to: cards.decode, over: one, for: prefill.engine)
        try receiving.begin(session, from: cards.prefill, over: other, for: decode.engine)
        return one
    }

    /// Waits until no request, page or transfer is left; records what is.
    func settle(_ place: SourceLocation = #_sourceLocation) async {
        let engines = [prefill.engine, decode.engine]
        let isSettled = await eventually {
            engines.allSatisfy {
                let status = $0.status()
                return status.usedPages + status.running + status.queued == 0
            } && sending.transferCount + receiving.transferCount == 0
        }
        #expect(isSettled, sourceLocation: place)
        for engine in engines { #expect(engine.checkInvariants() == [], sourceLocation: place) }
    }

    func stop() {
        decode.stop()
        prefill.stop()
    }
}

@Suite(.timeLimit(.minutes(15))) struct `Two servers of several processes` {
    private static func alone(_ model: any Model, _ requests: [GenerationRequest]) async throws -> [Answer] {
        var settings = EngineConfiguration()
        settings.pageSize = 128
        let engine = Engine(model, settings)
        defer { engine.stop() }
        return try await engine.answers(to: requests)
    }

    private static func divided(_ context: Int, pipeline: Int = 1, data: Int = 1) -> ParallelConfiguration {
        ParallelConfiguration(
            data: data, context: context, pipeline: pipeline, kvSharding: KVSharding(ranks: context))
    }

    /// The layouts and processes of both servers.
    private static let pairs: [(p: ParallelConfiguration, Int, d: ParallelConfiguration, Int)] = [
        (ParallelConfiguration(context: 2), 2, ParallelConfiguration(), 1),
        (ParallelConfiguration(), 1, ParallelConfiguration(tensor: 2), 2),
        (ParallelConfiguration(pipeline: 2), 2, divided(2), 2),
        (divided(2, pipeline: 2), 4, divided(4), 4),
        (ParallelConfiguration(data: 2, tensor: 2), 2, divided(2, data: 2), 4),
        (divided(4), 2, ParallelConfiguration(context: 2, pipeline: 2), 4),
    ]

    @Test(arguments: pairs.indices, ["v32", "v4"])
    func `answer as one does`(index: Int, name: String) async throws {
        let (p, sending, d, receiving) = Self.pairs[index]
        let model = try Golden(name).directory.load()
        let pair = ProcessPair(model, prefill: (p, sending), decode: (d, receiving))
        defer { pair.stop() }
        try pair.connect()
        for round in 0..<2 {
            let requests = GenerationRequest.mixed(salt: "\(round)")
            let before = pair.prefill.engine.status().promptTokens
            #expect(try await pair.decode.engine.answers(to: requests, .decode) == Self.alone(model, requests))
            // The decode server has computed none of the prompts.
            let computed = pair.prefill.engine.status().promptTokens - before
            #expect(computed >= UInt64(requests.reduce(0) { $0 + $1.prompt.count }))
            #expect(pair.receiving.failure == nil)
        }
        await pair.settle()
    }

    /// Returns requests that begin with the same tokens: the first one has `count`, each other one `shared` of these and
    /// some of its own.
    private static func prompts(_ count: Int, shared: [Int]) -> [GenerationRequest] {
        let all = (0..<count).map { Int32($0 * 37 % 251) }
        return ([count] + shared).enumerated().map { index, shared in
            var sampling = SamplingParameters()
            sampling.maxNewTokens = 4
            let tail = index == 0 ? [] : (0..<9).map { Int32((index * 50 + $0) % 251) }
            return GenerationRequest(prompt: all[..<shared] + tail, sampling: sampling, logProbs: .init(topCount: 2))
        }
    }

    /// A prompt is one chunk, so of the windows before its inner page borders each process has a part.
    @Test(arguments: PartitionStrategy.allCases, [2, 4])
    func `continue from any page border of an earlier prompt`(strategy: PartitionStrategy, processes: Int) async throws
    {
        for (name, page) in [("v4", 128), ("v4", 256), ("v4-drafts", 32)] {
            let drafts = name == "v4-drafts" ? 2 : 0
            let model = try Golden(name).directory.load(drafts: drafts > 0)
            var settings = EngineConfiguration()
            settings.pageSize = page
            settings.chunkedPrefillSize = -1
            settings.checksInvariants = true
            settings.drafts = drafts
            settings.parallel = ParallelConfiguration(context: processes, tensor: 2, strategy: strategy)
            settings.processes = processes
            let (length, shared) = name == "v4" ? (900, [300, 300, 520, 899, 700]) : (120, [40, 40, 70, 119, 100])
            let requests = Self.prompts(length, shared: shared)
            let server = ProcessEngine(model, settings)
            defer { server.stop() }
            for (request, shared) in zip(requests, [0] + shared) {
                var (answer, cached) = (Answer(), -1)
                for await event in try server.engine.submit(request).events {
                    answer.add(event)
                    if case .finished(_, let usage) = event { cached = usage.cachedTokens }
                }
                #expect(try await [answer] == Self.alone(model, [request]), "\(shared) tokens of \(name)")
                #expect(cached == shared / page * page, "\(shared) tokens of \(name)")
            }
            #expect(server.engine.checkInvariants() == [])
        }
    }

    /// The prefill server's pages are longer, so the decode server could continue from borders that the prefill server does
    /// not have, and before which none of its processes has the whole window.
    @Test(arguments: PartitionStrategy.allCases, [340, 383, 384, 385, 400, 512])
    func `continue from received keys`(strategy: PartitionStrategy, length: Int) async throws {
        let model = try Golden("v4").directory.load()
        let pair = ProcessPair(
            model, prefill: (ParallelConfiguration(context: 2, strategy: strategy), 2),
            decode: (ParallelConfiguration(context: 2), 2), pageSize: 512, decodePageSize: 128, chunk: -1)
        defer { pair.stop() }
        try pair.connect()
        let requests = Self.prompts(length, shared: [length - 1, 300])
        let first = try await pair.decode.engine.answers(to: [requests[0]], .decode)
        #expect(try await first == Self.alone(model, [requests[0]]))
        #expect(pair.receiving.failure == nil)
        for request in requests.dropFirst() {
            #expect(try await pair.decode.engine.answers(to: [request]) == Self.alone(model, [request]))
        }
        await pair.settle()
    }

    @Test func `answer as one does if both draft tokens`() async throws {
        let model = try Golden("v32-drafts").directory.load(drafts: true)
        let pair = ProcessPair(
            model, prefill: (ParallelConfiguration(pipeline: 2), 2), decode: (Self.divided(2), 2), drafts: 2)
        defer { pair.stop() }
        try pair.connect()
        let requests = GenerationRequest.mixed()
        #expect(try await pair.decode.engine.answers(to: requests, .decode) == Self.alone(model, requests))
        #expect(pair.receiving.failure == nil)
        await pair.settle()
    }

    @Test func `answer as one does when the link is cut, after any frame, and clients leave`() async throws {
        let model = try Golden("v32").directory.load()
        let pair = ProcessPair(
            model, prefill: (Self.divided(2, pipeline: 2), 4), decode: (Self.divided(2), 2))
        defer { pair.stop() }
        for (round, lastFrame) in [2, 5, 13, 34, 89].enumerated() {
            let requests = GenerationRequest.mixed(salt: "\(lastFrame)")
            try pair.connect(UInt64(round + 1), lastFrame: lastFrame)
            // These are given up while their keys are on their way.
            let leaving = try GenerationRequest.mixed(salt: "leaving \(lastFrame)").map { request in
                var request = request
                request.mode = .decode
                return try pair.decode.engine.submit(request)
            }
            async let found = pair.decode.engine.answers(to: requests, .decode)
            for generation in leaving { pair.decode.engine.abort(generation.id) }
            #expect(try await found == Self.alone(model, requests), "\(lastFrame) frames")
            await pair.settle()
        }
    }

    /// Caches of a few pages: those that are given up are used again at once, on both sides.
    @Test func `answer as one does with as little memory as one request needs`() async throws {
        let model = try Golden("v32").directory.load()
        let pair = ProcessPair(
            model, prefill: (Self.divided(2), 2), decode: (Self.divided(2, pipeline: 2), 4), pageSize: 8, tokens: 96)
        defer { pair.stop() }
        try pair.connect()
        for round in 0..<3 {
            let requests = GenerationRequest.mixed(salt: "\(round)")
            #expect(try await pair.decode.engine.answers(to: requests, .decode) == Self.alone(model, requests))
            #expect(pair.receiving.failure == nil)
        }
        #expect(pair.prefill.engine.status().promptTokens > 0)
        await pair.settle()
    }

    /// The other process gets all keys of 57 tokens, which are more than `maxPlacingBytes`, and confirms none. So the bytes
    /// that are on their way to it reach that bound with some frame, and no frame is read after it.
    @Test func `read few frames while another process does not write them`() async throws {
        let model = try Golden("v32").directory.load()
        let pair = ProcessPair(
            model, prefill: (ParallelConfiguration(), 1), decode: (ParallelConfiguration(tensor: 2), 2))
        defer { pair.stop() }
        let bound = ProcessPair.maxPlacingBytes
        var request = GenerationRequest.mixed()[8]
        request.mode = .decode
        let placed = Atomic(0)
        pair.decode.transports[0].damage { message in
            if message.kind == .order, let order = try? Order(message.bodyCopy), case .place(let order) = order {
                placed.add(order.bytes.count, ordering: .relaxed)
            }
            return message
        }
        // The other process seems to write nothing.
        pair.decode.transports[1].damage { $0.kind == .entries ? Message(.heartbeat, body: []) : $0 }
        let link = try pair.connect()
        let generation = try pair.decode.engine.submit(request)
        #expect(await eventually { placed.load(ordering: .relaxed) >= bound })
        // Nothing makes room from now on, and signs of life fill the link if keys do not.
        #expect(await eventually { !link.isWritable })
        #expect(pair.receiving.failure == nil)
        #expect(placed.load(ordering: .relaxed) < bound + ProcessPair.maxFrameBytes)
        pair.decode.engine.abort(generation.id)
        _ = await answers([generation])
    }

    /// A process whose reply cannot be the answer to an order ends its own server, and only that.
    @Test func `survive a prefill server whose process sends other entries than were asked for`() async throws {
        let model = try Golden("v32").directory.load()
        let pair = ProcessPair(
            model, prefill: (ParallelConfiguration(context: 2), 2), decode: (ParallelConfiguration(), 1))
        defer { pair.stop() }
        pair.prefill.transports[1].damage { message in
            message.kind == .entries ? message.copy(body: Array(message.bodyCopy.dropLast())) : message
        }
        try pair.connect()
        let requests = GenerationRequest.mixed()
        #expect(try await pair.decode.engine.answers(to: requests, .decode) == Self.alone(model, requests))
        #expect(await eventually { pair.receiving.failure != nil })
        let reason = pair.receiving.failure ?? ""
        #expect(reason.contains("process 1 sent entries that it was not asked for"), "\(reason)")
    }

    @Test(arguments: [
        (CacheEntries([0], of: KeySetID(layer: 1000), in: .init([0])), 0, "key sets that there are not"),
        (CacheEntries([0], of: KeySetID(layer: 0, 9), in: .init([0])), 0, "key sets that there are not"),
        (CacheEntries([0], of: KeySetID(layer: 0), in: .init([Int32.max])), 0, "does not keep them"),
        (CacheEntries([0], of: KeySetID(layer: 0), in: .init([-1])), 0, "does not keep them"),
        (CacheEntries([4000], of: KeySetID(layer: 0), in: .init([0])), 0, "does not keep them"),
        (CacheEntries([0], of: KeySetID(layer: 0), in: .init([0], first: 1)), 0, "does not keep them"),
        (CacheEntries([0], of: KeySetID(layer: 0), in: .init([0])), 1, "1 bytes for entries"),
    ])
    func `have processes that refuse orders about what they do not keep`(
        entries: CacheEntries, bytes: Int, expected: String
    ) async throws {
        let model = try Golden("v32").directory.load()
        var settings = EngineConfiguration()
        settings.parallel = ParallelConfiguration(context: 2)
        settings.processes = 2
        let server = ProcessEngine(model, settings)
        defer { server.stop() }
        let order = CacheOrder(7, [entries], bytes: Array(repeating: 0, count: bytes))
        let body = (bytes > 0 ? Order.place(order) : Order.pack(order)).bytes
        try #require(server.processes).send(Message(.order, epoch: 1, body: body), to: 1)
        #expect(await eventually { server.ends.withLock { $0.count == 1 } })
        let end = server.ends.withLock { $0.first } ?? ""
        #expect(end.contains("the first process gave an order with") && end.contains(expected), "\(end)")
    }
}
