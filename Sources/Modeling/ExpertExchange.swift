package import Parallelism
package import Tensors

/// Sends rows to the ranks of the experts they chose, and the experts' sums back to the rows' owners.
///
/// Either all rows are gathered on all ranks (*gathered*), or each row is sent to the ranks that have one of its
/// experts (*all-to-all*). Both return one partial sum per row and rank and add them in the canonical tree, so both are
/// bitwise equal. If a rank has all experts itself, nothing is sent.
package struct ExpertExchange {
    private let experts: Int
    private let perRow: Int
    private let seat: Seat

    /// The rows for which a rank computes its experts.
    package struct DispatchedRows {
        /// The inputs of the experts, `[rows, hidden]`.
        package let rows: View
        /// The experts that each row chose, ascending, `rows * perRow`; some of them may be on other ranks.
        package let chosen: ComputedIndices
        /// The weights of the chosen experts, `[rows, perRow]`.
        package let weights: View
        /// The number of rows from each rank of the stage, in the order of the rows; `nil` if all rows are this rank's
        /// own.
        let sources: Indices?
    }

    /// A dispatch that was started, with what is needed to combine its results.
    package struct PendingDispatch {
        fileprivate let pending: Seat.PendingCollective?
        fileprivate let own: DispatchedRows
        /// For each own row and each place along the expert axis, the index of its partial sum among those received;
        /// negative if the row is not sent there. `[own rows, places]`.
        fileprivate let slots: ComputedIndices?
        /// The number of rows sent to each rank of each place.
        fileprivate let rows: Indices
    }

    package init(experts: Int, perRow: Int, _ seat: Seat) {
        self.experts = experts
        self.perRow = perRow
        self.seat = seat
    }

    /// The experts that this rank computes.
    package var localExperts: Range<Int> { seat.part(of: experts, along: .expert) }

    /// The expert groups that contain this rank's experts. They are whole groups, unless there are more ranks than
    /// groups.
    package var groups: Range<Int> {
        let all = Kernels.slices(of: experts)
        return all % seat.degree(.expert) == 0 ? seat.part(of: all, along: .expert) : 0..<all
    }

    /// The number of sums that this rank computes for each dispatched row: one; or one for each expert group, if a
    /// group's sum is complete only after the ranks that share its experts' width have added their parts.
    package var blocks: Int { Self.blocks(of: experts, seat.configuration) }

    package static func blocks(of experts: Int, _ configuration: ParallelConfiguration) -> Int {
        if configuration.expertTensor == 1 { return 1 }
        let groups = Kernels.slices(of: experts)
        return groups % configuration.expert == 0 ? groups / configuration.expert : groups
    }

    private var sharesWidths: Bool { seat.degree(.expertTensor) > 1 }

    private var isAlone: Bool { seat.degree(.expert) == 1 && !sharesWidths }

    // MARK: - Dispatch

    /// Starts to send this rank's rows to the ranks of their experts.
    ///
    /// - Parameters:
    ///   - x: own rows, `[rows, hidden]`.
    ///   - chosen: the experts that each row chose, ascending, `rows * perRow`.
    ///   - weights: the weights of those experts, `[rows, perRow]`.
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
            // The transport needs the number of rows for each rank, which only kernels know so far.
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

    /// The first expert of each place along the expert axis, followed by the number of experts.
    private var expertBounds: Indices {
        let places = seat.degree(.expert)
        let bounds = seat.scratch.indices(places + 1)
        for place in 0..<places {
            bounds[place] = Int32(seat.part(of: experts, along: .expert, at: place).lowerBound)
        }
        bounds[places] = Int32(experts)
        return bounds
    }

    /// Returns the `slots` of a gathered dispatch, in which every place returns a partial sum of every row.
    private func slotsOfGathered(_ rows: Int) -> ComputedIndices {
        let places = seat.degree(.expert)
        let slots = seat.scratch.indices(rows * places)
        for row in 0..<rows {
            for place in 0..<places { slots[row * places + place] = Int32(place * rows + row) }
        }
        return ComputedIndices(slots)
    }

    /// Waits for the rows that other ranks send to this rank's experts.
    package func receive(_ pendingDispatch: PendingDispatch) throws(GroupFailure) -> DispatchedRows {
        guard let pending = pendingDispatch.pending else { return pendingDispatch.own }
        let packed = try seat.finish(pending)
        return try unpack(packed, hidden: pendingDispatch.own.rows.columns, sources: pending.counts)
    }

    private var widths: Int { seat.degree(.expertTensor) }

    /// Returns the number of columns of a dispatched row: its elements, its experts' numbers and their weights, padded
    /// to a multiple of 16 (a cache line).
    package static func packedColumns(hidden: Int, perRow: Int) -> Int { (hidden + 2 * perRow + 15) & ~15 }

    /// Packs own rows for the dispatch.
    ///
    /// - Parameter rows: the own rows to pack, in this order; all of them when `nil`.
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

    /// Unpacks received rows.
    ///
    /// - Throws: `GroupFailure` that names the rank that sent a row with invalid experts.
    private func unpack(_ packed: View, hidden: Int, sources: Indices) throws(GroupFailure) -> DispatchedRows {
        let chosen = seat.scratch.computed(packed.rows * perRow)
        let weights = seat.scratch.rows(packed.rows, perRow)
        seat.kernels.copyRows(packed.columns(hidden..<hidden + perRow), into: chosen.bits(columns: perRow))
        seat.kernels.copyRows(packed.columns(hidden + perRow..<hidden + 2 * perRow), into: weights)
        try check(seat.kernels.synchronize(chosen), sources)
        return DispatchedRows(rows: packed.columns(0..<hidden), chosen: chosen, weights: weights, sources: sources)
    }

    /// Checks that the experts of received rows are ascending numbers of experts.
    ///
    /// - Throws: `GroupFailure` that names the rank that sent other numbers.
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

    // MARK: - Combine

    /// Sends the dispatched rows' sums to the rows' owners, and adds up the partial sums of this rank's own rows.
    ///
    /// - Parameter sums: the sums of this rank's experts, `[dispatched rows, hidden]`, one such block after the other
    ///   for each of `blocks`.
    /// - Returns: the output of the routed experts, `[own rows, hidden]`.
    package func combine(_ sums: View, of dispatched: DispatchedRows, _ pendingDispatch: PendingDispatch)
        throws(GroupFailure) -> View
    {
        guard let sources = dispatched.sources, let slots = pendingDispatch.slots else { return sums }
        let (home, counts) = try complete(sums, sources)
        // Each rank returns a sum for each row it received; ranks that share their experts' width return those of their
        // part of the rows.
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

    /// Reduces each dispatched row to one partial sum. If ranks share their experts' width, each of them adds the parts
    /// of a share of the rows of each source.
    ///
    /// - Returns: the partial sums that this rank sends, and the number for each rank of the stage.
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
