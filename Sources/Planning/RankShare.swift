package import Modeling
package import Parallelism
import Tensors

/// Placed weights are weights of a model with the place where they are used, which determines how the ranks of a stage
/// divide them.
package struct PlacedWeights: Sendable {
    package enum Place: Sendable, Equatable {
        case embedding
        case layer(Int)
        /// The final norm and the head.
        case head
    }

    package let place: Place
    package let weights: LayerDescription.Weights
}

extension ModelDescription {
    /// All weights of the forward pass, without those of next-token blocks.
    package var weights: [PlacedWeights] {
        [PlacedWeights(place: .embedding, weights: embedding)]
            + layers.enumerated().flatMap { number, layer in
                layer.weights.map { PlacedWeights(place: .layer(number), weights: $0) }
            }
            + [finalNorm, head].map { PlacedWeights(place: .head, weights: $0) }
    }

    /// Returns true for a head that is the embedding (tied word embeddings), whose memory is that of the embedding.
    package func isRepeated(_ placed: PlacedWeights) -> Bool {
        placed.place == .head && tiesEmbeddings && placed.weights.names == head.names
    }

    /// The number of elements in the weights, without next-token blocks: all of them, and those that one token uses.
    package var parameters: (total: Int, active: Int) {
        let total = weights.reduce(0) { $0 + (isRepeated($1) ? 0 : $1.weights.elements) }
        let idle = layers.compactMap(\.experts).reduce(0) {
            $0 + ($1.gate.experts - $1.gate.expertsPerToken) * $1.expert(0).weights.elements
        }
        return (total, total - idle)
    }

    /// The number of elements in the weights that one token is multiplied with, the head's among them. Of an embedding
    /// that is not also the head, a token reads one row only.
    package var multipliedParameters: Int { parameters.active - (tiesEmbeddings ? 0 : embedding.elements) }
}

/// A rank share is one rank's part of everything that ranks divide: layers, heads, experts and vocabulary.
package struct RankShare: Sendable, Equatable {
    package let rank: Int
    package let stage: Int
    package let isLastStage: Bool
    package let layers: Range<Int>
    package let heads: Range<Int>
    package let experts: Range<Int>
    /// The inner columns of each of those experts that the rank computes.
    package let expertColumns: Range<Int>
    package let expertWidth: Int
    package let vocabulary: Range<Int>
    package let vocabularySize: Int
    package let totalHeads: Int
    /// The number of ranks that share plain feed-forwards.
    package let denseRanks: Int

    package init(_ model: ModelDescription, _ parallel: ParallelConfiguration, rank: Int) {
        func part(_ count: Int, _ axes: Axes) -> Range<Int> {
            Range(part: parallel.place(of: rank, along: axes), of: parallel.degree(axes), among: count)
        }
        let shape = model.parallelShape
        self.rank = rank
        stage = rank / parallel.stageRanks
        isLastStage = stage == parallel.pipeline - 1
        layers = parallel.layers(ofStage: stage, total: shape.layers)
        heads = part(shape.heads, .tensor)
        totalHeads = shape.heads
        experts = part(shape.experts, .expert)
        expertWidth = shape.expertWidth
        expertColumns = part(expertWidth, .expertTensor)
        vocabulary = part(model.vocabularySize, .stage)
        vocabularySize = model.vocabularySize
        denseRanks = parallel.degree(.dense)
    }

    /// Returns the fraction of some weights that the rank reads. For the embedding this is an upper bound, as a step
    /// reads only its tokens' rows.
    package func fraction(of placed: PlacedWeights) -> Double {
        let isHere =
            switch placed.place {
            case .embedding: stage == 0
            case .layer(let layer): layers.contains(layer)
            case .head: isLastStage
            }
        guard isHere else { return 0 }
        return switch placed.weights.split {
        case .whole: 1
        case .heads: Double(heads.count) / Double(totalHeads)
        case .dense: 1 / Double(denseRanks)
        case .vocabulary: Double(vocabulary.count) / Double(vocabularySize)
        case .expert(let expert):
            experts.contains(expert) ? Double(expertColumns.count) / Double(expertWidth) : 0
        }
    }
}
