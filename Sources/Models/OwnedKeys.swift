import KVCache
import Parallelism
import Tensors

/// Decode context parallelism: queries go to the keys. Each rank scores and attends to the keys it owns, for the rows of
/// all ranks among which the keys are divided, and what it finds goes back to the rows.
///
/// The bits are those of one rank that looks at all keys: top-k is exact, and where whole classes of positions belong to
/// one rank (`PageOwnership.classes`) partial attention is merged in the tree in which it is always merged.
enum OwnedKeys {
    /// Columns of what a rank says of a row's best keys: their count, then room for scores and positions.
    static func candidateColumns(_ topK: Int) -> Int { 1 + 2 * topK }

    /// Columns of what a rank contributes to a row's attention: for each class of positions it has, values and log-sum-exp.
    static func partialColumns(heads: Int, latent: Int, _ ownership: PageOwnership) -> Int {
        classesHere(ownership) * heads * (latent + 1)
    }

    private static func classesHere(_ ownership: PageOwnership) -> Int {
        ownership.classes == nil ? 1 : ownership.unit
    }

    // MARK: - Selection

    /// The exact best keys of the travelling own rows, into their rows of `best` (`[own rows, topK]`).
    ///
    /// Each rank sends a row's owner its own best with their scores; the best of those are the best of all.
    static func select(
        _ index: IndexQuery, _ travelling: Step.Travellers, layer: Int, _ step: Step, _ seat: Seat, into best: Indices
    ) throws(GroupFailure) {
        // The same on all of these ranks: they know each other's rows.
        if travelling.own.furthest < index.topK { return }
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let queries = try gather(index, travelling, step, seat)
        let candidates = candidates(queries, travelling.own, layer: layer, step, seat)
        let own = step.own.travellers
        let ranks = seat.degree(.ownership)
        let crossing = try seat.startExchange(
            "candidates", along: .ownership, candidates, counts: travelling.ownCounts, most: ranks * own.count)
        let received = try seat.finish(crossing)
        var place = 0
        for row in own {
            defer { place += 1 }
            if step.own.positions[row] < index.topK { continue }
            let lists = (0..<ranks).map {
                Candidates(received.rows($0 * own.count + place..<$0 * own.count + place + 1))
            }
            let selected = best[row * index.topK..<(row + 1) * index.topK]
            choose(lists, topK: index.topK, seat, into: selected)
            step.recorder?.record(
                .selected, layer: layer, selected.elements.map { Float($0) }, of: step.own, row: row)
        }
    }

    /// The index queries of all travelling rows.
    private static func gather(
        _ index: IndexQuery, _ travelling: Step.Travellers, _ step: Step, _ seat: Seat
    ) throws(GroupFailure) -> IndexQuery {
        let (width, heads) = (index.queries.columns, index.weights.columns)
        let own = step.own.travellers
        let parcels = seat.scratch.rows(own.count, width + heads)
        for (place, row) in own.enumerated() {
            let parcel = parcels.rows(place..<place + 1)
            parcel.columns(0..<width).copy(index.queries.rows(row..<row + 1))
            parcel.columns(width..<width + heads).copy(index.weights.rows(row..<row + 1))
        }
        let all = try seat.gather("index queries", along: .ownership, parcels, counts: travelling.ownCounts)
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
        let (topK, owned) = (index.topK, seat.owned)
        let candidates = seat.scratch.rows(rows.count, candidateColumns(topK))
        for request in rows.requests {
            for row in request.rows {
                let mark = seat.scratch.mark()
                defer { seat.scratch.reset(to: mark) }
                let visible = seat.scratch.indices(1)
                visible[0] = Int32(
                    seat.configuration.ownership.count(of: Int(rows.positions[row]) + 1, for: owned.rank))
                if rows.positions[row] < topK { visible[0] = 0 }
                let scores = seat.scratch.rows(1, Int(visible[0]))
                seat.kernels.indexScores(
                    index.queries.rows(row..<row + 1), weights: index.weights.rows(row..<row + 1),
                    keys: step.cache.lane(.indexKey, layer: layer), request.pages, owned: owned, into: scores,
                    seat.scratch)
                seat.work.scored += Int(visible[0])
                let selection = Selection(
                    positions: seat.scratch.indices(topK), stride: topK, counts: seat.scratch.indices(1))
                seat.kernels.topK(scores, visible: visible, into: selection, seat.scratch)
                let (count, parcel) = (Int(selection.counts[0]), candidates.rows(row..<row + 1))
                parcel[0, 0] = Float(count)
                let positions = parcel.columns(1 + topK..<1 + 2 * topK).integers
                for place in 0..<count {
                    parcel[0, 1 + place] = scores[0, Int(selection.positions[place])]
                    positions[place] = Int32(owned.position(Int(selection.positions[place])))
                }
            }
        }
        return candidates
    }

    /// The best of several ranks' candidates for one row; ties to the smaller position, so they are put in its order.
    private static func choose(_ lists: [Candidates], topK: Int, _ seat: Seat, into selected: Indices) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let all = Candidates(merging: lists[...], seat.scratch)
        let visible = seat.scratch.indices(1)
        visible[0] = Int32(all.count)
        let selection = Selection(positions: seat.scratch.indices(topK), stride: topK, counts: seat.scratch.indices(1))
        seat.kernels.topK(all.scores, visible: visible, into: selection, seat.scratch)
        precondition(selection.counts[0] == topK, "a row that selects sees more keys than it may select")
        for place in 0..<topK { selected[place] = all.positions[Int(selection.positions[place])] }
    }

    /// Some of a row's keys, ascending by position.
    private struct Candidates {
        /// `[1, count]`.
        let scores: View
        let positions: Indices
        var count: Int { scores.columns }

        /// Those in a parcel of `candidates`.
        init(_ parcel: View) {
            let (count, topK) = (Int(parcel[0, 0]), parcel.columns / 2)
            scores = parcel.columns(1..<1 + count)
            positions = parcel.columns(1 + topK..<1 + topK + count).integers
        }

        init(merging lists: ArraySlice<Candidates>, _ scratch: Scratch) {
            if lists.count == 1 {
                self = lists.first!
                return
            }
            let half = lists.startIndex + lists.count / 2
            let (left, right) = (
                Candidates(merging: lists[..<half], scratch), Candidates(merging: lists[half...], scratch)
            )
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
    static func attend(
        _ query: View, heads: Int, scale: Float, _ selection: Selection?, topK most: Int?,
        _ travelling: Step.Travellers, layer: Int, _ step: Step, _ seat: Seat, into out: View
    ) throws(GroupFailure) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let rows = step.attended.travellers
        // The same on all of these ranks, also on one whose own rows do not select.
        let topK = most.map { travelling.attended.furthest < $0 ? 0 : $0 } ?? 0
        let parcels = seat.scratch.rows(rows.count, query.columns + topK)
        for (place, row) in rows.enumerated() {
            let parcel = parcels.rows(place..<place + 1)
            parcel.columns(0..<query.columns).copy(query.rows(row..<row + 1))
            if topK > 0, let selection {
                parcel.columns(query.columns..<parcel.columns).copy(
                    selection.positions[row * topK..<(row + 1) * topK].bits(columns: topK))
            }
        }
        let all = try seat.gather("queries", along: .ownership, parcels, counts: travelling.attendedCounts)
        let partials = partials(
            all, heads: heads, scale: scale, topK: topK, travelling.attended, layer: layer, step, seat)
        let crossing = try seat.startExchange(
            "partial attention", along: .ownership, partials, counts: travelling.attendedCounts,
            most: seat.degree(.ownership) * rows.count)
        let received = try seat.finish(crossing)
        let merged = Merge(received, rows: rows.count, heads: heads, columns: out.columns, seat).result()
        for (place, row) in rows.enumerated() { out.rows(row..<row + 1).copy(merged.rows(place..<place + 1)) }
    }

    /// Of each row what the keys owned here contribute, class by class: `[rows, classes here · (heads · latent + heads)]`.
    private static func partials(
        _ parcels: View, heads: Int, scale: Float, topK: Int, _ rows: Step.Rows, layer: Int, _ step: Step, _ seat: Seat
    ) -> View {
        let (latent, rope) = (step.cache.lane(.latent, layer: layer), step.cache.lane(.ropeKey, layer: layer))
        let (classes, owned) = (seat.configuration.ownership.classes, seat.owned)
        let (width, here) = (heads * latent.width, classesHere(seat.configuration.ownership))
        let partials = seat.scratch.rows(
            parcels.rows, partialColumns(heads: heads, latent: latent.width, seat.configuration.ownership))
        for request in rows.requests {
            for row in request.rows {
                let mark = seat.scratch.mark()
                defer { seat.scratch.reset(to: mark) }
                let parcel = parcels.rows(row..<row + 1)
                let queries = parcel.columns(0..<parcel.columns - topK)
                let selected = parcel.columns(parcel.columns - topK..<parcel.columns).integers
                let keys = keys(of: rows.positions[row..<row + 1], selected: selected, owned, seat)
                seat.work.attended += Int(keys.counts[0])
                for number in 0..<here {
                    let first = number * (width + heads)
                    let logSumExp = seat.scratch.rows(1, heads)
                    seat.kernels.attention(
                        queries, heads: heads, scale: scale, latent: latent, rope: rope, request.pages,
                        positions: rows.positions[row..<row + 1], selection: keys,
                        classes: classes.map { ($0, owned.rank * owned.unit + number) } ?? (1, 0),
                        into: partials.rows(row..<row + 1).columns(first..<first + width), logSumExp: logSumExp,
                        seat.scratch)
                    partials.rows(row..<row + 1).columns(first + width..<first + width + heads).copy(logSumExp)
                }
            }
        }
        return partials
    }

    /// The keys owned here that one row attends to: of those selected, or of all it sees.
    private static func keys(of position: Indices, selected: Indices, _ owned: OwnedPositions, _ seat: Seat)
        -> Selection
    {
        let visible = Int(position[0]) + 1
        let selects = selected.count > 0 && visible > selected.count
        let most = selects ? selected.count : seat.configuration.ownership.count(of: visible, for: owned.rank)
        let (keys, counts) = (seat.scratch.indices(max(most, 1)), seat.scratch.indices(1))
        var count = 0
        if selects {
            for place in 0..<selected.count where owned.contains(Int(selected[place])) {
                keys[count] = selected[place]
                count += 1
            }
        } else {
            for number in 0..<most { keys[number] = Int32(owned.position(number)) }
            count = most
        }
        counts[0] = Int32(count)
        return Selection(positions: keys, stride: keys.count, counts: counts)
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
            if let classes = seat.configuration.ownership.classes { return subtree(0, 1, of: classes).values }
            let (values, logSumExp) = leaf(0, perRank: 1)
            for rank in 1..<seat.degree(.ownership) {
                let other = leaf(rank, perRank: 1)
                seat.kernels.mergeAttention(values, logSumExp, with: other.values, other.logSumExp)
            }
            return values
        }

        /// The classes `first`, `first + step`, … of `classes`, in the tree of attention.h: the left half takes every
        /// other one from `first`, the right half every other one from `first + step`.
        private func subtree(_ first: Int, _ step: Int, of classes: Int) -> (values: View, logSumExp: View) {
            if step == classes { return leaf(first, perRank: seat.configuration.ownership.unit) }
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

extension Step.Rows {
    /// The rows whose queries go to the keys.
    fileprivate var travellers: [Int] { requests.filter(\.travels).flatMap(\.rows) }
}
