package import DeepSeekV32
package import Modeling

/// How many floating-point operations a forward needs, a multiplication and an addition counted as two.
///
/// Counted as computed here, with the key and value projections absorbed (DeepSeek-V2, arXiv 2405.04434, section 2.1;
/// the indexer: DeepSeek-V3.2, section 2.1):
/// - two for each parameter a row uses; the embedding is a look-up, and the head serves only rows with logits;
/// - attention, per layer: a score costs 2·(latent + rope) per head and key, its value 2·latent;
/// - the indexer, per layer: 2·(width + 1) per head and visible key, where more keys are visible than it selects.
/// Softmax, norms, rotations and top-k are left out: they are far below a hundredth.
package struct FloatingPointOperations {
    private let configuration: DeepSeekConfiguration

    package init(_ configuration: DeepSeekConfiguration) { self.configuration = configuration }

    /// Of rows at `positions`, each of which sees all positions up to its own; `outputs` of them get logits.
    package func count(positions: Range<Int>, outputs: Int) -> Double {
        // A row at position p sees p + 1 keys.
        let (first, last) = (positions.lowerBound + 1, positions.upperBound)
        let perLayer = attention(first, last) + indexing(first, last)
        return matrices(rows: positions.count, outputs: outputs) + Double(configuration.layers) * perLayer
    }

    /// Of all products with weights, in all layers.
    func matrices(rows: Int, outputs: Int) -> Double {
        let head = Double(configuration.vocabularySize * configuration.hiddenSize)
        let parameters = Double(configuration.parameters.active) - 2 * head
        return 2 * (parameters * Double(rows) + head * Double(outputs))
    }

    /// Of rows that see `first`, `first` + 1, … `last` keys, in one layer.
    func attention(_ first: Int, _ last: Int) -> Double {
        let perKey = 2 * configuration.heads * (2 * configuration.latentWidth + configuration.ropeWidth)
        let limit = configuration.indexer?.topK ?? last
        let whole = Self.sum(first, min(last, limit))
        let limited = Double(max(last - max(first - 1, limit), 0)) * Double(limit)
        return Double(perKey) * (whole + limited)
    }

    /// Of the same, for choosing the keys that attention reads.
    func indexing(_ first: Int, _ last: Int) -> Double {
        guard let indexer = configuration.indexer else { return 0 }
        return Double(2 * indexer.heads * (indexer.width + 1)) * Self.sum(max(first, indexer.topK + 1), last)
    }

    /// `first` + … + `last`; 0 when there are none.
    private static func sum(_ first: Int, _ last: Int) -> Double {
        first > last ? 0 : Double(first + last) * Double(last - first + 1) / 2
    }
}
