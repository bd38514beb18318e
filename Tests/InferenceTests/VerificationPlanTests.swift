import Inference
import KVCache
import Parallelism
import Tensors
import Testing
import Verification

@Suite struct `A verification plan` {
    private static let shape = ModelShape(
        layers: 4, heads: 4, valueWidth: 64, experts: 16, expertWidth: 64, denseWidth: 384, sharedWidth: 64)
    private static let layouts = LayoutMatrix(shape, maxRanks: 8).layouts
    private static let conditions = ServingConditions.all(longestPrompt: 88)

    private static func plan(_ limit: Int, seed: UInt64 = 1) -> VerificationPlan {
        VerificationPlan(layouts, conditions, limit: limit, seed: seed)
    }

    @Test func `has all cases when there are few enough`() {
        let (layouts, conditions) = (Array(Self.layouts.prefix(5)), Array(Self.conditions.prefix(12)))
        let plan = VerificationPlan(layouts, conditions, limit: 60, seed: 1)
        #expect(plan.total == 60 && plan.cases.count == 60 && Set(plan.cases).count == 60)
        #expect(Set(plan.cases.map(\.layout)) == Set(layouts))
        #expect(Set(plan.cases.map(\.conditions)) == Set(conditions))
    }

    @Test(arguments: [59, 500, 1300, 20_000])
    func `samples different cases, of all layouts and all conditions before any twice`(limit: Int) {
        let plan = Self.plan(limit)
        #expect(plan.total == Self.layouts.count * Self.conditions.count)
        #expect(plan.cases.count == limit && Set(plan.cases).count == limit)
        let repeated = Dictionary(grouping: plan.cases, by: \.layout).filter { $0.value.count > 1 }.keys
        if limit < Self.layouts.count {
            for layout in repeated {
                #expect(Self.alternatives(to: layout) < 8, "\(layout.notation) is no layout that is needed twice")
            }
        } else {
            #expect(Set(plan.cases.map(\.layout)).count == Self.layouts.count)
        }
        #expect(Set(plan.cases.map(\.conditions)).count == min(limit, Self.conditions.count))
        #expect(zip(plan.cases, plan.cases.dropFirst()).allSatisfy { $0.layout.world <= $1.layout.world })
    }

    /// Returns the number of parallel configurations that have the rarest value of this one, or the rarest two
    /// together.
    private static func alternatives(to layout: ParallelConfiguration) -> Int {
        func values(_ layout: ParallelConfiguration) -> [String] {
            VerificationCase(layout).values.map { "\($0.axis) \($0.value)" }
        }
        let (own, all) = (values(layout), layouts.map(values))
        return own.indices.flatMap { one in
            own.indices.map { other in all.count { $0[one] == own[one] && $0[other] == own[other] } }
        }.min()!
    }

    @Test func `has every mesh and every condition in a sample`() {
        let plan = Self.plan(2000)
        #expect(Set(plan.cases.map(\.layout.mesh)) == Set(Self.layouts.map(\.mesh)))
        #expect(Set(plan.cases.map(\.conditions)) == Set(Self.conditions))
        #expect(Self.conditions.count == 3 * 4 * 3 * 3 * 4 * 2 * 2)
    }

    @Test func `says how many cases have each value, whatever there is to vary`() {
        let plan = Self.plan(500)
        for coverage in plan.coverage { #expect(coverage.values.reduce(0) { $0 + $1.cases } == 500, "\(coverage)") }
        func cases(_ axis: String) -> [String: Int] {
            let values = plan.coverage.first { $0.axis == axis }?.values ?? []
            return Dictionary(uniqueKeysWithValues: values.map { ($0.value, $0.cases) })
        }
        #expect(Set(cases("chunk").keys) == ["-1", "29", "9"])
        #expect(cases("prefix").count == 3 && cases("prefix").values.allSatisfy { $0 > 100 })
        #expect(cases("cache")["fp8_e4m3"] == plan.cases.count { $0.conditions.cacheType == .fp8 })
        #expect(cases("dcp")["1"] == cases("dcp unit")["-"])
        #expect(cases("ranks")["8"] == plan.cases.count { $0.layout.world == 8 })
    }

    /// Counts pairs of values in the cases themselves.
    private static func pairs(_ cases: some Sequence<VerificationCase>) -> Set<[String]> {
        var pairs: Set<[String]> = []
        for candidate in cases {
            let values = candidate.values.map { "\($0.axis) \($0.value)" }
            for (index, one) in values.enumerated() {
                for other in values[(index + 1)...] { pairs.insert([one, other]) }
            }
        }
        return pairs
    }

    @Test(arguments: [1, 2, 3, 4]) func `has every two values of two dimensions together in a run`(seed: UInt64) {
        let plan = Self.plan(500, seed: seed)
        // The plan has every configuration under some conditions and all conditions for one configuration. Within each
        // of the two lists all pairs occur, and any value of one can meet any value of the other.
        let layouts = Self.pairs(Self.layouts.map { VerificationCase($0) })
        let conditions = Self.pairs(Self.conditions.map { VerificationCase(ParallelConfiguration(), $0) })
        let axes = Set(ServingConditions.axes.map(\.name))
        func isOfConditions(_ value: String) -> Bool { axes.contains(String(value.prefix { $0 != " " })) }
        var all = layouts.filter { !$0.contains(where: isOfConditions) }
        let (ofLayouts, ofConditions) = (
            Set(layouts.joined()).filter { !isOfConditions($0) }, Set(conditions.joined()).filter(isOfConditions)
        )
        all.formUnion(conditions.filter { $0.allSatisfy(isOfConditions) })
        for one in ofLayouts { for other in ofConditions { all.insert([one, other]) } }
        #expect(Self.pairs(plan.cases) == all)
        #expect(plan.pairs == (all.count, all.count))
        let few = Self.plan(50, seed: seed)
        #expect(few.pairs == (Self.pairs(few.cases).count, all.count) && few.pairs.covered < all.count)
        let whole = VerificationPlan(
            Array(Self.layouts.prefix(3)), Array(Self.conditions.prefix(9)), limit: 27, seed: seed)
        #expect(whole.pairs == (Self.pairs(whole.cases).count, Self.pairs(whole.cases).count))
    }

    @Test(arguments: [1, 12, 100]) func `has every two conditions of a single layout`(limit: Int) {
        let plan = VerificationPlan([Self.layouts.last!], Self.conditions, limit: limit, seed: 1)
        #expect(plan.pairs.covered == Self.pairs(plan.cases).count)
        #expect(Set(plan.cases).count == limit && (plan.pairs.covered == plan.pairs.total) == (limit == 100))
    }

    /// The matrix that `braid verify` has without options for a checkpoint with a next-token block.
    @Test(arguments: [1, 2]) func `has every two values of the whole matrix in 500 cases`(seed: UInt64) {
        let layouts = LayoutMatrix(Self.shape, maxRanks: 8, minKeys: [1, 44]).layouts
        let conditions = ServingConditions.all(longestPrompt: 88, canDraft: true, profiles: [.bf16, .f32])
        let plan = VerificationPlan(layouts, conditions, limit: 500, seed: seed)
        #expect(plan.pairs.covered == plan.pairs.total && plan.pairs.total > 2500)
    }

    @Test func `has the first numerics profile in most cases, and the other in a share of them`() {
        let conditions = ServingConditions.all(longestPrompt: 88, profiles: [.bf16, .f32])
        #expect(Set(conditions).count == conditions.count && conditions.count > Self.conditions.count)
        let cases = VerificationPlan(Self.layouts, conditions, limit: 500, seed: 1).cases
        let others = cases.count { $0.conditions.profile == .f32 }
        #expect((50...200).contains(others), "\(others)")
        #expect(Self.plan(500).cases.allSatisfy { $0.conditions.profile == .f32 })
    }

    @Test func `chooses by its seed alone`() {
        #expect(Self.plan(300).cases == Self.plan(300).cases)
        #expect(Self.plan(300).cases != Self.plan(300, seed: 2).cases)
    }

    @Test func `has a name for each case, from which it can be made again`() throws {
        for candidate in Self.plan(500).cases {
            #expect(try VerificationCase(notation: candidate.notation, for: Self.shape) == candidate)
        }
        #expect(try VerificationCase(notation: "one", for: Self.shape) == VerificationCase(ParallelConfiguration()))
        for type in CacheType.plain + CacheType.withFP4Index {
            let named = try VerificationCase(notation: "cp2 \(type.rawValue) warm", for: Self.shape)
            #expect(named.conditions.cacheType == type)
            #expect(try VerificationCase(notation: named.notation, for: Self.shape) == named)
        }
        let wrong = [
            "cp2 fp4-index", "cp2 int8+fp4-index", "cp2 chunk0", "cp2 chunk-2", "cp2 chunk", "cp2 tiny", "page3",
            "page", "cp2 lukewarm", "float64",
            "threads0",
        ]
        for wrong in wrong {
            #expect(throws: NotationError.self) { try VerificationCase(notation: wrong, for: Self.shape) }
        }
    }

    @Test func `has mixes that are functions of their seed, within the context`() {
        for context in [3, 16, 4096] {
            let measure = Workload.Measure(selecting: 64, contextLength: context, vocabularySize: 100)
            for kind in Workload.Kind.allCases {
                let mix = Workload(kind, measure, seed: 7)
                #expect(mix.requests == Workload(kind, measure, seed: 7).requests)
                #expect(mix.requests != Workload(kind, measure, seed: 8).requests)
                let limits = EngineLimits(
                    contextLength: context, vocabularySize: 100, maxRunningRequests: 3, maxQueuedRequests: 9)
                for request in mix.requests + mix.warmupRequests {
                    #expect(throws: Never.self) { try limits.check(request) }
                }
            }
        }
    }

    @Test func `has warm-up requests that begin like the mix, and prompts that need not be computed`() {
        let measure = Workload.Measure(selecting: 64, contextLength: 4096, vocabularySize: 4096)
        for kind in Workload.Kind.allCases {
            let mix = Workload(kind, measure, seed: 7, reuse: true)
            for (request, warmupRequest) in zip(mix.requests, mix.warmupRequests) {
                let common = zip(request.prompt, warmupRequest.prompt).prefix { $0 == $1 }.count
                #expect(common < request.prompt.count && common >= request.prompt.count * 3 / 4 - 1)
                #expect(request.logProbs!.promptStart ?? .max >= request.prompt.count * 2 / 3)
            }
        }
    }

    @Test func `has chunk sizes of any prompt`() {
        func chunks(_ longestPrompt: Int) -> Set<Int> {
            Set(ServingConditions.all(longestPrompt: longestPrompt).map(\.chunk))
        }
        #expect(chunks(88) == [-1, 29, 9])
        #expect(chunks(1) == [-1, 1])
    }

    @Test func `compares layouts that are equal only to rounding in float32`() {
        let conditions = ServingConditions.all(longestPrompt: 88, profiles: [.bf16, .f32])
        let plan = VerificationPlan(Self.layouts, conditions, limit: 500, seed: 1)
        let compared = plan.comparingRoundedLayoutsInF32(Self.shape)
        for (before, after) in zip(plan.cases, compared.cases) {
            var expected = before
            if !before.layout.isBitwiseEqual(for: Self.shape) { expected.conditions.profile = .f32 }
            #expect(after == expected)
        }
        #expect(plan.cases != compared.cases && compared.cases.contains { $0.conditions.profile == .bf16 })
    }

    @Test(arguments: [1, 2]) func `has prefill servers whose values meet those of the other server`(seed: UInt64)
        throws
    {
        let conditions = ServingConditions.all(longestPrompt: 88, canDraft: true)
        let plan = VerificationPlan(Self.layouts, conditions, limit: 500, seed: seed)
        let all = plan.withPrefillServers(.all, Self.layouts, seed: seed)
        #expect(all.cases.allSatisfy { $0.prefill != nil })
        #expect(all.cases.allSatisfy { $0.conditions.drafts == 0 || $0.prefill!.drafts > 0 })
        // Counts pairs in the cases themselves.
        var pairs: Set<[String]> = []
        for candidate in all.cases {
            for (axis, value) in candidate.prefillValues {
                for other in candidate.values { pairs.insert(["\(axis) \(value)", "\(other.axis) \(other.value)"]) }
            }
        }
        #expect(all.prefillPairs.covered == pairs.count)
        #expect(pairs.count > all.prefillPairs.total * 9 / 10 && pairs.count <= all.prefillPairs.total)
        for candidate in all.cases {
            #expect(try VerificationCase(notation: candidate.notation, for: Self.shape) == candidate)
        }
        let some = plan.withPrefillServers(.some, Self.layouts, seed: seed)
        #expect(some.cases.count { $0.prefill != nil } == 100)
        #expect(zip(some.cases, plan.cases).allSatisfy { ($0.layout, $0.conditions) == ($1.layout, $1.conditions) })
        #expect(plan.withPrefillServers(.none, Self.layouts, seed: seed).cases == plan.cases)
        #expect(some.cases == plan.withPrefillServers(.some, Self.layouts, seed: seed).cases)
    }
}
