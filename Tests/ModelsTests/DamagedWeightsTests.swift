import Checkpoints
import Modeling
import Models
import Tensors
import TestSupport
import Testing

/// Weights that are no numbers, as training that went wrong or a damaged disk leaves them.
@Suite struct `Weights that are no numbers` {
    @Test(arguments: ["v3", "v32", "glm", "v4"])
    func `are refused in every vector that the model reads`(golden: String) throws {
        let original = try StoredCheckpoint(golden: golden)
        let vectors = try Golden(golden).directory.description.readWeights.flatMap(\.tensors)
            .filter { $0.shape.count == 1 || $0.name.hasSuffix(".ape") }.map(\.name)
        #expect(vectors.count > 10)
        for (number, name) in vectors.enumerated() {
            var damaged = original
            let size = damaged[name].type.bytes
            let place = damaged[name].shape.reduce(1, *) - 1
            // All bits but the sign: a NaN in each type.
            damaged[name].bytes.replaceSubrange(
                place * size..<(place + 1) * size,
                with: [UInt8](repeating: 0xFF, count: size - 1) + [number % 2 == 0 ? 0x7F : 0xFF])
            let error = try refusal { try damaged.load() }
            #expect(error.subject == .tensor(name) && error.problem.contains("nan"), "\(error)")
        }
    }

    /// A layer's router of each model, and of V4 one that chooses experts by token.
    private static let routers = [
        ("v3", "model.layers.1.mlp.gate.weight"), ("v32", "model.layers.1.mlp.gate.weight"),
        ("v4", "layers.0.ffn.gate.weight"), ("v4", "layers.2.ffn.gate.weight"),
    ]

    @Test(arguments: routers.indices)
    func `of one expert in a router make every logit NaN, whatever the kernels`(number: Int) throws {
        let (golden, name) = Self.routers[number]
        var damaged = try StoredCheckpoint(golden: golden)
        let router = damaged[name]
        let row = router.bytes.count / router.shape[0]
        // A NaN in each type.
        damaged[name].bytes.replaceSubrange(row..<2 * row, with: [UInt8](repeating: 0xFF, count: row))
        let model = try damaged.load()
        let prompt = (0..<5).map { Int32($0 * 37 % model.vocabularySize) }
        for kernels in Kernels.available {
            for profile in NumericsProfile.allCases where !profile.isForIntegers {
                let logits = Forward(model, kernels: kernels.computing(in: profile), isRecording: false).logits(prompt)
                #expect(logits.allSatisfy { $0.allSatisfy(\.isNaN) }, "\(kernels.level), \(profile.name)")
            }
        }
    }
}
