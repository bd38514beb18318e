import Foundation
import Inference
import Models
import TestSupport
import Testing

/// Each test runs in a process of its own, which the trap ends.
@Suite(.timeLimit(.minutes(15))) struct `A rank that traps` {
    /// Each case is a process, so not every phase is tested at every place.
    private static let cases: [(Int, FailingModel.Phase)] = [
        (0, .logits), (1, .layers), (2, .decode), (3, .prefill), (4, .building), (4, .logits),
    ]

    /// Processes wait for most of the grace period of a trap, so all run at once.
    @Test func `is named to every client before the process ends`() async {
        await withTaskGroup(of: Void.self) { group in
            for (place, phase) in Self.cases { group.addTask { await Self.expectNamed(place, phase) } }
        }
    }

    private static func expectNamed(_ place: Int, _ phase: FailingModel.Phase) async {
        await #expect(processExitsWith: .exitCode(70), "rank of place \(place), \(phase)") { [place, phase] in
            try await Self.endByTrap(place, phase, .trap)
        }
    }

    @Test func `may as well have followed a wild pointer`() async {
        await #expect(processExitsWith: .exitCode(70)) {
            try await Self.endByTrap(1, .layers, .wildPointer)
        }
    }

    @Test func `may have been trapped by a thread that helps it`() async {
        await #expect(processExitsWith: .exitCode(70)) {
            try await Self.endByTrap(1, .layers, .trapOfHelper)
        }
    }

    @Test func `may be the engine's thread, which holds its lock`() async {
        await #expect(processExitsWith: .exitCode(70)) { try await Self.endByTrapBeside(isEngine: true) }
    }

    @Test func `may be any thread, where the engine answers for all`() async {
        await #expect(processExitsWith: .exitCode(70)) { try await Self.endByTrapBeside(isEngine: false) }
    }

    /// Ends the process with another status if a client does not get its error in time.
    @inline(never)
    private static func endByTrapBeside(isEngine: Bool) async throws {
        var configuration = EngineConfiguration()
        configuration.pageSize = 4
        configuration.checksInvariants = true
        let stepped = DispatchSemaphore(value: 0)
        let engine = Engine(
            try Golden("v32").directory.load(), configuration,
            audit: { scheduler in
                guard scheduler.status.steps == 2 else { return [] }
                // The trap happens under the engine's lock.
                precondition(!isEngine, "made to fail")
                stepped.signal()
                // The other thread traps meanwhile.
                Thread.sleep(forTimeInterval: 60)
                return []
            })
        if !isEngine {
            engine.answerForAllThreads()
            Thread.detachNewThread {
                stepped.wait()
                preconditionFailure("made to fail")
            }
        }
        let start = ContinuousClock.now
        var requests = someRequests
        for index in requests.indices { requests[index].sampling.maxNewTokens = 50 }
        for outcome in await outcomes(engine, requests) {
            guard outcome.failure?.contains("trapped (SIG") ?? false else { exit(1) }
        }
        // Clients have their errors before the status says so, because the thread that trapped may hold its lock.
        while !(engine.status().failure?.contains("trapped") ?? false) {
            guard ContinuousClock.now - start < hangBound else { exit(2) }
            try await Task.sleep(for: .milliseconds(1))
        }
        do {
            _ = try engine.submit(someRequests[0])
            exit(4)
        } catch {}
        for await failure in engine.failures {
            guard failure.isTrap else { exit(5) }
            break
        }
        // From here on, only the thread that trapped can end the process.
        try await Task.sleep(for: .seconds(60))
        exit(3)
    }

    @Test func `is the only one whose trap is treated so`() async {
        await #expect(processExitsWith: .failure) {
            let engine = try faultyEngine(Place.all[0].parallel)
            await engine.drain()
            preconditionFailure("not on a rank's thread")
        }
    }

    /// Ends the process with another status if a client does not get its error.
    @inline(never)
    private static func endByTrap(_ place: Int, _ phase: FailingModel.Phase, _ kind: FailingModel.Kind) async throws {
        let place = Place.all[place]
        let threads = kind == .trapOfHelper ? 2 : 1
        let engine = try faultyEngine(place.parallel, threads: threads) {
            FailingModel($0, rank: place.rank, phase, kind)
        }
        let start = ContinuousClock.now
        for outcome in await outcomes(engine) {
            guard let reason = outcome.failure, reason.contains("rank \(place.rank) failed: its thread trapped (SIG")
            else { exit(1) }
        }
        guard ContinuousClock.now - start < hangBound, engine.status().freePages == engine.status().totalPages
        else { exit(2) }
        await engine.drain()
        engine.stop()
        // From here on, only the thread that trapped can end the process.
        try await Task.sleep(for: .seconds(60))
        exit(3)
    }
}
