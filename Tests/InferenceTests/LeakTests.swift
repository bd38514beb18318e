import CAllocations
import Foundation
import Inference
import Modeling
import Parallelism
import Synchronization
import Tensors
import TestSupport
import Testing

/// What a process holds: none of it may grow with the number of requests it has served or of ranks it has replaced.
private struct Holdings {
    let allocated = Int(braid_allocated_bytes())
    let mapped = Holdings.status("VmSize:") << 10
    let threads = Holdings.status("Threads:")
    let descriptors = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? 0

    /// Returns a number of `/proc/self/status`.
    private static func status(_ name: String) -> Int {
        let lines = ((try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? "").split(separator: "\n")
        let words = lines.first { $0.hasPrefix(name) }?.split { $0 == " " || $0 == "\t" } ?? []
        return words.count > 1 ? Int(words[1]) ?? 0 : 0
    }

    /// Expects that nothing has grown since `before` by what a thousand events would leave: less than a KiB of allocated
    /// memory and a MiB of mapped memory for each, and a thread for every hundred. Threads that have stopped may take a
    /// moment to end and to give back what they mapped, and the C library keeps the stacks and heaps of some.
    static func expectNoMore(than before: Holdings) async {
        var now = Holdings()
        _ = await eventually {
            now = Holdings()
            return now.threads - before.threads < 10 && now.mapped - before.mapped < 1000 << 20
        }
        #expect(now.allocated - before.allocated < 1 << 19, "bytes allocated")
        #expect(now.mapped - before.mapped < 1000 << 20, "bytes mapped")
        #expect(now.threads - before.threads < 10, "threads")
        #expect(now.descriptors <= before.descriptors, "descriptors")
    }
}

/// A model that fails in every second step of a rank, so that each set of ranks completes a step before it fails.
private final class EverySecondStepFails: ModelWrapper {
    let model: any Model
    private let steps = Mutex(0)

    init(_ model: any Model) { self.model = model }

    func forward(_ step: Step, _ seat: Seat, into hidden: View) throws(GroupFailure) {
        if seat.rank == 1 {
            let number = steps.withLock { steps in
                steps += 1
                return steps
            }
            if number % 2 == 0 { throw GroupFailure(rank: 1, reason: FailingModel.reason) }
        }
        try model.forward(step, seat, into: hidden)
    }
}

@Suite(.timeLimit(.minutes(15))) struct `What a process holds` {
    private static let layout = ParallelConfiguration(context: 2, expert: 2)
    /// By the end of these everything that is kept for later has been allocated.
    private static let first = 200

    @Test func `does not grow with a thousand restarts of its ranks`() async throws {
        let engine = try faultyEngine(Self.layout, EverySecondStepFails.init, restarts: true)
        var before: Holdings?
        for number in 0..<Self.first + 1000 {
            if number == Self.first { before = await holdingsOfRunningRanks(engine) }
            #expect(await outcomes(engine, [someRequests[0]])[0].failure?.contains(FailingModel.reason) ?? false)
        }
        _ = await holdingsOfRunningRanks(engine)
        await Holdings.expectNoMore(than: try #require(before))
        #expect(engine.status().restarts == UInt64(Self.first) + 1000)
        #expect(engine.checkInvariants() == [])
        engine.stop()
    }

    /// Returns what the process holds once new ranks have replaced failed ones. A request that failed is answered before
    /// that, so only one that needs no more than the first step of its ranks shows that they run.
    private func holdingsOfRunningRanks(_ engine: Engine) async -> Holdings {
        var request = someRequests[0]
        request.sampling.maxNewTokens = 1
        #expect(await outcomes(engine, [request])[0].finish != nil)
        return Holdings()
    }

    @Test func `does not grow with ten thousand requests`() async throws {
        let engine = try faultyEngine(Self.layout)
        var before: Holdings?
        for round in 0..<Self.first + 2000 {
            if round == Self.first { before = Holdings() }
            let all = await outcomes(engine)
            #expect(all.allSatisfy { $0.finish != nil })
        }
        await Holdings.expectNoMore(than: try #require(before))
        #expect(engine.checkInvariants() == [])
        engine.stop()
    }
}
