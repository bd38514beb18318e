package import Checkpoints
package import Modeling

/// A model directory contains `config.json`, `generation_config.json`, safetensors files and a tokenizer.
package struct ModelDirectory: Sendable {
    package let path: String
    /// The name of the model: its name on Hugging Face, or the directory's name.
    package let name: String
    package let configuration: any ModelConfiguration
    /// The model's layers, shapes and weights as data.
    package let description: ModelDescription
    package let generation: GenerationDefaults
    /// The `quant_method` of `config.json`, or `modelslim`; `nil` if the weights are not quantized.
    package let quantization: String?
    /// The element format of the quantized weights; `nil` if none are.
    package let quantizedFormat: QuantizationConfiguration.Format?
    /// What ModelSlim says of the weights, if it has quantized them.
    private let modelSlim: ModelSlimDescription?

    /// Finds a model as `ModelLocation` does, and reads and checks its configuration files; `load` reads the weights.
    package init(_ given: String) throws(CheckpointError) {
        try self.init(ModelLocation(given))
    }

    /// Reads and checks the configuration files; `load` reads the weights.
    package init(_ location: ModelLocation) throws(CheckpointError) {
        path = location.directory
        name = location.name
        let file = try ModelConfigurationFile.read(path + "/config.json")
        configuration = try ModelRegistry.configuration(file)
        description = configuration.description
        modelSlim = try ModelSlimDescription.readIfPresent(in: path)
        if let quantization = try file.objectIfPresent("quantization_config") {
            self.quantization = try quantization.string("quant_method")
            quantizedFormat = try QuantizationConfiguration.validate(quantization)
        } else {
            let hasIntegers = modelSlim?.hasIntegers ?? false
            (quantization, quantizedFormat) = hasIntegers ? ("modelslim", .int8) : (nil, nil)
        }
        generation = try GenerationDefaults(
            config: file, generation: ModelConfigurationFile.readIfPresent(path + "/generation_config.json"))
    }

    /// Checks that a directory has a `tokenizer.json`, and the file itself rather than a pointer of Git LFS.
    package static func checkTokenizer(in directory: String) throws(CheckpointError) {
        try ModelConfigurationFile.check(
            directory + "/tokenizer.json",
            advice: "copy it from the released checkpoint, or give its directory as --tokenizer-path")
    }

    /// The load format tells where the weights come from.
    package enum LoadFormat: String, Sendable, CaseIterable {
        /// The weights are mapped from the safetensors files.
        case auto
        /// The weights are random, made from the configuration alone, for benchmarks.
        case dummy
    }

    /// Opens and checks the files of the weights, of which only headers are read; `nil` for dummy weights.
    ///
    /// - Throws: `CheckpointError`, also if a tensor belongs to the model but `config.json` has no place for it.
    package func openWeights(_ format: LoadFormat) throws(CheckpointError) -> WeightIndex? {
        guard format == .auto else { return nil }
        let weights = try configuration.named(WeightIndex(directory: path))
        try modelSlim?.validate(weights)
        try UnreadTensors(description).requireNone(in: weights)
        return weights
    }

    /// Opens the files of the weights also if they do not fit `config.json`, and says where they do not. Only headers are
    /// read, and the values of biases and offsets that nothing applies.
    package func examineWeights() throws(CheckpointError) -> (weights: WeightIndex, misfits: [CheckpointError]) {
        let weights = try configuration.named(WeightIndex(directory: path))
        var misfits: [CheckpointError] = []
        do throws(CheckpointError) {
            try modelSlim?.validate(weights)
        } catch {
            misfits.append(error)
        }
        let unread = UnreadTensors(description)
        for name in weights.names {
            if let refusal = try unread.refusal(of: name, in: weights) { misfits.append(refusal) }
        }
        var tensors = description.readWeights.flatMap(\.tensors)
        let copies = description.tensorNames?.copies.filter(weights.contains) ?? []
        tensors += copies.flatMap { copy in description.embedding.tensors.map { (copy, $0.shape) } }
        var examined: Set<String> = []
        for tensor in tensors where examined.insert(tensor.name).inserted {
            do throws(CheckpointError) {
                try weights.require(tensor.name, shape: tensor.shape)
            } catch {
                misfits.append(error)
            }
        }
        return (weights, misfits)
    }

    /// Returns true if the checkpoint has a next-token block: `config.json` may count one that the files lack, as in
    /// repackagings without it.
    ///
    /// - Parameter weights: The weights; `nil` for random ones, which have every block.
    package func hasNextTokenBlock(_ weights: WeightIndex?) -> Bool {
        guard !description.draftLayers.isEmpty else { return false }
        guard let weights, let names = description.tensorNames else { return true }
        return weights.contains(names.firstBlockTensor)
    }

    /// Maps the weights and builds the model. The operating system reads weights as they are used.
    ///
    /// - Parameters:
    ///   - drafts: True to load the next-token block, for speculative decoding.
    ///   - progress: Receives fractions from 0 to 1.
    /// - Throws: `CheckpointError`, also if `drafts` is set and the checkpoint has no next-token block.
    package func load(
        _ format: LoadFormat = .auto, drafts: Bool = false, progress: (Double) -> Void = { _ in }
    ) throws(CheckpointError) -> any Model {
        try model(openWeights(format), drafts: drafts, progress: progress)
    }

    /// Builds the model; weights stay where the files have them.
    ///
    /// - Parameters:
    ///   - weights: The weights; `nil` for random ones.
    ///   - drafts: True to load the next-token block, for speculative decoding.
    ///   - progress: Receives fractions from 0 to 1.
    /// - Throws: `CheckpointError` naming the tensor that is missing or does not fit the configuration; also if `drafts`
    ///   is set and the checkpoint has no next-token block.
    package func model(
        _ weights: WeightIndex?, drafts: Bool, progress: (Double) -> Void = { _ in }
    ) throws(CheckpointError) -> any Model {
        if drafts && description.draftLayers.isEmpty {
            throw CheckpointError(
                file: path + "/config.json", subject: .key("num_nextn_predict_layers"),
                problem: "is 0: this checkpoint has no next-token block to draft with",
                advice: "leave out --speculative-algorithm, or use a checkpoint that has one")
        }
        let source = weights.map(WeightSource.checkpoint) ?? .dummy(DummyWeights(of: description))
        return try configuration.model(source, drafts: drafts) { layer in
            progress(Double(layer + 1) / Double(description.layers.count))
        }
    }
}
