package import Parallelism
package import Tensors

/// Brings rows to the ranks of the experts they chose, and the experts' sums back.
///
/// Either all rows go to all ranks (*gathered*) or each row goes to the ranks that have one of its experts
/// (*all-to-all*). Both bring back one partial sum per row and rank, and add those in the canonical tree, so that both
/// give the same bits. Where a rank has all experts itself, nobody moves.
package struct ExpertExchange {
    private let experts: Int
    private let perRow: Int
    private let seat: Seat

    /// Rows at their experts' rank.
    package struct DispatchedRows {
        /// `[rows, hidden]`.
        package let rows: View
        /// The experts each row chose, ascending, `rows * perRow`; also those that are elsewhere.
        package let chosen: ComputedIndices
        /// `[rows, perRow]`.
        package let weights: View
        /// How many rows came from each rank of the stage, in their order here; `nil` where they are this rank's own.
        let sources: Indices?
    }

    /// Rows on their way.
    package struct PendingDispatch {
        fileprivate let pending: Seat.PendingCollective?
        fileprivate let own: DispatchedRows
        /// `[own rows, places]`: which of the sums that come back is a row's from each place of the expert axis; negative:
        /// the row does not go there.
        fileprivate let slots: ComputedIndices?
        /// How many rows went to each rank of each place.
        fileprivate let rows: Indices
    }

    package init(experts: Int, perRow: Int, _ seat: Seat) {
        self.experts = experts
        self.perRow = perRow
        self.seat = seat
    }

    /// The experts this rank computes.
    package var localExperts: Range<Int> { seat.part(of: experts, along: .expert) }

    /// The canonical groups those experts are in: whole ones, unless there are more ranks than groups.
    package var groups: Range<Int> {
        let all = Kernels.slices(of: experts)
        return all % seat.degree(.expert) == 0 ? seat.part(of: all, along: .expert) : 0..<all
    }

    /// How many sums a visitor gets here: one, or one for each group where a group's sum is complete only when the ranks
    /// that share its experts' width have added theirs.
    package var blocks: Int { Self.blocks(of: experts, seat.configuration) }

    package static func blocks(of experts: Int, _ configuration: ParallelConfiguration) -> Int {
        if configuration.expertTensor == 1 { return 1 }
        let groups = Kernels.slices(of: experts)
        return groups % configuration.expert == 0 ? groups / configuration.expert : groups
    }

    private var sharesWidths: Bool { seat.degree(.expertTensor) > 1 }

    private var isAlone: Bool { seat.degree(.expert) == 1 && !sharesWidths }

    // MARK: - There

    /// Sends this rank's rows off.
    package func send(_ x: View, chosen: ComputedIndices, weights: View) throws(GroupFailure) -> PendingDispatch {
        let own = DispatchedRows(rows: x, chosen: chosen, weights: weights, sources: nil)
        if isAlone { return PendingDispatch(pending: nil, own: own, slots: nil, rows: seat.scratch.indices(0)) }
        switch seat.configuration.exchange {
        case .gathered:
            let pending = try seat.start(Sharding.dispatch, pack(own))
            return PendingDispatch(
                pending: pending, own: own, slots: slotsOfGathered(x.rows), rows: seat.counts(x.rows, along: .expert))
        case .allToAll:
            let dispatch = seat.kernels.dispatch(
                chosen, perRow: perRow, bounds: expertBounds, copies: widths, seat.scratch)
            // Which rows go where only kernels know; how many, a transport must be told.
            let rows = seat.kernels.synchronize(dispatch.counts)
            let (counts, most) = (seat.scratch.indices(seat.degree(.stage)), seat.scratch.indices(seat.degree(.stage)))
            for rank in 0..<counts.count {
                (counts[rank], most[rank]) = (rows[rank / widths], Int32(seat.ownRows(of: rank)))
            }
            let pending = try seat.startExchange(
                "dispatch", along: .stage, pack(own, rows: dispatch.rows[0..<counts.sum]), counts: counts,
                expecting: most, expectsAll: false)
            return PendingDispatch(pending: pending, own: own, slots: dispatch.slots, rows: rows)
        }
    }

    /// The first expert of each place of the expert axis, and the end.
    private var expertBounds: Indices {
        let places = seat.degree(.expert)
        let bounds = seat.scratch.indices(places + 1)
        for place in 0..<places {
            bounds[place] = Int32(seat.part(of: experts, along: .expert, at: place).lowerBound)
        }
        bounds[places] = Int32(experts)
        return bounds
    }

    /// Where all rows go everywhere, every place sends a sum of each.
    private func slotsOfGathered(_ rows: Int) -> ComputedIndices {
        let places = seat.degree(.expert)
        let slots = seat.scratch.indices(rows * places)
        for row in 0..<rows {
            for place in 0..<places { slots[row * places + place] = Int32(place * rows + row) }
        }
        return ComputedIndices(slots)
    }

    /// Waits for the rows that come to this rank's experts.
    package func receive(_ pendingDispatch: PendingDispatch) throws(GroupFailure) -> DispatchedRows {
        guard let pending = pendingDispatch.pending else { return pendingDispatch.own }
        let packed = try seat.finish(pending)
        return try unpack(packed, hidden: pendingDispatch.own.rows.columns, sources: pending.counts)
    }

    private var widths: Int { seat.degree(.expertTensor) }

    /// A row, its experts' numbers, their weights, and what makes a cache line full.
    package static func packedColumns(hidden: Int, perRow: Int) -> Int { (hidden + 2 * perRow + 15) & ~15 }

    /// - Parameter rows: which of the own rows, in which order; `nil` packs all.
    private func pack(_ own: DispatchedRows, rows: ComputedIndices? = nil) -> View {
        let hidden = own.rows.columns
        let packed = seat.scratch.rows(
            rows?.count ?? own.rows.rows, Self.packedColumns(hidden: hidden, perRow: perRow))
        seat.kernels.copyRows(own.rows, xRows: rows, into: packed.columns(0..<hidden))
        seat.kernels.copyRows(
            own.chosen.bits(columns: perRow), xRows: rows, into: packed.columns(hidden..<hidden + perRow))
        seat.kernels.copyRows(
            own.weights, xRows: rows, into: packed.columns(hidden + perRow..<hidden + 2 * perRow))
        return packed
    }

    /// - Throws: `GroupFailure` in the name of the rank that sent a row with experts that no router chooses.
    private func unpack(_ packed: View, hidden: Int, sources: Indices) throws(GroupFailure) -> DispatchedRows {
        let chosen = seat.scratch.computed(packed.rows * perRow)
        let weights = seat.scratch.rows(packed.rows, perRow)
        seat.kernels.copyRows(packed.columns(hidden..<hidden + perRow), into: chosen.bits(columns: perRow))
        seat.kernels.copyRows(packed.columns(hidden + perRow..<hidden + 2 * perRow), into: weights)
        try check(seat.kernels.synchronize(chosen), sources)
        return DispatchedRows(rows: packed.columns(0..<hidden), chosen: chosen, weights: weights, sources: sources)
    }

    /// - Throws: `GroupFailure` in the name of the rank that sent a row with experts that no router chooses.
    private func check(_ chosen: Indices, _ sources: Indices) throws(GroupFailure) {
        var (source, sourceEnd) = (0, sources.count == 0 ? 0 : Int(sources[0]))
        for row in 0..<chosen.count / perRow {
            while row >= sourceEnd {
                source += 1
                sourceEnd += Int(sources[source])
            }
            let experts = chosen[row * perRow..<(row + 1) * perRow]
            let areChosen = (0..<perRow).allSatisfy { choice in
                (0..<Int32(self.experts)).contains(experts[choice])
                    && (choice == 0 || experts[choice] > experts[choice - 1])
            }
            if areChosen { continue }
            throw seat.failure(
                of: source, along: .stage,
                "it sent a row whose experts are not \(perRow) ascending numbers of 0..<\(self.experts)")
        }
    }

    // MARK: - And back

    /// Sends the visitors' sums home and completes this rank's own.
    ///
    /// - Parameter sums: of the experts here, `[visitors, hidden]`, such a block of rows for each of `blocks`.
    /// - Returns: `[own rows, hidden]`.
    package func combine(_ sums: View, of dispatched: DispatchedRows, _ pendingDispatch: PendingDispatch)
        throws(GroupFailure) -> View
    {
        guard let sources = dispatched.sources, let slots = pendingDispatch.slots else { return sums }
        let (home, counts) = try complete(sums, sources)
        // Each rank that got rows sends a sum for each; ranks that share widths send those of their part of the rows.
        let expected = seat.scratch.indices(seat.degree(.stage))
        for rank in 0..<expected.count {
            let sent = Int(pendingDispatch.rows[rank / widths])
            expected[rank] = Int32(seat.part(of: sent, along: .expertTensor, at: rank % widths).count)
        }
        let pending = try seat.startExchange("combine", along: .stage, home, counts: counts, expecting: expected)
        let partials = try seat.finish(pending)
        let out = seat.scratch.rows(pendingDispatch.own.rows.rows, partials.columns)
        seat.kernels.combineExperts(partials, slots: slots, into: out)
        return out
    }

    /// Makes each visitor's sum one row: on this rank, or on one of those that share its experts' widths, which take
    /// the visitors of each source in turn.
    ///
    /// - Returns: the rows this rank sends home, and how many to each rank of the stage.
    private func complete(_ sums: View, _ sources: Indices) throws(GroupFailure) -> (rows: View, counts: Indices) {
        guard sharesWidths else { return (sums, sources) }
        let dispatched = sources.sum
        let (counts, order) = (seat.scratch.indices(widths), seat.scratch.indices(sums.rows))
        var next = 0
        for place in 0..<widths {
            let before = next
            for block in 0..<blocks {
                var first = block * dispatched
                for source in 0..<sources.count {
                    let share = seat.part(of: Int(sources[source]), along: .expertTensor, at: place)
                    for row in share {
                        order[next] = Int32(first + row)
                        next += 1
                    }
                    first += Int(sources[source])
                }
            }
            counts[place] = Int32(next - before)
        }
        let parts = seat.scratch.rows(sums.rows, sums.columns)
        seat.kernels.copyRows(sums, xRows: ComputedIndices(order), into: parts)
        let rows = Int(counts[seat.place(along: .expertTensor)])
        let pending = try seat.startExchange(
            "expert tensor", along: .expertTensor, parts, counts: counts,
            expecting: seat.counts(rows, along: .expertTensor))
        let addends = try seat.finish(pending)
        let whole = seat.scratch.rows(rows, sums.columns)
        seat.add(addends, widths, into: whole)
        let home = seat.scratch.rows(rows / blocks, sums.columns)
        seat.add(whole, blocks, into: home)
        let shares = seat.scratch.indices(sources.count)
        for source in 0..<sources.count {
            shares[source] = Int32(seat.part(of: Int(sources[source]), along: .expertTensor).count)
        }
        return (home, shares)
    }
}
