import KVCache
import Modeling
import Models
import Tensors
import TestSupport
import Testing
import braid

/// The benchmark of single layers.
@Suite struct `Measured layers` {
    private func kinds(_ model: ReleasedModel) throws -> [MeasuredKind] {
        MeasuredKind.all(of: try model.configuration().description)
    }

    @Test func `are one of each kind of the model`() throws {
        let v32 = try kinds(.v32)
        #expect(v32.map(\.name) == ["dense", "experts"] && v32.map(\.count) == [3, 58])
        #expect(v32.map(\.layer) == [0, 3] && v32.allSatisfy { $0.selecting == nil })
        let v4 = try kinds(.v4Flash)
        #expect(
            v4.map(\.name) == [
                "window (hash routing)", "compressed sparse (hash routing)", "heavily compressed", "compressed sparse",
            ])
        #expect(v4.map(\.count) == [2, 1, 20, 20])
    }

    @Test(arguments: ReleasedModel.allCases) func `all together are the model's layers`(model: ReleasedModel) throws {
        #expect(try kinds(model).reduce(0) { $0 + $1.count } == model.configuration().description.layers.count)
    }

    /// A model of one layer has the operations, shapes and key sets of that layer.
    @Test(arguments: ReleasedModel.allCases) func `are computed by a model of their own`(model: ReleasedModel) throws {
        let released = try model.configuration()
        let format = released.cacheFormat(.bfloat16, pageSize: 128, drafts: false)
        for kind in try kinds(model) {
            let own = released.keepingLayers([kind.layer])
            let (layer, original) = (own.description.layers, released.description.layers[kind.layer])
            #expect(layer.count == 1 && layer[0].kind == kind.name)
            #expect(layer[0].weights.map(\.elements) == original.weights.map(\.elements))
            #expect(layer[0].attention == original.attention && layer[0].selection == original.selection)
            #expect(
                own.cacheFormat(.bfloat16, pageSize: 128, drafts: false).layers == [format.layers[kind.layer]])
            #expect(own.description.draftLayers.isEmpty)
        }
    }

    @Test func `that reuse a selection bring the layer that makes it`() throws {
        let configuration = try ModelDirectory(Golden.root + "/Benchmarks/models/glm-5.2").configuration
        let kinds = MeasuredKind.all(of: configuration.description)
        let reusing = try #require(kinds.first { $0.name.contains("shared selection") })
        let selecting = try #require(reusing.selecting)
        #expect(selecting < reusing.layer)
        let pair = configuration.keepingLayers([selecting, reusing.layer]).description.layers
        #expect(pair.map { $0.selection != nil } == [true, false])
        #expect(kinds.filter { !$0.name.contains("shared") }.allSatisfy { $0.selecting == nil })
    }

    @Test func `have weights in the format that was asked for`() throws {
        let stored = try ReleasedModel.v4Flash.configuration().description.formats
        #expect(LayerFormat.stored.applied(to: stored) == stored)
        #expect(LayerFormat.fp8.applied(to: stored).experts.dtype == .fp8)
        for format in [LayerFormat.float32, .bfloat16, .int8] {
            let formats = format.applied(to: stored)
            #expect(formats.experts == formats.products && formats.plain == stored.plain)
        }
        let fp4 = LayerFormat.fp4.applied(to: WeightFormats(.bf16))
        #expect(fp4.experts.dtype == .fp4 && fp4.products.dtype == .fp8)
        #expect(try LayerFormat.list("stored, int8") == [.stored, .int8])
        #expect(throws: (any Error).self) { try LayerFormat.list("stored,int4") }
    }

    @Test func `compute in the profile that serves such weights`() {
        func profile(_ type: DType, _ choice: ProfileChoice = .auto, plain: DType = .bf16) -> NumericsProfile {
            var formats = WeightFormats(plain)
            formats.products = WeightFormat(type)
            return choice.profile(of: formats)
        }
        #expect(profile(.f32, plain: .f32) == .f32 && profile(.bf16) == .bf16 && profile(.fp8) == .bf16)
        #expect(profile(.int8) == .int8 && profile(.int8, plain: .f32) == .int8F32)
        #expect(profile(.fp8, .float32) == .f32)
    }
}
