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
            return try validateCompressedTensors(quantization)
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
    /// The name of a family of quantizations, of which two are read, each with a scale per output channel.
    private static let compressedTensors = "compressed-tensors"

    /// The two that are read, by the names of their format and of the type of their numbers.
    private static let compressed: [(format: Format, name: String, type: String)] = [
        (.int8, "int-quantized", "int"), (.fp8, "float-quantized", "float"),
    ]

    /// Returns the element format of the matrices of `targets` that `ignore` does not list. Which matrices those are is
    /// told by their tensors.
    private static func validateCompressedTensors(
        _ quantization: ConfigurationValue
    ) throws(CheckpointError) -> Format {
        let name = try quantization.string("format", oneOf: compressed.map(\.name))
        let (format, _, type) = compressed.first { $0.name == name }!
        for key in ["kv_cache_scheme", "transform_config"] { try requireEmpty(quantization, key) }
        if let sparsity = try quantization.objectIfPresent("sparsity_config"), !sparsity.keys.isEmpty {
            _ = try sparsity.string("format", oneOf: ["dense"])
        }
        let groups = try quantization.object("config_groups")
        for groupName in groups.keys {
            let group = try groups.object(groupName)
            _ = try group.string("format", oneOf: [name], default: name)
            try requireEmpty(group, "output_activations")
            let weights = try symmetricBytes(group, "weights", type: type)
            _ = try weights.string("strategy", oneOf: ["channel"])
            try require(weights, "dynamic", false)
            // Without rounded activations, products are those of every FP8 checkpoint: weights by activations as they are.
            if format == .fp8, group.isNull("input_activations") { continue }
            let activations = try symmetricBytes(group, "input_activations", type: type)
            _ = try activations.string("strategy", oneOf: ["token"])
            try require(activations, "dynamic", true)
        }
        return format
    }

    /// Returns an object that describes symmetric numbers of eight bits.
    private static func symmetricBytes(
        _ group: ConfigurationValue, _ key: String, type: String
    ) throws(CheckpointError) -> ConfigurationValue {
        let values = try group.object(key)
        _ = try values.string("type", oneOf: [type])
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
                "use a checkpoint with symmetric 8-bit weights, a scale per channel, and dynamic activations per token")
    }

    /// Requires that a key is missing, null or an empty object.
    private static func requireEmpty(_ values: ConfigurationValue, _ key: String) throws(CheckpointError) {
        guard values.contains(key), !values.isNull(key) else { return }
        if let object = try? values.object(key), object.keys.isEmpty { return }
        throw values.refusal(
            key, "is given, but nothing of it is read", advice: "use a checkpoint that is quantized without it")
    }
}
