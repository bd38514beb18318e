package import Modeling
package import Parallelism
import Tensors

/// Weights that ranks divide alike.
package struct WeightGroup: Sendable {
    package enum Place: Sendable, Equatable {
        case embedding
        case layer(Int)
        /// The final norm and the head.
        case head
    }

    /// How the ranks of a stage divide them.
    package enum Split: Sendable, Equatable {
        /// Every rank reads all of them, for its own rows.
        case whole
        case heads
        /// Columns of a plain feed-forward.
        case dense
        /// One routed expert, whose columns may be divided.
        case expert(Int)
        case vocabulary
    }

    package let place: Place
    package let split: Split
    /// As checkpoints name them; scales not listed.
    package let names: [String]
    /// Numbers in them.
    package let elements: Int
}

extension DeepSeekConfiguration {
    /// All weights of a model, next-token blocks not counted, by how ranks divide them.
    package var weightGroups: [WeightGroup] {
        let head = vocabularySize * hiddenSize
        return [
            WeightGroup(place: .embedding, split: .whole, names: [WeightNames.embedding], elements: head)
        ] + (0..<layers).flatMap(weightGroups(ofLayer:)) + [
            WeightGroup(place: .head, split: .whole, names: [WeightNames.finalNorm], elements: hiddenSize),
            WeightGroup(place: .head, split: .vocabulary, names: [WeightNames.head], elements: head),
        ]
    }

    private func weightGroups(ofLayer layer: Int) -> [WeightGroup] {
        let place = WeightGroup.Place.layer(layer)
        let prefix = WeightNames.layer(layer)
        let attention = [
            "q_a_proj.weight", "q_a_layernorm.weight", "kv_a_proj_with_mqa.weight", "kv_a_layernorm.weight",
        ]
        let ofIndexer = ["wq_b.weight", "wk.weight", "k_norm.weight", "k_norm.bias", "weights_proj.weight"]
        var whole = [prefix + "input_layernorm.weight", prefix + "post_attention_layernorm.weight"]
        whole += (attention + (indexer == nil ? [] : ofIndexer.map { "indexer." + $0 }))
            .map { WeightNames.attention(layer, $0) }
        var wholeElements =
            2 * hiddenSize + queryRank * (hiddenSize + 1) + hiddenSize * (latentWidth + ropeWidth) + latentWidth
        if let indexer {
            wholeElements += indexer.heads * (indexer.width * queryRank + hiddenSize)
            wholeElements += indexer.width * (hiddenSize + 2)
        }
        let perHead =
            queryRank * (nopeWidth + ropeWidth) + latentWidth * (nopeWidth + valueWidth) + valueWidth * hiddenSize
        return [
            WeightGroup(place: place, split: .whole, names: whole, elements: wholeElements),
            WeightGroup(
                place: place, split: .heads,
                names: ["q_b_proj.weight", "kv_b_proj.weight", "o_proj.weight"]
                    .map { WeightNames.attention(layer, $0) },
                elements: heads * perHead),
        ] + (layer < denseLayers ? [plain("", width: denseWidth, layer)] : mixture(layer))
    }

    private func mixture(_ layer: Int) -> [WeightGroup] {
        let router = ["gate.weight", "gate.e_score_correction_bias"]
        let shared = experts.shared * experts.width
        return [
            WeightGroup(
                place: .layer(layer), split: .whole, names: router.map { WeightNames.feedForward(layer, $0) },
                elements: experts.gate.experts * (hiddenSize + 1))
        ] + (shared > 0 ? [plain("shared_experts.", width: shared, layer)] : [])
            + (0..<experts.gate.experts).map { expert in
                WeightGroup(
                    place: .layer(layer), split: .expert(expert),
                    names: Self.projections.map { WeightNames.expert(layer, expert) + $0 },
                    elements: 3 * hiddenSize * experts.width)
            }
    }

    private func plain(_ prefix: String, width: Int, _ layer: Int) -> WeightGroup {
        WeightGroup(
            place: .layer(layer), split: .dense,
            names: Self.projections.map { WeightNames.feedForward(layer, prefix + $0) },
            elements: 3 * hiddenSize * width)
    }

    private static let projections = ["gate_proj.weight", "up_proj.weight", "down_proj.weight"]
}

/// What one rank has of the things ranks divide.
package struct RankShare: Sendable, Equatable {
    package let rank: Int
    package let stage: Int
    package let isLastStage: Bool
    package let layers: Range<Int>
    package let heads: Range<Int>
    package let experts: Range<Int>
    /// Of each of those experts.
    package let expertColumns: Range<Int>
    package let expertWidth: Int
    package let vocabulary: Range<Int>
    package let vocabularySize: Int
    package let totalHeads: Int
    /// The ranks that share plain feed-forwards.
    package let denseRanks: Int

    package init(_ model: DeepSeekConfiguration, _ parallel: ParallelConfiguration, rank: Int) {
        func part(_ count: Int, _ axes: Axes) -> Range<Int> {
            Range(part: parallel.place(of: rank, along: axes), of: parallel.degree(axes), among: count)
        }
        self.rank = rank
        stage = rank / parallel.stageRanks
        isLastStage = stage == parallel.pipeline - 1
        layers = parallel.layers(ofStage: stage, total: model.layers)
        heads = part(model.heads, .tensor)
        totalHeads = model.heads
        experts = part(model.experts.gate.experts, .expert)
        expertWidth = model.experts.width
        expertColumns = part(expertWidth, .expertWidth)
        vocabulary = part(model.vocabularySize, .stage)
        vocabularySize = model.vocabularySize
        denseRanks = parallel.degree(.dense)
    }

    /// Which fraction of such weights the rank reads: of the embedding at most all, depending on its tokens.
    package func fraction(of group: WeightGroup) -> Double {
        let isHere =
            switch group.place {
            case .embedding: stage == 0
            case .layer(let layer): layers.contains(layer)
            case .head: isLastStage
            }
        guard isHere else { return 0 }
        return switch group.split {
        case .whole: 1
        case .heads: Double(heads.count) / Double(totalHeads)
        case .dense: 1 / Double(denseRanks)
        case .vocabulary: Double(vocabulary.count) / Double(vocabularySize)
        case .expert(let expert):
            experts.contains(expert) ? Double(expertColumns.count) / Double(expertWidth) : 0
        }
    }
}
