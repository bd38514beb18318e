import Foundation

/// A DeepSeek-V3, DeepSeek-V3.2 or GLM-5 checkpoint of random weights, with the names and shapes of released tensors.
///
/// Every byte follows from the values here by integer arithmetic and correctly rounded operations, so the files are the
/// same on every machine. Sizes divide badly on purpose, but by eight wherever ranks may share a sum.
package struct RandomCheckpoint: Sendable {
    /// The element types in which matrices are stored.
    package enum Storage: String, Sendable {
        case f32 = "F32"
        case bf16 = "BF16"
        /// Matrices are F8_E4M3 with one scale per block of 128 × 128 where released checkpoints have that, and BF16
        /// elsewhere.
        case fp8 = "F8_E4M3"
        /// Matrices are I8 with one scale per row where released checkpoints have that, and BF16 elsewhere.
        case int8 = "I8"
    }

    package var seed: UInt64 = 1
    package var storage = Storage.f32
    /// True if INT8 matrices of attention have one activation scale and offset for all tokens, as ModelSlim writes them.
    package var hasStaticRounding = false
    /// The number of keys that a row selects; `nil` for a V3 model, whose rows attend to all keys.
    package var indexTopK: Int? = 24
    /// For a GLM-5 model, a letter for each layer: F if it selects keys, S if it reuses a selection; `nil` for a DeepSeek
    /// model.
    package var selectionPattern: String?
    package var hasNextTokenBlock = false
    package var heads = 8
    package var layers = 4
    package var hidden = 136
    package var experts = 16
    package var sharedExperts = 1
    package var vocabulary = 320
    /// True if YaRN scales rotary frequencies.
    package var usesYaRN = true
    package let contextLength = 512

    private let denseLayers = 1
    private let denseWidth = 208
    private let expertWidth = 40
    private let queryRank = 48
    private let latentWidth = 40
    private let nopeWidth = 24
    private let ropeWidth = 16
    private let valueWidth = 20
    private let indexHeads = 8
    private let indexWidth = 40

    package init() {}

    /// Creates a directory and writes `config.json` and `model.safetensors` into it.
    package func write(to directory: String) throws {
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        try SafeTensorsWriter.write(Array(configuration.utf8), to: directory + "/config.json")
        var writer = SafeTensorsWriter()
        for (name, shape) in tensors { add(name, shape, to: &writer) }
        try writer.write(to: directory + "/model.safetensors")
    }

    /// The text of `config.json`.
    private var configuration: String {
        let (architecture, type) =
            selectionPattern != nil
            ? ("GlmMoeDsaForCausalLM", "glm_moe_dsa")
            : indexTopK != nil
                ? ("DeepseekV32ForCausalLM", "deepseek_v32") : ("DeepseekV3ForCausalLM", "deepseek_v3")
        var members = [
            ("architectures", "[\"\(architecture)\"]"), ("model_type", "\"\(type)\""),
            ("torch_dtype", storage == .f32 ? "\"float32\"" : "\"bfloat16\""), ("topk_method", "\"noaux_tc\""),
            ("scoring_func", "\"sigmoid\""), ("hidden_act", "\"silu\""), ("norm_topk_prob", "true"),
            ("eos_token_id", "1"), ("rms_norm_eps", "1e-06"), ("rope_theta", "10000"),
            ("routed_scaling_factor", "2.5"), ("first_k_dense_replace", "\(denseLayers)"), ("n_group", "4"),
            ("topk_group", "2"), ("num_experts_per_tok", "4"), ("n_shared_experts", "\(sharedExperts)"),
            ("vocab_size", "\(vocabulary)"), ("hidden_size", "\(hidden)"), ("num_hidden_layers", "\(layers)"),
            ("num_nextn_predict_layers", hasNextTokenBlock ? "1" : "0"), ("intermediate_size", "\(denseWidth)"),
            ("moe_intermediate_size", "\(expertWidth)"), ("n_routed_experts", "\(experts)"),
            ("max_position_embeddings", "\(contextLength)"), ("num_attention_heads", "\(heads)"),
            ("num_key_value_heads", "\(heads)"), ("q_lora_rank", "\(queryRank)"), ("kv_lora_rank", "\(latentWidth)"),
            ("qk_nope_head_dim", "\(nopeWidth)"), ("qk_rope_head_dim", "\(ropeWidth)"),
            ("v_head_dim", "\(valueWidth)"),
        ]
        if let indexTopK {
            members += [
                ("index_n_heads", "\(indexHeads)"), ("index_head_dim", "\(indexWidth)"), ("index_topk", "\(indexTopK)"),
            ]
        }
        if let selectionPattern {
            members += [
                ("index_topk_pattern", "\"\(selectionPattern)\""), ("index_share_for_mtp_iteration", "true"),
            ]
        }
        if usesYaRN {
            members.append(
                (
                    "rope_scaling",
                    """
                    {"type": "yarn", "factor": 8, "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1, \
                    "mscale": 1.0, "mscale_all_dim": 1.0}
                    """
                ))
        }
        if storage == .fp8 {
            members.append(
                (
                    "quantization_config",
                    """
                    {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
                    """
                ))
        }
        if storage == .int8 { members.append(("quantization_config", #"{"quant_method": "w8a8_int8"}"#)) }
        return "{\n" + members.map { "  \"\($0.0)\": \($0.1)" }.joined(separator: ",\n") + "\n}\n"
    }

    /// The names and shapes of all tensors, `[out, in]` for matrices.
    private var tensors: [(name: String, shape: [Int])] {
        var all = [
            ("model.embed_tokens.weight", [vocabulary, hidden]), ("model.norm.weight", [hidden]),
            ("lm_head.weight", [vocabulary, hidden]),
        ]
        for layer in 0..<layers + (hasNextTokenBlock ? 1 : 0) {
            var own = attention(layer) + feedForward(layer)
            if layer == layers {
                own += [
                    ("enorm.weight", [hidden]), ("hnorm.weight", [hidden]), ("eh_proj.weight", [hidden, 2 * hidden]),
                    ("shared_head.norm.weight", [hidden]), ("embed_tokens.weight", [vocabulary, hidden]),
                    ("shared_head.head.weight", [vocabulary, hidden]),
                ]
            }
            all += own.map { ("model.layers.\(layer).\($0.0)", $0.1) }
        }
        return all
    }

    private func attention(_ layer: Int) -> [(String, [Int])] {
        var tensors = [
            ("input_layernorm.weight", [hidden]), ("post_attention_layernorm.weight", [hidden]),
            ("self_attn.q_a_proj.weight", [queryRank, hidden]), ("self_attn.q_a_layernorm.weight", [queryRank]),
            ("self_attn.q_b_proj.weight", [heads * (nopeWidth + ropeWidth), queryRank]),
            ("self_attn.kv_a_proj_with_mqa.weight", [latentWidth + ropeWidth, hidden]),
            ("self_attn.kv_a_layernorm.weight", [latentWidth]),
            ("self_attn.kv_b_proj.weight", [heads * (nopeWidth + valueWidth), latentWidth]),
            ("self_attn.o_proj.weight", [hidden, heads * valueWidth]),
        ]
        let pattern = selectionPattern.map { Array($0.utf8) } ?? []
        if indexTopK != nil, layer >= pattern.count || pattern[layer] == UInt8(ascii: "F") {
            tensors += [
                ("self_attn.indexer.wq_b.weight", [indexHeads * indexWidth, queryRank]),
                ("self_attn.indexer.wk.weight", [indexWidth, hidden]),
                ("self_attn.indexer.k_norm.weight", [indexWidth]), ("self_attn.indexer.k_norm.bias", [indexWidth]),
                ("self_attn.indexer.weights_proj.weight", [indexHeads, hidden]),
            ]
        }
        return tensors
    }

    private func feedForward(_ layer: Int) -> [(String, [Int])] {
        func feedForward(_ prefix: String, _ width: Int) -> [(String, [Int])] {
            [
                ("mlp.\(prefix)gate_proj.weight", [width, hidden]), ("mlp.\(prefix)up_proj.weight", [width, hidden]),
                ("mlp.\(prefix)down_proj.weight", [hidden, width]),
            ]
        }
        if layer < denseLayers { return feedForward("", denseWidth) }
        return [("mlp.gate.weight", [experts, hidden]), ("mlp.gate.e_score_correction_bias", [experts])]
            + feedForward("shared_experts.", expertWidth * sharedExperts)
            + (0..<experts).flatMap { feedForward("experts.\($0).", expertWidth) }
    }

    // MARK: - Numbers

    private func add(_ name: String, _ shape: [Int], to writer: inout SafeTensorsWriter) {
        let count = shape.reduce(1, *)
        var random = SplitMix64(seed: Self.hash(name) ^ seed &* 0x9E37_79B9_7F4A_7C15)
        if shape.count == 1 {
            let (center, spread): (Float, Float) = name.hasSuffix("bias") ? (0, 0.25) : (1, 0.25)
            let values = (0..<count).map { _ in center + spread * Self.uniform(&random) }
            let isExact = storage != .bf16 || name.hasSuffix("e_score_correction_bias")
            return isExact ? writer.add(name, shape, values) : writer.add(name, "BF16", shape, Self.truncated(values))
        }
        // Uniform numbers between -√3 and √3 have a variance of 1.
        let deviation = name.contains("embed_tokens") ? 1 : Self.gain(name) / Float(shape[1]).squareRoot()
        if storage == .fp8 && Self.isQuantized(name) {
            let codes = (0..<count).map { _ in Self.e4m3(&random) }
            let grid = shape.map { ($0 + 127) / 128 }
            let scales = (0..<grid[0] * grid[1]).map { _ in deviation * (1 + Self.uniform(&random) / 4) }
            writer.add(name, "F8_E4M3", shape, codes)
            return writer.add(name + "_scale_inv", grid, scales)
        }
        if storage == .int8 && Self.isQuantized(name) {
            let integers = (0..<count).map { _ in UInt8(bitPattern: Int8(Int(random.next() >> 40) % 255 - 127)) }
            // The integers have a deviation of 74.
            let scales = (0..<shape[0]).map { _ in deviation / 74 * (1 + Self.uniform(&random) / 4) }
            writer.add(name, "I8", shape, integers)
            if hasStaticRounding && name.contains("self_attn") && !name.contains("kv_b_proj") {
                return addRounding(name, integers, shape, scales, to: &writer)
            }
            return writer.add(name + "_scale", [shape[0], 1], scales)
        }
        let range = deviation * Float(3).squareRoot()
        let values = (0..<count).map { _ in range * Self.uniform(&random) }
        if storage == .f32 { return writer.add(name, shape, values) }
        writer.add(name, "BF16", shape, Self.truncated(values))
    }

    /// Returns a gain with which softmaxes, routers and indexers make clear decisions.
    private static func gain(_ name: String) -> Float {
        let gains: [(String, Float)] = [
            ("lm_head.", 1.6), ("shared_head.head.", 1.6), ("o_proj.", 0.7), ("down_proj.", 0.7), ("mlp.gate.", 1.6),
            ("q_b_proj.", 1.5), ("wq_b.", 1.5), ("weights_proj.", 2),
        ]
        return gains.first { name.contains($0.0) }?.1 ?? 1
    }

    /// Adds what says how the activations of an INT8 matrix are rounded: with an offset.
    private func addRounding(
        _ name: String, _ integers: [UInt8], _ shape: [Int], _ scales: [Float], to writer: inout SafeTensorsWriter
    ) {
        let base = String(name.dropLast(".weight".count))
        // The inputs of these products are of about 1.
        let (step, offset): (Float, Int) = (0x1p-5, name.contains("o_proj") ? -9 : 5)
        let biases = (0..<shape[0]).map { row in
            let sum = integers[row * shape[1]..<(row + 1) * shape[1]].reduce(0) { $0 + Int(Int8(bitPattern: $1)) }
            // Tools compute this in F32, and may be some units off.
            return Int32(row % 7 - 3 - offset * sum)
        }
        writer.add(base + ".input_scale", [1], [step])
        writer.add(base + ".input_offset", [1], [Float(offset)])
        writer.add(base + ".deq_scale", [shape[0]], scales.map { $0 * step })
        writer.add(
            base + ".quant_bias", "I32", [shape[0]],
            biases.flatMap { bias in (0..<4).map { UInt8(truncatingIfNeeded: bias >> (8 * $0)) } })
    }

    /// Returns true if released FP8 and INT8 checkpoints quantize this matrix.
    private static func isQuantized(_ name: String) -> Bool {
        !["embed_tokens", "lm_head", "shared_head", "eh_proj", "mlp.gate.", "weights_proj"].contains(
            where: name.contains)
    }

    /// Returns one of 2²⁴ numbers in -1 ..< 1.
    private static func uniform(_ random: inout SplitMix64) -> Float { Float(random.next() >> 40) / Float(1 << 23) - 1 }

    /// Returns the E4M3 code of a number of either sign from 1/8 to 15/8.
    private static func e4m3(_ random: inout SplitMix64) -> UInt8 {
        let bits = random.next()
        return UInt8(bits >> 63) << 7 | UInt8(4 + bits >> 40 & 3) << 3 | UInt8(bits >> 20 & 7)
    }

    private static func truncated(_ values: [Float]) -> [UInt8] {
        values.flatMap { SafeTensorsWriter.littleEndian(UInt16($0.bitPattern >> 16)) }
    }

    /// Returns the FNV-1a hash of a name.
    private static func hash(_ name: String) -> UInt64 {
        name.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    }
}
