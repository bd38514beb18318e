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
        package let chosen: Indices
        /// `[rows, perRow]`.
        package let weights: View
        /// How many rows came from each rank of the stage, in their order here; `nil` where they are this rank's own.
        let sources: Indices?
    }

    /// Rows on their way.
    package struct PendingDispatch {
        fileprivate let pending: Seat.PendingCollective?
        fileprivate let own: DispatchedRows
        /// How many rows went to each rank of the stage.
        fileprivate let counts: Indices
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
    package func send(_ x: View, chosen: Indices, weights: View) throws(GroupFailure) -> PendingDispatch {
        let own = DispatchedRows(rows: x, chosen: chosen, weights: weights, sources: nil)
        let counts = seat.scratch.indices(seat.degree(.stage))
        if isAlone { return PendingDispatch(pending: nil, own: own, counts: counts) }
        switch seat.configuration.exchange {
        case .gathered:
            let packed = seat.scratch.rows(x.rows, Self.packedColumns(hidden: x.columns, perRow: perRow))
            for row in 0..<x.rows { pack(own, row, into: packed.rows(row..<row + 1)) }
            counts.fill(Int32(x.rows))
            return PendingDispatch(pending: try seat.start(Sharding.dispatch, packed), own: own, counts: counts)
        case .allToAll:
            for rank in 0..<counts.count {
                counts[rank] = Int32((0..<x.rows).count { isDispatched(own, $0, expertPlace: rank / widths) })
            }
            let packed = seat.scratch.rows(counts.sum, Self.packedColumns(hidden: x.columns, perRow: perRow))
            var next = 0
            for rank in 0..<counts.count {
                for row in 0..<x.rows where isDispatched(own, row, expertPlace: rank / widths) {
                    pack(own, row, into: packed.rows(next..<next + 1))
                    next += 1
                }
            }
            let most = seat.scratch.indices(counts.count)
            for rank in 0..<counts.count { most[rank] = Int32(seat.ownRows(of: rank)) }
            let pending = try seat.startExchange(
                "dispatch", along: .stage, packed, counts: counts, expecting: most, expectsAll: false)
            return PendingDispatch(pending: pending, own: own, counts: counts)
        }
    }

    /// Waits for the rows that come to this rank's experts.
    package func receive(_ pendingDispatch: PendingDispatch) throws(GroupFailure) -> DispatchedRows {
        guard let pending = pendingDispatch.pending else { return pendingDispatch.own }
        let packed = try seat.finish(pending)
        return try unpack(packed, hidden: pendingDispatch.own.rows.columns, sources: pending.counts)
    }

    private var widths: Int { seat.degree(.expertTensor) }

    /// Whether a row goes to the ranks with the experts of this place.
    private func isDispatched(_ own: DispatchedRows, _ row: Int, expertPlace: Int) -> Bool {
        if seat.configuration.exchange == .gathered { return true }
        let there = seat.part(of: experts, along: .expert, at: expertPlace)
        return (row * perRow..<(row + 1) * perRow).contains { there.contains(Int(own.chosen[$0])) }
    }

    /// A row, its experts' numbers, their weights, and what makes a cache line full.
    package static func packedColumns(hidden: Int, perRow: Int) -> Int { (hidden + 2 * perRow + 15) & ~15 }

    private func pack(_ own: DispatchedRows, _ row: Int, into packedRow: View) {
        let hidden = own.rows.columns
        packedRow.columns(0..<hidden).copy(own.rows.rows(row..<row + 1))
        for choice in 0..<perRow {
            packedRow[0, hidden + choice] = Float(own.chosen[row * perRow + choice])
            packedRow[0, hidden + perRow + choice] = own.weights[row, choice]
        }
    }

    /// - Throws: `GroupFailure` in the name of the rank that sent a row with experts that no router chooses.
    private func unpack(_ packed: View, hidden: Int, sources: Indices) throws(GroupFailure) -> DispatchedRows {
        let chosen = seat.scratch.indices(packed.rows * perRow)
        let weights = seat.scratch.rows(packed.rows, perRow)
        var (source, sourceEnd) = (0, sources.count == 0 ? 0 : Int(sources[0]))
        for row in 0..<packed.rows {
            while row >= sourceEnd {
                source += 1
                sourceEnd += Int(sources[source])
            }
            for choice in 0..<perRow {
                guard let expert = Int32(exactly: packed[row, hidden + choice]), (0..<Int32(experts)).contains(expert),
                    choice == 0 || expert > chosen[row * perRow + choice - 1]
                else {
                    throw seat.failure(
                        of: source, along: .stage,
                        "it sent a row whose experts are not \(perRow) ascending numbers of 0..<\(experts)")
                }
                chosen[row * perRow + choice] = expert
                weights[row, choice] = packed[row, hidden + perRow + choice]
            }
        }
        return DispatchedRows(rows: packed.columns(0..<hidden), chosen: chosen, weights: weights, sources: sources)
    }

    // MARK: - And back

    /// Sends the visitors' sums home and completes this rank's own.
    ///
    /// - Parameter sums: of the experts here, `[visitors, hidden]`, such a block of rows for each of `blocks`.
    /// - Returns: `[own rows, hidden]`.
    package func combine(_ sums: View, of dispatched: DispatchedRows, _ pendingDispatch: PendingDispatch)
        throws(GroupFailure) -> View
    {
        guard let sources = dispatched.sources else { return sums }
        let (home, counts) = try complete(sums, sources)
        // Each rank that got rows sends a sum for each; ranks that share widths send those of their part of the rows.
        let expected = seat.scratch.indices(seat.degree(.stage))
        for rank in 0..<expected.count {
            let sent = Int(pendingDispatch.counts[rank / widths * widths])
            expected[rank] = Int32(seat.part(of: sent, along: .expertTensor, at: rank % widths).count)
        }
        let pending = try seat.startExchange("combine", along: .stage, home, counts: counts, expecting: expected)
        return add(try seat.finish(pending), pendingDispatch)
    }

    /// Makes each visitor's sum one row: on this rank, or on one of those that share its experts' widths, which take
    /// the visitors of each source in turn.
    ///
    /// - Returns: the rows this rank sends home, and how many to each rank of the stage.
    private func complete(_ sums: View, _ sources: Indices) throws(GroupFailure) -> (rows: View, counts: Indices) {
        guard sharesWidths else { return (sums, sources) }
        let dispatched = sources.sum
        let (counts, parts) = (seat.scratch.indices(widths), seat.scratch.rows(sums.rows, sums.columns))
        var next = 0
        for place in 0..<widths {
            let before = next
            for block in 0..<blocks {
                var first = block * dispatched
                for source in 0..<sources.count {
                    let share = seat.part(of: Int(sources[source]), along: .expertTensor, at: place)
                    parts.rows(next..<next + share.count).copy(
                        sums.rows(first + share.lowerBound..<first + share.upperBound))
                    next += share.count
                    first += Int(sources[source])
                }
            }
            counts[place] = Int32(next - before)
        }
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

    /// Adds what came back for each own row, one partial sum from each place of the expert axis it visited.
    private func add(_ partials: View, _ pendingDispatch: PendingDispatch) -> View {
        let (own, places) = (pendingDispatch.own, seat.degree(.expert))
        let (rows, out) = (own.rows.rows, seat.scratch.rows(own.rows.rows, own.rows.columns))
        let slots = seat.scratch.indices(rows * places)
        var first = 0
        for place in 0..<places {
            let isDispatched = Int(pendingDispatch.counts[place * widths])
            var visit = 0
            for row in 0..<rows {
                guard self.isDispatched(own, row, expertPlace: place) else {
                    slots[row * places + place] = -1
                    continue
                }
                // The ranks that share widths answer one after the other, each for its share of the visits: in order.
                slots[row * places + place] = Int32(first + visit)
                visit += 1
            }
            precondition(visit == isDispatched, "\(visit) rows visited, \(isDispatched) were sent")
            first += isDispatched
        }
        seat.kernels.combineExperts(partials, slots: slots, into: out)
        return out
    }
}
