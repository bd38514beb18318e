import Checkpoints
import DeepSeekV32
import Foundation
import KVCache
import Modeling
import Planning
import Tensors
import TestSupport
import Testing

/// Requires that `body` is refused, and returns why.
func refusal<Result>(
    sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> Result
) throws -> CheckpointError {
    let error = #expect(throws: CheckpointError.self, sourceLocation: sourceLocation) { _ = try body() }
    return try #require(error, sourceLocation: sourceLocation)
}

/// Returns the configuration of the small benchmark model, with some keys given another JSON text and some left out.
private func configuration(
    _ changes: [String: String] = [:], without absent: [String] = []
) throws -> DeepSeekConfiguration {
    let path = Golden.root + "/Benchmarks/models/small/config.json"
    let data = try Data(contentsOf: URL(fileURLWithPath: path))
    let small = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    var members: [String: String] = [:]
    for (key, value) in small where !absent.contains(key) {
        let text = try JSONSerialization.data(withJSONObject: value, options: .fragmentsAllowed)
        members[key] = String(decoding: text, as: UTF8.self)
    }
    members.merge(changes) { $1 }
    let text = "{" + members.map { "\"\($0)\": \($1)" }.joined(separator: ", ") + "}"
    return try DeepSeekConfiguration(ModelConfigurationFile.parse(Array(text.utf8), file: "config.json"))
}

/// Requires that a file with these changes is refused with a message that names `key`.
private func expectRefused(
    _ changes: [String: String] = [:], without absent: [String] = [], naming key: String,
    sourceLocation: SourceLocation = #_sourceLocation
) throws {
    let error = try refusal(sourceLocation: sourceLocation) { try configuration(changes, without: absent) }
    #expect(error.subject == .key(key), "\(changes)", sourceLocation: sourceLocation)
    #expect(error.file == "config.json" && !error.advice.isEmpty, sourceLocation: sourceLocation)
    #expect(error.description.contains("\"\(key)\""), sourceLocation: sourceLocation)
}

@Suite struct `A DeepSeek configuration` {
    /// These keys have a whole number whose absence would change the mathematics; 0 is not legal for them.
    static let sizes = [
        "vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings",
        "num_attention_heads", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim",
        "index_n_heads", "index_head_dim", "index_topk", "n_routed_experts", "n_group", "topk_group",
        "num_experts_per_tok", "moe_intermediate_size",
    ]
    /// These keys are required too, but 0 is legal for them.
    static let counts = ["first_k_dense_replace", "n_shared_experts"]

    @Test func `is read from a file like the released ones`() throws {
        let small = try configuration()
        #expect(small.modelType == "deepseek_v32" && small.formats.plain.dtype == .bf16)
        #expect(small.vocabularySize == 8192 && small.hiddenSize == 512 && small.layers == 8)
        #expect(small.denseLayers == 1 && small.denseWidth == 2048 && small.nextTokenLayers == 0)
        #expect(small.contextLength == 163_840 && small.heads == 8)
        #expect(small.queryRank == 256 && small.latentWidth == 512)
        #expect(small.nopeWidth == 128 && small.ropeWidth == 64 && small.valueWidth == 128)
        let indexer = try #require(small.indexer)
        #expect(indexer.heads == 8 && indexer.width == 128 && indexer.topK == 512 && !indexer.interleaved)
        #expect(small.experts.width == 256 && small.experts.shared == 1)
        #expect(small.experts.gate.experts == 16 && small.experts.gate.expertsPerToken == 2)
        #expect(small.experts.gate.scaling == 2.5)
        // The scale is (128 + 64)^-1/2 · (0.1 · ln 40 + 1)².
        #expect(abs(small.softmaxScale / 0.135233781 - 1) < 1e-5)
    }

    @Test(arguments: sizes + counts + ["model_type", "routed_scaling_factor"])
    func `is refused without`(key: String) throws {
        try expectRefused(without: [key], naming: key)
    }

    @Test(arguments: sizes)
    func `is refused with a size of this key that is no sensible number`(key: String) throws {
        for text in ["0", "-1", "9223372036854775807", "1e18", "1.5", "\"8\"", "true", "[8]", "{}"] {
            try expectRefused([key: text], naming: key)
        }
    }

    @Test(arguments: counts + ["num_nextn_predict_layers"])
    func `is refused with a count of this key that is no sensible number`(key: String) throws {
        for text in ["-1", "9223372036854775807", "0.5", "\"1\"", "false", "[]", "{}"] {
            try expectRefused([key: text], naming: key)
        }
        _ = try configuration([key: "0"])
    }

    @Test(arguments: Set(sizes + counts).subtracting(["n_shared_experts"]).sorted())
    func `is refused with null for a number it needs`(key: String) throws {
        try expectRefused([key: "null"], naming: key)
    }

    @Test func `takes null shared experts for none`() throws {
        #expect(try configuration(["n_shared_experts": "null"]).experts.shared == 0)
    }

    @Test(arguments: ["rms_norm_eps", "norm_topk_prob", "rope_theta", "rope_interleave", "indexer_rope_interleave"])
    func `is refused with null that would not mean what a missing key means`(key: String) throws {
        try expectRefused([key: "null"], naming: key)
        _ = try configuration(without: [key])
    }

    @Test(arguments: [
        ("model_type", "\"llama\""), ("model_type", "null"), ("model_type", "32"), ("hidden_act", "\"gelu\""),
        ("topk_method", "\"greedy\""), ("scoring_func", "\"softmax\""), ("moe_layer_freq", "2"),
        ("torch_dtype", "\"float64\""), ("attention_bias", "true"), ("attention_bias", "0"),
        ("tie_word_embeddings", "1"), ("norm_topk_prob", "1"), ("norm_topk_prob", "\"true\""),
        ("indexer_rope_interleave", "1"), ("rms_norm_eps", "-1e-6"), ("rms_norm_eps", "2"), ("rms_norm_eps", "\"0\""),
        ("routed_scaling_factor", "-1"), ("routed_scaling_factor", "1e7"), ("routed_scaling_factor", "null"),
        ("rope_theta", "1"), ("rope_theta", "0"), ("rope_scaling", "[]"), ("qk_rope_head_dim", "63"),
        ("quantization_config", "[]"),
    ])
    func `is refused with a value that is not supported`(key: String, text: String) throws {
        try expectRefused([key: text], naming: key)
    }

    @Test(arguments: [
        (#"{"type": "linear"}"#, "type"), (#"{"type": "yarn"}"#, "factor"),
        (#"{"type": "yarn", "factor": 40}"#, "original_max_position_embeddings"),
        (
            #"{"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 1, "beta_slow": 32}"#,
            "beta_fast"
        ),
    ])
    func `is refused with a wrong rope_scaling`(text: String, key: String) throws {
        try expectRefused(["rope_scaling": text], naming: "rope_scaling." + key)
    }

    @Test func `is refused with another quantization`() throws {
        try expectRefused(
            ["quantization_config": #"{"quant_method": "awq", "weight_block_size": [128, 128]}"#],
            naming: "quantization_config.quant_method")
        try expectRefused(
            ["quantization_config": #"{"quant_method": "fp8", "weight_block_size": [64, 64]}"#],
            naming: "quantization_config.weight_block_size")
        _ = try configuration(["quantization_config": #"{"quant_method": "fp8", "weight_block_size": [128, 128]}"#])
    }

    @Test func `with tied embeddings counts their matrix once in memory and twice in work`() throws {
        let (plain, tied) = (try configuration(), try configuration(["tie_word_embeddings": "true"]))
        #expect(tied.tiesEmbeddings && !plain.tiesEmbeddings)
        let (separate, shared) = (plain.description, tied.description)
        #expect(shared.tiesEmbeddings && shared.head.names == shared.embedding.names)
        #expect(separate.parameters.total - shared.parameters.total == 8192 * 512)
        #expect(separate.multipliedParameters == shared.multipliedParameters)
        let operations = [separate, shared].map { FloatingPointOperations($0).matrices(rows: 5, outputs: 3) }
        #expect(operations[0] == operations[1])
    }

    @Test func `made in F16 has weights of four bytes in memory`() throws {
        for name in ["float16", "half", "torch.float16", "torch.half", "float32", "float", "torch.float32"] {
            #expect(try configuration(["torch_dtype": "\"\(name)\""]).formats.plain.dtype == .f32, "\(name)")
        }
        for name in ["bfloat16", "torch.bfloat16", "auto"] {
            #expect(try configuration(["torch_dtype": "\"\(name)\""]).formats.plain.dtype == .bf16, "\(name)")
        }
    }

    @Test func `has the element type of either spelling, and not of two that differ`() throws {
        func type(_ older: String, _ newer: String) throws -> DType {
            try configuration(["torch_dtype": older, "dtype": newer]).formats.plain.dtype
        }
        #expect(try type("null", "\"float32\"") == .f32)
        #expect(try type("\"torch.float32\"", "null") == .f32)
        #expect(try type("\"torch.bfloat16\"", "\"bfloat16\"") == .bf16)
        try expectRefused(["torch_dtype": "\"bfloat16\"", "dtype": "\"float32\""], naming: "dtype")
        try expectRefused(["torch_dtype": "\"bfloat16\"", "dtype": "5"], naming: "dtype")
    }

    @Test(arguments: [
        (["n_group": "3"], "n_group"), (["topk_group": "2"], "n_group"), (["n_group": "32"], "n_group"),
        (["num_experts_per_tok": "17"], "num_experts_per_tok"),
        (["n_group": "8", "num_experts_per_tok": "3"], "num_experts_per_tok"),
        (["n_routed_experts": "1"], "num_experts_per_tok"), (["n_routed_experts": "1025"], "n_routed_experts"),
        (["index_head_dim": "62"], "index_head_dim"), (["qk_rope_head_dim": "1"], "qk_rope_head_dim"),
    ])
    func `is refused when its numbers do not fit together`(changes: [String: String], key: String) throws {
        try expectRefused(changes, naming: key)
    }

    @Test func `has room for the widest keys the kernels have room for, and no wider`() throws {
        let (latent, rope) = (Kernels.maximumLatentWidth, Kernels.maximumRopeWidth)
        let index = Kernels.maximumIndexWidth
        #expect(index >= rope && latent >= 512)
        let widest = try configuration([
            "kv_lora_rank": "\(latent)", "qk_rope_head_dim": "\(rope)", "index_head_dim": "\(index)",
        ])
        #expect(widest.latentWidth == latent && widest.ropeWidth == rope && widest.indexer?.width == index)
        try expectRefused(["kv_lora_rank": "\(latent + 1)"], naming: "kv_lora_rank")
        try expectRefused(["index_head_dim": "\(index + 1)"], naming: "index_head_dim")
        try expectRefused(
            ["qk_rope_head_dim": "\(rope + 2)", "index_head_dim": "\(index)"], naming: "qk_rope_head_dim")
    }

    @Test(arguments: [
        "num_nextn_predict_layers", "hidden_act", "topk_method", "scoring_func", "moe_layer_freq", "attention_bias",
        "tie_word_embeddings", "torch_dtype",
    ])
    func `has the released models' value where this key is missing or null`(key: String) throws {
        let plain = try configuration()
        #expect(try configuration(without: [key]) == plain)
        #expect(try configuration([key: "null"]) == plain)
    }

    @Test(arguments: ["rms_norm_eps", "norm_topk_prob", "rope_theta"])
    func `has the released models' value where this key is missing`(key: String) throws {
        #expect(try configuration(without: [key]) == configuration())
    }

    @Test func `of V3 needs no indexer`() throws {
        let indexer = ["index_n_heads", "index_head_dim", "index_topk"]
        #expect(try configuration(["model_type": "\"deepseek_v3\""], without: indexer).indexer == nil)
        try expectRefused(without: indexer, naming: "index_n_heads")
    }

    @Test func `of released shape keeps as many bytes of a token as its cache type says`() throws {
        let released = try configuration([
            "kv_lora_rank": "512", "qk_rope_head_dim": "64", "index_head_dim": "128", "num_hidden_layers": "61",
        ])
        for (type, bytes) in [
            (CacheType.float32, (512 + 64 + 128) * 4), (.bfloat16, (512 + 64 + 128) * 2), (.fp8, 656 + 132),
        ] {
            let format = released.cacheFormat(type, pageSize: 64)
            #expect(format.bytesPerToken(layer: 60) == bytes && format.bytesPerToken == Double(61 * bytes))
        }
        let fp8 = released.cacheFormat(.fp8, pageSize: 64).layers[0][0].lanes
        #expect(fp8.map(\.dtype) == [.fp8, .bf16, .fp8])
        #expect(
            [KeyLanes.latent, KeyLanes.rotary, KeyLanes.index].map { fp8[$0].bytesPerEntry }
                == [512 + 4 * 4, 64 * 2, 128 + 4])
    }

    @Test func `counts the numbers of the largest legal model without overflow`() throws {
        let largest = try configuration([
            "vocab_size": "10000000", "hidden_size": "65536", "num_hidden_layers": "1000",
            "intermediate_size": "1000000", "num_attention_heads": "4096", "q_lora_rank": "65536",
            "kv_lora_rank": "\(Kernels.maximumLatentWidth)", "qk_nope_head_dim": "4096", "v_head_dim": "4096",
            "index_n_heads": "4096", "index_head_dim": "\(Kernels.maximumIndexWidth)", "n_routed_experts": "1024",
            "moe_intermediate_size": "65536", "n_shared_experts": "1024", "first_k_dense_replace": "0",
        ])
        let (total, active) = largest.description.parameters
        #expect(total > 1 << 53 && active > 0 && active < total)
    }

    /// The keys by which GLM-5.2's released configuration differs from V3.2's in kind, for eight layers.
    private static let glm = [
        "model_type": "\"glm_moe_dsa\"", "index_topk_freq": "4", "index_skip_topk_offset": "3", "n_group": "1",
        "topk_group": "1", "rope_parameters": #"{"rope_theta": 8000000, "rope_type": "default"}"#,
        "rms_norm_eps": "1e-05", "index_head_dim": "128", "kv_lora_rank": "512", "qk_rope_head_dim": "64",
    ]

    private func glm(_ changes: [String: String] = [:]) throws -> DeepSeekConfiguration {
        try configuration(Self.glm.merging(changes) { $1 }, without: ["rope_scaling", "rope_theta"])
    }

    @Test func `is read from GLM-5's files`() throws {
        let glm = try glm(["qk_nope_head_dim": "192"])
        #expect(glm.rotary.theta == 8e6 && glm.rotary.yarn == nil && glm.normEpsilon == 1e-5)
        #expect(glm.softmaxScale == 0.0625)
        let indexer = try #require(glm.indexer)
        #expect(indexer.interleaved && indexer.selects == [true, true, true, false, false, false, true, false])
        #expect(glm.reusedSelection == indexer.topK && glm.description.reusedSelection == indexer.topK)
        #expect(try configuration().reusedSelection == 0 && configuration().indexer?.interleaved == false)
        #expect(try self.glm(["indexer_rope_interleave": "false"]).indexer?.interleaved == false)
        #expect(try self.glm(["index_share_for_mtp_iteration": "true"]).indexer?.isSharedInDrafts == true)
        #expect(!indexer.isSharedInDrafts)
    }

    @Test func `has the epsilon of transformers' class for its type where the key is missing`() throws {
        for (type, epsilon) in [("deepseek_v3", 1e-6), ("deepseek_v32", 1e-6), ("glm_moe_dsa", 1e-5)]
            as [(String, Float)]
        {
            let found = try configuration(["model_type": "\"\(type)\""], without: ["rms_norm_eps"])
            #expect(found.normEpsilon == epsilon, "\(type)")
        }
    }

    @Test func `stores index keys only in layers that select`() throws {
        let glm = try glm(["num_nextn_predict_layers": "1"])
        let format = glm.cacheFormat(.bfloat16, pageSize: 64, drafts: true)
        let selects = try #require(glm.indexer).selects + [true]
        for (layer, selects) in selects.enumerated() {
            #expect(format.layers[layer][0].lanes.count == (selects ? 3 : 2))
            #expect(format.bytesPerToken(layer: layer) == 2 * (512 + 64 + (selects ? 128 : 0)))
        }
        let description = glm.description
        #expect(description.layers.map { $0.selection != nil } == glm.indexer?.selects)
        #expect(description.draftLayers.allSatisfy { $0.selection != nil })
        #expect(description.layerKinds.map(\.kind) == ["dense", "experts", "experts (shared selection)"])
        let names = description.layers[3].weights.flatMap(\.names)
        #expect(!names.contains { $0.contains("indexer") } && names.contains { $0.contains("kv_b_proj") })
    }

    @Test(arguments: [
        (["indexer_types": #"["full","full","shared","shared","full","shared","shared","full"]"#], "FFSSFSSF"),
        (["indexer_types": #"["full","full","full","full","full","full","full","shared","full"]"#], "FFFFFFFS"),
        (["indexer_types": "null", "index_topk_pattern": "\"FSFSFSFS\""], "FSFSFSFS"),
        (["index_topk_pattern": "\"FSFSFSFSF\""], "FSFSFSFS"),
        (["index_topk_freq": "3", "index_skip_topk_offset": "1"], "FSSFSSFS"),
        (["index_topk_freq": "1"], "FFFFFFFF"), (["index_topk_freq": "null"], "FFFFFFFF"),
        (["index_topk_freq": "100", "index_skip_topk_offset": "null"], "FFSSSSSS"),
    ])
    func `takes the layers that select from any of three keys`(changes: [String: String], expected: String) throws {
        #expect(try glm(changes).indexer?.selects == expected.map { $0 == "F" })
    }

    @Test(arguments: [
        (["indexer_types": #"["full"]"#], "indexer_types"), (["indexer_types": "8"], "indexer_types"),
        (
            ["indexer_types": #"["shared","full","full","full","full","full","full","full"]"#], "indexer_types"
        ),
        (
            ["indexer_types": #"["full","full","full","full","full","full","full","half"]"#], "indexer_types[7]"
        ),
        (["index_topk_pattern": "\"FSFSFSF\""], "index_topk_pattern"),
        (["index_topk_pattern": "\"SFFFFFFF\""], "index_topk_pattern"),
        (["index_topk_pattern": "\"FSFSFSF\u{1F600}\""], "index_topk_pattern"),
        (["index_topk_pattern": "[]"], "index_topk_pattern"), (["index_topk_freq": "0"], "index_topk_freq"),
        (["index_skip_topk_offset": "0"], "index_skip_topk_offset"), (["rope_interleave": "false"], "rope_interleave"),
        (["mlp_layer_types": #"["dense","dense"]"#], "mlp_layer_types"),
        (
            ["mlp_layer_types": #"["sparse","dense","sparse","sparse","sparse","sparse","sparse","sparse"]"#],
            "mlp_layer_types"
        ),
    ])
    func `is refused if selections cannot be shared so`(changes: [String: String], key: String) throws {
        let error = try refusal { try glm(changes) }
        #expect(error.subject == .key(key), "\(changes)")
    }
}
