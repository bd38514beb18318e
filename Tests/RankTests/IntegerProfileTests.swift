import Checkpoints
import Foundation
import Modeling
import Models
import Parallelism
import Tensors
import TestSupport
import Testing
import Verification

@Suite(.timeLimit(.minutes(15))) struct `The INT8 profiles` {
    /// Makes a V3.2 model whose weights are INT8 where released W8A8 checkpoints have them.
    private static func model(isStatic: Bool) throws -> (directory: ModelDirectory, model: any Model) {
        var checkpoint = RandomCheckpoint()
        checkpoint.storage = .int8
        checkpoint.hasStaticRounding = isStatic
        checkpoint.layers = 2
        let path = NSTemporaryDirectory() + "braid-integers-" + UUID().uuidString
        // The files stay mapped.
        defer { try? FileManager.default.removeItem(atPath: path) }
        try checkpoint.write(to: path)
        let directory = try ModelDirectory(path)
        let weights = try directory.openWeights(.auto)
        #expect(weights?.profile == .int8 && directory.quantizedFormat == .int8)
        return (directory, try directory.model(weights, drafts: false))
    }

    @Test(arguments: [NumericsProfile.int8, .int8F32], [false, true])
    func `give one rank's bits in every layout`(profile: NumericsProfile, isStatic: Bool) throws {
        let (directory, model) = try Self.model(isStatic: isStatic)
        let measure = Workload.Measure(
            selecting: directory.description.selection?.firstPosition, contextLength: model.contextLength,
            vocabularySize: model.vocabularySize)
        let verification = Verification(model, measure)
        for layout in [
            "tp2 dense2", "tp8 dense8", "cp2 ep2 alltoall", "dp2 ep2", "pp2", "cp2 tp2 ep4 dense2 zigzag", "cp2 dcp2",
            "cp2 tp2 ep2 etp2",
        ] {
            let notation = "\(layout) chunk9 page4 warm mixed threads2 odd-blocks \(profile.rawValue)"
            let candidate = try VerificationCase(notation: notation, for: model.parallelShape)
            #expect(candidate.conditions.profile == profile && verification.mustBeEqual(candidate), "\(layout)")
            #expect(try verification.check(candidate) == .equal, "\(layout)")
        }
    }

    @Test(arguments: [false, true])
    func `have the same bits on every level, and are near those without INT8`(isStatic: Bool) throws {
        let (_, model) = try Self.model(isStatic: isStatic)
        let prompt = (0..<40).map { Int32($0 * 37 % 320) }
        func logits(_ profile: NumericsProfile, _ kernels: Kernels = .best, chunks: [Int] = [36, 1]) -> [[Float]] {
            Forward(model, kernels: kernels.computing(in: profile), isRecording: false).logits(prompt, chunks: chunks)
        }
        for (profile, other) in [(NumericsProfile.int8, NumericsProfile.bf16), (.int8F32, .f32)] {
            let found = logits(profile)
            for kernels in Kernels.available {
                #expect(logits(profile, kernels, chunks: [7]) == found, "\(kernels.level)")
            }
            // Early rows depend on few choices of keys and experts, any of which may be another.
            let differences = zip(found[0], logits(other)[0]).map { abs($0 - $1) }
            // Static steps are those of the largest activations.
            #expect(differences.max()! > 1e-4 && differences.max()! < (isStatic ? 1 : 0.5), "\(differences.max()!)")
        }
    }
}
