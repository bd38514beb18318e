import Checkpoints
import Modeling
import Models
import Tensors
import TestSupport
import Testing

/// The formats of weights that planning takes from `config.json` alone.
@Suite struct `Formats of weights` {
    /// Of released checkpoints the golden ones have the names and types.
    @Test(arguments: Golden.cases) func `are those that the checkpoint has`(name: String) throws {
        let directory = try Golden(name).directory
        let index = try WeightIndex(directory: directory.path)
        let model = directory.description
        for operation in model.layers.flatMap(\.operations) {
            if case .vectors = operation { continue }
            for weights in operation.weights {
                for name in weights.names {
                    let stored = try index.tensor(named: name).type
                    let isFP4 = [.i8, .u8].contains(stored)
                    let dtype = model.formats.format(of: weights).dtype
                    #expect((dtype == .fp8) == (stored == .f8e4m3) && (dtype == .fp4) == isFP4, "\(name): \(stored)")
                }
            }
        }
    }

    @Test func `are the released ones`() throws {
        func formats(_ model: ReleasedModel) throws -> WeightFormats { try model.configuration().description.formats }
        for model in [ReleasedModel.v31, .v32, .v4Flash, .v4Pro] {
            #expect(try formats(model).products == WeightFormat(.fp8, .blocks(rows: 128, columns: 128)))
            #expect(try formats(model).plain == WeightFormat(.bf16))
        }
        #expect(try formats(.v32).experts.dtype == .fp8 && formats(.v4Pro).experts.dtype == .fp4)
        #expect(try formats(.glm5) == WeightFormats(.bf16))
        let example = try ModelDirectory(Golden.root + "/Benchmarks/models/v3.2").description
        #expect(try example.formats == formats(.v32))
    }

    @Test func `of compressed-tensors in FP8 have a scale for each row`() throws {
        let text = """
            {"torch_dtype": "bfloat16", "quantization_config": {"quant_method": "compressed-tensors",
             "format": "float-quantized", "config_groups": {"group_0": {"targets": ["Linear"],
              "weights": {"num_bits": 8, "type": "float", "symmetric": true, "strategy": "channel", "dynamic": false},
              "input_activations": {"num_bits": 8, "type": "float", "symmetric": true, "strategy": "token",
               "dynamic": true}}}}}
            """
        let formats = try WeightFormats(ModelConfigurationFile.parse(Array(text.utf8), file: "config.json"))
        #expect(formats.products == WeightFormat(.fp8, .perRow) && formats.experts == formats.products)
        #expect(formats.plain == WeightFormat(.bf16))
    }

    @Test func `have bytes for an element, with its part of a scale`() {
        #expect(WeightFormat(.bf16).bytesPerElement == 2 && WeightFormat(.int8).bytesPerElement == 1)
        #expect(WeightFormat(.fp4).bytesPerElement == 17.0 / 32)
        #expect(WeightFormat(.fp8).bytesPerElement == 1 + 4.0 / 16_384)
    }
}
