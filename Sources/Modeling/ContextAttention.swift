package import KVCache
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
    /// The index keys: a lane of a key set.
    package let set: KeySetID
    package let lane: Int

    package init(queries: View, weights: View, topK: Int, set: KeySetID, lane: Int) {
        self.queries = queries
        self.weights = weights
        self.topK = topK
        self.set = set
        self.lane = lane
    }
}

/// What rows attend to: a key set, and which of its lanes are what.
package struct AttentionKeys {
    package let set: KeySetID
    /// The lane of compressed keys, which are the values, too.
    package let latent: Int
    /// The lane of rotary keys.
    package let rotary: Int

    package init(_ set: KeySetID, latent: Int, rotary: Int) {
        self.set = set
        self.latent = latent
        self.rotary = rotary
    }
}

/// What rows make of the keys they attend to. Results over other keys can be merged with it (`Kernels.mergeAttention`).
package struct AttendedValues {
    /// `[rows, heads * latent]`.
    package let values: View
    /// `[rows, heads]`: the logarithm of the sum of exponentials; -infinity where a row sees no key.
    package let logSumExp: View
}

/// Selects keys and attends to them, wherever the keys live.
package enum ContextAttention {
    /// Scores kept at once, in elements: bounds the memory of long contexts without a bearing on the result.
    private static let scoreBudget = 1 << 21

    /// Whether index queries of this rank's rows are read in this step: by itself, or by the owners of keys that one of
    /// the rows of its key owners' group selects from. Rows that see no more keys than they may select need none.
    ///
    /// - Parameter set: the key set that has the index keys.
    package static func needsIndexQueries(topK: Int, of set: KeySetID, _ step: Step) -> Bool {
        let last = max(step.own.maxPosition, step.dcpRows?.own.maxPosition ?? -1)
        return step.group(of: set).group.visibleEntries(at: last) > topK
    }

    /// The exact best keys of each attended row that sees more of them than it may select; `nil` when no row does.
    ///
    /// - Parameter index: `nil` where this rank needs none; see `needsIndexQueries`.
    package static func select(
        _ index: IndexQuery?, topK: Int, of set: KeySetID, _ step: Step, _ seat: Seat
    ) throws(GroupFailure) -> Selection? {
        let best = seat.scratch.computed(step.own.count * topK)
        if let index { try select(index, step, seat, into: best) }
        return try selection(best, topK: topK, of: set, step, seat)
    }

    /// The exact best keys of each own row that sees more of them than it may select.
    ///
    /// A row's owner scores its keys, once for all heads, or the keys' owners do (`DecodeContextParallel`).
    ///
    /// - Parameter best: `[own rows, topK]` entries; those of rows that see fewer are left as they are.
    package static func select(
        _ index: IndexQuery, _ step: Step, _ seat: Seat, into best: ComputedIndices
    ) throws(GroupFailure) {
        let topK = index.topK
        let (number, group) = step.group(of: index.set)
        precondition(!group.isWindow, "the keys of a window are all seen")
        for request in step.own.requests where !request.usesDCP {
            let selecting = firstSelecting(request, step.own, topK, group)..<request.rows.upperBound
            forTiles(of: selecting, step.own, group, seat) { tile in
                let entries = best[tile.lowerBound * topK..<tile.upperBound * topK]
                select(index, rows: tile, request.pages[number], group, step, seat, into: entries)
            }
        }
        if let dcpRows = step.dcpRows {
            try DecodeContextParallel.select(index, dcpRows, step, seat, into: best)
        }
    }

    /// What own rows have selected, in this layer or an earlier one, as the attended rows need it.
    ///
    /// - Parameters:
    ///   - best: `[own rows, topK]` entries.
    ///   - set: the set whose entries they are, or one with as many tokens for each entry.
    package static func selection(
        _ best: ComputedIndices, topK: Int, of set: KeySetID, _ step: Step, _ seat: Seat
    ) throws(GroupFailure) -> Selection? {
        let group = step.group(of: set).group
        if group.visibleEntries(at: step.attended.maxPosition) <= topK { return nil }
        let selected = try seat.cross(Sharding.selection, best.bits(columns: topK))
        let members = seat.members(along: Sharding.selection.axes)
        try seat.check(selected: selected, of: step.attended, topK: topK, group, along: Sharding.selection.axes) {
            seat.ownRows(of: members[$0])
        }
        let counts = seat.scratch.indices(step.attended.count)
        counts.fill(Int32(topK))
        return Selection(positions: selected.integers, stride: topK, counts: ComputedIndices(counts))
    }

    /// Attention of every attended row over its own request's keys.
    ///
    /// - Parameters:
    ///   - query: `[rows, heads * (latent + rope)]`, absorbed, of this rank's heads.
    ///   - selection: of the rows that see more keys than they may select; `nil` where there are none.
    ///   - topK: how many keys a row may select; `nil` where it attends to all it sees.
    package static func attend(
        _ query: View, to keys: AttentionKeys, heads: Int, scale: Float, _ selection: Selection?, topK: Int?,
        _ step: Step, _ seat: Seat
    ) throws(GroupFailure) -> AttendedValues {
        let cache = step.readableKeys(keys.set)
        let window = step.cache.format[keys.set].window
        let (latent, rope) = (cache.lane(keys.latent, of: keys.set), cache.lane(keys.rotary, of: keys.set))
        let (number, group) = step.group(of: keys.set)
        let rows = step.attended
        let out = AttendedValues(
            values: seat.scratch.rows(query.rows, heads * latent.width), logSumExp: seat.scratch.rows(query.rows, heads)
        )
        // The keys of a window are with every rank, whoever has the others.
        for request in rows.requests where !request.usesDCP || window != nil {
            let mark = seat.scratch.mark()
            defer { seat.scratch.reset(to: mark) }
            func attend(_ range: Range<Int>, _ selection: Selection?) {
                if range.isEmpty { return }
                let mark = seat.scratch.mark()
                defer { seat.scratch.reset(to: mark) }
                seat.kernels.attention(
                    query.rows(range), heads: heads, scale: scale, latent: latent, rope: rope, request.pages[number],
                    positions: lastVisible(rows.positions[range], group, seat), selection: selection,
                    into: out.values.rows(range), logSumExp: out.logSumExp.rows(range), seat.scratch)
            }
            if let window {
                let (seen, keys) = windows(of: rows.positions[request.rows], window, seat)
                seat.work.attended += keys
                attend(request.rows, seen)
                continue
            }
            // Rows before the first entry is complete see none.
            let seeing = request.rows.first { group.visibleEntries(at: Int(rows.positions[$0])) > 0 }
            let first = seeing ?? request.rows.upperBound
            attend(request.rows.lowerBound..<first, noKeys(first - request.rows.lowerBound, seat))
            let split = selection.map { firstSelecting(request, rows, $0.stride, group) } ?? request.rows.upperBound
            for row in first..<split { seat.work.attended += group.visibleEntries(at: Int(rows.positions[row])) }
            attend(first..<split, nil)
            let selecting = split..<request.rows.upperBound
            seat.work.attended += selecting.count * (selection?.stride ?? 0)
            attend(selecting, selection?.rows(selecting))
        }
        if window == nil, let dcpRows = step.dcpRows {
            try DecodeContextParallel.attend(
                query, to: keys, heads: heads, scale: scale, selection, topK: topK, dcpRows, step, seat, into: out)
        }
        return out
    }

    /// For each of some rows the last entry that it sees; -1 for none.
    static func lastVisible(_ positions: Indices, _ group: PageGroup, _ seat: Seat) -> Indices {
        if group.tokensPerEntry == 1 { return positions }
        let last = seat.scratch.indices(positions.count)
        for row in 0..<positions.count { last[row] = Int32(group.visibleEntries(at: Int(positions[row])) - 1) }
        return last
    }

    /// For each of some rows the positions of its window, and how many keys those are for all rows together.
    private static func windows(of positions: Indices, _ window: Int, _ seat: Seat) -> (Selection, keys: Int) {
        let stride = (0..<positions.count).reduce(1) { max($0, min(window, Int(positions[$1]) + 1)) }
        let (seen, counts) = (seat.scratch.indices(positions.count * stride), seat.scratch.indices(positions.count))
        for row in 0..<positions.count {
            let end = Int(positions[row]) + 1
            let count = min(window, end)
            counts[row] = Int32(count)
            for place in 0..<count { seen[row * stride + place] = Int32(end - count + place) }
        }
        let selection = Selection(
            positions: ComputedIndices(seen), stride: stride, counts: ComputedIndices(counts))
        return (selection, counts.sum)
    }

    /// A selection of no keys for so many rows; `nil` for no rows.
    private static func noKeys(_ rows: Int, _ seat: Seat) -> Selection? {
        if rows == 0 { return nil }
        let (positions, counts) = (seat.scratch.indices(rows), seat.scratch.indices(rows))
        positions.fill(0)
        counts.fill(0)
        return Selection(positions: ComputedIndices(positions), stride: 1, counts: ComputedIndices(counts))
    }

    /// Takes rows of a request a few at a time: keys are read once for all of them, and what is kept for each is bounded.
    package static func forTiles(
        of range: Range<Int>, _ rows: Step.Rows, _ group: PageGroup, _ seat: Seat, _ body: (Range<Int>) -> Void
    ) {
        var first = range.lowerBound
        while first < range.upperBound {
            let candidates = first..<min(first + seat.kernels.tuning.indexRowTile, range.upperBound)
            let maxPosition = candidates.reduce(0) { max($0, Int(rows.positions[$1])) }
            let scores = max(group.visibleEntries(at: maxPosition), 1)
            let tile = first..<min(first + max(scoreBudget / scores, 1), candidates.upperBound)
            body(tile)
            first = tile.upperBound
        }
    }

    /// The first row of a request that sees more than `topK` keys; rows before it attend to all they see.
    private static func firstSelecting(
        _ request: Step.RequestRows, _ rows: Step.Rows, _ topK: Int, _ group: PageGroup
    ) -> Int {
        request.rows.first { group.visibleEntries(at: Int(rows.positions[$0])) > topK } ?? request.rows.upperBound
    }

    private static func select(
        _ index: IndexQuery, rows: Range<Int>, _ pages: PageMap, _ group: PageGroup, _ step: Step, _ seat: Seat,
        into entries: ComputedIndices
    ) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let visible = seat.scratch.indices(rows.count)
        for (at, row) in rows.enumerated() {
            visible[at] = Int32(group.visibleEntries(at: Int(step.own.positions[row])))
        }
        let scores = seat.scratch.rows(rows.count, Int(visible[rows.count - 1]))
        seat.kernels.indexScores(
            index.queries.rows(rows), weights: index.weights.rows(rows),
            keys: step.readableKeys(index.set).lane(index.lane, of: index.set), pages, into: scores, seat.scratch)
        seat.work.scored += visible.sum
        let selection = Selection(
            positions: entries, stride: index.topK, counts: seat.scratch.computed(rows.count))
        seat.kernels.topK(scores, visible: visible, into: selection, seat.scratch)
        guard let recorder = step.recorder else { return }
        for (at, row) in rows.enumerated() {
            let seen = seat.kernels.synchronize(scores.rows(at..<at + 1).columns(0..<Int(visible[at])))
            recorder.record(.indexScores, layer: index.set.layer, seen.elements, of: step.own, row: row)
            let selected = seat.kernels.synchronize(entries[at * index.topK..<(at + 1) * index.topK])
            recorder.record(
                .selected, layer: index.set.layer, selected.elements.map { Float($0) }, of: step.own, row: row)
        }
    }
}
