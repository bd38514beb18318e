package import Checkpoints
package import KVCache
package import Modeling
package import Tensors

/// The checked `config.json` of a DeepSeek-V3, DeepSeek-V3.2 or GLM-5 model.
///
/// V3 is V3.2 without an indexer. GLM-5 is V3.2 with other sizes; since GLM-5.2, only some of its layers have an indexer,
/// and the others reuse a selection.
package struct DeepSeekConfiguration: Sendable, Equatable {
    package static let modelTypes = ["deepseek_v3", "deepseek_v32", "glm_moe_dsa"]

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
    /// The formats of the checkpoint's weights.
    package var formats: WeightFormats
    /// True if the head's matrix is that of the embedding (`tie_word_embeddings`).
    package var tiesEmbeddings: Bool

    package struct IndexerConfiguration: Sendable, Equatable {
        package var heads: Int
        package var width: Int
        package var topK: Int
        /// For each layer, true if it selects keys with an indexer of its own. The others have no index keys; their rows
        /// attend to the keys that the nearest earlier such layer selected. The first layer always selects.
        package var selects: [Bool]
        /// True if the next-token block reuses the selection of a chain's first row for the rows that follow it.
        package var isSharedInDrafts: Bool
        /// True if rotary pairs are adjacent elements (GLM); V3.2 pairs the two halves instead.
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

    /// Returns a layer's own indexer; `nil` if the layer reuses a selection, or if rows attend to all keys. A next-token
    /// block, which is stored after the last layer, always has its own.
    package func indexer(ofLayer layer: Int) -> IndexerConfiguration? {
        guard let indexer, layer >= layers || indexer.selects[layer] else { return nil }
        return indexer
    }

    /// The number of selected entries that layers hand on for each row: `index_topk` if a layer reuses a selection,
    /// else 0.
    package var reusedSelection: Int {
        guard let indexer, indexer.selects.contains(false) else { return 0 }
        return indexer.topK
    }

    package func keepingLayers(_ kept: [Int]) -> Self {
        var part = self
        part.layers = kept.count
        part.denseLayers = kept.count { $0 < denseLayers }
        part.indexer?.selects = kept.map { indexer?.selects[$0] ?? true }
        part.nextTokenLayers = 0
        return part
    }

    /// How an FP8 cache keeps latents.
    static let latentRounding = KeySet.FP8Rounding.grouped(128, .f32)

    /// Returns the cache format: one key set in each layer (`KeyLanes`).
    ///
    /// - Parameter drafts: true to include a key set for the next-token block, after those of the layers.
    package func cacheFormat(_ type: CacheType, pageSize: Int, drafts: Bool = false) -> CacheFormat {
        precondition(!type.hasFP4Index, "index keys of \(modelType) in FP4")
        let lanes = [
            KeySet.Lane(as: type, width: latentWidth, fp8: Self.latentRounding),
            KeySet.Lane(as: type, width: ropeWidth, fp8: .keepsBF16),
        ]
        let index = indexer.map { KeySet.Lane(indexAs: type, width: $0.width) }
        let sets = (0..<layers + (drafts ? 1 : 0)).map { layer in
            [KeySet("keys", indexer(ofLayer: layer) == nil ? lanes : lanes + [index!])]
        }
        return CacheFormat(layers: sets, pageSize: pageSize)
    }
}

/// The indices of the lanes in a layer's key set.
package enum KeyLanes {
    /// The compressed keys and values of multi-head latent attention.
    package static let latent = 0
    /// The rotary part of the key, which all heads share.
    package static let rotary = 1
    /// The key of the lightning indexer, if the layer has an indexer.
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
        // Without the key, transformers takes another value for GLM than for DeepSeek.
        let epsilon = modelType == "glm_moe_dsa" ? 1e-5 : 1e-6
        normEpsilon = Float(try file.double("rms_norm_eps", in: 0...1, default: epsilon))
        heads = try file.int("num_attention_heads", in: 1...4096)
        queryRank = try file.int("q_lora_rank", in: 1...65_536)
        latentWidth = try file.int("kv_lora_rank", in: 1...Kernels.maximumLatentWidth)
        nopeWidth = try file.int("qk_nope_head_dim", in: 1...4096)
        ropeWidth = try file.int("qk_rope_head_dim", in: 2...Kernels.maximumRopeWidth)
        valueWidth = try file.int("v_head_dim", in: 1...4096)
        rotary = try RotaryConfiguration(file, width: ropeWidth)
        indexer =
            modelType == "deepseek_v3" ? nil : try IndexerConfiguration(file, layers: layers, ropeWidth: ropeWidth)
        experts = try ExpertConfiguration(file)
        formats = try WeightFormats(file)
        tiesEmbeddings = try file.bool("tie_word_embeddings", default: false)
        try refuseWhatIsNotImplemented(file)
    }

    /// Refuses values of `config.json` that change the mathematics in ways that are not implemented.
    ///
    /// - Throws: `CheckpointError` naming the key, what was found and what is legal.
    private func refuseWhatIsNotImplemented(_ file: ConfigurationValue) throws(CheckpointError) {
        try file.requireNotNull("rms_norm_eps", "norm_topk_prob", "rope_interleave", "indexer_rope_interleave")
        _ = try file.string("hidden_act", oneOf: ["silu"], default: "silu")
        _ = try file.string("topk_method", oneOf: ["noaux_tc"], default: "noaux_tc")
        _ = try file.string("scoring_func", oneOf: ["sigmoid"], default: "sigmoid")
        _ = try file.int("moe_layer_freq", in: 1...1, default: 1)
        for key in ["attention_bias"] where try file.bool(key, default: false) {
            throw file.refusal(key, "is true", advice: "released models have false here; this one is not supported")
        }
        if !(try file.bool("rope_interleave", default: true)) {
            throw file.refusal(
                "rope_interleave", "is false", advice: "attention pairs adjacent elements; this is not supported")
        }
        if file.contains("mlp_layer_types"), !file.isNull("mlp_layer_types") {
            let types = try file.stringArray(
                "mlp_layer_types", oneOf: ["dense", "sparse"], count: layers...layers + 16)
            guard types.prefix(layers).enumerated().allSatisfy({ ($0 < denseLayers) == ($1 == "dense") }) else {
                throw file.refusal(
                    "mlp_layer_types", "does not have \(denseLayers) dense layers first and then sparse ones",
                    advice: "it must agree with first_k_dense_replace")
            }
        }
        if ropeWidth % 2 != 0 {
            throw file.refusal("qk_rope_head_dim", "is \(ropeWidth)", advice: "rotary widths are even")
        }
    }
}

extension DeepSeekConfiguration.IndexerConfiguration {
    init(_ file: ConfigurationValue, layers: Int, ropeWidth: Int) throws(CheckpointError) {
        heads = try file.int("index_n_heads", in: 1...4096)
        width = try file.int("index_head_dim", in: 1...Kernels.maximumIndexWidth)
        topK = try file.int("index_topk", in: 1...1_000_000)
        // Without the key, transformers pairs adjacent elements for GLM and the two halves for DeepSeek.
        let isGLM = try file.string("model_type") == "glm_moe_dsa"
        interleaved = try file.bool("indexer_rope_interleave", default: isGLM)
        selects = try Self.selects(file, layers: layers)
        isSharedInDrafts = try file.bool("index_share_for_mtp_iteration", default: false)
        if width < ropeWidth {
            throw file.refusal(
                "index_head_dim", "is \(width)", advice: "it holds the rotary part, so it is at least \(ropeWidth)")
        }
    }

    /// Reads for each layer whether it selects keys: from `indexer_types`; without it from `index_topk_pattern`, in
    /// which F stands for "full" and S for "shared"; else every `index_topk_freq`-th layer does, and before them the
    /// first `index_skip_topk_offset` layers. Without any of these keys, all layers select. Further entries than layers
    /// are those of next-token blocks, which always select.
    private static func selects(_ file: ConfigurationValue, layers: Int) throws(CheckpointError) -> [Bool] {
        let (types, pattern) = ("indexer_types", "index_topk_pattern")
        var selects: [Bool]
        var key = types
        if file.contains(types), !file.isNull(types) {
            selects = try file.stringArray(types, oneOf: ["full", "shared"], count: layers...layers + 16)
                .map { $0 == "full" }
        } else if file.contains(pattern), !file.isNull(pattern) {
            key = pattern
            let text = try file.string(pattern)
            guard (layers...layers + 16).contains(text.utf8.count), text.utf8.allSatisfy({ "FS".utf8.contains($0) })
            else {
                throw file.refusal(
                    pattern, "is '\(text.prefix(100))'", advice: "it has a letter for each of \(layers) layers, F or S")
            }
            selects = text.utf8.map { $0 == UInt8(ascii: "F") }
        } else {
            let frequency = try file.int("index_topk_freq", in: 1...1000, default: 1)
            let offset = try file.int("index_skip_topk_offset", in: 1...1000, default: 2)
            selects = (0..<layers).map { max($0 - offset + 1, 0) % frequency == 0 }
        }
        guard selects[0] else {
            throw file.refusal(
                key, "begins with a shared layer",
                advice: "the first layer has no earlier one whose selection it can reuse")
        }
        return Array(selects.prefix(layers))
    }
}

extension DeepSeekConfiguration.ExpertConfiguration {
    init(_ file: ConfigurationValue) throws(CheckpointError) {
        let experts = try file.int("n_routed_experts", in: 1...1024)
        // Their absence would change the mathematics, and so would null: implementations fail or take no groups.
        let groups = try file.int("n_group", in: 1...1024)
        let topGroups = try file.int("topk_group", in: 1...1024)
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
    /// Reads the number of shared experts; an explicit null means none.
    fileprivate func sharedExperts() throws(CheckpointError) -> Int {
        isNull("n_shared_experts") ? 0 : try int("n_shared_experts", in: 0...1024)
    }
}
