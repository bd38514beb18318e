package import Checkpoints
package import KVCache
package import Modeling
package import Tensors

/// The checked `config.json` of a DeepSeek-V3 or V3.2 model. V3 is V3.2 without an indexer.
package struct DeepSeekConfiguration: Sendable, Equatable {
    package static let modelTypes = ["deepseek_v3", "deepseek_v32"]

    package var modelType: String
    package var vocabularySize: Int
    package var hiddenSize: Int
    package var layers: Int
    /// The number of leading layers that have a plain feed-forward instead of experts.
    package var denseLayers: Int
    package var denseWidth: Int
    /// The number of next-token (MTP) blocks stored after the last layer.
    package var nextTokenLayers: Int
    package var contextLength: Int
    package var normEpsilon: Float

    package var heads: Int
    package var queryRank: Int
    package var latentWidth: Int
    package var nopeWidth: Int
    package var ropeWidth: Int
    package var valueWidth: Int
    package var rotary: RotaryConfiguration
    /// The indexer; `nil` for V3, whose rows attend to all keys.
    package var indexer: IndexerConfiguration?
    package var experts: ExpertConfiguration
    /// The element type in which kernels read the checkpoint's unquantized weights (`torch_dtype`), for dummy weights;
    /// F16 is widened to F32.
    package var storedType: DType
    /// True if the head's matrix is that of the embedding (`tie_word_embeddings`).
    package var tiesEmbeddings: Bool

    package struct IndexerConfiguration: Sendable, Equatable {
        package var heads: Int
        package var width: Int
        package var topK: Int
        /// Whether rotary pairs are adjacent elements (GLM); V3.2 pairs the two halves instead.
        package var interleaved: Bool
    }

    package struct ExpertConfiguration: Sendable, Equatable {
        package var gate: GateRule
        package var width: Int
        package var shared: Int
    }

    /// The scale of attention scores: `(nope + rope)^-1/2`, times the square of YaRN's mscale.
    package var softmaxScale: Float {
        1 / Float(nopeWidth + ropeWidth).squareRoot() * rotary.softmaxFactor
    }

    /// Returns the cache format: one key set in each layer (`KeyLanes`).
    ///
    /// - Parameter drafts: true to include a key set for the next-token block, after those of the layers.
    package func cacheFormat(_ type: CacheType, pageSize: Int, drafts: Bool = false) -> CacheFormat {
        var lanes = [
            KeySet.Lane(as: type, width: latentWidth, fp8: .grouped(128)),
            KeySet.Lane(as: type, width: ropeWidth, fp8: .keepsBF16),
        ]
        // An FP8 cache rotates index keys (`Indexer`), so the elements of an entry have similar magnitudes and share a
        // scale.
        if let indexer { lanes.append(KeySet.Lane(as: type, width: indexer.width, fp8: .perEntry)) }
        return CacheFormat(
            layers: Array(repeating: [KeySet("keys", lanes)], count: layers + (drafts ? 1 : 0)), pageSize: pageSize)
    }
}

/// The indices of the lanes in a layer's key set.
package enum KeyLanes {
    /// The compressed keys and values of multi-head latent attention.
    package static let latent = 0
    /// The rotary part of the key, which all heads share.
    package static let rotary = 1
    /// The key of the lightning indexer, if the model has an indexer.
    package static let index = 2
}

extension DeepSeekConfiguration {
    /// Reads and checks a configuration file's contents.
    ///
    /// - Throws: `CheckpointError` naming the key, what was found and what is legal.
    package init(_ file: ConfigurationValue) throws(CheckpointError) {
        modelType = try file.string("model_type", oneOf: Self.modelTypes)
        vocabularySize = try file.int("vocab_size", in: 1...10_000_000)
        hiddenSize = try file.int("hidden_size", in: 1...65_536)
        layers = try file.int("num_hidden_layers", in: 1...1000)
        denseLayers = try file.int("first_k_dense_replace", in: 0...1000)
        denseWidth = try file.int("intermediate_size", in: 1...1_000_000)
        nextTokenLayers = try file.int("num_nextn_predict_layers", in: 0...16, default: 0)
        contextLength = try file.int("max_position_embeddings", in: 1...16_777_216)
        normEpsilon = Float(try file.double("rms_norm_eps", in: 0...1, default: 1e-6))
        heads = try file.int("num_attention_heads", in: 1...4096)
        queryRank = try file.int("q_lora_rank", in: 1...65_536)
        latentWidth = try file.int("kv_lora_rank", in: 1...Kernels.maximumLatentWidth)
        nopeWidth = try file.int("qk_nope_head_dim", in: 1...4096)
        ropeWidth = try file.int("qk_rope_head_dim", in: 2...Kernels.maximumRopeWidth)
        valueWidth = try file.int("v_head_dim", in: 1...4096)
        rotary = try RotaryConfiguration(file, width: ropeWidth)
        indexer = modelType == "deepseek_v3" ? nil : try IndexerConfiguration(file, ropeWidth: ropeWidth)
        experts = try ExpertConfiguration(file)
        let spelling = file.contains("torch_dtype") ? "torch_dtype" : "dtype"
        let stored = try file.string(spelling, oneOf: ["float32", "bfloat16", "float16"], default: "bfloat16")
        storedType = stored == "bfloat16" ? .bf16 : .f32
        tiesEmbeddings = try file.bool("tie_word_embeddings", default: false)
        try refuseWhatIsNotImplemented(file)
    }

    /// Refuses values of `config.json` that change the mathematics in ways that are not implemented.
    ///
    /// - Throws: `CheckpointError` naming the key, what was found and what is legal.
    private func refuseWhatIsNotImplemented(_ file: ConfigurationValue) throws(CheckpointError) {
        _ = try file.string("hidden_act", oneOf: ["silu"], default: "silu")
        _ = try file.string("topk_method", oneOf: ["noaux_tc"], default: "noaux_tc")
        _ = try file.string("scoring_func", oneOf: ["sigmoid"], default: "sigmoid")
        _ = try file.int("moe_layer_freq", in: 1...1, default: 1)
        if try file.bool("attention_bias", default: false) {
            throw file.refusal(
                "attention_bias", "is true", advice: "DeepSeek models have false here; this one is not supported")
        }
        if ropeWidth % 2 != 0 {
            throw file.refusal("qk_rope_head_dim", "is \(ropeWidth)", advice: "rotary widths are even")
        }
        if let quantization = try file.objectIfPresent("quantization_config") {
            try QuantizationConfiguration.validate(quantization)
        }
    }
}

extension DeepSeekConfiguration.IndexerConfiguration {
    init(_ file: ConfigurationValue, ropeWidth: Int) throws(CheckpointError) {
        heads = try file.int("index_n_heads", in: 1...4096)
        width = try file.int("index_head_dim", in: 1...Kernels.maximumIndexWidth)
        topK = try file.int("index_topk", in: 1...1_000_000)
        interleaved = try file.bool("indexer_rope_interleave", default: false)
        if width < ropeWidth {
            throw file.refusal(
                "index_head_dim", "is \(width)", advice: "it holds the rotary part, so it is at least \(ropeWidth)")
        }
    }
}

extension DeepSeekConfiguration.ExpertConfiguration {
    init(_ file: ConfigurationValue) throws(CheckpointError) {
        let experts = try file.int("n_routed_experts", in: 1...1024)
        let groups = try file.groups("n_group")
        let topGroups = try file.groups("topk_group")
        let perToken = try file.int("num_experts_per_tok", in: 1...experts)
        guard experts % groups == 0, topGroups <= groups else {
            throw file.refusal(
                "n_group", "is \(groups), with topk_group \(topGroups) and \(experts) experts",
                advice: "groups divide the experts evenly and at least topk_group of them exist")
        }
        guard topGroups * (experts / groups) >= perToken else {
            throw file.refusal(
                "num_experts_per_tok", "is \(perToken)",
                advice: "the \(topGroups) groups kept have only \(topGroups * (experts / groups)) experts")
        }
        gate = GateRule(
            experts: experts, expertsPerToken: perToken, groups: groups, topGroups: topGroups,
            normalize: try file.bool("norm_topk_prob", default: true),
            scaling: Float(try file.double("routed_scaling_factor", in: 0...1e6)))
        width = try file.int("moe_intermediate_size", in: 1...65_536)
        shared = try file.sharedExperts()
    }
}

extension ConfigurationValue {
    /// Reads a number of expert groups. The key must be present, since its absence would change the mathematics, but an
    /// explicit null means one group.
    fileprivate func groups(_ key: String) throws(CheckpointError) -> Int {
        isNull(key) ? 1 : try int(key, in: 1...1024)
    }

    /// Reads the number of shared experts; an explicit null means none.
    fileprivate func sharedExperts() throws(CheckpointError) -> Int {
        isNull("n_shared_experts") ? 0 : try int("n_shared_experts", in: 0...1024)
    }
}
