package import Checkpoints
package import Modeling
package import Tensors

/// The checked `config.json` of a DeepSeek-V4 model, in the released spelling or in the newer one of transformers.
package struct DeepSeekV4Configuration: Sendable, Equatable {
    package static let modelTypes = ["deepseek_v4"]
    /// The most routed experts that a layer may have.
    static let maxExperts = 1024

    package var modelType: String
    package var vocabularySize: Int
    package var hiddenSize: Int
    /// The kind of each layer.
    package var kinds: [LayerKind]
    /// For each layer, true if it chooses experts by token and not by score.
    package var hashLayers: [Bool]
    /// The number of next-token (MTP) blocks of the checkpoint.
    package var nextTokenLayers: Int
    package var contextLength: Int
    package var normEpsilon: Float

    package var heads: Int
    package var queryRank: Int
    /// The width of a head's query, and of the key that all heads share.
    package var headWidth: Int
    /// The number of a head's last elements that are rotated.
    package var ropeWidth: Int
    /// The number of groups of heads that have an output projection of their own.
    package var outputGroups: Int
    /// The number of outputs of a group's projection.
    package var outputRank: Int
    /// The number of tokens, its own included, whose keys a row attends to.
    package var window: Int
    /// The rotary angles of layers that only have a window, and those of layers with entries.
    package var rotary: RotaryConfiguration
    package var compressedRotary: RotaryConfiguration
    package var indexer: IndexerConfiguration
    package var streams: StreamConfiguration
    package var experts: ExpertConfiguration
    /// The formats of the checkpoint's weights.
    package var formats: WeightFormats
    /// True if the head's matrix is that of the embedding (`tie_word_embeddings`).
    package var tiesEmbeddings: Bool

    package struct IndexerConfiguration: Sendable, Equatable {
        package var heads: Int
        package var width: Int
        /// The number of compressed entries that a row selects.
        package var topK: Int
    }

    /// The residual streams (manifold-constrained hyper-connections).
    package struct StreamConfiguration: Sendable, Equatable {
        package var count: Int
        /// The number of Sinkhorn rounds, the first of which is a softmax (`hc_sinkhorn_iters`).
        package var rounds: Int
        package var epsilon: Float

        /// Returns the number of factors of a mix: one for each stream to read it and one to write to it, and one for
        /// each pair of streams; the output head only reads.
        func mixes(isHead: Bool) -> Int { isHead ? count : (2 + count) * count }
    }

    package struct ExpertConfiguration: Sendable, Equatable {
        package var gate: GateRule
        package var width: Int
        package var shared: Int
        /// The bound to which the products of gate and up projections are clamped.
        package var limit: Float
    }

    package var layers: Int { kinds.count }
    /// The number of elements of a row's residual streams.
    package var stateWidth: Int { streams.count * hiddenSize }
    /// The scale of attention scores.
    package var softmaxScale: Float { 1 / Float(headWidth).squareRoot() }

    /// Returns the kind of a layer; the next-token block, which follows the last layer, has a window only.
    package func kind(ofLayer layer: Int) -> LayerKind { layer < layers ? kinds[layer] : .slidingWindow }

    /// Returns true if a layer chooses experts by token; the next-token block never does.
    func routesByToken(_ layer: Int) -> Bool { layer < layers && hashLayers[layer] }

    /// Returns the heads of some of the output groups.
    func heads(ofGroups groups: Range<Int>) -> Range<Int> {
        let each = heads / outputGroups
        return groups.lowerBound * each..<groups.upperBound * each
    }

    package func keepingLayers(_ kept: [Int]) -> Self {
        var part = self
        part.kinds = kept.map { kinds[$0] }
        part.hashLayers = kept.map { hashLayers[$0] }
        part.nextTokenLayers = 0
        return part
    }

    func prefix(ofLayer layer: Int) -> String { WeightNames.layer(layer, of: layers) }
}

extension DeepSeekV4Configuration {
    /// Reads and checks a configuration file's contents.
    ///
    /// - Throws: `CheckpointError` naming the key, what was found and what is legal.
    package init(_ file: ConfigurationValue) throws(CheckpointError) {
        modelType = try file.string("model_type", oneOf: Self.modelTypes)
        vocabularySize = try file.int("vocab_size", in: 1...10_000_000)
        hiddenSize = try file.int("hidden_size", in: 1...65_536)
        let layers = try file.int("num_hidden_layers", in: 1...1000)
        nextTokenLayers = try file.int("num_nextn_predict_layers", in: 0...16, default: 0)
        kinds = try Self.kinds(file, layers: layers)
        hashLayers = try Self.hashLayers(file, layers: layers)
        contextLength = try file.int("max_position_embeddings", in: 1...16_777_216)
        normEpsilon = Float(try file.double("rms_norm_eps", in: 0...1, default: 1e-6))
        heads = try file.int("num_attention_heads", in: 1...4096)
        queryRank = try file.int("q_lora_rank", in: 1...65_536)
        headWidth = try file.int("head_dim", in: 3...Kernels.maximumLatentWidth)
        ropeWidth = try Self.ropeWidth(file, of: headWidth)
        outputGroups = try file.int("o_groups", in: 1...heads)
        outputRank = try file.int("o_lora_rank", in: 1...65_536)
        window = try file.int("sliding_window", in: 1...65_536)
        rotary = try Self.rotary(file, "main", theta: "rope_theta", default: 10_000, width: ropeWidth)
        compressedRotary = try Self.rotary(
            file, "compress", theta: "compress_rope_theta", default: 160_000, width: ropeWidth)
        indexer = try IndexerConfiguration(file, ropeWidth: ropeWidth)
        streams = StreamConfiguration(
            count: try file.int("hc_mult", in: 1...Kernels.maximumStreams),
            rounds: try file.int("hc_sinkhorn_iters", in: 1...1000),
            epsilon: Float(try file.double("hc_eps", in: 0...1)))
        experts = try ExpertConfiguration(file)
        formats = try WeightFormats(file)
        if try file.string("expert_dtype", oneOf: ["fp4", "fp8"], default: "fp8") == "fp4" {
            formats.experts = WeightFormat(.fp4)
        }
        tiesEmbeddings = try file.bool("tie_word_embeddings", default: false)
        if heads % outputGroups != 0 {
            throw file.refusal(
                "o_groups", "is \(outputGroups), which does not divide \(heads) heads",
                advice: "all groups have as many heads")
        }
        try Self.refuseWhatIsNotImplemented(file)
    }

    /// Refuses values of `config.json` that change the mathematics in ways that are not implemented.
    ///
    /// - Throws: `CheckpointError` naming the key, what was found and what is legal.
    private static func refuseWhatIsNotImplemented(_ file: ConfigurationValue) throws(CheckpointError) {
        try file.requireNotNull("rms_norm_eps", "norm_topk_prob")
        _ = try file.string("hidden_act", oneOf: ["silu"], default: "silu")
        _ = try file.string("topk_method", oneOf: ["noaux_tc"], default: "noaux_tc")
        _ = try file.string("scoring_func", oneOf: ["sqrtsoftplus"], default: "sqrtsoftplus")
        _ = try file.int("num_key_value_heads", in: 1...1, default: 1)
        _ = try file.int("n_group", in: 1...1, default: 1)
        _ = try file.int("topk_group", in: 1...1, default: 1)
        for key in ["attention_bias", "mlp_bias"] where try file.bool(key, default: false) {
            throw file.refusal(key, "is true", advice: "released models have false here; this one is not supported")
        }
    }

    /// Reads the kinds of layers: from `compress_ratios`, which also has an entry for each next-token block, or from
    /// `layer_types` with `compress_rates`.
    private static func kinds(_ file: ConfigurationValue, layers: Int) throws(CheckpointError) -> [LayerKind] {
        let (ratios, types) = ("compress_ratios", "layer_types")
        guard file.contains(types), !file.isNull(types) else {
            return try kinds(file, ofRatios: ratios, layers: layers)
        }
        if let rates = try file.objectIfPresent("compress_rates") {
            for kind in LayerKind.allCases where kind.tokensPerEntry > 0 {
                _ = try rates.int(
                    kind.rawValue, in: kind.tokensPerEntry...kind.tokensPerEntry, default: kind.tokensPerEntry)
            }
        }
        let kinds = try file.stringArray(types, oneOf: LayerKind.allCases.map(\.rawValue), count: layers...layers)
            .map { LayerKind(rawValue: $0)! }
        if file.contains(ratios), !file.isNull(ratios),
            try Self.kinds(file, ofRatios: ratios, layers: layers) != kinds
        {
            throw contradiction(file, ratios, types)
        }
        return kinds
    }

    private static func kinds(
        _ file: ConfigurationValue, ofRatios ratios: String, layers: Int
    ) throws(CheckpointError) -> [LayerKind] {
        let numbers = try file.intArray(ratios, in: 0...1_000_000, count: layers...layers + 16)
        let kinds = numbers.map { ratio in LayerKind.allCases.first { $0.tokensPerEntry == ratio } }
        if let place = kinds.firstIndex(of: nil) {
            throw file.refusal(
                ratios, "has \(numbers[place]) at \(place)", advice: "layers have entries of 4 or 128 tokens, or 0")
        }
        guard kinds.dropFirst(layers).allSatisfy({ $0 == .slidingWindow }) else {
            throw file.refusal(
                ratios, "has entries for the next-token block", advice: "released blocks have 0: a window only")
        }
        return kinds.prefix(layers).map { $0! }
    }

    /// Returns the error for two spellings of one fact that say different things.
    private static func contradiction(
        _ file: ConfigurationValue, _ released: String, _ newer: String
    ) -> CheckpointError {
        file.refusal(released, "contradicts \(newer)", advice: "leave out the one that is wrong")
    }

    /// Reads for each layer whether it chooses experts by token: from `num_hash_layers` or `mlp_layer_types`.
    private static func hashLayers(_ file: ConfigurationValue, layers: Int) throws(CheckpointError) -> [Bool] {
        let (number, types) = ("num_hash_layers", "mlp_layer_types")
        let isNumbered = file.contains(number) && !file.isNull(number)
        guard file.contains(types), !file.isNull(types) else {
            let count = try file.int(number, in: 0...1000)
            return (0..<layers).map { $0 < count }
        }
        let isHashed = try file.stringArray(types, oneOf: ["hash_moe", "moe"], count: layers...layers)
            .map { $0 == "hash_moe" }
        if isNumbered {
            let count = try file.int(number, in: 0...1000)
            guard isHashed == (0..<layers).map({ $0 < count }) else { throw contradiction(file, number, types) }
        }
        return isHashed
    }

    /// Reads `qk_rope_head_dim`, or `partial_rotary_factor`, which is the same as a part of the head's width.
    private static func ropeWidth(_ file: ConfigurationValue, of head: Int) throws(CheckpointError) -> Int {
        let (key, factor) = ("qk_rope_head_dim", "partial_rotary_factor")
        let hasKey = file.contains(key)
        let part = file.contains(factor) ? Int(Double(head) * (try file.double(factor, in: 0...1))) : nil
        let width = try hasKey || part == nil ? file.int(key, in: 2...head - 1) : part!
        if let part, part != width { throw contradiction(file, key, factor) }
        guard (2...min(Kernels.maximumRopeWidth, head - 1)).contains(width), width % 2 == 0 else {
            throw file.refusal(
                hasKey ? key : factor, "makes \(width) of a head's \(head) elements rotary",
                advice: "it must be an even number from 2 to \(min(Kernels.maximumRopeWidth, head - 1))")
        }
        return width
    }

    /// Reads the rotary angles of layers with entries (`compress`) or of the others (`main`): from the nested
    /// `rope_parameters`, or from a base for each and `rope_scaling`, which concerns layers with entries only. Neither
    /// scales cosines and sines. What is given in both ways must be the same.
    private static func rotary(
        _ file: ConfigurationValue, _ name: String, theta: String, default base: Double, width: Int
    ) throws(CheckpointError) -> RotaryConfiguration {
        let parameters = try file.objectIfPresent("rope_parameters")
        let scaling = try file.objectIfPresent("rope_scaling")
        guard let parameters, parameters.contains(name) else {
            try file.requireNotNull(theta)
            if name == "main" {
                for object in [parameters, scaling] { try object?.requireTheta(of: file, default: base) }
            }
            return RotaryConfiguration(
                width: width, theta: try file.double(theta, in: 1.001...1e12, default: base),
                yarn: name == "compress" ? try yarn(scaling ?? parameters) : nil)
        }
        let own = try parameters.object(name)
        let rotary = RotaryConfiguration(
            width: width, theta: try own.double("rope_theta", in: 1.001...1e12), yarn: try yarn(own))
        // Implementations scale cosines and sines by default, where released models do not.
        if rotary.yarn != nil, !own.contains("attention_factor") {
            throw own.refusal("attention_factor", "is missing beside yarn", advice: "give 1, as transformers writes it")
        }
        let older = name == "compress" ? try yarn(scaling) : nil
        let isScaledAlike = older == nil || older == rotary.yarn
        let isBasedAlike = try file.double(theta, in: 1.001...1e12, default: rotary.theta) == rotary.theta
        if isScaledAlike && isBasedAlike { return rotary }
        throw file.refusal(
            isScaledAlike ? theta : "rope_scaling", "does not say what rope_parameters.\(name) says",
            advice: RotaryConfiguration.contradiction)
    }

    /// Reads YaRN's parameters, if there are any. The bounds of its ramp are whole numbers.
    private static func yarn(_ scaling: ConfigurationValue?) throws(CheckpointError) -> RotaryConfiguration.YaRN? {
        guard let scaling else { return nil }
        guard try scaling.bool("truncate", default: true) else {
            throw scaling.refusal("truncate", "is false", advice: "released models do not have it; it is not supported")
        }
        return try .ifPresent(scaling, hasAmplitude: false)
    }
}

extension DeepSeekV4Configuration.IndexerConfiguration {
    init(_ file: ConfigurationValue, ropeWidth: Int) throws(CheckpointError) {
        heads = try file.int("index_n_heads", in: 1...4096)
        width = try file.int("index_head_dim", in: 1...Kernels.maximumIndexWidth)
        topK = try file.int("index_topk", in: 1...1_000_000)
        if width < ropeWidth {
            throw file.refusal(
                "index_head_dim", "is \(width)", advice: "it holds the rotary part, so it is at least \(ropeWidth)")
        }
    }
}

extension DeepSeekV4Configuration.ExpertConfiguration {
    init(_ file: ConfigurationValue) throws(CheckpointError) {
        let experts = try file.int("n_routed_experts", in: 1...DeepSeekV4Configuration.maxExperts)
        guard try file.bool("norm_topk_prob", default: true) else {
            throw file.refusal(
                "norm_topk_prob", "is false", advice: "the gates of this architecture always normalise: remove the key")
        }
        gate = GateRule(
            experts: experts, expertsPerToken: try file.int("num_experts_per_tok", in: 1...experts), groups: 1,
            topGroups: 1, normalize: true,
            scaling: Float(try file.double("routed_scaling_factor", in: 0...1e6)), scoring: .sqrtSoftplus)
        width = try file.int("moe_intermediate_size", in: 1...65_536)
        shared = try file.int("n_shared_experts", in: 1...1024)
        limit = Float(try file.double("swiglu_limit", in: 1e-6...1e30))
    }
}
