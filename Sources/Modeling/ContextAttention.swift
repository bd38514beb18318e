package import KVCache
package import Parallelism
package import Tensors

/// The index queries of some rows, and the key set whose index keys they are scored against.
package struct IndexQuery {
    /// The queries, `[rows, heads * width]`.
    package let queries: View
    /// The weight of each head's score, `[rows, heads]`, scale factors included.
    package let weights: View
    /// The largest number of entries that a row selects.
    package let topK: Int
    /// The key set of the index keys, and their lane in it.
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

/// The keys that rows attend to: a key set, and the roles of its lanes.
package struct AttentionKeys {
    package let set: KeySetID
    /// The lane of compressed keys, which are also the values.
    package let latent: Int
    /// The lane of rotary keys.
    package let rotary: Int
    /// True if rotary keys are also values, after the compressed ones.
    package let valuesIncludeRotary: Bool

    package init(_ set: KeySetID, latent: Int, rotary: Int, valuesIncludeRotary: Bool = false) {
        self.set = set
        self.latent = latent
        self.rotary = rotary
        self.valuesIncludeRotary = valuesIncludeRotary
    }

    /// Returns the number of elements of a value in a cache.
    func valueWidth(_ cache: CacheStore) -> Int {
        let lanes = cache.format[set].lanes
        return lanes[latent].width + (valuesIncludeRotary ? lanes[rotary].width : 0)
    }
}

/// The result of attention over some keys. Results over disjoint keys can be merged (`Kernels.mergeAttention`).
package struct AttendedValues {
    /// The attended values of each head, `[rows, heads * value]`.
    package let values: View
    /// The natural logarithm of the sum of exponentials, `[rows, heads]`; -infinity if a row sees no key.
    package let logSumExp: View
}

/// Selects keys and attends to them, wherever they are stored: in this process's cache, in gathered copies, or with
/// other ranks.
package enum ContextAttention {
    /// The largest number of index scores that are kept at once. It bounds the memory of long contexts and does not
    /// change any result.
    private static let scoreBudget = 1 << 21

    /// Returns true if this rank must compute index queries in this step: a row of its own selects, or a row of a rank
    /// among which the same keys are sharded does and may read this rank's queries. Rows that see at most `topK`
    /// entries do not select.
    ///
    /// - Parameter set: the key set that has the index keys.
    package static func needsIndexQueries(topK: Int, of set: KeySetID, _ step: Step) -> Bool {
        let last = max(step.own.maxPosition, step.dcpRows?.own.maxPosition ?? -1)
        return step.group(of: set).group.visibleEntries(at: last) > topK
    }

    /// Returns the exact top-k entries of each attended row that sees more than `topK` of them; `nil` if no row does.
    ///
    /// - Parameter index: the index queries of own rows; `nil` if this rank needs none (`needsIndexQueries`).
    package static func select(
        _ index: IndexQuery?, topK: Int, of set: KeySetID, _ step: Step, _ seat: Seat
    ) throws(GroupFailure) -> Selection? {
        let best = seat.scratch.computed(step.own.count * topK)
        if let index { try select(index, step, seat, into: best) }
        return try selection(best, topK: topK, of: set, step, seat)
    }

    /// Selects the exact top-k entries of each own row that sees more than `topK` of them.
    ///
    /// The owner of a row scores the row's keys once for all heads; in query-gather attention the owners of the keys do
    /// (`DecodeContextParallel`).
    ///
    /// - Parameter best: `[own rows, topK]`; receives the entries in ascending order. Rows that see at most `topK`
    ///   entries are not written.
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

    /// Gathers the selections of own rows, made in this layer or an earlier one, for the attended rows.
    ///
    /// - Parameters:
    ///   - best: the entries that own rows selected, `[own rows, topK]`.
    ///   - set: the key set of those entries, or one with the same number of tokens per entry.
    /// - Returns: the selections of the attended rows; `nil` if no attended row sees more than `topK` entries.
    /// - Throws: `GroupFailure` if a rank fails or sends a selection that no row can have.
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

    /// Computes attention of every attended row over the keys of its own request.
    ///
    /// - Parameters:
    ///   - query: the absorbed queries of this rank's heads, `[rows, heads * (latent + rope)]`.
    ///   - selection: the entries of the rows that see more than `topK`; `nil` if no row does.
    ///   - topK: the largest number of entries that a row selects; `nil` if rows attend to all entries they see.
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
            values: seat.scratch.rows(query.rows, heads * keys.valueWidth(step.cache)),
            logSumExp: seat.scratch.rows(query.rows, heads)
        )
        // Every process has the window entries that its own rows see, so query-gather attention is not needed for them.
        for request in rows.requests where !request.usesDCP || window != nil {
            let mark = seat.scratch.mark()
            defer { seat.scratch.reset(to: mark) }
            func attend(_ range: Range<Int>, _ selection: Selection?) {
                if range.isEmpty { return }
                let mark = seat.scratch.mark()
                defer { seat.scratch.reset(to: mark) }
                seat.kernels.attention(
                    query.rows(range), heads: heads, scale: scale, latent: latent, rope: rope,
                    valuesIncludeRotary: keys.valuesIncludeRotary, request.pages[number],
                    positions: lastVisible(rows.positions[range], group, seat), selection: selection,
                    into: out.values.rows(range), logSumExp: out.logSumExp.rows(range), seat.scratch)
            }
            if let window {
                let (seen, keys) = windows(of: rows.positions[request.rows], window, seat)
                seat.work.attended += keys
                attend(request.rows, seen)
                continue
            }
            // Rows before the end of the first entry see none.
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

    /// Returns the index of the last entry that each row sees; -1 if it sees none.
    static func lastVisible(_ positions: Indices, _ group: PageGroup, _ seat: Seat) -> Indices {
        if group.tokensPerEntry == 1 { return positions }
        let last = seat.scratch.indices(positions.count)
        for row in 0..<positions.count { last[row] = Int32(group.visibleEntries(at: Int(positions[row])) - 1) }
        return last
    }

    /// Returns the positions in each row's window, and the number of keys of all rows together.
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

    /// Returns a selection without keys for a number of rows; `nil` for no rows.
    private static func noKeys(_ rows: Int, _ seat: Seat) -> Selection? {
        if rows == 0 { return nil }
        let (positions, counts) = (seat.scratch.indices(rows), seat.scratch.indices(rows))
        positions.fill(0)
        counts.fill(0)
        return Selection(positions: ComputedIndices(positions), stride: 1, counts: ComputedIndices(counts))
    }

    /// Calls `body` for a few rows of a request at a time. The keys are then read once for all rows of a tile, and the
    /// scores of a tile stay within a bound.
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

    /// Returns the first row of a request that sees more than `topK` entries; earlier rows attend to all entries they
    /// see.
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
