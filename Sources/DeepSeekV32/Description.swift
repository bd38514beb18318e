package import Checkpoints
package import Modeling
package import Parallelism
import Tensors

extension DeepSeekConfiguration: ModelConfiguration {
    package func model(
        _ source: WeightSource, drafts: Bool, progress: (Int) -> Void
    ) throws(CheckpointError) -> any Model {
        try DeepSeekModel(self, source, drafts: drafts, progress: progress)
    }

    /// The model as numbers: its layers, shapes, weights and legal degrees of parallelism.
    package var description: ModelDescription {
        let head = [vocabularySize, hiddenSize]
        return ModelDescription(
            modelType: modelType, vocabularySize: vocabularySize, hiddenSize: hiddenSize, stateWidth: hiddenSize,
            contextLength: contextLength, layers: (0..<layers).map(layerDescription),
            draftLayers: (0..<nextTokenLayers).map { layerDescription(layers + $0) },
            reusedSelection: reusedSelection,
            embedding: .init([(WeightNames.embedding, head)]),
            finalNorm: .init([(WeightNames.finalNorm, [hiddenSize])]),
            head: .init(
                [(tiesEmbeddings ? WeightNames.embedding : WeightNames.head, head)], split: .vocabulary),
            parallelShape: parallelShape, formats: formats,
            tensorNames: .init(
                layers: "model.layers.", blocks: "model.layers.", firstBlock: layers, blockTensor: "eh_proj.weight",
                copies: tiesEmbeddings ? [WeightNames.head] : []))
    }

    private func layerDescription(_ layer: Int) -> LayerDescription {
        let prefix = WeightNames.layer(layer)
        func norm(_ name: String) -> LayerDescription.Operation {
            .vectors(.init([(prefix + name + ".weight", [hiddenSize])]))
        }
        let isDense = layer < denseLayers
        return LayerDescription(
            kind: (isDense ? "dense" : "experts") + (reusesSelection(layer) ? " (shared selection)" : ""),
            operations: [norm("input_layernorm")] + attentionOperations(layer) + [norm("post_attention_layernorm")]
                + (isDense ? denseOperations(layer) : expertOperations(layer)))
    }

    private func reusesSelection(_ layer: Int) -> Bool { indexer != nil && indexer(ofLayer: layer) == nil }

    private func attentionOperations(_ layer: Int) -> [LayerDescription.Operation] {
        func name(_ name: String) -> String { WeightNames.attention(layer, name) }
        let index = indexer(ofLayer: layer).map {
            LayerDescription.Selection(heads: $0.heads, width: $0.width, topK: $0.topK)
        }
        var operations: [LayerDescription.Operation] = [
            .product(.init("query down", name("q_a_proj.weight"), inputs: hiddenSize, outputs: queryRank)),
            .product(
                .init(
                    "key down", name("kv_a_proj_with_mqa.weight"), inputs: hiddenSize,
                    outputs: latentWidth + ropeWidth)),
            .vectors(
                .init(
                    [
                        (name("q_a_layernorm.weight"), [queryRank]), (name("kv_a_layernorm.weight"), [latentWidth]),
                    ])),
        ]
        if let index {
            operations += [
                .product(.init("index key", name("indexer.wk.weight"), inputs: hiddenSize, outputs: index.width)),
                .vectors(
                    .init(
                        [
                            (name("indexer.k_norm.weight"), [index.width]),
                            (name("indexer.k_norm.bias"), [index.width]),
                        ])),
            ]
        }
        operations += [
            .publish(Sharding.keys, columns: latentWidth + ropeWidth + (index?.width ?? 0)),
            .cross(Sharding.query, columns: queryRank),
        ]
        if let index {
            operations += [
                .product(
                    .init(
                        "index query", name("indexer.wq_b.weight"), inputs: queryRank,
                        outputs: index.heads * index.width)),
                .product(
                    .init(
                        "index head weights", name("indexer.weights_proj.weight"), inputs: hiddenSize,
                        outputs: index.heads, isQuantized: false)),
                .select(index),
            ]
        } else if let indexer {
            operations.append(.reuseSelection(topK: indexer.topK))
        }
        return operations + [
            .product(
                .init(
                    "query up", name("q_b_proj.weight"), inputs: queryRank, outputs: heads * (nopeWidth + ropeWidth),
                    split: .heads)),
            .product(
                .init(
                    "key and value up", name("kv_b_proj.weight"), inputs: latentWidth,
                    outputs: heads * (nopeWidth + valueWidth), split: .heads)),
            .attend(
                .init(
                    heads: heads, latentWidth: latentWidth, ropeWidth: ropeWidth, latentRounding: Self.latentRounding,
                    topK: indexer?.topK)),
            .product(
                .init(
                    "output", name("o_proj.weight"), inputs: heads * valueWidth, outputs: hiddenSize, split: .heads)),
            .cross(Sharding.attentionOutput, columns: hiddenSize),
        ]
    }

    private func denseOperations(_ layer: Int) -> [LayerDescription.Operation] {
        plain("feed-forward", WeightNames.feedForward(layer, ""), width: denseWidth)
    }

    private func expertOperations(_ layer: Int) -> [LayerDescription.Operation] {
        let routed = LayerDescription.Experts(
            gate: experts.gate, hidden: hiddenSize, width: experts.width,
            prefix: WeightNames.feedForward(layer, "experts."))
        let shared = experts.shared * experts.width
        return [
            .product(
                .init(
                    "router", WeightNames.feedForward(layer, "gate.weight"), inputs: hiddenSize,
                    outputs: experts.gate.experts, isQuantized: false)),
            .vectors(
                .init(
                    [(WeightNames.feedForward(layer, "gate.e_score_correction_bias"), [experts.gate.experts])])),
            .dispatch(routed),
        ]
            + (shared > 0
                ? plain("shared experts", WeightNames.feedForward(layer, "shared_experts."), width: shared) : [])
            + [.experts(routed)]
    }

    private func plain(_ name: String, _ prefix: String, width: Int) -> [LayerDescription.Operation] {
        [
            .cross(Sharding.feedForwardInput, columns: hiddenSize),
            .feedForward(.init(name, prefix: prefix, hidden: hiddenSize, width: width)),
            .cross(Sharding.feedForwardOutput, columns: hiddenSize),
        ]
    }

    /// The degrees of parallelism that are legal.
    package var parallelShape: ModelShape {
        ModelShape(
            layers: layers, heads: heads, valueWidth: valueWidth, experts: experts.gate.experts,
            expertWidth: experts.width, denseWidth: denseWidth, sharedWidth: experts.shared * experts.width)
    }
}
