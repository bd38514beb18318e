import DeepSeekV32
import Inference
import Modeling
import Models
import Parallelism
import TestSupport
import Testing
import Verification

/// These tests compare golden checkpoints on many ranks with one rank, as `braid verify` does.
@Suite(.timeLimit(.minutes(15))) struct `Every layout gives one rank's bits` {
    /// The matrix has all strategies and both exchanges with every kind of degree. Goldens have two or three layers.
    private static func fixedLayouts(_ shape: ModelShape) throws -> [ParallelConfiguration] {
        var notations = [
            "one", "dp2", "dp3", "tp2 dense2", "cp5 contiguous", "pp2", "pp2 tp2 dense2",
            shape.layers == 3 ? "pp3 cp2 zigzag" : "pp2 dp2 cp2 zigzag", shape.layers == 3 ? "pp2:1,2" : "pp2:1,1",
        ]
        for exchange in ["gathered", "alltoall"] {
            notations += ["dp2 ep2", "dp4 ep2 etp2", "tp2 ep2 dense2", "tp4 etp4", "pp2 tp2 ep2", "dp2 tp2 ep4 dense2"]
                .map { "\($0) \(exchange)" }
            for strategy in ["interleave", "zigzag", "contiguous"] {
                notations += [
                    "cp2 ep2", "cp4 ep2 etp2", "cp8 ep8", "cp2 tp2 ep4 dense2", "dp2 cp2 etp4", "pp2 cp2 ep2",
                ]
                .map { "\($0) \(strategy) \(exchange)" }
            }
        }
        return try notations.map { try ParallelConfiguration(notation: $0, for: shape) }
    }

    /// - Parameter plan: Returns the plan for a shape, a length of the longest prompts, and the tokens of the longest entries.
    private static func check(_ plan: (ModelShape, Int, Int) throws -> VerificationPlan, _ name: String, seed: UInt64)
        throws
    {
        let golden = try Golden(name)
        let model = try golden.directory.load(drafts: Golden.draftingCases.contains(name))
        let measure = Workload.Measure(
            selecting: golden.directory.description.selection?.firstPosition,
            entry: golden.directory.description.longestEntry,
            contextLength: model.contextLength, vocabularySize: model.vocabularySize)
        var settings = Verification.Settings()
        settings.seed = seed
        let verification = Verification(model, measure, settings)
        // Rounding may decide between two nearly equal experts, which no comparison excuses. So the layouts that are equal
        // but for rounding compute the same prompts each time.
        let rounding = Verification(model, measure)
        for candidate in try plan(model.parallelShape, measure.longestPrompt, model.positionAlignment).cases {
            let verdict = try (verification.mustBeEqual(candidate) ? verification : rounding).check(candidate)
            if case .close = verdict, !verification.mustBeEqual(candidate) { continue }
            #expect(verdict == .equal, "\(name), seed \(seed): \(candidate.notation)")
        }
    }

    @Test(arguments: Golden.cases) func `in a fixed matrix`(name: String) throws {
        try Self.check(
            {
                VerificationPlan(
                    try Self.fixedLayouts($0), ServingConditions.all(longestPrompt: $1, alignment: $2), limit: 150,
                    seed: 1)
            }, name, seed: 1)
    }

    @Test(arguments: Golden.cases) func `in a sample that differs each time`(name: String) throws {
        let seed = UInt64.random(in: 0..<1 << 32)
        print("again: braid verify --model-path Tests/Golden/\(name)/checkpoint --layouts 100 --seed \(seed)")
        let profiles = try Golden(name).profiles
        try Self.check(
            {
                VerificationPlan(
                    LayoutMatrix($0, maxRanks: 8, minKeys: [1, $1 / 2]).layouts,
                    ServingConditions.all(longestPrompt: $1, alignment: $2, profiles: profiles), limit: 100,
                    seed: seed
                ).comparingRoundedLayoutsInF32($0)
            }, name, seed: seed)
    }

    @Test(arguments: Golden.draftingCases) func `while tokens are drafted`(name: String) throws {
        let seed = UInt64.random(in: 0..<1 << 32)
        print("again: braid verify --model-path Tests/Golden/\(name)/checkpoint --layouts 100 --seed \(seed)")
        try Self.check(
            {
                VerificationPlan(
                    LayoutMatrix($0, maxRanks: 8, minKeys: [1, $1 / 2]).layouts,
                    ServingConditions.all(longestPrompt: $1, canDraft: true, alignment: $2).filter { $0.drafts > 0 },
                    limit: 100,
                    seed: seed)
            }, name, seed: seed)
    }

    @Test(arguments: [("v32", 16), ("v32", 32), ("v4", 16)], PartitionStrategy.allCases)
    func `on many context ranks`(model: (name: String, degree: Int), strategy: PartitionStrategy) throws {
        let degree = model.degree
        for (number, exchange) in ExpertExchangeKind.allCases.enumerated() {
            var request = ParallelRequest()
            request.attnCPSize = degree
            request.strategy = strategy
            request.exchange = exchange
            try Self.check(
                { shape, longestPrompt, alignment in
                    let layout = try request.resolve(for: shape)
                    #expect(layout.context == degree && layout.isBitwiseEqual(for: shape))
                    return VerificationPlan(
                        [layout], ServingConditions.all(longestPrompt: longestPrompt, alignment: alignment),
                        limit: 6, seed: UInt64(number))
                }, model.name, seed: 1)
        }
    }
}
