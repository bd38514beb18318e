import Checkpoints
import Foundation
import Tensors
import TestSupport
import Testing

/// A quantization that llm-compressor writes for DeepSeek models, with some of it replaced.
private func compressedTensors(_ replaced: String = "", by replacement: String = "") throws -> ConfigurationValue {
    let text = """
        {"quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
         "kv_cache_scheme": null, "sparsity_config": {}, "transform_config": {}, "global_compression_ratio": null,
         "ignore": ["lm_head", "model.layers.0.mlp.gate"],
         "config_groups": {"group_0": {"format": "int-quantized", "targets": ["Linear"], "output_activations": null,
          "weights": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel", "dynamic": false,
           "group_size": null, "block_structure": null, "actorder": null},
          "input_activations": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "token", "dynamic": true,
           "group_size": null}}}}
        """
    #expect(replaced.isEmpty || text.contains(replaced))
    return try configuration(replaced.isEmpty ? text : text.replacingOccurrences(of: replaced, with: replacement))
}

@Suite struct `A quantization of compressed-tensors` {
    @Test func `is read with INT8 channels and dynamic tokens, also if parts of it are spelled out`() throws {
        #expect(try QuantizationConfiguration.validate(compressedTensors()) == .int8)
        let dense = #""sparsity_config": {"format": "dense", "global_sparsity": 0.1}"#
        #expect(
            try QuantizationConfiguration.validate(compressedTensors(#""sparsity_config": {}"#, by: dense)) == .int8)
    }

    @Test(arguments: [
        (#""format": "int-quantized", "quantization_status""#, #""format": "pack-quantized", "q""#, "format"),
        (
            #""format": "int-quantized", "quantization_status""#, #""format": "float-quantized", "q""#,
            "config_groups.group_0.format"
        ),
        (#""kv_cache_scheme": null"#, #""kv_cache_scheme": {"num_bits": 8}"#, "kv_cache_scheme"),
        (#""sparsity_config": {}"#, #""sparsity_config": {"format": "sparse-24"}"#, "sparsity_config.format"),
        (#""transform_config": {}"#, #""transform_config": {"R1": {}}"#, "transform_config"),
        (#""strategy": "channel""#, #""strategy": "group""#, "config_groups.group_0.weights.strategy"),
        (#""strategy": "token""#, #""strategy": "tensor""#, "config_groups.group_0.input_activations.strategy"),
        (#""dynamic": true"#, #""dynamic": false"#, "config_groups.group_0.input_activations.dynamic"),
        (#""dynamic": false"#, #""dynamic": true"#, "config_groups.group_0.weights.dynamic"),
        (
            #""symmetric": true, "strategy": "token""#, #""symmetric": false, "strategy": "token""#,
            "config_groups.group_0.input_activations.symmetric"
        ),
        (
            #""num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel""#,
            #""num_bits": 4, "type": "int", "symmetric": true, "strategy": "channel""#,
            "config_groups.group_0.weights.num_bits"
        ),
        (
            #""output_activations": null"#, #""output_activations": {"num_bits": 8}"#,
            "config_groups.group_0.output_activations"
        ),
        (
            #""input_activations": {"#, #""input_activations": null, "other": {"#,
            "config_groups.group_0.input_activations"
        ),
    ])
    func `is refused by the key that says otherwise`(replaced: String, replacement: String, key: String) throws {
        let error = try refusal {
            try QuantizationConfiguration.validate(compressedTensors(replaced, by: replacement))
        }
        #expect(error.subject == .key(key), "\(error)")
    }
}

/// A quantization that llm-compressor writes for FP8, with some of it replaced.
private func floatQuantized(_ replaced: String = "", by replacement: String = "") throws -> ConfigurationValue {
    let text = """
        {"quant_method": "compressed-tensors", "format": "float-quantized", "quantization_status": "compressed",
         "kv_cache_scheme": null, "ignore": ["lm_head", "re:.*mlp.gate$"],
         "config_groups": {"group_0": {"targets": ["Linear"], "output_activations": null,
          "weights": {"num_bits": 8, "type": "float", "symmetric": true, "strategy": "channel", "dynamic": false,
           "group_size": null, "block_structure": null, "observer": "minmax"},
          "input_activations": {"num_bits": 8, "type": "float", "symmetric": true, "strategy": "token", "dynamic": true,
           "observer": null}}}}
        """
    #expect(replaced.isEmpty || text.contains(replaced))
    return try configuration(replaced.isEmpty ? text : text.replacingOccurrences(of: replaced, with: replacement))
}

@Suite struct `A quantization of compressed-tensors in FP8` {
    @Test func `is read with channels, with and without a rule for activations`() throws {
        #expect(try QuantizationConfiguration.validate(floatQuantized()) == .fp8)
        let weightsOnly = #""input_activations": null, "other": {"#
        let replaced = #""input_activations": {"#
        #expect(try QuantizationConfiguration.validate(floatQuantized(replaced, by: weightsOnly)) == .fp8)
    }

    @Test(arguments: [
        (#""strategy": "channel""#, #""strategy": "tensor""#, "weights.strategy", #"is "tensor""#),
        (#""strategy": "channel""#, #""strategy": "block""#, "weights.strategy", #"is "block""#),
        (#""strategy": "channel""#, #""strategy": "attn_head""#, "weights.strategy", #"is "attn_head""#),
        (#""strategy": "token""#, #""strategy": "tensor""#, "input_activations.strategy", #"is "tensor""#),
        (#""dynamic": true"#, #""dynamic": false"#, "input_activations.dynamic", "is false"),
        (#""dynamic": true"#, #""dynamic": "local""#, "input_activations.dynamic", #"is "local""#),
        (#""dynamic": false"#, #""dynamic": true"#, "weights.dynamic", "is true"),
        (
            #""num_bits": 8, "type": "float", "symmetric": true, "strategy": "channel""#,
            #""num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel""#, "weights.type", #"is "int""#
        ),
        (
            #""num_bits": 8, "type": "float", "symmetric": true, "strategy": "channel""#,
            #""num_bits": 4, "type": "float", "symmetric": true, "strategy": "channel""#, "weights.num_bits", "is 4"
        ),
    ])
    func `is refused by the key that says otherwise`(
        replaced: String, replacement: String, key: String, found: String
    ) throws {
        let error = try refusal { try QuantizationConfiguration.validate(floatQuantized(replaced, by: replacement)) }
        #expect(error.subject == .key("config_groups.group_0." + key), "\(error)")
        #expect(error.problem.hasPrefix(found), "\(error)")
    }
}

@Suite struct `A quantization with activation scales in the checkpoint` {
    @Test func `is refused`() throws {
        let text = #"{"quant_method": "w8a8_int8", "activation_scheme": "static"}"#
        let error = try refusal { try QuantizationConfiguration.validate(configuration(text)) }
        #expect(error.subject == .key("activation_scheme"))
    }
}

@Suite struct `A description of ModelSlim` {
    private static let matrix = "model.layers.0.mlp.down_proj.weight"

    /// Writes a checkpoint of one INT8 and one other matrix, and its description, if there is one.
    private func directory(
        _ description: String?, offset: UInt8 = 0, other: String = "BF16"
    ) throws -> TemporaryDirectory {
        let directory = try TemporaryDirectory()
        var writer = SafeTensorsWriter()
        writer.add(Self.matrix + "_scale", [2, 1], [0.5, 0.25])
        writer.add(Self.matrix + "_offset", "F32", [2, 1], Array(repeating: 0, count: 7) + [offset])
        writer.add("lm_head.weight", other, [2, 3], Array(repeating: 1, count: 12))
        writer.add(Self.matrix, "I8", [2, 3], [1, 2, 3, 4, 5, 6])
        // Index and files have names of their own.
        try writer.write(to: directory.file("quant_model_weights-00001-of-00001.safetensors"))
        if let description {
            try Data(description.utf8).write(
                to: URL(fileURLWithPath: directory.file(ModelSlimDescription.fileName)))
        }
        return directory
    }

    private static func description(_ kind: String = "W8A8_DYNAMIC", others: String = "") -> String {
        """
        {"model_quant_type": "W8A8_DYNAMIC", "version": "1.0.0", "kv_quant_type": null, \(others)
         "\(matrix)": "\(kind)", "\(matrix)_scale": "W8A8_DYNAMIC", "lm_head.weight": "FLOAT"}
        """
    }

    @Test func `says which matrices are INT8, and which are not`() throws {
        let directory = try directory(Self.description())
        let description = try #require(try ModelSlimDescription.readIfPresent(in: directory.path))
        #expect(description.hasIntegers)
        let weights = try WeightIndex(directory: directory.path)
        try description.validate(weights)
        let matrix = try weights.matrix(Self.matrix, rows: 2, columns: 3)
        #expect(matrix.dtype == .int8 && matrix.scaling == .perRow && weights.widenedBytes == 0)
        #expect(try weights.matrix("lm_head.weight", rows: 2, columns: 3).dtype == .bf16)
        #expect(weights.profile == .int8 && weights.hasIntegers)
    }

    @Test func `may be missing, or of a model that is not quantized`() throws {
        let directory = try directory(nil)
        #expect(try ModelSlimDescription.readIfPresent(in: directory.path) == nil)
        let float = try ModelSlimDescription(configuration(#"{"model_quant_type": "FLOAT", "a.weight": "FLOAT"}"#))
        #expect(!float.hasIntegers)
    }

    @Test(arguments: ["W4A8_DYNAMIC", "W8A16", "C8"])
    func `is refused with other kinds, by the tensor`(kind: String) throws {
        let directory = try directory(Self.description(kind))
        let error = try refusal { try ModelSlimDescription.readIfPresent(in: directory.path) }
        #expect(error.subject == .key(Self.matrix) && error.problem.contains(kind) && error.advice.contains("W8A8"))
    }

    /// The other matrices decide, since integers are the same in both profiles.
    @Test func `leads to F32 where the other matrices are wider than BF16`() throws {
        let directory = try directory(Self.description(), other: "F16")
        #expect(try WeightIndex(directory: directory.path).profile == .int8F32)
    }

    @Test(arguments: ["heads_rotation", "kronecker_rotation"])
    func `is refused if it rotates activations`(rotation: String) throws {
        let metadata = #""metadata": {"quarot": {"\#(rotation)": {"layers": []}}},"#
        let error = try refusal { try ModelSlimDescription(configuration(Self.description(others: metadata))) }
        #expect(error.problem.contains("rotates activations"))
        let allowed = #""metadata": {"quarot": {}}, "optional": {"quarot": {"rotation_map": {}}},"#
        #expect(try ModelSlimDescription(configuration(Self.description(others: allowed))).hasIntegers)
    }

    @Test func `is refused if it quantizes the cache`() throws {
        let error = try refusal {
            try ModelSlimDescription(configuration(Self.description().replacingOccurrences(of: "null", with: #""C8""#)))
        }
        #expect(error.subject == .key("kv_quant_type"))
    }

    @Test(arguments: [("model.layers.0.mlp.down_proj.weight", "FLOAT"), ("lm_head.weight", "W8A8_DYNAMIC")])
    func `is refused if the tensors are stored otherwise`(tensor: String, kind: String) throws {
        let directory = try directory(#"{"\#(tensor)": "\#(kind)"}"#)
        let description = try #require(try ModelSlimDescription.readIfPresent(in: directory.path))
        let weights = try WeightIndex(directory: directory.path)
        let error = try refusal { try description.validate(weights) }
        #expect(error.subject == .tensor(tensor) && error.problem.contains(kind))
    }

    @Test func `comes with offsets of zero, or is refused`() throws {
        let directory = try directory(Self.description(), offset: 0x3F)
        let weights = try WeightIndex(directory: directory.path)
        let error = try refusal { try weights.matrix(Self.matrix, rows: 2, columns: 3) }
        #expect(error.subject == .tensor(Self.matrix + "_offset") && error.problem.contains("symmetric"))
    }
}
