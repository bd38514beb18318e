import DeepSeekV32
import DeepSeekV4
import Inference
import Modeling
import Models
import Parallelism
import Tensors
import TestSupport
import Testing
import Verification

/// The models have every width and count of the released V3.2, GLM-5.2 and V4-Flash except the numbers of layers, tokens
/// and selected keys: one dense layer and one with experts, four of which have weights of their own. Few keys are
/// selected, so that a short prompt has more. GLM's second layer reuses the selection of the first. V4 has experts in
/// both layers, chosen by token in the first, and compressed entries in the second.
@Suite(.timeLimit(.minutes(15))) struct `A released model's real shape` {
    private static func model(_ name: String) throws -> DeepSeekModel {
        let released = try #require(
            try ModelDirectory(Golden.root + "/Benchmarks/models/" + name).configuration as? DeepSeekConfiguration)
        let isGLM = name == "glm-5.2"
        // The first dense layer, and one with experts, which in GLM-5.2 reuses a selection.
        var configuration = released.keepingLayers([0, 3])
        #expect(configuration.layers == 2 && configuration.denseLayers == 1)
        #expect(configuration.indexer!.selects == [true, !isGLM])
        configuration.vocabularySize = 1024
        configuration.contextLength = 4096
        configuration.indexer!.topK = 8
        #expect(configuration.heads == (isGLM ? 64 : 128) && configuration.hiddenSize == (isGLM ? 6144 : 7168))
        #expect(configuration.experts.gate.experts == 256 && configuration.experts.gate.groups == (isGLM ? 1 : 8))
        return try DeepSeekModel(configuration, .dummy(DummyWeights(of: configuration.description, distinctExperts: 4)))
    }

    private static func v4Flash() throws -> DeepSeekV4Model {
        let released = try #require(try ReleasedModel.v4Flash.configuration() as? DeepSeekV4Configuration)
        var configuration = released.keepingLayers([0, 4])
        #expect(
            configuration.kinds == [.slidingWindow, .compressedSparse] && configuration.hashLayers == [true, false])
        configuration.vocabularySize = 1024
        configuration.contextLength = 4096
        configuration.indexer.topK = 8
        #expect(configuration.heads == 64 && configuration.headWidth == 512 && configuration.hiddenSize == 4096)
        #expect(configuration.experts.gate.experts == 256 && configuration.outputGroups == 8)
        return try DeepSeekV4Model(
            configuration, .dummy(DummyWeights(of: configuration.description, distinctExperts: 4)))
    }

    @Test(arguments: ["v3.2", "glm-5.2", "v4-flash"]) func `gives one rank's bits on many ranks`(name: String) throws {
        let model: any Model = name == "v4-flash" ? try Self.v4Flash() : try Self.model(name)
        let measure = Workload.Measure(
            selecting: model.description.selection?.firstPosition, contextLength: model.contextLength,
            vocabularySize: model.vocabularySize)
        let verification = Verification(model, measure)
        for notation in [
            "cp2 tp4 ep8 dense4 zigzag alltoall chunk11 page4 long",
            "cp2 tp8 ep8 etp2 dense8 dcp8 interleave gathered chunk-1 page16 long",
            "pp2 cp2 ep2 contiguous gathered chunk7 threads2 long",
        ] {
            let candidate = try VerificationCase(notation: notation, for: model.parallelShape)
            #expect(try verification.check(candidate) == .equal, "\(notation)")
            #expect(verification.mustBeEqual(candidate))
        }
        #expect(verification.coverage.dcpChunks > 0)
    }
}
