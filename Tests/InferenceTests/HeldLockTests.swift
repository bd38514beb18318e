import Foundation
import Inference
import Models
import Synchronization
import TestSupport
import Testing

/// A thread of a rank's process may trap while it holds the engine's lock, and then never gives it back. Here a thread
/// holds the lock for as long as the test wants, and the engine is told of a trap.
@Suite(.timeLimit(.minutes(15))) struct `An engine whose lock a thread that trapped holds` {
    private final class Hold: Sendable {
        let hasBegun = Atomic(false)
        let release = DispatchSemaphore(value: 0)
        /// The numbers of calls that began and ended meanwhile.
        let begun = Atomic(0)
        let ended = Atomic(0)

        func wait() {
            hasBegun.store(true, ordering: .releasing)
            release.wait()
        }
    }

    private let hold = Hold()
    private let model: HeldModel
    private let engine: Engine

    init() throws {
        var configuration = EngineConfiguration()
        configuration.checksInvariants = true
        model = HeldModel(try Golden("v32").directory.load())
        let hold = hold
        engine = Engine(
            model, configuration,
            audit: { scheduler in
                // The lock is held here.
                if scheduler.status.steps == 2 { hold.wait() }
                return []
            })
    }

    private func waitUntilHeld() async throws {
        model.letGo()
        #expect(await eventually { hold.hasBegun.load(ordering: .acquiring) })
    }

    @Test func `ends every drain, before and after the trap`() async throws {
        defer { hold.release.signal() }
        let generation = try engine.submit(someRequests[4])
        let first = Task { [engine] in await engine.drain() }
        #expect(await eventually { engine.status().isDraining })
        try await waitUntilHeld()
        let second = Task { [engine] in await engine.drain() }
        engine.end(afterTrap: "SIGILL", of: "a thread of this test")
        await first.value
        await second.value
        await engine.drain()
        #expect(await answers([generation])[0].failure?.contains("trapped (SIGILL)") == true)
    }

    @Test func `refuses to flush its cache with the reason, before and after the trap`() async throws {
        defer { hold.release.signal() }
        let generation = try engine.submit(someRequests[4])
        try await waitUntilHeld()
        let first = Task { [engine] in try await engine.flushCache() }
        engine.end(afterTrap: "SIGILL", of: "a thread of this test")
        await #expect(throws: EngineError.self) { try await first.value }
        let error = await #expect(throws: EngineError.self) { try await engine.flushCache() }
        #expect(error == .failed("a thread of this test trapped (SIGILL)"))
        #expect(await answers([generation])[0].failure != nil)
    }

    /// Runs what may wait for the engine's lock in a thread of its own.
    private func blocking<Value: Sendable>(_ work: @escaping @Sendable () -> Value) -> Task<Value, Never> {
        Task { [hold] in
            await withCheckedContinuation { done in
                Thread.detachNewThread {
                    hold.begun.add(1, ordering: .relaxed)
                    let value = work()
                    hold.ended.add(1, ordering: .relaxed)
                    done.resume(returning: value)
                }
            }
        }
    }

    @Test func `refuses requests, and holds up neither those nor aborts, before and after the trap`() async throws {
        defer { hold.release.signal() }
        let generation = try engine.submit(someRequests[4])
        try await waitUntilHeld()
        let refused = blocking { [engine] in Result { try engine.submit(someRequests[0]) } }
        let aborted = blocking { [engine] in engine.abort(generation.id) }
        let counted = blocking { [engine] in engine.cachedTokens(of: generation.id) }
        #expect(await eventually { hold.begun.load(ordering: .relaxed) == 3 })
        // From their beginning to the lock they take less.
        try await Task.sleep(for: .milliseconds(200))
        #expect(hold.ended.load(ordering: .relaxed) == 0)
        engine.end(afterTrap: "SIGILL", of: "a thread of this test")
        try #require(await eventually { hold.ended.load(ordering: .relaxed) == 3 })
        await #expect(throws: EngineError.self) { try await refused.value.get() }
        await aborted.value
        #expect(await counted.value == nil)
        #expect(throws: EngineError.failed("a thread of this test trapped (SIGILL)")) {
            try engine.submit(someRequests[0])
        }
        engine.abort(generation.id)
        engine.stop("the test is over")
        #expect(await answers([generation])[0].failure?.contains("trapped (SIGILL)") == true)
    }

    @Test func `lets a drain be given up, and others wait on`() async throws {
        let generation = try engine.submit(someRequests[0])
        let first = Task { [engine] in await engine.drain() }
        let second = Task { [engine] in await engine.drain() }
        #expect(await eventually { engine.status().isDraining })
        first.cancel()
        await first.value
        hold.release.signal()
        model.letGo()
        await second.value
        #expect(await answers([generation])[0].failure == nil)
        engine.stop()
    }
}
