import KVCache
package import Parallelism
package import Tensors

/// What a row brings to the indexer: its queries and head weights.
package struct IndexQuery {
    /// `[rows, heads * width]`.
    package let queries: View
    /// `[rows, heads]`, scale factors included.
    package let weights: View
    /// How many keys a row may select.
    package let topK: Int

    package init(queries: View, weights: View, topK: Int) {
        self.queries = queries
        self.weights = weights
        self.topK = topK
    }
}

/// Selects keys and attends to them, wherever the keys live.
package enum ContextAttention {
    /// Scores kept at once, in elements: bounds the memory of long contexts without a bearing on the result.
    private static let scoreBudget = 1 << 21

    /// Whether index queries of this rank's rows are read in this step: by itself, or by the owners of keys that one of
    /// the rows of its key owners' group selects from. Rows that see no more keys than they may select need none.
    package static func needsIndexQueries(topK: Int, _ step: Step) -> Bool {
        max(step.own.maxPosition, step.dcpRows?.own.maxPosition ?? -1) >= topK
    }

    /// The exact best keys of each attended row that sees more of them than it may select; `nil` when no row does.
    ///
    /// A row's owner scores its keys, once for all heads, or the keys' owners do (`DecodeContextParallel`).
    ///
    /// - Parameter index: `nil` where this rank needs none; see `needsIndexQueries`.
    package static func select(
        _ index: IndexQuery?, topK: Int, layer: Int, _ step: Step, _ seat: Seat
    ) throws(GroupFailure) -> Selection? {
        let best = seat.scratch.computed(step.own.count * topK)
        if let index {
            for request in step.own.requests where !request.usesDCP {
                let selecting = firstSelecting(request, step.own, topK)..<request.rows.upperBound
                forTiles(of: selecting, step.own, seat) { tile in
                    let positions = best[tile.lowerBound * topK..<tile.upperBound * topK]
                    select(index, rows: tile, request.pages, layer: layer, step, seat, into: positions)
                }
            }
            if let dcpRows = step.dcpRows {
                try DecodeContextParallel.select(index, dcpRows, layer: layer, step, seat, into: best)
            }
        }
        if step.attended.maxPosition < topK { return nil }
        let selected = try seat.cross(Sharding.selection, best.bits(columns: topK))
        let members = seat.members(along: Sharding.selection.axes)
        try seat.check(selected: selected, of: step.attended, topK: topK, along: Sharding.selection.axes) {
            seat.ownRows(of: members[$0])
        }
        let counts = seat.scratch.indices(step.attended.count)
        counts.fill(Int32(topK))
        return Selection(positions: selected.integers, stride: topK, counts: ComputedIndices(counts))
    }

    /// Attention of every attended row over its own request's keys: `[rows, heads * latent]`.
    ///
    /// - Parameters:
    ///   - query: `[rows, heads * (latent + rope)]`, absorbed, of this rank's heads.
    ///   - selection: of the rows that see more keys than they may select; `nil` where there are none.
    ///   - topK: how many keys a row may select; `nil` where it attends to all it sees.
    package static func attend(
        _ query: View, heads: Int, scale: Float, _ selection: Selection?, topK: Int?, layer: Int, _ step: Step,
        _ seat: Seat
    ) throws(GroupFailure) -> View {
        let (latent, rope) = (step.home.lane(.latent, layer: layer), step.home.lane(.ropeKey, layer: layer))
        let out = seat.scratch.rows(query.rows, heads * latent.width)
        let rows = step.attended
        for request in rows.requests where !request.usesDCP {
            func attend(_ range: Range<Int>, _ selection: Selection?) {
                let mark = seat.scratch.mark()
                defer { seat.scratch.reset(to: mark) }
                for row in range { seat.work.attended += selection?.stride ?? Int(rows.positions[row]) + 1 }
                seat.kernels.attention(
                    query.rows(range), heads: heads, scale: scale, latent: latent, rope: rope, request.pages,
                    positions: rows.positions[range], selection: selection, into: out.rows(range),
                    logSumExp: seat.scratch.rows(range.count, heads), seat.scratch)
            }
            let split = selection.map { firstSelecting(request, rows, $0.stride) } ?? request.rows.upperBound
            attend(request.rows.lowerBound..<split, nil)
            attend(split..<request.rows.upperBound, selection?.rows(split..<request.rows.upperBound))
        }
        if let dcpRows = step.dcpRows {
            try DecodeContextParallel.attend(
                query, heads: heads, scale: scale, selection, topK: topK, dcpRows, layer: layer, step, seat,
                into: out)
        }
        return out
    }

    /// Takes rows of a request a few at a time: keys are read once for all of them, and what is kept for each is bounded.
    package static func forTiles(of range: Range<Int>, _ rows: Step.Rows, _ seat: Seat, _ body: (Range<Int>) -> Void) {
        var first = range.lowerBound
        while first < range.upperBound {
            let candidates = first..<min(first + seat.kernels.tuning.indexRowTile, range.upperBound)
            let maxPosition = candidates.reduce(0) { max($0, Int(rows.positions[$1])) }
            let tile = first..<min(first + max(scoreBudget / (maxPosition + 1), 1), candidates.upperBound)
            body(tile)
            first = tile.upperBound
        }
    }

    /// The first row of a request that sees more than `topK` keys; rows before it attend to all they see.
    private static func firstSelecting(_ request: Step.RequestRows, _ rows: Step.Rows, _ topK: Int) -> Int {
        request.rows.first { rows.positions[$0] >= topK } ?? request.rows.upperBound
    }

    private static func select(
        _ index: IndexQuery, rows: Range<Int>, _ pages: PageMap, layer: Int, _ step: Step, _ seat: Seat,
        into positions: ComputedIndices
    ) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let visible = seat.scratch.indices(rows.count)
        for (at, row) in rows.enumerated() { visible[at] = step.own.positions[row] + 1 }
        let scores = seat.scratch.rows(rows.count, Int(visible[rows.count - 1]))
        seat.kernels.indexScores(
            index.queries.rows(rows), weights: index.weights.rows(rows),
            keys: step.home.lane(.indexKey, layer: layer), pages, into: scores, seat.scratch)
        seat.work.scored += visible.sum
        let selection = Selection(
            positions: positions, stride: index.topK, counts: seat.scratch.computed(rows.count))
        seat.kernels.topK(scores, visible: visible, into: selection, seat.scratch)
        guard let recorder = step.recorder else { return }
        for (at, row) in rows.enumerated() {
            let seen = seat.kernels.synchronize(scores.rows(at..<at + 1).columns(0..<Int(visible[at])))
            recorder.record(.indexScores, layer: layer, seen.elements, of: step.own, row: row)
            let selected = seat.kernels.synchronize(positions[at * index.topK..<(at + 1) * index.topK])
            recorder.record(.selected, layer: layer, selected.elements.map { Float($0) }, of: step.own, row: row)
        }
    }
}
