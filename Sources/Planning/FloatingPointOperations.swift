package import Modeling

/// This type counts the floating-point operations of a forward pass; a multiplication and an addition count as two.
///
/// The counts follow Braid's computation, in which the key and value projections are absorbed (DeepSeek-V2, arXiv
/// 2405.04434, section 2.1; the indexer: DeepSeek-V3.2, section 2.1):
/// - Each parameter that a row uses costs two operations; the embedding is a look-up, and the head serves only rows
///   with logits.
/// - Attention, per layer, head and attended key: a score costs 2·(latent + rope), its value 2·(elements of a value).
/// - The indexer, per layer, head and visible key: 2·(width + 1), where more keys are visible than it selects.
///
/// Softmax, norms, rotations and top-k are left out: they cost well below 1 % of the whole.
package struct FloatingPointOperations {
    private let model: ModelDescription

    package init(_ model: ModelDescription) { self.model = model }

    /// Returns the operations of rows at `positions`, each of which sees all positions up to its own; `outputs` of them
    /// get logits.
    package func count(positions: Range<Int>, outputs: Int) -> Double {
        // A row at position p sees p + 1 keys.
        let (first, last) = (positions.lowerBound + 1, positions.upperBound)
        return matrices(rows: positions.count, outputs: outputs) + attention(first, last) + indexing(first, last)
    }

    /// Returns the operations of all products with weights, in all layers.
    package func matrices(rows: Int, outputs: Int) -> Double {
        let head = Double(model.head.elements)
        let parameters = Double(model.multipliedParameters) - head
        return 2 * (parameters * Double(rows) + head * Double(outputs))
    }

    /// Returns the operations of the attention of rows that see `first`, `first` + 1, … `last` keys, in all layers.
    package func attention(_ first: Int, _ last: Int) -> Double {
        model.layers.compactMap(\.attention).reduce(0) { sum, attention in
            sum + Self.perKey(attention) * Self.attendedKeys(first, last, attention)
        }
    }

    /// Returns the operations of the index scores of rows that see `first`, `first` + 1, … `last` keys, in all layers.
    package func indexing(_ first: Int, _ last: Int) -> Double {
        model.layers.compactMap(\.selection).reduce(0) { sum, selection in
            sum + Self.perKey(selection) * Self.scoredKeys(first, last, selection)
        }
    }
}

// MARK: - Of one layer

extension FloatingPointOperations {
    /// Operations of one row's attention to one key, all heads together.
    static func perKey(_ attention: LayerDescription.Attention) -> Double {
        Double(2 * attention.heads * (attention.latentWidth + attention.ropeWidth + attention.valueWidth))
    }

    /// Operations of one row's index score of one key, all heads together.
    static func perKey(_ selection: LayerDescription.Selection) -> Double {
        Double(2 * selection.heads * (selection.width + 1))
    }

    /// Returns the keys that rows seeing `first`, `first` + 1, … `last` tokens attend to: those of a window, and of the
    /// others at most as many as they select.
    static func attendedKeys(_ first: Int, _ last: Int, _ attention: LayerDescription.Attention) -> Double {
        windowKeys(first, last, attention) + attendedEntries(first, last, attention)
    }

    /// Returns the window keys that rows seeing `first` … `last` tokens attend to, summed over the rows.
    static func windowKeys(_ first: Int, _ last: Int, _ attention: LayerDescription.Attention) -> Double {
        attention.window > 0 ? entries(first, last, of: 1, limit: attention.window) : 0
    }

    /// Returns the keys outside the window that the same rows attend to: at most `topK` a row.
    static func attendedEntries(_ first: Int, _ last: Int, _ attention: LayerDescription.Attention) -> Double {
        attention.tokensPerEntry == 0 ? 0 : entries(first, last, of: attention.tokensPerEntry, limit: attention.topK)
    }

    /// Keys that the same rows score: all they see, where those are more than are selected.
    static func scoredKeys(_ first: Int, _ last: Int, _ selection: LayerDescription.Selection) -> Double {
        entries(max(first, selection.firstPosition + 1), last, of: selection.tokensPerEntry, limit: nil)
    }

    /// Returns the sum over `first`, `first` + 1, … `last` tokens of the entries of `tokens` tokens that are complete, at
    /// most `limit` each; 0 when `first` is larger than `last`.
    private static func entries(_ first: Int, _ last: Int, of tokens: Int, limit: Int?) -> Double {
        /// Returns the sum for 1, 2, … `count` tokens.
        func upTo(_ count: Int) -> Double {
            let growing = limit.map { min(count, $0 * tokens) } ?? count
            let (whole, rest) = growing.quotientAndRemainder(dividingBy: tokens)
            let all = Double(tokens) * Double(whole) * Double(whole - 1) / 2 + Double(whole) * Double(rest + 1)
            return all + Double(count - growing) * Double(limit ?? 0)
        }
        return first > last ? 0 : upTo(last) - upTo(first - 1)
    }
}
