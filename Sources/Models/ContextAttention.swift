import KVCache
import Parallelism
import Tensors

/// What a row brings to the indexer: its queries and head weights.
struct IndexQuery {
    /// `[rows, heads * width]`.
    let queries: View
    /// `[rows, heads]`, scale factors included.
    let weights: View
    /// How many keys a row may select.
    let topK: Int
}

/// Selects keys and attends to them, wherever the keys live.
enum ContextAttention {
    /// Scores kept at once, in elements: bounds the memory of long contexts without a bearing on the result.
    private static let scoreBudget = 1 << 21

    /// Attention of every row over its own request's keys.
    ///
    /// - Parameters:
    ///   - query: `[rows, heads * (latent + rope)]`, absorbed.
    ///   - index: `nil` where every visible key is attended to.
    ///   - out: `[rows, heads * latent]`.
    static func attend(
        _ query: View, heads: Int, scale: Float, index: IndexQuery?, layer: Int, _ step: Step, _ seat: Seat,
        into out: View
    ) {
        for request in step.requests {
            var first = request.rows.lowerBound
            while first < request.rows.upperBound {
                let tile = first..<min(first + tileRows(index, step, first), request.rows.upperBound)
                let mark = seat.scratch.mark()
                defer { seat.scratch.reset(to: mark) }
                let selection = index.flatMap { select($0, rows: tile, request.pages, layer: layer, step, seat) }
                seat.kernels.attention(
                    query.rows(tile), heads: heads, scale: scale, latent: step.cache.lane(.latent, layer: layer),
                    rope: step.cache.lane(.ropeKey, layer: layer), request.pages, positions: step.positions[tile],
                    selection: selection, into: out.rows(tile),
                    logSumExp: seat.scratch.rows(tile.count, heads), seat.scratch)
                first = tile.upperBound
            }
        }
    }

    /// How many rows to score together from `first` on; later rows of a chunk see a few more keys than the first.
    private static func tileRows(_ index: IndexQuery?, _ step: Step, _ first: Int) -> Int {
        index == nil ? step.rows : min(max(scoreBudget / (Int(step.positions[first]) + 1), 1), 64)
    }

    /// The exact best keys of each row, or `nil` when every row of the tile may attend to all it sees.
    private static func select(
        _ index: IndexQuery, rows: Range<Int>, _ pages: PageMap, layer: Int, _ step: Step, _ seat: Seat
    ) -> Selection? {
        let visible = seat.scratch.indices(rows.count)
        for (at, row) in rows.enumerated() { visible[at] = step.positions[row] + 1 }
        let furthest = (0..<rows.count).reduce(0) { max($0, Int(visible[$1])) }
        if furthest <= index.topK { return nil }
        let scores = seat.scratch.rows(rows.count, furthest)
        seat.kernels.indexScores(
            index.queries.rows(rows), weights: index.weights.rows(rows),
            keys: step.cache.lane(.indexKey, layer: layer), pages, into: scores, seat.scratch)
        let selection = Selection(
            positions: seat.scratch.indices(rows.count * index.topK), stride: index.topK,
            counts: seat.scratch.indices(rows.count))
        seat.kernels.topK(scores, visible: visible, into: selection, seat.scratch)
        if let recorder = step.recorder {
            for row in 0..<rows.count {
                let count = Int(selection.counts[row])
                recorder.record(
                    .indexScores, layer: layer, scores.rows(row..<row + 1).columns(0..<Int(visible[row])))
                recorder.record(
                    .selected, layer: layer,
                    selection.positions[row * index.topK..<row * index.topK + count].elements)
            }
        }
        return selection
    }
}
