package import Checkpoints
package import Modeling
package import Parallelism
import Tensors

extension DeepSeekV4Configuration: ModelConfiguration {
    package func named(_ weights: WeightIndex) throws(CheckpointError) -> WeightIndex {
        try SavedNames.released(weights)
    }

    package func model(
        _ source: WeightSource, drafts: Bool, progress: (Int) -> Void
    ) throws(CheckpointError) -> any Model {
        try DeepSeekV4Model(self, source, drafts: drafts, progress: progress)
    }

    /// The model as numbers: its layers, shapes, weights and legal degrees of parallelism.
    package var description: ModelDescription {
        let head = [vocabularySize, hiddenSize]
        let streams = streamWeights(WeightNames.headStreams, isHead: true)
        return ModelDescription(
            modelType: modelType, vocabularySize: vocabularySize, hiddenSize: hiddenSize, stateWidth: stateWidth,
            contextLength: contextLength, layers: (0..<layers).map(layerDescription),
            draftLayers: (0..<nextTokenLayers).map { layerDescription(layers + $0) },
            embedding: .init([(WeightNames.embedding, head)]),
            finalNorm: .init([(WeightNames.finalNorm, [hiddenSize])] + streams.tensors),
            head: .init(
                [(tiesEmbeddings ? WeightNames.embedding : WeightNames.head, head)], split: .vocabulary),
            parallelShape: parallelShape, formats: formats,
            tensorNames: .init(
                layers: "layers.", blocks: "mtp.", firstBlock: 0, blockTensor: "e_proj.weight",
                copies: tiesEmbeddings ? [WeightNames.head] : []),
            canKeepIndexInFP4: true)
    }

    /// The degrees of parallelism that are legal. Tensor ranks divide the groups of heads that have an output projection
    /// of their own, each of which contributes its outputs to the last projection.
    package var parallelShape: ModelShape {
        let shared = experts.shared * experts.width
        var shape = ModelShape(
            layers: layers, heads: outputGroups, valueWidth: outputRank, experts: experts.gate.experts,
            expertWidth: experts.width, denseWidth: shared, sharedWidth: shared)
        shape.headsName = "groups of heads"
        return shape
    }

    private func layerDescription(_ layer: Int) -> LayerDescription {
        let prefix = prefix(ofLayer: layer)
        func norm(_ name: String) -> LayerDescription.Operation {
            .vectors(.init([(prefix + name + ".weight", [hiddenSize])]))
        }
        let kind =
            switch kind(ofLayer: layer) {
            case .slidingWindow: "window"
            case .compressedSparse: "compressed sparse"
            case .heavilyCompressed: "heavily compressed"
            }
        return LayerDescription(
            kind: kind + (routesByToken(layer) ? " (hash routing)" : ""),
            operations: [.vectors(streamWeights(prefix + "hc_attn_")), norm("attn_norm")]
                + attentionOperations(layer) + [.vectors(streamWeights(prefix + "hc_ffn_")), norm("ffn_norm")]
                + expertOperations(layer))
    }

    private func streamWeights(_ prefix: String, isHead: Bool = false) -> LayerDescription.Weights {
        let mixes = streams.mixes(isHead: isHead)
        return .init(
            [(prefix + "fn", [mixes, stateWidth]), (prefix + "base", [mixes]), (prefix + "scale", [isHead ? 1 : 3])])
    }

    private func attentionOperations(_ layer: Int) -> [LayerDescription.Operation] {
        let kind = kind(ofLayer: layer)
        func name(_ name: String) -> String { prefix(ofLayer: layer) + "attn." + name }
        let outputs = outputGroups * outputRank
        return [
            .product(.init("query down", name("wq_a.weight"), inputs: hiddenSize, outputs: queryRank)),
            .product(.init("key", name("wkv.weight"), inputs: hiddenSize, outputs: headWidth)),
            .vectors(
                .init(
                    [
                        (name("q_norm.weight"), [queryRank]), (name("kv_norm.weight"), [headWidth]),
                        (name("attn_sink"), [heads]),
                    ])),
        ] + keyOperations(layer, kind) + [
            .cross(Sharding.query, columns: queryRank)
        ] + selectionOperations(kind, name("indexer.")) + [
            .product(
                .init(
                    "query up", name("wq_b.weight"), inputs: queryRank, outputs: heads * headWidth, split: .heads)),
            .attend(attention(kind)),
            .product(
                .init(
                    "output down", name("wo_a.weight"), inputs: heads * headWidth / outputGroups, outputs: outputs,
                    split: .heads)),
            .product(.init("output up", name("wo_b.weight"), inputs: outputs, outputs: hiddenSize, split: .heads)),
            .cross(Sharding.attentionOutput, columns: hiddenSize),
        ]
    }

    private func attention(_ kind: LayerKind) -> LayerDescription.Attention {
        .init(
            heads: heads, latentWidth: headWidth - ropeWidth, ropeWidth: ropeWidth, latentRounding: Self.latentRounding,
            valuesIncludeRotary: true,
            topK: kind == .compressedSparse ? indexer.topK : nil, window: window, tokensPerEntry: kind.tokensPerEntry)
    }

    /// The publications of a layer's key sets, with the products that make what is published.
    private func keyOperations(_ layer: Int, _ kind: LayerKind) -> [LayerDescription.Operation] {
        let publish = LayerDescription.Operation.publish(Sharding.keys, columns: headWidth, set: KeySets.window)
        guard kind != .slidingWindow else { return [publish] }
        let index = kind == .compressedSparse ? indexer.width : 0
        func name(_ name: String) -> String { prefix(ofLayer: layer) + "attn." + name }
        var operations = [publish] + compressorOperations("compressor", name("compressor."), kind, width: headWidth)
        if index > 0 {
            operations += compressorOperations(
                "index compressor", name("indexer.compressor."), kind, width: index)
        }
        return operations + [
            .publish(Sharding.keys, columns: 2 * kind.halves * (headWidth + index), set: KeySets.inputs),
            .publish(Sharding.keys, columns: headWidth + index, set: KeySets.entries),
        ]
    }

    private func compressorOperations(
        _ title: String, _ prefix: String, _ kind: LayerKind, width: Int
    ) -> [LayerDescription.Operation] {
        let columns = kind.halves * width
        return [
            .product(
                .init(
                    title + " values", prefix + "wkv.weight", inputs: hiddenSize, outputs: columns,
                    isQuantized: false)),
            .product(
                .init(
                    title + " gates", prefix + "wgate.weight", inputs: hiddenSize, outputs: columns,
                    isQuantized: false)),
            .vectors(
                .init(
                    [(prefix + "ape", [kind.tokensPerEntry, columns]), (prefix + "norm.weight", [width])])),
        ]
    }

    private func selectionOperations(_ kind: LayerKind, _ prefix: String) -> [LayerDescription.Operation] {
        guard kind == .compressedSparse else { return [] }
        return [
            .product(
                .init(
                    "index query", prefix + "wq_b.weight", inputs: queryRank, outputs: indexer.heads * indexer.width)),
            .product(
                .init(
                    "index head weights", prefix + "weights_proj.weight", inputs: hiddenSize, outputs: indexer.heads,
                    isQuantized: false)),
            .select(
                .init(
                    heads: indexer.heads, width: indexer.width, topK: indexer.topK, tokensPerEntry: kind.tokensPerEntry)
            ),
        ]
    }

    private func expertOperations(_ layer: Int) -> [LayerDescription.Operation] {
        let prefix = prefix(ofLayer: layer) + "ffn."
        let routed = LayerDescription.Experts(
            gate: experts.gate, hidden: hiddenSize, width: experts.width, prefix: prefix + "experts.",
            WeightNames.feedForward)
        let rule = experts.gate
        let choice: LayerDescription.Weights =
            routesByToken(layer)
            ? .init([(prefix + "gate.tid2eid", [vocabularySize, rule.expertsPerToken])])
            : .init([(prefix + "gate.bias", [rule.experts])])
        return [
            .product(
                .init(
                    "router", prefix + "gate.weight", inputs: hiddenSize, outputs: rule.experts, isQuantized: false)),
            .vectors(choice), .dispatch(routed), .cross(Sharding.feedForwardInput, columns: hiddenSize),
            .feedForward(
                .init(
                    "shared experts", prefix: prefix + "shared_experts.", WeightNames.feedForward, hidden: hiddenSize,
                    width: experts.shared * experts.width)),
            .cross(Sharding.feedForwardOutput, columns: hiddenSize), .experts(routed),
        ]
    }
}
