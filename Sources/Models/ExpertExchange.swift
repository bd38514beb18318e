import Parallelism
import Tensors

/// Brings rows to the ranks of the experts they chose, and the experts' sums back.
///
/// Either all rows go to all ranks (*gathered*) or each row goes to the ranks that have one of its experts
/// (*all-to-all*). Both bring back one partial sum per row and rank, and add those in the canonical tree, so that both
/// give the same bits. Where a rank has all experts itself, nobody moves.
struct ExpertExchange {
    private let experts: Int
    private let perRow: Int
    private let seat: Seat

    /// Rows at their experts' rank.
    struct Visitors {
        /// `[rows, hidden]`.
        let rows: View
        /// The experts each row chose, ascending, `rows * perRow`; also those that are elsewhere.
        let chosen: Indices
        /// `[rows, perRow]`.
        let weights: View
        /// How many rows came from each rank of the stage, in their order here; `nil` where they are this rank's own.
        let sources: Indices?
    }

    /// Rows on their way.
    struct Leaving {
        fileprivate let crossing: Seat.Crossing?
        fileprivate let own: Visitors
        /// How many rows went to each rank of the stage.
        fileprivate let counts: Indices
    }

    init(experts: Int, perRow: Int, _ seat: Seat) {
        self.experts = experts
        self.perRow = perRow
        self.seat = seat
    }

    /// The experts this rank computes.
    var atHome: Range<Int> { seat.part(of: experts, along: .expert) }

    /// The canonical groups those experts are in: whole ones, unless there are more ranks than groups.
    var groups: Range<Int> {
        let all = Kernels.slices(of: experts)
        return all % seat.degree(.expert) == 0 ? seat.part(of: all, along: .expert) : 0..<all
    }

    /// How many sums a visitor gets here: one, or one for each group where a group's sum is complete only when the ranks
    /// that share its experts' width have added theirs.
    var blocks: Int { Self.blocks(of: experts, seat.configuration) }

    static func blocks(of experts: Int, _ configuration: ParallelConfiguration) -> Int {
        if configuration.expertTensor == 1 { return 1 }
        let groups = Kernels.slices(of: experts)
        return groups % configuration.expert == 0 ? groups / configuration.expert : groups
    }

    private var sharesWidths: Bool { seat.degree(.expertWidth) > 1 }

    private var isAlone: Bool { seat.degree(.expert) == 1 && !sharesWidths }

    // MARK: - There

    /// Sends this rank's rows off.
    func send(_ x: View, chosen: Indices, weights: View) throws(GroupFailure) -> Leaving {
        let own = Visitors(rows: x, chosen: chosen, weights: weights, sources: nil)
        let counts = seat.scratch.indices(seat.degree(.stage))
        if isAlone { return Leaving(crossing: nil, own: own, counts: counts) }
        switch seat.configuration.exchange {
        case .gathered:
            let parcels = seat.scratch.rows(x.rows, Self.parcelColumns(hidden: x.columns, perRow: perRow))
            for row in 0..<x.rows { pack(own, row, into: parcels.rows(row..<row + 1)) }
            counts.fill(Int32(x.rows))
            return Leaving(crossing: try seat.start(Sharding.dispatch, parcels), own: own, counts: counts)
        case .allToAll:
            for rank in 0..<counts.count {
                counts[rank] = Int32((0..<x.rows).count { visits(own, $0, expertPlace: rank / widths) })
            }
            let parcels = seat.scratch.rows(counts.sum, Self.parcelColumns(hidden: x.columns, perRow: perRow))
            var next = 0
            for rank in 0..<counts.count {
                for row in 0..<x.rows where visits(own, row, expertPlace: rank / widths) {
                    pack(own, row, into: parcels.rows(next..<next + 1))
                    next += 1
                }
            }
            let most = (0..<counts.count).reduce(0) { $0 + seat.ownRows(of: $1) }
            let crossing = try seat.startExchange("dispatch", along: .stage, parcels, counts: counts, most: most)
            return Leaving(crossing: crossing, own: own, counts: counts)
        }
    }

    /// Waits for the rows that come to this rank's experts.
    func receive(_ leaving: Leaving) throws(GroupFailure) -> Visitors {
        guard let crossing = leaving.crossing else { return leaving.own }
        let parcels = try seat.finish(crossing)
        return unpack(parcels, hidden: leaving.own.rows.columns, sources: crossing.counts)
    }

    private var widths: Int { seat.degree(.expertWidth) }

    /// Whether a row goes to the ranks with the experts of this place.
    private func visits(_ own: Visitors, _ row: Int, expertPlace: Int) -> Bool {
        if seat.configuration.exchange == .gathered { return true }
        let there = seat.part(of: experts, along: .expert, at: expertPlace)
        return (row * perRow..<(row + 1) * perRow).contains { there.contains(Int(own.chosen[$0])) }
    }

    /// A row, its experts' numbers, their weights, and what makes a cache line full.
    static func parcelColumns(hidden: Int, perRow: Int) -> Int { (hidden + 2 * perRow + 15) & ~15 }

    private func pack(_ own: Visitors, _ row: Int, into parcel: View) {
        let hidden = own.rows.columns
        parcel.columns(0..<hidden).copy(own.rows.rows(row..<row + 1))
        for choice in 0..<perRow {
            parcel[0, hidden + choice] = Float(own.chosen[row * perRow + choice])
            parcel[0, hidden + perRow + choice] = own.weights[row, choice]
        }
    }

    private func unpack(_ parcels: View, hidden: Int, sources: Indices) -> Visitors {
        let chosen = seat.scratch.indices(parcels.rows * perRow)
        let weights = seat.scratch.rows(parcels.rows, perRow)
        for row in 0..<parcels.rows {
            for choice in 0..<perRow {
                chosen[row * perRow + choice] = Int32(parcels[row, hidden + choice])
                weights[row, choice] = parcels[row, hidden + perRow + choice]
            }
        }
        return Visitors(rows: parcels.columns(0..<hidden), chosen: chosen, weights: weights, sources: sources)
    }

    // MARK: - And back

    /// Sends the visitors' sums home and completes this rank's own.
    ///
    /// - Parameter sums: of the experts here, `[visitors, hidden]`, such a block of rows for each of `blocks`.
    /// - Returns: `[own rows, hidden]`.
    func giveBack(_ sums: View, of visitors: Visitors, _ leaving: Leaving) throws(GroupFailure) -> View {
        guard let sources = visitors.sources else { return sums }
        let (home, counts) = try complete(sums, sources)
        let most = seat.degree(.expert) * leaving.own.rows.rows
        let crossing = try seat.startExchange("combine", along: .stage, home, counts: counts, most: most)
        return add(try seat.finish(crossing), leaving)
    }

    /// Makes each visitor's sum one row: on this rank, or on one of those that share its experts' widths, which take
    /// the visitors of each source in turn.
    ///
    /// - Returns: the rows this rank sends home, and how many to each rank of the stage.
    private func complete(_ sums: View, _ sources: Indices) throws(GroupFailure) -> (rows: View, counts: Indices) {
        guard sharesWidths else { return (sums, sources) }
        let visitors = sources.sum
        let (counts, parts) = (seat.scratch.indices(widths), seat.scratch.rows(sums.rows, sums.columns))
        var next = 0
        for place in 0..<widths {
            let before = next
            for block in 0..<blocks {
                var first = block * visitors
                for source in 0..<sources.count {
                    let share = seat.part(of: Int(sources[source]), along: .expertWidth, at: place)
                    parts.rows(next..<next + share.count).copy(
                        sums.rows(first + share.lowerBound..<first + share.upperBound))
                    next += share.count
                    first += Int(sources[source])
                }
            }
            counts[place] = Int32(next - before)
        }
        let rows = Int(counts[seat.place(along: .expertWidth)])
        let crossing = try seat.startExchange(
            "expert widths", along: .expertWidth, parts, counts: counts, most: widths * rows)
        let addends = try seat.finish(crossing)
        let whole = seat.scratch.rows(rows, sums.columns)
        seat.add(addends, widths, into: whole)
        let home = seat.scratch.rows(rows / blocks, sums.columns)
        seat.add(whole, blocks, into: home)
        let shares = seat.scratch.indices(sources.count)
        for source in 0..<sources.count {
            shares[source] = Int32(seat.part(of: Int(sources[source]), along: .expertWidth).count)
        }
        return (home, shares)
    }

    /// Adds what came back for each own row, one partial sum from each place of the expert axis it visited.
    private func add(_ partials: View, _ leaving: Leaving) -> View {
        let (own, places) = (leaving.own, seat.degree(.expert))
        let (rows, out) = (own.rows.rows, seat.scratch.rows(own.rows.rows, own.rows.columns))
        let slots = seat.scratch.indices(rows * places)
        var first = 0
        for place in 0..<places {
            let visits = Int(leaving.counts[place * widths])
            var visit = 0
            for row in 0..<rows {
                guard self.visits(own, row, expertPlace: place) else {
                    slots[row * places + place] = -1
                    continue
                }
                // The ranks that share widths answer one after the other, each for its share of the visits: in order.
                slots[row * places + place] = Int32(first + visit)
                visit += 1
            }
            precondition(visit == visits, "\(visit) rows visited, \(visits) were sent")
            first += visits
        }
        seat.kernels.combineExperts(partials, slots: slots, into: out)
        return out
    }
}
