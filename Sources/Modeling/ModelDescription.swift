package import KVCache
package import Parallelism
package import Tensors

/// A model as numbers: everything that planning, memory budgets, inspection and benchmarks need to know of it, without
/// its weights.
///
/// A model's target makes it from `config.json`, and it is the only description of the layers beside the forward pass
/// itself. Tests compare the two: predicted bytes of collectives with those a run measures, named weights with those of
/// released checkpoints.
package struct ModelDescription: Sendable {
    /// The checkpoint's `model_type`.
    package var modelType: String
    package var vocabularySize: Int
    package var hiddenSize: Int
    /// F32 elements of one row between two layers: the hidden size times the number of residual streams.
    package var stateWidth: Int
    /// The number of positions the model was made for.
    package var contextLength: Int
    /// The layers of the forward pass, in order.
    package var layers: [LayerDescription]
    /// The layers of the next-token (MTP) blocks, which follow the others; empty where the checkpoint has none.
    package var draftLayers: [LayerDescription]
    /// The number of selected entries that stages send beside a row's residual stream, because later layers reuse them.
    package var reusedSelection: Int
    package var embedding: LayerDescription.Weights
    package var finalNorm: LayerDescription.Weights
    package var head: LayerDescription.Weights
    /// The degrees of parallelism that are legal, and those that are bitwise equal to one rank.
    package var parallelShape: ModelShape
    /// The formats in which the checkpoint stores its weights.
    package var formats: WeightFormats
    /// The names that the checkpoint gives what is beside the weights above; `nil` for models that no checkpoint has.
    package var tensorNames: TensorNames?
    /// True if a cache may keep the model's index keys in FP4, because the model was made for that.
    package var canKeepIndexInFP4: Bool

    package init(
        modelType: String, vocabularySize: Int, hiddenSize: Int, stateWidth: Int, contextLength: Int,
        layers: [LayerDescription], draftLayers: [LayerDescription], reusedSelection: Int = 0,
        embedding: LayerDescription.Weights, finalNorm: LayerDescription.Weights, head: LayerDescription.Weights,
        parallelShape: ModelShape,
        formats: WeightFormats, tensorNames: TensorNames? = nil, canKeepIndexInFP4: Bool = false
    ) {
        self.modelType = modelType
        self.vocabularySize = vocabularySize
        self.hiddenSize = hiddenSize
        self.stateWidth = stateWidth
        self.contextLength = contextLength
        self.layers = layers
        self.draftLayers = draftLayers
        self.reusedSelection = reusedSelection
        self.embedding = embedding
        self.finalNorm = finalNorm
        self.head = head
        self.parallelShape = parallelShape
        self.formats = formats
        self.tensorNames = tensorNames
        self.canKeepIndexInFP4 = canKeepIndexInFP4
    }

    /// The types that a cache of the model may have.
    package var cacheTypes: [CacheType] { CacheType.plain + (canKeepIndexInFP4 ? CacheType.withFP4Index : []) }

    /// Returns why a cache of the model cannot have a type, as a sentence that begins with the option; `nil` if it can.
    package func problem(with type: CacheType) -> String? {
        guard type.hasFP4Index && !canKeepIndexInFP4 else { return nil }
        return
            "--enable-deepseek-v4-fp4-indexer: only models of type deepseek_v4 were made for index keys in FP4, and this "
            + "one is of type \(modelType); leave it out"
    }

    /// The names by which a checkpoint's tensors belong to a layer or a next-token block.
    package struct TensorNames: Sendable {
        /// The prefix of a layer's tensors, before its number and a dot.
        package let layers: String
        /// The prefix of a next-token block's tensors, before its number and a dot.
        package let blocks: String
        /// The number of the first next-token block.
        package let firstBlock: Int
        /// The rest of the name of a tensor that every next-token block has, and no layer.
        package let blockTensor: String
        /// Tensors that are not read because the model compares them with others and uses those.
        package let copies: [String]

        /// The name of a tensor of the first next-token block, which a checkpoint with that block has.
        package var firstBlockTensor: String { "\(blocks)\(firstBlock).\(blockTensor)" }

        package init(layers: String, blocks: String, firstBlock: Int, blockTensor: String, copies: [String]) {
            (self.layers, self.blocks, self.firstBlock) = (layers, blocks, firstBlock)
            (self.blockTensor, self.copies) = (blockTensor, copies)
        }
    }

    /// All weights but those of next-token blocks.
    package var readWeights: [LayerDescription.Weights] { [embedding, finalNorm, head] + layers.flatMap(\.weights) }

    /// The element type of weights that are never quantized.
    package var weightType: DType { formats.plain.dtype }

    /// True if the head's matrix is that of the embedding (tied word embeddings), so that its memory counts once.
    package var tiesEmbeddings: Bool { !embedding.names.isEmpty && head.names == embedding.names }

    /// The kinds of layers in the order in which they first occur, each with its first layer's description.
    package var layerKinds: [LayerDescription] {
        layers.enumerated().filter { index, layer in !layers[..<index].contains { $0.kind == layer.kind } }.map(
            \.element)
    }

    /// The attention of the first layer that has any.
    package var attention: LayerDescription.Attention? { layers.lazy.compactMap(\.attention).first }
    /// The number of tokens of the longest entries that layers attend to.
    package var longestEntry: Int { layers.compactMap(\.attention?.tokensPerEntry).reduce(1, max) }
    /// The key selection of the first layer that has any.
    package var selection: LayerDescription.Selection? { layers.lazy.compactMap(\.selection).first }
    /// The routed experts of the first layer that has any.
    package var experts: LayerDescription.Experts? { layers.lazy.compactMap(\.experts).first }
    /// The number of routed experts of a layer; 0 if no layer has any.
    package var routedExperts: Int { experts?.gate.experts ?? 0 }
    package var hasSharedExperts: Bool { parallelShape.sharedWidth > 0 }
}
