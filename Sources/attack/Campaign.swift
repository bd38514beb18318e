import Foundation
import Inference
import Synchronization

/// Runs cases of attack kinds until a time is over, and collects what they find.
final class Campaign: Sendable {
    private struct State {
        var counts: [String: Int] = [:]
        var findings: [String: [(seed: UInt64, text: String)]] = [:]
        var recent: [(kind: String, seed: UInt64)] = []
        var isOver = false
    }

    private let seed: UInt64
    private let deadline: ContinuousClock.Instant
    private let state = Mutex(State())
    private static let maxFindings = 10
    private static let recentCount = 24

    init(seed: UInt64, seconds: Double) {
        self.seed = seed
        deadline = .now + .seconds(seconds)
    }

    var isOver: Bool { state.withLock { $0.isOver } || ContinuousClock.now >= deadline }

    /// Ends the campaign early.
    func end() { state.withLock { $0.isOver = true } }

    func count(of kind: String) -> Int { state.withLock { $0.counts[kind] ?? 0 } }
    func findings(of kind: String) -> [(seed: UInt64, text: String)] { state.withLock { $0.findings[kind] ?? [] } }

    /// The kinds and seeds of the last cases, for a server that ended with all of them.
    var recent: [(kind: String, seed: UInt64)] { state.withLock { $0.recent } }

    /// Runs cases of these kinds, in turn, until the campaign is over.
    ///
    /// - Parameters:
    ///   - worker: the number of the thread; each has cases of its own.
    ///   - pause: the longest time between two cases, in milliseconds.
    func run(_ kinds: [any AttackKind], worker: UInt64, pause: Int = 0) {
        var random = SeededGenerator(seed: seed, stream: worker)
        var turn = random.below(kinds.count)
        while !isOver {
            run(kinds[turn % kinds.count], seed: random.next() >> 1)
            turn += 1
            if pause > 0 { usleep(UInt32(random.below(pause) * 1000)) }
        }
    }

    /// Runs a case of each kind of which there was none because the machine was busy.
    func runMissing(of kinds: [any AttackKind]) {
        var random = SeededGenerator(seed: seed)
        for kind in kinds where count(of: kind.name) == 0 { run(kind, seed: random.next() >> 1) }
    }

    /// Runs the case of a seed.
    func run(_ kind: any AttackKind, seed: UInt64) {
        state.withLock { state in
            state.counts[kind.name, default: 0] += 1
            state.recent.append((kind.name, seed))
            if state.recent.count > Self.recentCount { state.recent.removeFirst() }
        }
        var random = SeededGenerator(seed: seed)
        do {
            try kind.run(&random)
        } catch {
            state.withLock { state in
                state.findings[kind.name, default: []].append((seed, "\(error)"))
                // Each would be of the same kind.
                if state.findings[kind.name, default: []].count >= Self.maxFindings { state.isOver = true }
            }
        }
    }
}
