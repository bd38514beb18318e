import DeepSeekV32
import Modeling
import Models
import Tensors
import TestSupport
import Testing

@Suite struct `A layer with V3_2's heads and experts` {
    /// The model has the real 128 heads, 64 index heads and 256 experts; everything else is as small as possible.
    private static func model() throws -> DeepSeekModel {
        var shape = try #require(
            ModelDirectory(Golden.root + "/Benchmarks/models/v3.2").configuration as? DeepSeekConfiguration)
        precondition(shape.heads == 128 && shape.experts.gate.experts == 256 && shape.indexer?.heads == 64)
        (shape.layers, shape.denseLayers, shape.nextTokenLayers) = (2, 0, 0)
        (shape.vocabularySize, shape.hiddenSize, shape.queryRank, shape.latentWidth) = (64, 64, 32, 16)
        (shape.nopeWidth, shape.valueWidth, shape.experts.width) = (8, 8, 16)
        shape.indexer?.topK = 32
        return try DeepSeekModel(shape, .dummy(DummyWeights(dtype: .bf16)))
    }

    @Test(arguments: [1, 3])
    func `takes fewer than a hundred kernel calls for any number of rows`(threads: Int) throws {
        let model = try Self.model()
        let team = HelpedTeam(threads: threads)
        let forward = Forward(model, kernels: team.kernels, isRecording: false)
        let tokens = (0..<300).map { Int32($0 * 7 % 64) }
        _ = forward.logits(tokens, chunks: [256, 42, 1])
        #expect(forward.kernelCalls.count == 4, "two chunks of a prompt and two decode steps")
        for calls in forward.kernelCalls {
            let perLayer = Double(calls) / Double(model.configuration.layers)
            #expect(perLayer < 100 && perLayer > 20, "\(perLayer) calls a layer")
        }
    }
}
