import JSON

/// Reads `quant_model_description.json`, in which ModelSlim says how each tensor of a checkpoint is quantized.
///
/// Weights are read by the types and shapes of their tensors; this refuses quantizations that they cannot tell.
package struct ModelSlimDescription: Sendable {
    package static let fileName = "quant_model_description.json"

    private let file: String
    /// The quantization of each tensor, which is one of `legal`.
    private let kinds: [String: String]

    /// Floating-point numbers, and integers with a scale per output channel: with activations that are rounded by their own
    /// largest number, or by a scale and an offset for all tokens.
    private static let (float, dynamic, fixed) = ("FLOAT", "W8A8_DYNAMIC", "W8A8")
    /// Keys that name no tensor. The quantization that `model_quant_type` names is that of most tensors.
    private static let others: Set = ["model_quant_type", "version", "metadata", "group_size", "optional"]

    /// Reads the description of a model directory; `nil` if there is none.
    ///
    /// - Throws: naming the first tensor that is quantized in another way.
    package static func readIfPresent(in directory: String) throws(CheckpointError) -> ModelSlimDescription? {
        let path = directory + "/" + fileName
        guard RegularFile.exists(path) else { return nil }
        let limit = WeightIndex.maximumIndexBytes
        let bytes = try RegularFile(opening: path).contents(limit: limit)
        return try ModelSlimDescription(ModelConfigurationFile.object(in: bytes, file: path, maximumBytes: limit))
    }

    package init(_ description: ConfigurationValue) throws(CheckpointError) {
        file = description.file
        if let quarot = try description.objectIfPresent("metadata")?.objectIfPresent("quarot") {
            for name in ["heads_rotation", "kronecker_rotation"] where quarot.contains(name) && !quarot.isNull(name) {
                throw quarot.refusal(
                    name, "rotates activations, which is not done here",
                    advice: "use a checkpoint that was quantized without online rotation")
            }
        }
        var kinds: [String: String] = [:]
        for name in description.keys where !Self.others.contains(name) {
            // Switches such as `kv_quant_type` name no tensor either, and must be off.
            if description.isNull(name) { continue }
            let kind = try description.string(name)
            guard [Self.float, Self.dynamic, Self.fixed].contains(kind) else {
                throw description.refusal(
                    name, "is \(kind.quotedForMessage), which is not read",
                    advice: "legal are \(Self.float), \(Self.dynamic) and \(Self.fixed)")
            }
            kinds[name] = kind
        }
        self.kinds = kinds
    }

    /// True if some matrices are INT8.
    package var hasIntegers: Bool { kinds.values.contains { $0 != Self.float } }

    /// Requires that matrices are stored as described.
    ///
    /// - Throws: naming the tensor.
    package func validate(_ weights: WeightIndex) throws(CheckpointError) {
        let rotations = [".heads_rotation", ".kronecker_rotation_m", ".kronecker_rotation_n"]
        for name in weights.names where rotations.contains(where: name.hasSuffix) {
            throw try weights.tensor(named: name).refusal(
                "rotates activations, which is not done here",
                advice: "use a checkpoint that was quantized without online rotation")
        }
        for name in weights.names where name.hasSuffix(".weight") {
            guard let kind = kinds[name] else { continue }
            let tensor = try weights.tensor(named: name)
            guard tensor.shape.count == 2 else { continue }
            let isFixed = weights.signOfStaticRounding(of: name) != nil
            if (tensor.type == .i8) == (kind != Self.float), isFixed == (kind == Self.fixed) { continue }
            throw tensor.refusal(
                "is \(tensor.type.rawValue)\(isFixed ? " with static activation scales" : ""), but \(Self.fileName) says \(kind)",
                advice: "weights and description are of different models: download both again")
        }
    }
}
