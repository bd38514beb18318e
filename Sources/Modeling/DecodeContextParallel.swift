import KVCache
package import Parallelism
package import Tensors

/// Decode context parallelism with query-gather attention: each rank scores and attends to the keys it owns, for the
/// rows of all ranks among which the keys are sharded, and sends its partial results to the rows' owners.
///
/// Results are bitwise equal to those of one rank that reads all keys: top-k is exact, and where each rank owns whole
/// residue classes of entries (`KVSharding.classes`), partial results are merged in the canonical tree.
package enum DecodeContextParallel {
    /// Returns the number of columns of a rank's partial results for a row: values and log-sum-exp for each residue
    /// class the rank owns.
    package static func partialColumns(heads: Int, value: Int, _ kvSharding: KVSharding) -> Int {
        classesHere(kvSharding) * heads * (value + 1)
    }

    private static func classesHere(_ kvSharding: KVSharding) -> Int {
        kvSharding.classes == nil ? 1 : kvSharding.unit
    }

    // MARK: - Selection

    /// Selects the exact top-k entries of the own DCP rows, in their rows of `best` (`[own rows, topK]`).
    ///
    /// Each rank sends a row's owner its own top-k with their scores; the top-k of those are the top-k of all entries.
    package static func select(
        _ index: IndexQuery, _ dcpRows: Step.DCPRows, _ step: Step, _ seat: Seat, into best: ComputedIndices
    ) throws(GroupFailure) {
        let group = step.group(of: index.set).group
        // All ranks of the group return here or none does, because they know each other's rows.
        if group.visibleEntries(at: dcpRows.own.maxPosition) <= index.topK { return }
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let queries = try gather(index, dcpRows, step, seat)
        let candidates = candidates(queries, dcpRows.own, step, seat)
        let own = dcpRows.ownRows
        let pending = try seat.startExchange(
            "candidates", along: .kvSharding, candidates, counts: dcpRows.ownCounts,
            expecting: seat.counts(own.count, along: .kvSharding))
        let received = try seat.finish(pending)
        let selecting = try selecting(received, own, topK: index.topK, group, step, seat)
        seat.kernels.mergeCandidates(
            received, ranks: seat.degree(.kvSharding), rows: selecting.places, last: selecting.last, into: best,
            outRows: selecting.rows, topK: index.topK, seat.scratch)
        guard let recorder = step.recorder else { return }
        for row in selecting.rows.elements {
            let row = Int(row)
            let selected = seat.kernels.synchronize(best[row * index.topK..<(row + 1) * index.topK])
            recorder.record(
                .selected, layer: index.set.layer, selected.elements.map { Float($0) }, of: step.own, row: row)
        }
    }

    /// Lists the own rows that select, after checking the candidates that ranks sent for them.
    ///
    /// - Parameter own: for each own DCP row, its index among the own rows.
    /// - Returns: for each selecting row, its index among the own DCP rows, its index among the own rows, and the last
    ///   entry that it sees.
    private static func selecting(
        _ received: View, _ own: Indices, topK: Int, _ group: PageGroup, _ step: Step, _ seat: Seat
    ) throws(GroupFailure) -> (places: Indices, rows: Indices, last: Indices) {
        let places = seat.scratch.indices(own.count)
        let (rows, last) = (seat.scratch.indices(own.count), seat.scratch.indices(own.count))
        var count = 0
        for place in 0..<own.count {
            let position = Int(step.own.positions[Int(own[place])])
            let visible = group.visibleEntries(at: position)
            if visible <= topK { continue }
            (places[count], rows[count], last[count]) = (Int32(place), own[place], Int32(visible - 1))
            try check(received, row: place, of: own.count, visible: visible, topK: topK, seat)
            count += 1
        }
        return (places[0..<count], rows[0..<count], last[0..<count])
    }

    /// Gathers the index queries of the DCP rows of all ranks.
    private static func gather(
        _ index: IndexQuery, _ dcpRows: Step.DCPRows, _ step: Step, _ seat: Seat
    ) throws(GroupFailure) -> IndexQuery {
        let (width, heads) = (index.queries.columns, index.weights.columns)
        let own = dcpRows.ownRows
        let packed = seat.scratch.rows(own.count, width + heads)
        let numbers = ComputedIndices(own)
        seat.kernels.copyRows(index.queries, xRows: numbers, into: packed.columns(0..<width))
        seat.kernels.copyRows(index.weights, xRows: numbers, into: packed.columns(width..<width + heads))
        let all = try seat.gather("index queries", along: .kvSharding, packed, counts: dcpRows.ownCounts)
        let queries = seat.scratch.rows(all.rows, width)
        let weights = seat.scratch.rows(all.rows, heads)
        seat.kernels.copyRows(all.columns(0..<width), into: queries)
        seat.kernels.copyRows(all.columns(width..<width + heads), into: weights)
        return IndexQuery(
            queries: queries, weights: weights, topK: index.topK, set: index.set, lane: index.lane)
    }

    /// Returns each row's top-k among the entries that this rank owns, in the form of `Kernels.packCandidates`.
    private static func candidates(_ index: IndexQuery, _ rows: Step.Rows, _ step: Step, _ seat: Seat) -> View {
        let candidates = seat.scratch.rows(rows.count, Kernels.candidateColumns(index.topK))
        let (number, group) = step.group(of: index.set)
        for request in rows.requests {
            ContextAttention.forTiles(of: request.rows, rows, group, seat) { tile in
                find(index, tile, rows.positions, request.pages[number], group, step, seat, into: candidates)
            }
        }
        return candidates
    }

    private static func find(
        _ index: IndexQuery, _ tile: Range<Int>, _ positions: Indices, _ pages: PageMap, _ group: PageGroup,
        _ step: Step, _ seat: Seat, into candidates: View
    ) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let (topK, owned, kvSharding) = (index.topK, seat.owned, seat.configuration.kvSharding)
        let visible = seat.scratch.indices(tile.count)
        // The tile has rows of several ranks, so the last row need not see the most entries.
        var most = 0
        for (at, row) in tile.enumerated() {
            let all = group.visibleEntries(at: Int(positions[row]))
            visible[at] = all <= topK ? 0 : Int32(kvSharding.count(of: all, for: owned.rank))
            most = max(most, Int(visible[at]))
        }
        seat.work.scored += visible.sum
        let scores = seat.scratch.rows(tile.count, most)
        seat.kernels.indexScores(
            index.queries.rows(tile), weights: index.weights.rows(tile),
            keys: step.cache.lane(index.lane, of: index.set), pages, owned: owned, into: scores, seat.scratch)
        let selection = Selection(
            positions: seat.scratch.computed(tile.count * topK), stride: topK,
            counts: seat.scratch.computed(tile.count))
        seat.kernels.topK(scores, visible: visible, into: selection, seat.scratch)
        seat.kernels.packCandidates(scores, selection, owned: owned, into: candidates.rows(tile))
    }

    /// Checks the candidates that each rank sent for one row, before any of them is used as an index.
    ///
    /// - Parameters:
    ///   - received: `[ranks · rows, candidateColumns]`, rank by rank.
    ///   - row: the row's index among the rows of a rank.
    ///   - visible: the number of entries that the row sees.
    /// - Throws: `GroupFailure` that names a rank whose candidates are not ascending entries that it owns and the row
    ///   sees.
    private static func check(
        _ received: View, row: Int, of rows: Int, visible: Int, topK: Int, _ seat: Seat
    ) throws(GroupFailure) {
        let kvSharding = seat.configuration.kvSharding
        for rank in 0..<kvSharding.ranks {
            let words = seat.kernels.synchronize(received.rows(rank * rows + row..<rank * rows + row + 1).integers)
            let expected = min(topK, kvSharding.count(of: visible, for: rank))
            guard words[0] == expected else {
                throw seat.failure(
                    of: rank, along: .kvSharding,
                    "it sent \(words[0]) candidates of a row that sees \(visible) entries, where it has \(expected)")
            }
            let entries = words[1 + topK..<1 + topK + expected]
            guard entries.areAscending(below: visible, ownedBy: kvSharding.positions(of: rank)) else {
                throw seat.failure(
                    of: rank, along: .kvSharding,
                    "it sent candidates of a row that sees \(visible) entries that are not ascending entries of "
                        + "0..<\(visible) that it owns")
            }
        }
    }

    // MARK: - Attention

    /// Computes attention of the attended DCP rows, in their rows of `out`.
    package static func attend(
        _ query: View, to keys: AttentionKeys, heads: Int, scale: Float, _ selection: Selection?, topK most: Int?,
        _ dcpRows: Step.DCPRows, _ step: Step, _ seat: Seat, into out: AttendedValues
    ) throws(GroupFailure) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let rows = dcpRows.attendedRows
        // All ranks of the group must use the same `topK`, even one whose own rows do not select.
        let visible = step.group(of: keys.set).group.visibleEntries(at: dcpRows.attended.maxPosition)
        let topK = most.map { visible <= $0 ? 0 : $0 } ?? 0
        let packed = seat.scratch.rows(rows.count, query.columns + topK)
        let numbers = ComputedIndices(rows)
        seat.kernels.copyRows(query, xRows: numbers, into: packed.columns(0..<query.columns))
        if topK > 0, let selection {
            seat.kernels.copyRows(
                selection.positions.bits(columns: topK), xRows: numbers,
                into: packed.columns(query.columns..<packed.columns))
        }
        let all = try seat.gather("queries", along: .kvSharding, packed, counts: dcpRows.attendedCounts)
        if topK > 0 {
            try seat.check(
                selected: all.columns(query.columns..<all.columns), of: dcpRows.attended, topK: topK,
                step.group(of: keys.set).group, along: .kvSharding
            ) { Int(dcpRows.attendedCounts[$0]) }
        }
        let partials = partials(all, to: keys, heads: heads, scale: scale, topK: topK, dcpRows.attended, step, seat)
        let pending = try seat.startExchange(
            "partial attention", along: .kvSharding, partials, counts: dcpRows.attendedCounts,
            expecting: seat.counts(rows.count, along: .kvSharding))
        let received = try seat.finish(pending)
        let merged = Merge(received, rows: rows.count, heads: heads, columns: out.values.columns, seat).result()
        seat.kernels.copyRows(merged.values, into: out.values, outRows: numbers)
        seat.kernels.copyRows(merged.logSumExp, into: out.logSumExp, outRows: numbers)
    }

    /// Returns the partial results of all rows over the keys that this rank owns, residue class by residue class:
    /// `[rows, classes of a rank · (heads · value + heads)]`.
    private static func partials(
        _ packed: View, to keys: AttentionKeys, heads: Int, scale: Float, topK: Int, _ rows: Step.Rows, _ step: Step,
        _ seat: Seat
    ) -> View {
        let value = keys.valueWidth(step.cache)
        let (number, group) = step.group(of: keys.set)
        let partials = seat.scratch.rows(
            packed.rows, partialColumns(heads: heads, value: value, seat.configuration.kvSharding))
        let queries = packed.columns(0..<packed.columns - topK)
        let selected = packed.columns(packed.columns - topK..<packed.columns)
        for request in rows.requests {
            ContextAttention.forTiles(of: request.rows, rows, group, seat) { tile in
                let mark = seat.scratch.mark()
                defer { seat.scratch.reset(to: mark) }
                let last = ContextAttention.lastVisible(rows.positions[tile], group, seat)
                let owned = ownedKeys(upTo: last, selected: selected.rows(tile), seat)
                attend(
                    queries.rows(tile), to: keys, heads: heads, scale: scale, request.pages[number], last, owned, step,
                    seat, into: partials.rows(tile))
            }
        }
        return partials
    }

    /// Computes attention over the keys that this rank owns, residue class by residue class.
    private static func attend(
        _ queries: View, to keys: AttentionKeys, heads: Int, scale: Float, _ pages: PageMap, _ last: Indices,
        _ selection: Selection, _ step: Step, _ seat: Seat, into partials: View
    ) {
        let (latent, rope) = (step.cache.lane(keys.latent, of: keys.set), step.cache.lane(keys.rotary, of: keys.set))
        let (kvSharding, owned) = (seat.configuration.kvSharding, seat.owned)
        let width = heads * keys.valueWidth(step.cache)
        for number in 0..<classesHere(kvSharding) {
            let first = number * (width + heads)
            let logSumExp = seat.scratch.rows(queries.rows, heads)
            seat.kernels.attention(
                queries, heads: heads, scale: scale, latent: latent, rope: rope,
                valuesIncludeRotary: keys.valuesIncludeRotary, pages, positions: last, selection: selection,
                classes: kvSharding.classes.map { ($0, owned.rank * owned.unit + number) } ?? (1, 0),
                into: partials.columns(first..<first + width), logSumExp: logSumExp, seat.scratch)
            seat.kernels.copyRows(logSumExp, into: partials.columns(first + width..<first + width + heads))
        }
    }

    /// Lists the keys owned by this rank that rows of a request attend to: the owned ones among the selected entries,
    /// or among all that a row sees.
    ///
    /// - Parameters:
    ///   - last: the last entry that each row sees.
    ///   - selected: `[rows, topK]`; it has no columns if no row selects.
    private static func ownedKeys(upTo last: Indices, selected: View, _ seat: Seat) -> Selection {
        let (owned, topK) = (seat.owned, selected.columns)
        func selects(_ row: Int) -> Bool { topK > 0 && last[row] >= topK }
        func most(_ row: Int) -> Int {
            selects(row) ? topK : seat.configuration.kvSharding.count(of: Int(last[row]) + 1, for: owned.rank)
        }
        let stride = (0..<last.count).reduce(1) { max($0, most($1)) }
        return seat.kernels.shardedKeys(
            of: last, selected: selected, owned: owned, most: stride, total: seat.foundKeys, seat.scratch)
    }

    /// Merges the partial results of all ranks.
    private struct Merge {
        /// The partial results, `[ranks · rows, classes of a rank · (width + heads)]`.
        private let received: View
        private let rows: Int
        private let heads: Int
        private let width: Int
        private let seat: Seat

        init(_ received: View, rows: Int, heads: Int, columns: Int, _ seat: Seat) {
            self.received = received
            self.rows = rows
            self.heads = heads
            width = columns
            self.seat = seat
        }

        /// Returns the merged values, `[rows, heads · value]`, and their log-sum-exp, `[rows, heads]`.
        func result() -> (values: View, logSumExp: View) {
            if let classes = seat.configuration.kvSharding.classes { return subtree(0, 1, of: classes) }
            let (values, logSumExp) = leaf(0, perRank: 1)
            for rank in 1..<seat.degree(.kvSharding) {
                let other = leaf(rank, perRank: 1)
                seat.kernels.mergeAttention(values, logSumExp, with: other.values, other.logSumExp)
            }
            return (values, logSumExp)
        }

        /// Merges the classes `first`, `first + step`, … of `classes` in the tree of attention.h: the left half is
        /// every other class from `first` on, the right half every other class from `first + step` on.
        private func subtree(_ first: Int, _ step: Int, of classes: Int) -> (values: View, logSumExp: View) {
            if step == classes { return leaf(first, perRank: seat.configuration.kvSharding.unit) }
            let left = subtree(first, step * 2, of: classes)
            let right = subtree(first + step, step * 2, of: classes)
            seat.kernels.mergeAttention(left.values, left.logSumExp, with: right.values, right.logSumExp)
            return left
        }

        private func leaf(_ number: Int, perRank: Int) -> (values: View, logSumExp: View) {
            let block = received.rows(number / perRank * rows..<(number / perRank + 1) * rows)
            let first = number % perRank * (width + heads)
            let (values, logSumExp) = (seat.scratch.rows(rows, width), seat.scratch.rows(rows, heads))
            seat.kernels.copyRows(block.columns(first..<first + width), into: values)
            seat.kernels.copyRows(block.columns(first + width..<first + width + heads), into: logSumExp)
            return (values, logSumExp)
        }
    }
}
