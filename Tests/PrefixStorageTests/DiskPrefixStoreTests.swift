import Foundation
import Inference
import KVCache
import Modeling
import Models
import Parallelism
import PrefixStorage
import Synchronization
import Tensors
import TestSupport
import Testing

/// A server with a prefix store: an engine of a golden checkpoint, whose ranks may be divided among simulated processes,
/// and a store with blocks of 16 tokens.
final class StoringServer: Sendable {
    let processes: ProcessEngine
    var engine: Engine { processes.engine }
    let store: DiskPrefixStore
    let lines: Lines

    final class Lines: Sendable {
        private let state = Mutex<[String]>([])
        func add(_ line: String) { state.withLock { $0.append(line) } }
        var all: [String] { state.withLock { $0 } }
    }

    init(
        _ name: String, _ directory: String, limit: Int = 1 << 30, digest: String = "a model",
        blockTokens: Int = 16, maxWaitSeconds: Double = 30, maxPlacingBytes: Int = 8 << 20, patience: Double = 30,
        wrap: (any Model) -> any Model = { $0 },
        fault: @escaping @Sendable (DiskPrefixStore.Stage) -> Int32 = { _ in 0 },
        _ change: (inout EngineConfiguration) -> Void = { _ in }
    ) throws {
        var configuration = StoringServer.configuration
        change(&configuration)
        let model = wrap(try Golden(name).directory.load(drafts: configuration.drafts > 0))
        var settings = DiskPrefixStore.Settings(path: directory, limitBytes: limit)
        settings.blockTokens = blockTokens
        settings.refreshSeconds = 0
        settings.maxWaitSeconds = maxWaitSeconds
        settings.maxPlacingBytes = maxPlacingBytes
        let lines = Lines()
        self.lines = lines
        store = try DiskPrefixStore(
            settings, model, configuration, digest: digest, log: { lines.add($0) },
            fault: fault)
        processes = ProcessEngine(model, configuration, patience: patience)
        engine.attach(store)
    }

    static var configuration: EngineConfiguration {
        var configuration = EngineConfiguration()
        configuration.pageSize = 8
        configuration.chunkedPrefillSize = 24
        configuration.checksInvariants = true
        return configuration
    }

    /// Returns an answer, and the number of prompt tokens that were found in the cache.
    func answer(_ request: GenerationRequest) async throws -> (answer: Answer, cached: Int) {
        var (answer, cached) = (Answer(), -1)
        for await event in try engine.submit(request).events {
            answer.add(event)
            if case .finished(_, let usage) = event { cached = usage.cachedTokens }
        }
        #expect(engine.checkInvariants() == [])
        return (answer, cached)
    }

    /// Waits until everything is written, and ends the server.
    func stop() {
        store.close()
        processes.stop()
    }
}

@Suite(.timeLimit(.minutes(15)), .serialized) struct `A prefix cache on disk` {
    static func directory() -> String {
        NSTemporaryDirectory() + "braid-prefixes-" + UUID().uuidString
    }

    static func request(_ count: Int = 75, salt: String? = nil) -> GenerationRequest {
        var sampling = SamplingParameters()
        sampling.maxNewTokens = 6
        let prompt: [Int32] = (0..<count).map { index in Int32((index * 31 + index / 9) % 200) }
        return GenerationRequest(
            prompt: prompt, sampling: sampling, logProbs: LogProbOptions(topCount: 3), cacheSalt: salt)
    }

    @inline(never)
    static func alone(_ name: String, _ request: GenerationRequest) async throws -> Answer {
        let engine = Engine(try Golden(name).directory.load(), StoringServer.configuration)
        defer { engine.stop() }
        return try await engine.answers(to: [request])[0]
    }

    static func files(_ directory: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: directory).filter { $0.hasSuffix(".keys") }.sorted()
    }

    static func remove(_ directory: String) { try? FileManager.default.removeItem(atPath: directory) }

    @inline(never)
    static func server(
        _ directory: String, _ name: String = "v32", limit: Int = 1 << 30, digest: String = "a model",
        failing: DiskPrefixStore.Stage? = nil,
        _ change: (inout EngineConfiguration) -> Void = { _ in }
    ) throws -> StoringServer {
        try StoringServer(
            name, directory, limit: limit, digest: digest, fault: { $0 == failing ? ENOSPC : 0 }, change)
    }

    /// Writes the prefix of the usual request.
    @inline(never)
    static func write(
        _ directory: String, _ name: String = "v32", _ request: GenerationRequest = request(),
        _ change: (inout EngineConfiguration) -> Void = { _ in }
    ) async throws {
        let server = try Self.server(directory, name, change)
        let (_, cached) = try await server.answer(request)
        #expect(cached == 0)
        server.stop()
        let status = server.store.status
        #expect(status.writtenBlocks > 0 && status.droppedPrefixes == 0)
    }

    @Test(arguments: ["v3", "v32", "glm-shared", "v32-fp8-cache"])
    func `gives another server the same bits, in any layout, page size and chunks`(name: String) async throws {
        let directory = Self.directory()
        defer { Self.remove(directory) }
        let fp8 = name == "v32-fp8-cache"
        let alone = fp8 ? nil : try await Self.alone(name, Self.request())
        try await Self.write(directory, name) {
            $0.parallel = ParallelConfiguration(context: 2, pipeline: 2)
            if fp8 { $0.cacheType = .fp8 }
        }
        // 75 of the prompt and 5 of the answer: 5 blocks of 16.
        #expect(try Self.files(directory).count == 5)
        let layouts: [(ParallelConfiguration, pageSize: Int, chunk: Int, cached: Int)] = [
            (ParallelConfiguration(), 8, 24, 64), (ParallelConfiguration(tensor: 2), 64, 7, 64),
            (ParallelConfiguration(data: 2, context: 2), 1, 100, 64), (ParallelConfiguration(context: 4), 32, 9, 64),
            (ParallelConfiguration(), 16, 1, 64),
        ]
        var answers: [Answer] = []
        for (parallel, pageSize, chunk, expected) in layouts {
            let server = try Self.server(directory, name) {
                $0.parallel = parallel
                $0.pageSize = pageSize
                $0.chunkedPrefillSize = chunk
                if fp8 { $0.cacheType = .fp8 }
            }
            let (answer, cached) = try await server.answer(Self.request())
            server.stop()
            answers.append(answer)
            #expect(cached == expected, "\(parallel), pages of \(pageSize)")
            #expect(server.store.status.restoredTokens == UInt64(expected))
            #expect(server.lines.all == [])
        }
        #expect(answers.allSatisfy { $0 == alone ?? answers[0] && $0.failure == nil && $0.tokens.count == 6 })
    }

    @Test func `works with drafts, whose positions are named by the following token`() async throws {
        let directory = Self.directory()
        defer { Self.remove(directory) }
        let alone = try await Self.alone("v32-drafts", Self.request())
        try await Self.write(directory, "v32-drafts") { $0.drafts = 2 }
        for drafts in [2, 1, 0] {
            let server = try Self.server(directory, "v32-drafts") { $0.drafts = drafts }
            let (answer, cached) = try await server.answer(Self.request())
            server.stop()
            #expect(answer == alone)
            #expect(cached == (drafts > 0 ? 64 : 0), "\(drafts) drafts")
        }
    }

    @Test func `restores only what memory lacks, and for all who wait`() async throws {
        let directory = Self.directory()
        defer { Self.remove(directory) }
        let alone = try await Self.alone("v32", Self.request())
        try await Self.write(directory)
        let server = try Self.server(directory)
        defer { server.stop() }
        // The cache has 40 positions, two and a half blocks, before the longer prompt comes.
        var short = Self.request(45)
        short.sampling.maxNewTokens = 0
        _ = try await server.answer(short)
        server.store.waitUntilIdle()
        let before = server.store.status.restoredTokens
        #expect(before == 32)
        let all = try await server.engine.answers(to: [Self.request(), Self.request(), Self.request()])
        #expect(all == [alone, alone, alone])
        #expect(server.store.status.restoredTokens == before + 24)
        #expect(server.engine.status().promptTokens > 0 && server.engine.checkInvariants() == [])
    }

    @Test func `keeps salts, models and caches apart`() async throws {
        let directory = Self.directory()
        defer { Self.remove(directory) }
        try await Self.write(directory, "v32", Self.request(salt: "tenant"))
        func cached(_ salt: String?, digest: String = "a model", _ type: CacheType = .float32) async throws -> Int {
            let server = try Self.server(directory, digest: digest) { $0.cacheType = type }
            defer { server.stop() }
            return try await server.answer(Self.request(salt: salt)).cached
        }
        #expect(try await cached(nil) == 0)
        #expect(try await cached("other") == 0)
        #expect(try await cached("tenant", digest: "another model") == 0)
        #expect(try await cached("tenant", .bfloat16) == 0)
        #expect(try await cached("tenant") == 64)
    }

    @Test func `names blocks by the types of keys and of index keys`() throws {
        let model = try Golden("v4").directory.load()
        let types = CacheType.plain + CacheType.withFP4Index
        let keys = types.map { type in
            var configuration = EngineConfiguration()
            configuration.pageSize = 128
            configuration.cacheType = type
            return PrefixKey(model, configuration, digest: "a model", blockTokens: 256)
        }
        #expect(types.count == 6 && Set(keys.map(\.description)).count == 6)
        for (type, key) in zip(types, keys) {
            #expect(key.description.contains("fp4 16 by 32 with e8m0 scales") == type.hasFP4Index, "\(key)")
        }
    }

    @Test func `removes what an interrupted write has left`() async throws {
        let directory = Self.directory()
        defer { Self.remove(directory) }
        try await Self.write(directory)
        let name = try Self.files(directory)[0]
        let path = directory + "/" + name
        try FileManager.default.moveItem(atPath: path, toPath: path + ".part")
        let foreign = directory + "/notes.part"
        try Data("mine".utf8).write(to: URL(fileURLWithPath: foreign))
        let server = try Self.server(directory)
        server.stop()
        #expect(!FileManager.default.fileExists(atPath: path + ".part"))
        #expect(FileManager.default.fileExists(atPath: foreign))
        #expect(server.store.status.blocks == 4)
    }

    @Test(arguments: [DiskPrefixStore.Stage.write, .rename])
    func `goes on serving when nothing can be written`(stage: DiskPrefixStore.Stage) async throws {
        let directory = Self.directory()
        defer { Self.remove(directory) }
        let alone = try await Self.alone("v32", Self.request())
        let server = try Self.server(directory, failing: stage)
        #expect(try await server.answer(Self.request()).answer == alone)
        server.store.waitUntilIdle()
        #expect(try await server.answer(Self.request()).answer == alone)
        server.stop()
        let status = server.store.status
        #expect(status.failedWrites >= 1 && status.droppedPrefixes >= 1 && status.writtenBlocks == 0)
        #expect(server.lines.all.count == 1 && server.lines.all[0].contains("No space left"), "\(server.lines.all)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory) == ["lock"])
    }

    @Test func `is written by one server and read by the others, of which one takes over`() async throws {
        let directory = Self.directory()
        defer { Self.remove(directory) }
        let alone = try await Self.alone("v32", Self.request())
        let first = try Self.server(directory)
        let second = try Self.server(directory)
        defer { second.stop() }
        #expect(first.store.status.isWriting && !second.store.status.isWriting)
        _ = try await first.answer(Self.request())
        first.store.waitUntilIdle()
        // The second looks for new files when it is asked next.
        _ = try await second.answer(Self.request(20))
        second.store.waitUntilIdle()
        let found = try await second.answer(Self.request())
        #expect(found.answer == alone && found.cached == 64)
        #expect(second.store.status.writtenBlocks == 0)
        first.stop()
        let tookOver = try await eventually {
            _ = try await second.answer(Self.request(20))
            second.store.waitUntilIdle()
            return second.store.status.isWriting
        }
        #expect(tookOver && second.lines.all.count == 1, "\(second.lines.all)")
    }

    @Test func `stays below its limit, and keeps what was used last`() async throws {
        let directory = Self.directory()
        defer { Self.remove(directory) }
        try await Self.write(directory)
        let size = BlockIndex.occupied(
            (try FileManager.default.attributesOfItem(atPath: directory + "/" + Self.files(directory)[0])[.size] as? Int)!
        )
        let server = try Self.server(directory, limit: 4 * size)
        #expect(server.store.status.bytes <= 4 * size)
        for seed in 0..<3 {
            var request = Self.request()
            request.prompt = request.prompt.map { ($0 + Int32(seed) * 40 + 1) % 200 }
            _ = try await server.answer(request)
            server.store.waitUntilIdle()
            #expect(server.store.status.bytes <= 4 * size)
        }
        server.stop()
        #expect(server.store.status.evictedBlocks > 5)
        #expect(try Self.files(directory).count <= 4)
    }

    @Test func `is refused where it cannot be used`() throws {
        let directory = Self.directory()
        defer { Self.remove(directory) }
        func problem(
            _ path: String, _ name: String = "v32", limit: Int = 1 << 30,
            _ change: (inout EngineConfiguration) -> Void = { _ in }
        ) -> String {
            do {
                _ = try Self.server(path, name, limit: limit, change)
                return "none"
            } catch { return "\(error)" }
        }
        #expect(problem(directory, "v4") { $0.pageSize = 128 }.contains("do not hold whole entries"))
        #expect(problem(directory, limit: 1000).contains("hold no block"))
        #expect(problem(directory) { $0.pageSize = 8192 }.contains("too large"))
        #expect(problem(directory) { $0.prefixCache = false }.contains("turned off"))
        #expect(problem("/dev/null").contains("cannot be opened as a directory"))
        #expect(problem("/nowhere/at/all").contains("cannot be created"))
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: directory)
        #expect(problem(directory).contains("chmod 700"))
    }

    @Test func `does not hold a request back for good if its disk does not answer`() async throws {
        let directory = Self.directory()
        defer { Self.remove(directory) }
        let alone = try await Self.alone("v32", Self.request())
        let store = SilentStore()
        let engine = Engine(try Golden("v32").directory.load(), StoringServer.configuration)
        defer { engine.stop() }
        engine.attach(store)
        let waiting = try engine.submit(Self.request())
        let aborted = try engine.submit(Self.request())
        // Others go on while those wait.
        let short = GenerationRequest(prompt: [1, 2, 3])
        #expect(try await engine.answers(to: [short])[0].failure == nil)
        #expect(engine.status().queued == 2 && engine.checkInvariants() == [])
        engine.abort(aborted.id)
        engine.exchange { scheduler, _ in
            #expect(scheduler.beginRestoring(waiting.id) == 0 && scheduler.reserveRestored(waiting.id, to: 32))
            return []
        }
        #expect(engine.status().usedPages == 4 && engine.checkInvariants() == [])
        engine.exchange { scheduler, _ in
            for id in [waiting.id, aborted.id] { scheduler.endRestoring(id) }
            return []
        }
        #expect(await answers([waiting]) == [alone])
        #expect(await answers([aborted])[0].finish == .abort)
        #expect(engine.checkInvariants() == [])
    }
}

/// A store that takes every lookup and never answers.
private final class SilentStore: PrefixStore {
    let blockTokens = 16
    func restore(_ lookup: PrefixLookup, for engine: Engine) -> Bool { true }
    func save(_ prefix: IdentifiedPrefix, from engine: Engine) {}
}
