import DeepSeekV32
import Foundation
import Inference
import Modeling
import Models
import Parallelism
import TestSupport
import Testing
import Verification

/// These tests share heads among eight and sixteen ranks; goldens have too few heads for that.
@Suite(.timeLimit(.minutes(15))) struct `Many ranks that share the heads` {
    private static func load(_ checkpoint: RandomCheckpoint) throws -> any Model {
        let path = FileManager.default.temporaryDirectory.path + "/braid-heads-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try checkpoint.write(to: path)
        return try ModelDirectory(path).load(drafts: checkpoint.hasNextTokenBlock)
    }

    /// Returns the verdicts on a sample of all configurations with this many ranks for the heads, and their cases.
    private static func verdicts(
        _ checkpoint: RandomCheckpoint, tensor: Int, limit: Int
    ) throws -> [(VerificationCase, Verification.Verdict)] {
        let model = try load(checkpoint)
        let measure = Workload.Measure(
            selecting: checkpoint.indexTopK, contextLength: model.contextLength, vocabularySize: model.vocabularySize)
        let layouts = LayoutMatrix(model.parallelShape, maxRanks: 16, minKeys: [1, measure.longestPrompt / 2]).layouts
            .filter { $0.tensor == tensor && (tensor > 8 || $0.isBitwiseEqual(for: model.parallelShape)) }
        #expect(Set(layouts.map(\.world)).contains(16))
        let conditions = ServingConditions.all(
            longestPrompt: measure.longestPrompt, canDraft: checkpoint.hasNextTokenBlock)
        let plan = VerificationPlan(layouts, conditions, limit: limit, seed: 1)
        let verification = Verification(model, measure)
        return try plan.cases.map { ($0, try verification.check($0)) }
    }

    private static let checkpoints: [RandomCheckpoint] = {
        var (sparse, dense) = (RandomCheckpoint(), RandomCheckpoint())
        (sparse.heads, sparse.hasNextTokenBlock, sparse.storage) = (16, true, .bf16)
        (dense.heads, dense.indexTopK, dense.storage, dense.seed) = (8, nil, .fp8, 2)
        return [sparse, dense]
    }()

    @Test(arguments: 0..<2) func `give one rank's bits where they are eight`(number: Int) throws {
        let verdicts = try Self.verdicts(Self.checkpoints[number], tensor: 8, limit: 40)
        for (candidate, verdict) in verdicts { #expect(verdict == .equal, "\(candidate.notation)") }
        #expect(verdicts.count == 40)
    }

    /// A sum consists of eight slices, which sixteen ranks have to cut.
    @Test func `are equal to rounding where they are sixteen`() throws {
        let verdicts = try Self.verdicts(Self.checkpoints[0], tensor: 16, limit: 20)
        for (candidate, verdict) in verdicts {
            if case .different = verdict { Issue.record("\(candidate.notation): \(verdict)") }
        }
        #expect(verdicts.count == 20)
    }
}
