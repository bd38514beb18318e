import Tensors

/// Checks the `quantization_config` of config.json, which says how a checkpoint's weights are quantized.
///
/// Weights are read by the types and shapes of their tensors (`WeightIndex.matrix`); this refuses another quantization
/// before any weight is opened, by the key that announces it.
package enum QuantizationConfiguration {
    /// The element format of quantized matrices.
    package enum Format: Sendable {
        case fp8, int8
    }

    /// Returns the element format of the quantized matrices, after checking that kernels read it with its scaling, and
    /// that activations are quantized as they compute, or not at all.
    ///
    /// - Throws: naming the key, what was found and what is legal.
    @discardableResult
    package static func validate(_ quantization: ConfigurationValue) throws(CheckpointError) -> Format {
        let names = methods.map(\.name) + [compressedTensors]
        let name = try quantization.string("quant_method", oneOf: names)
        guard let method = methods.first(where: { $0.name == name }) else {
            try validateCompressedTensors(quantization)
            return .int8
        }
        _ = try quantization.string("activation_scheme", oneOf: ["dynamic"], default: "dynamic")
        if method.format == .fp8 { _ = try quantization.string("fmt", oneOf: ["e4m3"], default: "e4m3") }
        let dtype: DType = method.format == .fp8 ? .fp8 : .int8
        guard method.hasBlocks else { return method.format }
        let block = try quantization.intArray("weight_block_size", in: 1...Int(Int32.max), count: 2...2)
        guard dtype.scalings.contains(.blocks(rows: block[0], columns: block[1])) else {
            throw quantization.refusal(
                "weight_block_size", "is \(block), which no kernel reads", advice: WeightIndex.legalWeights)
        }
        return method.format
    }

    /// The quantizations by the names that SGLang and the released checkpoints give them. Those without blocks have one
    /// scale per row.
    private static let methods: [(name: String, format: Format, hasBlocks: Bool)] = [
        ("fp8", .fp8, true), ("w8a8_fp8", .fp8, false), ("int8", .int8, false), ("w8a8_int8", .int8, false),
        ("blockwise_int8", .int8, true),
    ]
}

// MARK: - compressed-tensors

extension QuantizationConfiguration {
    /// The name of a family of quantizations, of which one is read: `int-quantized` with a scale per output channel.
    private static let compressedTensors = "compressed-tensors"

    private static func validateCompressedTensors(_ quantization: ConfigurationValue) throws(CheckpointError) {
        _ = try quantization.string("format", oneOf: ["int-quantized"])
        for key in ["kv_cache_scheme", "transform_config"] { try requireEmpty(quantization, key) }
        if let sparsity = try quantization.objectIfPresent("sparsity_config"), !sparsity.keys.isEmpty {
            _ = try sparsity.string("format", oneOf: ["dense"])
        }
        let groups = try quantization.object("config_groups")
        for name in groups.keys {
            let group = try groups.object(name)
            _ = try group.string("format", oneOf: ["int-quantized"], default: "int-quantized")
            try requireEmpty(group, "output_activations")
            let weights = try integers(group, "weights")
            _ = try weights.string("strategy", oneOf: ["channel"])
            try require(weights, "dynamic", false)
            let activations = try integers(group, "input_activations")
            _ = try activations.string("strategy", oneOf: ["token"])
            try require(activations, "dynamic", true)
        }
    }

    /// Returns an object that describes symmetric integers of eight bits.
    private static func integers(
        _ group: ConfigurationValue, _ key: String
    ) throws(CheckpointError) -> ConfigurationValue {
        let values = try group.object(key)
        _ = try values.string("type", oneOf: ["int"])
        _ = try values.int("num_bits", in: 8...8)
        try require(values, "symmetric", true)
        return values
    }

    private static func require(
        _ values: ConfigurationValue, _ key: String, _ expected: Bool
    ) throws(CheckpointError) {
        guard try values.bool(key) != expected else { return }
        throw values.refusal(
            key, "is \(!expected), but only \(expected) is read",
            advice:
                "use a checkpoint with symmetric INT8 weights, a scale per channel, and dynamic activations per token")
    }

    /// Requires that a key is missing, null or an empty object.
    private static func requireEmpty(_ values: ConfigurationValue, _ key: String) throws(CheckpointError) {
        guard values.contains(key), !values.isNull(key) else { return }
        if let object = try? values.object(key), object.keys.isEmpty { return }
        throw values.refusal(
            key, "is given, but nothing of it is read", advice: "use a checkpoint that is quantized without it")
    }
}
