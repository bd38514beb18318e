import KVCache
package import Parallelism
package import Tensors

/// Decode context parallelism: queries go to the keys. Each rank scores and attends to the keys it owns, for the rows of
/// all ranks among which the keys are divided, and what it finds goes back to the rows.
///
/// The bits are those of one rank that looks at all keys: top-k is exact, and where whole classes of positions belong to
/// one rank (`KVSharding.classes`) partial attention is merged in the tree in which it is always merged.
package enum DecodeContextParallel {
    /// Columns of what a rank says of a row's best keys: their count as an integer's bits, then room for scores and positions, also as bits.
    package static func candidateColumns(_ topK: Int) -> Int { 1 + 2 * topK }

    /// Columns of what a rank contributes to a row's attention: for each class of positions it has, values and log-sum-exp.
    package static func partialColumns(heads: Int, latent: Int, _ kvSharding: KVSharding) -> Int {
        classesHere(kvSharding) * heads * (latent + 1)
    }

    private static func classesHere(_ kvSharding: KVSharding) -> Int {
        kvSharding.classes == nil ? 1 : kvSharding.unit
    }

    // MARK: - Selection

    /// The exact best keys of the travelling own rows, into their rows of `best` (`[own rows, topK]`).
    ///
    /// Each rank sends a row's owner its own best with their scores; the best of those are the best of all.
    package static func select(
        _ index: IndexQuery, _ dcpRows: Step.DCPRows, layer: Int, _ step: Step, _ seat: Seat, into best: Indices
    ) throws(GroupFailure) {
        // The same on all of these ranks: they know each other's rows.
        if dcpRows.own.maxPosition < index.topK { return }
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let queries = try gather(index, dcpRows, step, seat)
        let candidates = candidates(queries, dcpRows.own, layer: layer, step, seat)
        let own = dcpRows.ownRows
        let pending = try seat.startExchange(
            "candidates", along: .kvSharding, candidates, counts: dcpRows.ownCounts,
            expecting: seat.counts(own.count, along: .kvSharding))
        let received = try seat.finish(pending)
        for place in 0..<own.count {
            let row = Int(own[place])
            if step.own.positions[row] < index.topK { continue }
            let lists = try CandidateLists(
                received, row: place, of: own.count, position: Int(step.own.positions[row]), topK: index.topK, seat)
            let selected = best[row * index.topK..<(row + 1) * index.topK]
            choose(lists, topK: index.topK, seat, into: selected)
            step.recorder?.record(
                .selected, layer: layer, selected.elements.map { Float($0) }, of: step.own, row: row)
        }
    }

    /// The index queries of all travelling rows.
    private static func gather(
        _ index: IndexQuery, _ dcpRows: Step.DCPRows, _ step: Step, _ seat: Seat
    ) throws(GroupFailure) -> IndexQuery {
        let (width, heads) = (index.queries.columns, index.weights.columns)
        let own = dcpRows.ownRows
        let packed = seat.scratch.rows(own.count, width + heads)
        for place in 0..<own.count {
            let row = Int(own[place])
            let packedRow = packed.rows(place..<place + 1)
            packedRow.columns(0..<width).copy(index.queries.rows(row..<row + 1))
            packedRow.columns(width..<width + heads).copy(index.weights.rows(row..<row + 1))
        }
        let all = try seat.gather("index queries", along: .kvSharding, packed, counts: dcpRows.ownCounts)
        let queries = seat.scratch.rows(all.rows, width)
        let weights = seat.scratch.rows(all.rows, heads)
        queries.copy(all.columns(0..<width))
        weights.copy(all.columns(width..<width + heads))
        return IndexQuery(queries: queries, weights: weights, topK: index.topK)
    }

    /// Each row's best among the keys owned here: `[rows, 1 + 2 · topK]`, their count, their scores, their positions,
    /// the last two ascending by position.
    private static func candidates(
        _ index: IndexQuery, _ rows: Step.Rows, layer: Int, _ step: Step, _ seat: Seat
    ) -> View {
        let candidates = seat.scratch.rows(rows.count, candidateColumns(index.topK))
        for request in rows.requests {
            ContextAttention.forTiles(of: request.rows, rows, seat) { tile in
                find(index, tile, rows.positions, request.pages, layer: layer, step, seat, into: candidates)
            }
        }
        return candidates
    }

    private static func find(
        _ index: IndexQuery, _ tile: Range<Int>, _ positions: Indices, _ pages: PageMap, layer: Int, _ step: Step,
        _ seat: Seat, into candidates: View
    ) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let (topK, owned, kvSharding) = (index.topK, seat.owned, seat.configuration.kvSharding)
        let visible = seat.scratch.indices(tile.count)
        // Rows of several ranks, each of which has its own in order.
        var most = 0
        for (at, row) in tile.enumerated() {
            let position = Int(positions[row])
            visible[at] = position < topK ? 0 : Int32(kvSharding.count(of: position + 1, for: owned.rank))
            seat.work.scored += Int(visible[at])
            most = max(most, Int(visible[at]))
        }
        let scores = seat.scratch.rows(tile.count, most)
        seat.kernels.indexScores(
            index.queries.rows(tile), weights: index.weights.rows(tile), keys: step.cache.lane(.indexKey, layer: layer),
            pages, owned: owned, into: scores, seat.scratch)
        let selection = Selection(
            positions: seat.scratch.indices(tile.count * topK), stride: topK, counts: seat.scratch.indices(tile.count))
        seat.kernels.topK(scores, visible: visible, into: selection, seat.scratch)
        for (at, row) in tile.enumerated() {
            let (count, packedRow) = (Int(selection.counts[at]), candidates.rows(row..<row + 1))
            let best = selection.rows(at..<at + 1).positions
            packedRow.columns(0..<1).integers[0] = Int32(count)
            let positions = packedRow.columns(1 + topK..<1 + 2 * topK).integers
            for place in 0..<count {
                packedRow[0, 1 + place] = scores[at, Int(best[place])]
                positions[place] = Int32(owned.position(Int(best[place])))
            }
        }
    }

    /// The best of several ranks' candidates for one row; ties to the smaller position, so they are put in its order.
    private static func choose(_ lists: CandidateLists, topK: Int, _ seat: Seat, into selected: Indices) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let all = lists.merged(0..<seat.degree(.kvSharding), seat.scratch)
        let visible = seat.scratch.indices(1)
        visible[0] = Int32(all.count)
        let selection = Selection(positions: seat.scratch.indices(topK), stride: topK, counts: seat.scratch.indices(1))
        seat.kernels.topK(all.scores, visible: visible, into: selection, seat.scratch)
        precondition(selection.counts[0] == topK, "a row that selects sees more keys than it may select")
        for place in 0..<topK { selected[place] = all.positions[Int(selection.positions[place])] }
    }

    /// What each rank sent of its best keys for one row, checked.
    private struct CandidateLists {
        /// `[ranks · rows, candidateColumns]`, one rank's rows after the other's.
        private let received: View
        private let row: Int
        private let rows: Int
        private let topK: Int

        /// - Parameters:
        ///   - row: which of the rows of a rank.
        ///   - position: of the row.
        /// - Throws: `GroupFailure` in the name of the rank whose candidates are not its share of what the row sees.
        init(
            _ received: View, row: Int, of rows: Int, position: Int, topK: Int, _ seat: Seat
        ) throws(GroupFailure) {
            (self.received, self.row, self.rows, self.topK) = (received, row, rows, topK)
            let kvSharding = seat.configuration.kvSharding
            for rank in 0..<kvSharding.ranks {
                let sent = count(of: rank)
                let expected = min(topK, kvSharding.count(of: position + 1, for: rank))
                guard sent == expected else {
                    throw seat.failure(
                        of: rank, along: .kvSharding,
                        "it sent \(sent) candidates of a row at position \(position), where it has \(expected)")
                }
                let areRight = list(of: rank).positions.areAscendingPositions(
                    upTo: position, ownedBy: kvSharding.positions(of: rank))
                guard areRight else {
                    throw seat.failure(
                        of: rank, along: .kvSharding,
                        "it sent candidates of a row at position \(position) that are not ascending positions of "
                            + "0...\(position) that it owns")
                }
            }
        }

        private func packedRow(of rank: Int) -> View {
            received.rows(rank * rows + row..<rank * rows + row + 1)
        }

        private func count(of rank: Int) -> Int { Int(packedRow(of: rank).columns(0..<1).integers[0]) }

        private func list(of rank: Int) -> Candidates {
            let (packedRow, count) = (packedRow(of: rank), count(of: rank))
            return Candidates(
                scores: packedRow.columns(1..<1 + count),
                positions: packedRow.columns(1 + topK..<1 + topK + count).integers)
        }

        /// The candidates of some ranks, ascending by position.
        func merged(_ ranks: Range<Int>, _ scratch: Scratch) -> Candidates {
            if ranks.count == 1 { return list(of: ranks.lowerBound) }
            let half = ranks.lowerBound + ranks.count / 2
            return Candidates(
                merging: merged(ranks.lowerBound..<half, scratch), merged(half..<ranks.upperBound, scratch), scratch)
        }
    }

    /// Some of a row's keys, ascending by position.
    private struct Candidates {
        /// `[1, count]`.
        let scores: View
        let positions: Indices
        var count: Int { scores.columns }

        init(scores: View, positions: Indices) {
            self.scores = scores
            self.positions = positions
        }

        init(merging left: Candidates, _ right: Candidates, _ scratch: Scratch) {
            scores = scratch.rows(1, left.count + right.count)
            positions = scratch.indices(left.count + right.count)
            var (first, second) = (0, 0)
            for place in 0..<count {
                let isLeft =
                    second == right.count
                    || first < left.count && left.positions[first] < right.positions[second]
                if isLeft {
                    scores[0, place] = left.scores[0, first]
                    positions[place] = left.positions[first]
                    first += 1
                } else {
                    scores[0, place] = right.scores[0, second]
                    positions[place] = right.positions[second]
                    second += 1
                }
            }
        }
    }

    // MARK: - Attention

    /// Attention of the travelling attended rows, into their rows of `out`.
    package static func attend(
        _ query: View, heads: Int, scale: Float, _ selection: Selection?, topK most: Int?,
        _ dcpRows: Step.DCPRows, layer: Int, _ step: Step, _ seat: Seat, into out: View
    ) throws(GroupFailure) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let rows = dcpRows.attendedRows
        // The same on all of these ranks, also on one whose own rows do not select.
        let topK = most.map { dcpRows.attended.maxPosition < $0 ? 0 : $0 } ?? 0
        let packed = seat.scratch.rows(rows.count, query.columns + topK)
        for place in 0..<rows.count {
            let row = Int(rows[place])
            let packedRow = packed.rows(place..<place + 1)
            packedRow.columns(0..<query.columns).copy(query.rows(row..<row + 1))
            if topK > 0, let selection {
                packedRow.columns(query.columns..<packedRow.columns).copy(
                    selection.positions[row * topK..<(row + 1) * topK].bits(columns: topK))
            }
        }
        let all = try seat.gather("queries", along: .kvSharding, packed, counts: dcpRows.attendedCounts)
        if topK > 0 {
            try seat.check(
                selected: all.columns(query.columns..<all.columns), of: dcpRows.attended, topK: topK, along: .kvSharding
            ) { Int(dcpRows.attendedCounts[$0]) }
        }
        let partials = partials(
            all, heads: heads, scale: scale, topK: topK, dcpRows.attended, layer: layer, step, seat)
        let pending = try seat.startExchange(
            "partial attention", along: .kvSharding, partials, counts: dcpRows.attendedCounts,
            expecting: seat.counts(rows.count, along: .kvSharding))
        let received = try seat.finish(pending)
        let merged = Merge(received, rows: rows.count, heads: heads, columns: out.columns, seat).result()
        for place in 0..<rows.count {
            let row = Int(rows[place])
            out.rows(row..<row + 1).copy(merged.rows(place..<place + 1))
        }
    }

    /// Of each row what the keys owned here contribute, class by class: `[rows, classes here · (heads · latent + heads)]`.
    private static func partials(
        _ packed: View, heads: Int, scale: Float, topK: Int, _ rows: Step.Rows, layer: Int, _ step: Step, _ seat: Seat
    ) -> View {
        let latent = step.cache.lane(.latent, layer: layer).width
        let partials = seat.scratch.rows(
            packed.rows, partialColumns(heads: heads, latent: latent, seat.configuration.kvSharding))
        let queries = packed.columns(0..<packed.columns - topK)
        let selected = packed.columns(packed.columns - topK..<packed.columns)
        for request in rows.requests {
            ContextAttention.forTiles(of: request.rows, rows, seat) { tile in
                let mark = seat.scratch.mark()
                defer { seat.scratch.reset(to: mark) }
                let positions = rows.positions[tile]
                let keys = keys(of: positions, selected: selected.rows(tile), seat)
                attend(
                    queries.rows(tile), heads: heads, scale: scale, request.pages, positions, keys, layer: layer, step,
                    seat, into: partials.rows(tile))
            }
        }
        return partials
    }

    /// Class by class, over the keys owned here.
    private static func attend(
        _ queries: View, heads: Int, scale: Float, _ pages: PageMap, _ positions: Indices, _ keys: Selection,
        layer: Int, _ step: Step, _ seat: Seat, into partials: View
    ) {
        let (latent, rope) = (step.cache.lane(.latent, layer: layer), step.cache.lane(.ropeKey, layer: layer))
        let (kvSharding, owned) = (seat.configuration.kvSharding, seat.owned)
        let width = heads * latent.width
        seat.work.attended += keys.counts.sum
        for number in 0..<classesHere(kvSharding) {
            let first = number * (width + heads)
            let logSumExp = seat.scratch.rows(queries.rows, heads)
            seat.kernels.attention(
                queries, heads: heads, scale: scale, latent: latent, rope: rope, pages, positions: positions,
                selection: keys, classes: kvSharding.classes.map { ($0, owned.rank * owned.unit + number) } ?? (1, 0),
                into: partials.columns(first..<first + width), logSumExp: logSumExp, seat.scratch)
            partials.columns(first + width..<first + width + heads).copy(logSumExp)
        }
    }

    /// The keys owned here that rows of a request attend to: of those selected, or of all they see.
    ///
    /// - Parameter selected: `[rows, topK]`; no columns where no row selects.
    private static func keys(of positions: Indices, selected: View, _ seat: Seat) -> Selection {
        let (owned, topK) = (seat.owned, selected.columns)
        func selects(_ row: Int) -> Bool { topK > 0 && positions[row] >= topK }
        func most(_ row: Int) -> Int {
            selects(row)
                ? topK : seat.configuration.kvSharding.count(of: Int(positions[row]) + 1, for: owned.rank)
        }
        let stride = (0..<positions.count).reduce(1) { max($0, most($1)) }
        let (keys, counts) = (seat.scratch.indices(positions.count * stride), seat.scratch.indices(positions.count))
        for row in 0..<positions.count {
            let own = keys[row * stride..<(row + 1) * stride]
            var count = 0
            if selects(row) {
                let best = selected.rows(row..<row + 1).integers
                for place in 0..<topK where owned.contains(Int(best[place])) {
                    own[count] = best[place]
                    count += 1
                }
            } else {
                count = most(row)
                for number in 0..<count { own[number] = Int32(owned.position(number)) }
            }
            counts[row] = Int32(count)
        }
        return Selection(positions: keys, stride: stride, counts: counts)
    }

    /// Puts the ranks' contributions together.
    private struct Merge {
        /// `[ranks · rows, classes of a rank · (width + heads)]`.
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

        /// `[rows, heads · latent]`.
        func result() -> View {
            if let classes = seat.configuration.kvSharding.classes { return subtree(0, 1, of: classes).values }
            let (values, logSumExp) = leaf(0, perRank: 1)
            for rank in 1..<seat.degree(.kvSharding) {
                let other = leaf(rank, perRank: 1)
                seat.kernels.mergeAttention(values, logSumExp, with: other.values, other.logSumExp)
            }
            return values
        }

        /// The classes `first`, `first + step`, … of `classes`, in the tree of attention.h: the left half takes every
        /// other one from `first`, the right half every other one from `first + step`.
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
            values.copy(block.columns(first..<first + width))
            logSumExp.copy(block.columns(first + width..<first + width + heads))
            return (values, logSumExp)
        }
    }
}
