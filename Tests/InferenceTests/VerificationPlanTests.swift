import Inference
import Parallelism
import Testing

@Suite struct `A verification plan` {
    private static let shape = ModelShape(
        layers: 4, heads: 4, valueWidth: 64, experts: 16, expertWidth: 64, denseWidth: 384, sharedWidth: 64)
    private static let layouts = LayoutMatrix(shape, maxRanks: 8).layouts
    private static let chunks: [Int?] = [nil, 29, 9]

    private static func plan(_ limit: Int, seed: UInt64 = 1) -> VerificationPlan {
        VerificationPlan(layouts, chunks: chunks, limit: limit, seed: seed)
    }

    @Test func `has all cases when there are few enough`() {
        let layouts = Array(Self.layouts.prefix(5))
        let plan = VerificationPlan(layouts, chunks: Self.chunks, limit: 60, seed: 1)
        #expect(plan.total == 60 && plan.cases.count == 60 && Set(plan.cases).count == 60)
        #expect(Set(plan.cases.map(\.layout)) == Set(layouts))
    }

    @Test(arguments: [59, 300, 869, 2000]) func `samples different cases, of all layouts before any twice`(limit: Int) {
        let plan = Self.plan(limit)
        #expect(plan.total == Self.layouts.count * 12)
        #expect(plan.cases.count == limit && Set(plan.cases).count == limit)
        #expect(Set(plan.cases.map(\.layout)).count == min(limit, Self.layouts.count))
        #expect(zip(plan.cases, plan.cases.dropFirst()).allSatisfy { $0.layout.world <= $1.layout.world })
    }

    @Test func `has every mesh, chunk size and mix in a sample`() {
        let plan = Self.plan(300)
        #expect(Set(plan.cases.map(\.layout.mesh)) == Set(Self.layouts.map(\.mesh)))
        #expect(Set(plan.cases.map(\.chunk)) == Set(Self.chunks))
        #expect(Set(plan.cases.map(\.mix)) == Set(BatchMix.Kind.allCases))
    }

    @Test func `chooses by its seed alone`() {
        #expect(Self.plan(300).cases == Self.plan(300).cases)
        #expect(Self.plan(300).cases != Self.plan(300, seed: 2).cases)
    }

    @Test func `has a name for each case, from which it can be made again`() throws {
        for candidate in Self.plan(300).cases {
            #expect(try VerificationCase(notation: candidate.notation, for: Self.shape) == candidate)
        }
        for wrong in ["cp2 chunk0", "cp2 chunk-2", "cp2 chunk", "cp2 tiny"] {
            #expect(throws: NotationError.self) { try VerificationCase(notation: wrong, for: Self.shape) }
        }
    }

    @Test func `has mixes that are functions of their seed, within the context`() {
        for context in [3, 16, 4096] {
            let measure = BatchMix.Measure(selecting: 64, contextLength: context, vocabularySize: 100)
            for kind in BatchMix.Kind.allCases {
                let mix = BatchMix(kind, measure, seed: 7)
                #expect(mix.requests == BatchMix(kind, measure, seed: 7).requests)
                #expect(mix.requests != BatchMix(kind, measure, seed: 8).requests)
                let limits = EngineLimits(contextLength: context, vocabularySize: 100, maxQueuedRequests: 9)
                for request in mix.requests { #expect(throws: Never.self) { try limits.check(request) } }
            }
        }
    }

    @Test func `has chunk sizes of any prompt`() {
        #expect(VerificationPlan.chunks(longestPrompt: 88) == [nil, 29, 9])
        #expect(VerificationPlan.chunks(longestPrompt: 1) == [nil, 1])
    }
}
