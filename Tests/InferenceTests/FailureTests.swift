import Inference
import Parallelism
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(15))) struct `A rank that fails` {
    /// Returns the points at which a kind of failure that a thread survives can happen.
    private static func phases(_ place: Place, _ kind: FailingModel.Kind) -> [FailingModel.Phase] {
        if kind == .failure { return [.prefill, .layers, .decode] }
        // Only the last pipeline stage computes logits.
        return FailingModel.Phase.allCases.filter { $0 != .logits || place.isInLastStage }
    }

    /// A hang is noticed after seconds in which nothing is computed, so all of a place happen at once.
    @Test(arguments: Place.all, [FailingModel.Kind.failure, .hang])
    func `fails every request in its name, and nothing hangs`(
        _ place: Place, _ kind: FailingModel.Kind
    ) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for phase in Self.phases(place, kind) {
                group.addTask { try await Self.expectNamed(place, phase, kind) }
            }
            try await group.waitForAll()
        }
    }

    private static func expectNamed(
        _ place: Place, _ phase: FailingModel.Phase, _ kind: FailingModel.Kind
    ) async throws {
        let engine = try faultyEngine(place.parallel, watchdog: kind == .hang ? 3 : 300) {
            FailingModel($0, rank: place.rank, phase, kind)
        }
        let start = ContinuousClock.now
        for outcome in await outcomes(engine) {
            let reason = try #require(outcome.failure, "ended with \(outcome)")
            #expect(reason.contains("rank \(place.rank) failed: "), "\(phase)")
            #expect(reason.contains(kind == .failure ? FailingModel.reason : "no progress for 3 s"), "\(phase)")
        }
        #expect(ContinuousClock.now - start < hangBound)
        let status = engine.status()
        #expect(try #require(status.failure).contains("rank \(place.rank)"))
        #expect(status.freePages == status.totalPages && status.running == 0 && status.queued == 0)
        #expect(engine.checkInvariants() == [])
        #expect(throws: EngineError.self) { try engine.submit(someRequests[0]) }
        let refusal = await #expect(throws: EngineError.self) { try await engine.flushCache() }
        #expect(refusal.map { "\($0)" }?.contains("rank \(place.rank)") == true)
        await engine.drain()
        engine.stop()
        var failures: [EngineFailure] = []
        for await failure in engine.failures { failures.append(failure) }
        #expect(failures.map(\.reason) == [status.failure])
        #expect(failures.allSatisfy { !$0.isTrap })
    }

    @Test func `is noticed under a constant stream of requests`() async throws {
        let engine = try faultyEngine(ParallelConfiguration(context: 2, expert: 2), watchdog: 3) {
            FailingModel($0, rank: 1, .decode, .hang)
        }
        let traffic = Task {
            while !Task.isCancelled {
                // Each request is aborted at once, which wakes the engine's thread twice.
                _ = try? engine.submit(someRequests[1])
                try? await Task.sleep(for: .milliseconds(20))
            }
        }
        let start = ContinuousClock.now
        #expect(await outcomes(engine).contains { $0.failure?.contains("no progress for 3 s") ?? false })
        #expect(ContinuousClock.now - start < hangBound)
        traffic.cancel()
        await traffic.value
        engine.stop()
    }

    @Test(arguments: [FailingModel.Kind.failure, .hang])
    func `is replaced where that is asked for, and the bits are the same`(kind: FailingModel.Kind) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for place in Place.all { group.addTask { try await Self.expectReplaced(place, kind) } }
            try await group.waitForAll()
        }
    }

    private static func expectReplaced(_ place: Place, _ kind: FailingModel.Kind) async throws {
        let sound = try faultyEngine(ParallelConfiguration())
        let expected = await outcomes(sound)
        sound.stop()
        let engine = try faultyEngine(
            place.parallel, watchdog: kind == .hang ? 5 : 300, { FailingModel($0, rank: place.rank, .decode, kind) },
            restarts: true)
        // A short request may have ended before the failure.
        let first = await outcomes(engine).compactMap(\.failure)
        #expect(!first.isEmpty && first.allSatisfy { $0.contains("rank \(place.rank) failed: ") }, "\(place)")
        #expect(await outcomes(engine) == expected, "\(place)")
        #expect(engine.status().restarts == 1)
        #expect(engine.status().failure == nil)
        #expect(engine.checkInvariants() == [])
        await engine.drain()
        engine.stop()
    }

    @Test func `is not replaced endlessly`() async throws {
        let engine = try faultyEngine(
            ParallelConfiguration(context: 2, expert: 2), { FailingModel($0, rank: 1, .layers, .failure, times: 100) },
            restarts: true)
        defer { engine.stop() }
        for restarts in 1...4 {
            #expect(await outcomes(engine, [someRequests[0]])[0].failure != nil)
            #expect(engine.status().restarts == min(UInt64(restarts), 3))
        }
        #expect(engine.status().failure != nil)
    }
}
