import Foundation
import Inference
import KVCache
import Models
import Parallelism
import PrefixStorage
import TestSupport
import Testing

/// DeepSeek-V4's layers keep windows of keys and compressors' inputs, which a prefix on disk needs too.
@Suite(.timeLimit(.minutes(15)), .serialized) struct `Windows in a prefix cache on disk` {
    private static func server(
        _ directory: String, _ name: String, _ change: (inout EngineConfiguration) -> Void = { _ in }
    ) throws -> StoringServer {
        let configure: (inout EngineConfiguration) -> Void = {
            $0.pageSize = 128
            $0.chunkedPrefillSize = 100
            change(&$0)
        }
        return try StoringServer(name, directory, blockTokens: 128, fault: { _ in 0 }, configure)
    }

    private static func request(_ count: Int = 300) -> GenerationRequest {
        `A prefix cache on disk`.request(count)
    }

    private static func alone(_ name: String, _ requests: [GenerationRequest]) async throws -> [Answer] {
        var configuration = EngineConfiguration()
        configuration.pageSize = 128
        let engine = Engine(try Golden(name).directory.load(), configuration)
        defer { engine.stop() }
        return try await engine.answers(to: requests)
    }

    @Test(arguments: ["v4", "v4-fp8-fp4"])
    func `give another server the same bits, in any layout, page size and chunks`(name: String) async throws {
        let directory = `A prefix cache on disk`.directory()
        defer { `A prefix cache on disk`.remove(directory) }
        let alone = try await Self.alone(name, [Self.request()])[0]
        let first = try Self.server(directory, name) { $0.parallel = ParallelConfiguration(context: 2, pipeline: 2) }
        #expect(try await first.answer(Self.request()).answer == alone)
        first.stop()
        #expect(first.store.status.writtenBlocks == 2)
        let layouts: [(ParallelConfiguration, pageSize: Int, chunk: Int)] = [
            (ParallelConfiguration(), 128, 24), (ParallelConfiguration(tensor: 2), 256, 7),
            (ParallelConfiguration(data: 2, context: 2), 128, 200), (ParallelConfiguration(context: 4), 128, 1),
        ]
        for (parallel, pageSize, chunk) in layouts {
            let server = try Self.server(directory, name) {
                $0.parallel = parallel
                $0.pageSize = pageSize
                $0.chunkedPrefillSize = chunk
            }
            let (answer, cached) = try await server.answer(Self.request())
            server.stop()
            #expect(answer == alone && cached == 256, "\(parallel), pages of \(pageSize)")
            #expect(server.store.status.restoredTokens == 256 && server.lines.all == [])
        }
    }

    @Test func `serve the cache in FP8 and the next-token block`() async throws {
        for (name, drafts, type) in [("v4", 0, CacheType.fp8), ("v4-drafts", 2, .float32)] {
            let directory = `A prefix cache on disk`.directory()
            defer { `A prefix cache on disk`.remove(directory) }
            var answers: [Answer] = []
            for expected in [0, 256] {
                let server = try Self.server(directory, name) {
                    $0.drafts = drafts
                    $0.cacheType = type
                }
                let (answer, cached) = try await server.answer(Self.request())
                server.stop()
                #expect(cached == expected, "\(name), \(type)")
                answers.append(answer)
            }
            #expect(answers[0] == answers[1] && answers[0].failure == nil, "\(name), \(type)")
        }
    }

    @Test func `let requests share a beginning that ends inside of what was stored`() async throws {
        let directory = `A prefix cache on disk`.directory()
        defer { `A prefix cache on disk`.remove(directory) }
        var other = Self.request(420)
        // The first 128 tokens are those of the stored request.
        for index in 130..<420 { other.prompt[index] = Int32((index * 7) % 200) }
        let alone = try await Self.alone("v4", [Self.request(), other])
        let first = try Self.server(directory, "v4")
        _ = try await first.answer(Self.request())
        first.stop()
        let second = try Self.server(directory, "v4")
        let answers = [try await second.answer(other), try await second.answer(Self.request())]
        second.stop()
        #expect(answers.map(\.answer) == [alone[1], alone[0]])
        #expect(answers.map(\.cached) == [128, 256])
        #expect(second.store.status.restoredTokens == 256)
    }

    @Test func `are written later if a block was stored without its window`() async throws {
        let directory = `A prefix cache on disk`.directory()
        defer { `A prefix cache on disk`.remove(directory) }
        let alone = try await Self.alone("v4", [Self.request()])[0]
        // A page of 256 tokens has a border only at the end of every second block.
        let first = try Self.server(directory, "v4") { $0.pageSize = 256 }
        _ = try await first.answer(Self.request(200))
        _ = try await first.answer(Self.request())
        first.stop()
        let lengths = try Self.lengths(directory)
        #expect(lengths.count == 2 && lengths[0] < lengths[1])
        let second = try Self.server(directory, "v4")
        var short = Self.request(140)
        short.sampling.maxNewTokens = 1
        // Nothing that is stored ends with a window there.
        let computed = try await second.answer(short)
        second.store.waitUntilIdle()
        let found = try await second.answer(Self.request())
        second.stop()
        #expect(computed.cached == 0 && found.cached == 256 && found.answer == alone)
        #expect(try Self.lengths(directory) == [lengths[1], lengths[1]])
    }

    private static func lengths(_ directory: String) throws -> [Int] {
        try `A prefix cache on disk`.files(directory).map { name in
            try #require(FileManager.default.attributesOfItem(atPath: directory + "/" + name)[.size] as? Int)
        }.sorted()
    }

    @Test func `need pages that are no shorter`() throws {
        let directory = `A prefix cache on disk`.directory()
        defer { `A prefix cache on disk`.remove(directory) }
        let model = ToyModel(longEntry: 16)
        var configuration = EngineConfiguration()
        configuration.pageSize = 16
        let problems = DiskPrefixStore.problems(
            DiskPrefixStore.Settings(path: directory, limitBytes: 1 << 30), model, configuration)
        #expect(problems.count == 1 && problems[0].contains("--page-size of at least"), "\(problems)")
    }
}
