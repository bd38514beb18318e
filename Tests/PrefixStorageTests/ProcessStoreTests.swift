import Dispatch
import Foundation
import Inference
import KVCache
import Modeling
import Models
import Parallelism
import PrefixStorage
import Synchronization
import TestSupport
import Testing

/// A layout, and the number of processes among which its ranks are divided.
private struct Layout: Sendable, CustomTestStringConvertible {
    let parallel: ParallelConfiguration
    let processes: Int

    init(_ processes: Int, data: Int = 1, context: Int = 1, tensor: Int = 1, pipeline: Int = 1, divided: Bool = false) {
        parallel = ParallelConfiguration(
            data: data, context: context, tensor: tensor, pipeline: pipeline,
            kvSharding: KVSharding(ranks: divided ? context : 1))
        self.processes = processes
    }

    var testDescription: String { "\(parallel) in \(processes) processes" }

    /// Stages, copies, shares of the keys and data groups in different processes, alone and together.
    static let all = [
        Layout(1), Layout(2, pipeline: 2), Layout(2, tensor: 2), Layout(2, context: 2, divided: true),
        Layout(4, context: 2, pipeline: 2, divided: true), Layout(2, data: 2, context: 2),
        Layout(4, data: 2, context: 2, divided: true), Layout(4, context: 4, divided: true),
        Layout(2, context: 4, divided: true), Layout(2, context: 4, pipeline: 2),
    ]
}

@Suite(.timeLimit(.minutes(15)), .serialized) struct `A prefix cache on disk of several processes` {
    private typealias Store = `A prefix cache on disk`

    private static func hasWindows(_ name: String) -> Bool { name.hasPrefix("v4") }

    /// The number of tokens of a block, and of a page of the server that writes.
    private static func blockTokens(_ name: String) -> Int { name == "v4-drafts" ? 16 : hasWindows(name) ? 128 : 16 }

    private static func request(_ name: String, salt: String? = nil) -> GenerationRequest {
        Store.request(blockTokens(name) == 128 ? 300 : 75, salt: salt)
    }

    private static func server(
        _ name: String, _ directory: String, _ layout: Layout, pageSize: Int? = nil, chunk: Int? = nil,
        maxWaitSeconds: Double = 30, maxPlacingBytes: Int = 8 << 20, patience: Double = 30, restarts: Bool = false,
        wrap: (any Model) -> any Model = { $0 }
    ) throws -> StoringServer {
        try StoringServer(
            name, directory, blockTokens: blockTokens(name), maxWaitSeconds: maxWaitSeconds,
            maxPlacingBytes: maxPlacingBytes, patience: patience, wrap: wrap, fault: { _ in 0 },
            {
                (configuration: inout EngineConfiguration) in
                (configuration.parallel, configuration.processes) = (layout.parallel, layout.processes)
                configuration.pageSize = pageSize ?? (hasWindows(name) ? blockTokens(name) : 8)
                configuration.chunkedPrefillSize = chunk ?? (blockTokens(name) == 128 ? 100 : 24)
                configuration.drafts = name.hasSuffix("drafts") ? 2 : 0
                configuration.restartsOnFailure = restarts
            })
    }

    /// Returns the files in a directory, by their names.
    private static func contents(_ directory: String) throws -> [String: Data] {
        try Dictionary(
            uniqueKeysWithValues: Store.files(directory).map { name in
                (name, try Data(contentsOf: URL(fileURLWithPath: directory + "/" + name)))
            })
    }

    /// Every layout writes, and three others read what it has written. What one process writes is written first.
    @Test(arguments: ["v32", "glm-shared", "v32-drafts", "v4", "v4-drafts"])
    func `has the same files in every layout, which servers of any other layout read`(name: String) async throws {
        let request = Self.request(name)
        let expected = Self.blockTokens(name) == 128 ? 256 : 64
        var (alone, files): (Answer?, [String: Data]) = (nil, [:])
        for (index, writing) in Layout.all.enumerated() {
            let directory = Store.directory()
            defer { Store.remove(directory) }
            let writer = try Self.server(name, directory, writing)
            let (answer, cached) = try await writer.answer(request)
            writer.stop()
            alone = alone ?? answer
            #expect(answer == alone && cached == 0 && answer.failure == nil, "\(writing.testDescription)")
            #expect(writer.store.status.droppedPrefixes == 0 && writer.lines.all == [])
            if index == 0 { files = try Self.contents(directory) }
            #expect(try Self.contents(directory) == files, "\(writing.testDescription)")
            for (distance, pageSize) in [(0, 1), (1, 2), (4, 1)] {
                let reading = Layout.all[(index + distance) % Layout.all.count]
                let pages = (Self.hasWindows(name) ? Self.blockTokens(name) : 8) * pageSize
                let reader = try Self.server(name, directory, reading, pageSize: pages, chunk: 7)
                let found = try await reader.answer(request)
                reader.stop()
                let comment = "\(reading.testDescription) reads what \(writing.testDescription) has written"
                #expect(found.answer == alone && found.cached == expected, "\(comment)")
                #expect(reader.store.status.restoredTokens == UInt64(expected) && reader.lines.all == [], "\(comment)")
            }
        }
        #expect(files.count > 1)
    }

    /// Each of two data groups has the keys of its own requests only, so a prefix is restored once for each.
    @Test(arguments: ["v32", "v4"]) func `restores prefixes for each data group`(name: String) async throws {
        let directory = Store.directory()
        defer { Store.remove(directory) }
        let request = Self.request(name)
        let writer = try Self.server(name, directory, Layout(2, pipeline: 2))
        let alone = try await writer.answer(request).answer
        writer.stop()
        // No request ends before all have come, so the groups share them.
        var held: HeldModel?
        let server = try Self.server(name, directory, Layout(4, data: 2, context: 2, divided: true)) {
            let model = HeldModel($0)
            held = model
            return model
        }
        let expected = Self.blockTokens(name) == 128 ? 256 : 64
        let answers = try await held!.answers(of: server.engine, to: [request, request, request, request])
        #expect(answers == [alone, alone, alone, alone])
        #expect(server.store.status.restoredTokens == UInt64(2 * expected))
        #expect(server.engine.status().cacheHitTokens >= UInt64(4 * expected))
        #expect(server.engine.checkInvariants() == [])
        server.stop()
    }

    // MARK: - Faults

    /// Writes the usual request of "v32" in one process, and returns its answer.
    private static func write(_ directory: String, salt: String? = nil) async throws -> Answer {
        let writer = try server("v32", directory, Layout(1))
        defer { writer.stop() }
        return try await writer.answer(request("v32", salt: salt)).answer
    }

    /// Counts the bytes that a server's first process has given to the others.
    private static func countPlaced(by server: StoringServer) -> PlacedBytes {
        let placed = PlacedBytes()
        server.processes.transports[0].damage { message in
            if message.kind == .order, let order = try? Order(message.bodyCopy), case .place(let order) = order {
                placed.bytes.add(order.bytes.count, ordering: .relaxed)
                placed.orders.add(1, ordering: .relaxed)
            }
            return message
        }
        return placed
    }

    private final class PlacedBytes: Sendable {
        let bytes = Atomic(0)
        let orders = Atomic(0)
    }

    /// A gate at which another process stands when it has packed or written its first entries.
    private final class Gate: Sendable {
        private let semaphore = DispatchSemaphore(value: 0)

        init(at transport: InMemoryTransport) {
            transport.damage { [semaphore] message in
                if message.kind == .entries {
                    semaphore.wait()
                    semaphore.signal()
                }
                return message
            }
        }

        func open() { semaphore.signal() }
    }

    @Test func `gives another process few bytes while it writes none, and computes`() async throws {
        let directory = Store.directory()
        defer { Store.remove(directory) }
        let alone = try await Self.write(directory)
        let server = try Self.server(
            "v32", directory, Layout(2, pipeline: 2), maxWaitSeconds: 2, maxPlacingBytes: 1)
        let placed = Self.countPlaced(by: server)
        let gate = Gate(at: server.processes.transports[1])
        // The other process stands still with its order thread, and takes no steps before it goes on.
        let generation = try server.engine.submit(Self.request("v32"))
        #expect(await eventually { server.lines.all.count == 1 })
        #expect(server.lines.all.first?.contains("another process of this server does not answer") == true)
        #expect(placed.orders.load(ordering: .relaxed) == 1)
        gate.open()
        #expect(await answers([generation]) == [alone])
        #expect(server.engine.checkInvariants() == [] && server.engine.status().usedPages == 0)
        // It has answered, so prefixes are looked for again, and none that was written too late is used.
        server.store.waitUntilIdle()
        _ = try await server.engine.flushCache()
        let again = try await server.answer(Self.request("v32"))
        #expect(again.answer == alone && again.cached == 64)
        #expect(placed.orders.load(ordering: .relaxed) == 1 + 4)
        server.stop()
    }

    @Test func `is not disturbed by a request that is aborted, and a cache that is flushed, in the middle`()
        async throws
    {
        let directory = Store.directory()
        defer { Store.remove(directory) }
        let alone = try await Self.write(directory)
        for layout in [Layout(2, pipeline: 2), Layout(2, context: 2, divided: true)] {
            let server = try Self.server("v32", directory, layout, maxPlacingBytes: 1)
            let placed = Self.countPlaced(by: server)
            let gate = Gate(at: server.processes.transports[1])
            let aborted = try server.engine.submit(Self.request("v32"))
            let waiting = try server.engine.submit(Self.request("v32"))
            #expect(await eventually { placed.orders.load(ordering: .relaxed) == 1 })
            server.engine.abort(aborted.id)
            _ = try await server.engine.flushCache()
            #expect(server.engine.status().usedPages == 0 && server.engine.checkInvariants() == [])
            gate.open()
            #expect(await answers([aborted])[0].finish == .abort)
            #expect(await answers([waiting]) == [alone])
            server.store.waitUntilIdle()
            _ = try await server.engine.flushCache()
            let again = try await server.answer(Self.request("v32"))
            #expect(again.answer == alone && again.cached == 64, "\(layout.testDescription)")
            #expect(server.engine.status().usedPages == 0 && server.engine.checkInvariants() == [])
            server.stop()
        }
    }

    /// Lets nothing come from the second process of a server from when it would send, or confirm, its first entries.
    private static func loseProcess(of server: StoringServer) {
        server.processes.transports[1].damage { [transport = server.processes.transports[1]] message in
            guard message.kind == .entries else { return message }
            transport.cut()
            return Message(.heartbeat, body: [])
        }
    }

    @Test func `ends a server whose process is lost while it writes, and nothing waits for it`() async throws {
        let directory = Store.directory()
        defer { Store.remove(directory) }
        let alone = try await Self.write(directory)
        let server = try Self.server("v32", directory, Layout(2, pipeline: 2), maxPlacingBytes: 1, patience: 2)
        Self.loseProcess(of: server)
        let answer = try await server.answer(Self.request("v32")).answer
        #expect(answer.failure?.contains("has not been heard from") == true, "\(answer)")
        server.stop()
        #expect(try await Self.cached(in: directory) == alone)
    }

    /// Returns the answer to the usual request of a server that has its whole prefix from a directory.
    private static func cached(in directory: String) async throws -> Answer {
        let server = try server("v32", directory, Layout(2, tensor: 2))
        defer { server.stop() }
        let (answer, cached) = try await server.answer(request("v32"))
        #expect(cached == 64)
        return answer
    }

    @Test func `ends a server whose process is lost while it packs, and nothing waits for it`() async throws {
        let directory = Store.directory()
        defer { Store.remove(directory) }
        let server = try Self.server("v32", directory, Layout(2, pipeline: 2), patience: 2)
        Self.loseProcess(of: server)
        // The request may end before the first of its blocks is packed.
        _ = try await server.answer(Self.request("v32"))
        #expect(await eventually { server.engine.status().failure?.contains("has not been heard from") == true })
        server.stop()
        #expect(server.store.status.writtenBlocks == 0 && server.store.status.failedWrites == 0)
        #expect(try Store.files(directory) == [])
    }

    @Test(arguments: [true, false])
    func `ends a server whose process sends other entries than were asked for`(saves: Bool) async throws {
        let directory = Store.directory()
        defer { Store.remove(directory) }
        let alone = saves ? nil : try await Self.write(directory)
        let server = try Self.server("v32", directory, Layout(2, pipeline: 2))
        server.processes.transports[1].damage { message in
            guard message.kind == .entries, var reply = try? Wire.value(CacheReply.self, in: message.bodyCopy) else {
                return message
            }
            reply.bytes = saves ? Array(reply.bytes.dropLast()) : reply.bytes + [0]
            return message.copy(body: Wire.bytes(of: reply))
        }
        _ = try await server.answer(Self.request("v32"))
        #expect(
            await eventually {
                server.engine.status().failure?.contains("process 1 sent entries that it was not asked for") == true
            })
        server.stop()
        #expect(server.store.status.writtenBlocks == 0)
        if let alone { #expect(try await Self.cached(in: directory) == alone) }
    }

    /// A process that got an order about entries after the one to stop would end the job.
    @Test func `orders nothing of ranks that were told to stop`() async throws {
        let directory = Store.directory()
        defer { Store.remove(directory) }
        let server = try Self.server("v32", directory, Layout(2, tensor: 2))
        let caches = try #require(server.engine.inspect { _, caches in caches })
        #expect(!caches.haveEnded && caches.placingBytes == 0)
        server.engine.stop("the test is over")
        #expect(await eventually { caches.haveEnded })
        let entries = [CacheEntries([0], of: KeySetID(layer: 0), in: .init([0]))]
        caches.pack(entries, in: 1) { _ in Issue.record("entries came from ranks that were told to stop") }
        server.stop()
        #expect(server.processes.ends.withLock { $0 } == [""])
    }

    /// New ranks have empty caches; what was on its way to the old ones is neither waited for nor written to the new ones.
    @Test func `restores again for ranks that have replaced failed ones`() async throws {
        let directory = Store.directory()
        defer { Store.remove(directory) }
        let alone = try await Self.write(directory)
        for rank in [0, 1] {
            let server = try Self.server("v32", directory, Layout(2, pipeline: 2), restarts: true) {
                FailingModel($0, rank: rank, .decode, .failure, times: 3)
            }
            let failed = try await server.engine.answers(to: (0..<6).map { Self.request("v32", salt: "\($0)") })
            #expect(failed.contains { $0.failure?.contains(FailingModel.reason) == true })
            for _ in 0..<3 {
                guard try await server.answer(Self.request("v32")).answer.failure != nil else { break }
            }
            _ = try await server.engine.flushCache()
            let last = try await server.answer(Self.request("v32"))
            #expect(last.answer == alone && last.cached == 64, "rank \(rank)")
            #expect(server.processes.ends.withLock { $0 } == [] && server.engine.status().failure == nil)
            server.stop()
            #expect(server.processes.ends.withLock { $0 } == [""])
        }
    }
}
