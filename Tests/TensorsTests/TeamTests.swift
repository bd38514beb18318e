import Foundation
import Synchronization
import Tensors
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(15))) struct `A team of threads` {
    @Test(arguments: SharedOperation.allCases)
    func `gives the bits of one thread`(operation: SharedOperation) {
        // Operands of experts are large.
        let seeds = UInt64(1)...(operation == .experts ? 15 : 40)
        let expected = seeds.map { operation.run(.best, seed: $0) }
        for threads in [1, 2, 3, 5] {
            let team = HelpedTeam(threads: threads)
            for (seed, expected) in zip(seeds, expected) {
                #expect(operation.run(team.kernels, seed: seed) == expected, "seed \(seed), \(threads) threads")
            }
            #expect((team.operations > 0) == (threads > 1), "or nothing was tested")
        }
    }

    @Test func `ends its helpers, however soon after an operation it is dismissed`() {
        for turn in 0..<4000 {
            // Its end waits for the helpers, and ends the program if they do not end.
            let team = HelpedTeam(threads: 3, spins: turn % 2 == 0)
            if turn % 4 > 0 { _ = SharedOperation.add.run(team.kernels, seed: UInt64(turn)) }
        }
    }

    @Test(arguments: Kernels.available.map(\.level))
    func `gives them on every level`(level: Kernels.Level) throws {
        let kernels = try #require(Kernels(level))
        let team = HelpedTeam(threads: 3, kernels)
        for operation in SharedOperation.allCases {
            #expect(operation.run(team.kernels, seed: 99) == operation.run(kernels, seed: 99), "\(operation)")
        }
    }

    /// Work that counts how often each unit was done, and by how many threads.
    private struct CountedUnits: ParallelWork {
        let counts: Indices
        let threads: Threads

        func compute(_ units: Range<Int>, _: Kernels, _: Scratch) {
            for unit in units { counts[unit] += 1 }
            threads.enter()
        }

        /// The threads that have done something so far.
        final class Threads: Sendable {
            private let all = Mutex<Set<UInt>>([])
            func enter() {
                let own = unsafe UInt(bitPattern: Unmanaged.passUnretained(Thread.current).toOpaque())
                all.withLock { _ = $0.insert(own) }
            }
            var count: Int { all.withLock { $0.count } }
        }
    }

    @Test(arguments: [false, true])
    func `does every unit once, however it is split, and every thread takes part`(spins: Bool) {
        var dice = Dice(seed: 5)
        let (scratch, threads) = (Scratch(bytes: 1 << 24), CountedUnits.Threads())
        let team = HelpedTeam(threads: 3, spins: spins)
        var round = 0
        // On a busy processor a helper may get its first time slice late.
        let deadline = ContinuousClock.now + .seconds(120)
        while round < 2000 || threads.count < 3 && ContinuousClock.now < deadline {
            let mark = scratch.mark()
            defer {
                scratch.reset(to: mark)
                round += 1
            }
            let units = dice.int(1...300)
            let counts = scratch.indices(units)
            counts.fill(0)
            let cut = WorkSplit(units: units, step: dice.int(1...70), least: dice.int(1...200))
            if !team.kernels.share(CountedUnits(counts: counts, threads: threads), cut, cost: units) { continue }
            #expect(counts.elements.allSatisfy { $0 == 1 }, "round \(round)")
        }
        #expect(threads.count == 3)
    }

    @Test func `is refused where the memory of its threads cannot be reserved`() {
        let bytes = 1 << 60
        let error = #expect(throws: MemoryError.self) {
            try Team(.best, threads: 2, spins: false, scratchBytes: bytes)
        }
        #expect(error?.bytes == bytes)
        #expect(throws: MemoryError.self) { try Scratch.forBenchmark(sparing: bytes) }
        #expect(throws: Never.self) { try Scratch.forBenchmark() }
    }

    @Test func `leaves alone what is too little to share`() throws {
        let team = try Team(.best, threads: 2, spins: false)
        let scratch = Scratch(bytes: 1 << 24)
        let (x, weight) = (scratch.rows(4, 64), scratch.rows(1, 64))
        x.fill(1)
        weight.fill(1)
        Kernels.best.shared(by: team).rmsNorm(x, weight, epsilon: 1e-6, into: x)
        #expect(team.operations == 0, "nobody helps this team: it would wait for ever otherwise")
    }
}
