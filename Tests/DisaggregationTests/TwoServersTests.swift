import Disaggregation
import Inference
import TestSupport
import Testing

/// Thousands of random worlds of a prefill and a decode server; see `TwoServers`.
@Suite struct `A prefill and a decode server` {
    private static let seeds = 3000
    /// Worlds that have failed: one with eight connections and frames of one entry, and one whose damage hits twice.
    private static let earlierSeeds: [UInt64] = [254_481_661_205, 300_003_000_452]

    @Test(.timeLimit(.minutes(15)))
    func `answer as one server does, or with an error before the first token, and end with whole page accounting`()
        throws
    {
        var seen: Set<String> = []
        let first = UInt64.random(in: 0..<1 << 40)
        let half = UInt64(Self.seeds / 2)
        for seed in Self.earlierSeeds + Array(1...half) + Array(first..<first + half) {
            var world = TwoServers(seed: seed)
            for _ in 0..<400 { world.act() }
            world.settle()
            try #require(world.verdict() == [], "seed \(seed)")
            seen.formUnion(world.seen)
        }
        let unusual: Set = [
            "answer", "frame", "early frame", "damage", "cut", "restart", "new session", "late frame", "lost prefill",
            "failed prefill", "failure", "refusal",
        ]
        #expect(seen == unusual)
    }
}
