package import Checkpoints
package import Modeling

/// A model directory contains `config.json`, `generation_config.json`, safetensors files and a tokenizer.
package struct ModelDirectory: Sendable {
    package let path: String
    package let configuration: any ModelConfiguration
    /// The model's layers, shapes and weights as data.
    package let description: ModelDescription
    package let generation: GenerationDefaults

    /// Reads and checks the configuration files; `load` reads the weights.
    package init(_ path: String) throws(CheckpointError) {
        self.path = path
        let file = try ModelConfigurationFile.read(path + "/config.json")
        configuration = try ModelRegistry.configuration(file)
        description = configuration.description
        generation = try GenerationDefaults(
            config: file, generation: ModelConfigurationFile.readIfPresent(path + "/generation_config.json"))
    }

    /// The load format tells where the weights come from.
    package enum LoadFormat: String, Sendable, CaseIterable {
        /// The weights are mapped from the safetensors files.
        case auto
        /// The weights are random, made from the configuration alone, for benchmarks.
        case dummy
    }

    /// Maps the weights and builds the model. The operating system reads weights as they are used, unless `preloads` is
    /// set.
    ///
    /// - Parameters:
    ///   - drafts: Whether to load the next-token block, for speculative decoding.
    ///   - preloads: Whether to read all weights first; dummy ones are in memory anyway.
    ///   - progress: Receives fractions from 0 to 1.
    /// - Throws: `CheckpointError`, also if `drafts` is set and the checkpoint has no next-token block.
    package func load(
        _ format: LoadFormat = .auto, drafts: Bool = false, preloads: Bool = false,
        progress: (Double) -> Void = { _ in }
    ) throws(CheckpointError) -> any Model {
        if drafts && description.draftLayers.isEmpty {
            throw CheckpointError(
                file: path + "/config.json", subject: .key("num_nextn_predict_layers"),
                problem: "is 0: this checkpoint has no next-token block to draft with",
                advice: "leave out --speculative-algorithm, or use a checkpoint that has one")
        }
        let source: WeightSource =
            switch format {
            case .auto: .checkpoint(try WeightIndex(directory: path))
            case .dummy: .dummy(DummyWeights(dtype: description.weightType))
            }
        if preloads, case .checkpoint(let index) = source { try index.preload(progress: progress) }
        return try configuration.model(source, drafts: drafts) { layer in
            if !preloads { progress(Double(layer + 1) / Double(description.layers.count)) }
        }
    }
}

/// Generation defaults are what the checkpoint recommends for generation; requests override them.
package struct GenerationDefaults: Sendable, Equatable {
    /// The tokens that end a generation.
    package var endTokens: [Int32]
    package var temperature: Float?
    package var topP: Float?
    package var topK: Int?

    init(config: ConfigurationValue, generation: ConfigurationValue?) throws(CheckpointError) {
        let vocabulary = try config.int("vocab_size", in: 1...10_000_000)
        var endTokens: [Int32] = []
        for file in [generation, config] {
            guard endTokens.isEmpty, let file, file.contains("eos_token_id"), !file.isNull("eos_token_id") else {
                continue
            }
            endTokens = try file.intArray("eos_token_id", in: 0...vocabulary - 1, acceptingSingle: true)
                .map { Int32($0) }
        }
        self.endTokens = endTokens
        // With do_sample false the file's temperature is only a placeholder.
        guard let generation, try generation.bool("do_sample", default: true) else {
            if generation != nil { temperature = 0 }
            return
        }
        if generation.contains("temperature") {
            temperature = Float(try generation.double("temperature", in: 0...100, default: 1))
        }
        if generation.contains("top_p") { topP = Float(try generation.double("top_p", in: 1e-6...1, default: 1)) }
        // Some files give -1 for all tokens.
        if generation.contains("top_k") { topK = max(try generation.int("top_k", in: -1...10_000_000, default: 0), 0) }
    }
}
