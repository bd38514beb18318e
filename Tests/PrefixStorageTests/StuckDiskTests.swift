import Dispatch
import Foundation
import Inference
import Parallelism
import PrefixStorage
import Synchronization
import TestSupport
import Testing

/// A disk that does not answer at one stage, after some files, until it is let go.
private final class StuckDisk: Sendable {
    private let stage: DiskPrefixStore.Stage
    private let files: Atomic<Int>
    private let gate = DispatchSemaphore(value: 0)
    private let stuck = Atomic(false)

    init(at stage: DiskPrefixStore.Stage, after files: Int = 0) {
        self.stage = stage
        self.files = Atomic(files)
    }

    /// True once somebody has waited for it.
    var isStuck: Bool { stuck.load(ordering: .acquiring) }

    func answer(_ stage: DiskPrefixStore.Stage) -> Int32 {
        guard stage == self.stage, files.subtract(1, ordering: .relaxed).oldValue <= 0 else { return 0 }
        stuck.store(true, ordering: .releasing)
        gate.wait()
        gate.signal()
        return 0
    }

    func letGo() { gate.signal() }
}

@Suite(.timeLimit(.minutes(15)), .serialized) struct `A disk that does not answer` {
    private typealias Store = `A prefix cache on disk`

    @Test(arguments: [1, 2])
    func `delays a prompt for a bounded time, and gives its prefixes again when it answers`(
        processes: Int
    ) async throws {
        let directory = Store.directory()
        defer { Store.remove(directory) }
        let alone = try await Store.alone("v32", Store.request())
        try await Store.write(directory)
        try await Store.write(directory, "v32", Store.request(salt: "another"))
        let disk = StuckDisk(at: .read)
        let server = try StoringServer("v32", directory, maxWaitSeconds: 0.2, fault: disk.answer) {
            $0.parallel = ParallelConfiguration(pipeline: processes)
            $0.processes = processes
        }
        let late = try await server.answer(Store.request())
        #expect(late.answer == alone && late.cached == 0 && disk.isStuck)
        #expect(server.lines.all.count == 1 && server.lines.all[0].contains("does not answer"), "\(server.lines.all)")
        // From now on nobody waits.
        let other = try await server.answer(Store.request(salt: "another"))
        #expect(other.answer == alone && other.cached == 0 && server.store.status.readBlocks == 0)
        disk.letGo()
        server.store.waitUntilIdle()
        // What was read too late is written nowhere.
        #expect(server.engine.checkInvariants() == [] && server.engine.status().usedPages == 0)
        #expect(try await server.answer(Store.request()).answer == alone)
        server.stop()
        let again = try StoringServer("v32", directory)
        let found = try await again.answer(Store.request(salt: "another"))
        #expect(found.answer == alone && found.cached == 64)
        again.stop()
    }

    @Test(arguments: [DiskPrefixStore.Stage.write, .rename])
    func `holds no request back while it writes, and a server that starts then has what is whole`(
        stage: DiskPrefixStore.Stage
    ) async throws {
        let (directory, image) = (Store.directory(), Store.directory())
        defer {
            Store.remove(directory)
            Store.remove(image)
        }
        let alone = try await Store.alone("v32", Store.request())
        let disk = StuckDisk(at: stage, after: 2)
        let server = try StoringServer("v32", directory, fault: disk.answer)
        #expect(try await server.answer(Store.request()).answer == alone)
        #expect(await eventually { disk.isStuck })
        for salt in ["one", "two"] { #expect(try await server.answer(Store.request(salt: salt)).answer == alone) }
        #expect(!server.store.finishWriting(within: 0.05))
        // The directory as a server leaves it that is killed now: two blocks, and a part of the third.
        try FileManager.default.copyItem(atPath: directory, toPath: image)
        try FileManager.default.setAttributes([.posixPermissions: 0o700], ofItemAtPath: image)
        let names = try FileManager.default.contentsOfDirectory(atPath: image)
        #expect(names.count { $0.hasSuffix(".keys") } == 2 && names.count { $0.hasSuffix(".part") } == 1, "\(names)")
        let next = try StoringServer("v32", image)
        let found = try await next.answer(Store.request())
        #expect(found.answer == alone && found.cached == 32)
        next.stop()
        #expect(next.store.status.damagedBlocks == 0 && next.store.status.blocks == 5)
        #expect(try !FileManager.default.contentsOfDirectory(atPath: image).contains { $0.hasSuffix(".part") })
        disk.letGo()
        server.stop()
        // Five blocks of each of the three prefixes: the prompts, and the answers behind them.
        #expect(server.store.status.writtenBlocks == 15 && server.store.status.failedWrites == 0)
        #expect(server.lines.all == [])
    }
}
