import KVCache
import Modeling
import Parallelism
import Tensors

/// A rank worker runs one rank's part of each step: its rows, one pass over its layers, and sampling. Only the rank's
/// thread uses it.
final class RankWorker {
    let model: any Model
    private let cache: CacheStore
    /// The format of the KV cache.
    var format: CacheFormat { cache.format }
    /// The memory for keys of other processes, where processes divide the KV cache.
    private let buffers: ProcessKVSharding.Buffers?
    let seat: Seat
    var sampler: Sampler
    let grammars: RequestGrammars
    private let recorder: StageRecorder?
    private let trace = TraceBuffer()
    private let collect: (TraceSpan) -> Void
    let pageShift: Int
    let hasWindows: Bool
    /// The maximum number of rows of logits held at once, and thereby the memory where a whole prompt is scored.
    private static let logitRows = 32

    init(
        _ model: any Model, _ cache: CacheStore, _ buffers: ProcessKVSharding.Buffers?, _ seat: Seat,
        grammars: RequestGrammars,
        recorder: StageRecorder?
    ) {
        self.model = model
        self.cache = cache
        self.buffers = buffers
        self.seat = seat
        self.grammars = grammars
        self.recorder = recorder
        collect = { [trace] in trace.add($0) }
        sampler = Sampler(vocabularySize: model.vocabularySize)
        pageShift = cache.format.pageSize.trailingZeroBitCount
        hasWindows = cache.format.window > 0
    }

    /// Runs this rank's part of a step and reports the result.
    func run(_ assignment: RowAssignment) throws(GroupFailure) -> StepReport {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let began = Meter.now()
        seat.begin(rows: assignment.rows.map(\.count))
        seat.meter.tracer = assignment.plan.isTraced ? collect : nil
        let step = step(for: assignment)
        let states = seat.scratch.rows(step.outputs.count, model.stateWidth)
        var report = StepReport(rank: seat.rank, step: assignment.plan.number)
        try seat.span("step", assignment.plan.number) { () throws(GroupFailure) in
            try model.forward(step, seat, into: states)
            guard seat.isLastStage else { return }
            var chosen: [Int32?] = []
            try seat.span("choose", assignment.plan.number) { () throws(GroupFailure) in
                (report.findings, chosen) = try choose(assignment, states)
            }
            if assignment.drafts { report.drafts = try draft(behind: assignment, step, states, chosen: chosen) }
        }
        report.rows = step.own.count
        report.seconds = Double(Meter.now() - began) * 1e-9
        report.work = seat.finishedWork()
        report.operations = seat.meter.collectives.map { $0 }
        report.records = recorder?.take()
        report.spans = trace.take()
        return report
    }

    func step(for assignment: RowAssignment) -> Step {
        let own = assignment.rows[seat.stageRank]
        let scratch = seat.scratch
        let tokens = scratch.indices(own.count)
        tokens.copy(own.map { assignment.plan.chunks[$0.chunk].tokens[$0.offset] })
        let entries = cache.format.groups.map { self.entries($0, own, assignment) }
        let gatheredKeys = gatheredKeys(assignment, entries)
        let maps = assignment.plan.chunks.enumerated().map { index, chunk in
            cache.format.groups.indices.map { group in
                if chunk.group != dataGroup { return PageMap(pages: scratch.indices(0), shift: 0) }
                if cache.format.groups[group].isWindow { return windowMap(of: chunk) }
                if let gatheredKeys, !assignment.dcpChunks.contains(index) {
                    return gatheredKeys.map(chunk.pages, group: group, scratch)
                }
                return cache.shard(ofGroup: group).map(chunk.pages, scratch)
            }
        }
        let first = seat.stageRank - seat.place(along: .tensor)
        let attended = assignment.rows[first..<first + seat.degree(.tensor)].flatMap { $0 }
        return Step(
            own: rows(own, assignment, maps), tokens: tokens, entries: entries,
            windows: windows(assignment), attended: rows(attended, assignment, maps),
            dcpRows: dcpRows(assignment, maps),
            outputs: outputs(of: assignment), cache: cache,
            gatheredKeys: gatheredKeys,
            recorder: recorder?.wantsLayers == true ? recorder : nil)
    }

    var dataGroup: Int { seat.stageRank / (seat.configuration.context * seat.configuration.tensor) }

    /// Returns the entries of a group of key sets that own rows store.
    private func entries(_ group: PageGroup, _ own: [RowAssignment.Row], _ assignment: RowAssignment) -> Step.EntryRows
    {
        func position(_ row: RowAssignment.Row) -> Int { assignment.plan.chunks[row.chunk].start + row.offset }
        let storing = own.indices.filter { group.closesEntry(at: position(own[$0])) }
        let (rows, slots) = (seat.scratch.indices(storing.count), seat.scratch.indices(storing.count))
        rows.copy(storing.map { Int32($0) })
        for (at, row) in storing.enumerated() {
            let entry = position(own[row]) / group.tokensPerEntry
            let (page, place) = entry.quotientAndRemainder(dividingBy: group.entriesPerPage)
            let chunk = assignment.plan.chunks[own[row].chunk]
            let number = group.isWindow ? chunk.windowPages[page - chunk.firstWindowPage] : chunk.pages[page]
            slots[at] = number * Int32(group.entriesPerPage) + Int32(place)
        }
        let counts = assignment.rows.map { rows in
            group.tokensPerEntry == 1 ? rows.count : rows.count { group.closesEntry(at: position($0)) }
        }
        return Step.EntryRows(rows: rows, slots: slots, counts: counts)
    }

    /// Returns the page map of a request's window entries; pages that no row sees any more are -1.
    private func windowMap(of chunk: StepPlan.Chunk) -> PageMap {
        let pages = seat.scratch.indices(chunk.firstWindowPage + chunk.windowPages.count)
        pages[0..<chunk.firstWindowPage].fill(-1)
        pages[chunk.firstWindowPage..<pages.count].copy(chunk.windowPages)
        return PageMap(pages: pages, shift: pageShift)
    }

    /// Returns the gathered keys of the data group's requests where processes divide the KV cache; `nil` elsewhere.
    ///
    /// - Parameter entries: The entries that own rows store, for each group of key sets.
    private func gatheredKeys(_ assignment: RowAssignment, _ entries: [Step.EntryRows]) -> GatheredKeys? {
        buffers.map { buffers in
            GatheredKeys(
                assignment.gatheredPages(ofGroup: dataGroup), store: buffers.gathered, staging: buffers.staging,
                stagingSlots: entries.map { ascending($0.slots.count) })
        }
    }

    private func ascending(_ count: Int) -> Indices {
        let numbers = seat.scratch.indices(count)
        for number in 0..<count { numbers[number] = Int32(number) }
        return numbers
    }

    /// Returns the own rows whose states leave the last layer: those with an output, or all of them where the
    /// next-token block needs them.
    private func outputs(of assignment: RowAssignment) -> Indices {
        let wanted =
            assignment.drafts
            ? Array(assignment.rows[seat.stageRank].indices) : assignment.outputs[seat.stageRank].map(\.row)
        let outputs = seat.scratch.indices(seat.isLastStage ? wanted.count : 0)
        if seat.isLastStage { outputs.copy(wanted.map { Int32($0) }) }
        return outputs
    }

    /// Returns the DCP rows of all ranks among which this rank's data group divides its keys; `nil` where the step has
    /// none.
    private func dcpRows(_ assignment: RowAssignment, _ maps: [[PageMap]]) -> Step.DCPRows? {
        if assignment.dcpChunks.isEmpty { return nil }
        let members = seat.members(along: .kvSharding)
        let own = members.map { member in assignment.rows[member].filter { assignment.dcpChunks.contains($0.chunk) } }
        let attended = members.map { member in
            let first = member - member % seat.degree(.tensor)
            return assignment.rows[first..<first + seat.degree(.tensor)].flatMap { $0 }
                .filter { assignment.dcpChunks.contains($0.chunk) }
        }
        let (ownCounts, attendedCounts) = (seat.scratch.indices(members.count), seat.scratch.indices(members.count))
        ownCounts.copy(own.map { Int32($0.count) })
        attendedCounts.copy(attended.map { Int32($0.count) })
        let first = seat.stageRank - seat.place(along: .tensor)
        return Step.DCPRows(
            own: rows(own.flatMap { $0 }, assignment, maps), attended: rows(attended.flatMap { $0 }, assignment, maps),
            ownCounts: ownCounts, attendedCounts: attendedCounts,
            ownRows: dcpIndices(of: assignment.rows[seat.stageRank..<seat.stageRank + 1], assignment),
            attendedRows: dcpIndices(of: assignment.rows[first..<first + seat.degree(.tensor)], assignment))
    }

    /// Returns the indices of the DCP rows among the rows of some ranks, counted one rank after the other.
    private func dcpIndices(of rows: ArraySlice<[RowAssignment.Row]>, _ assignment: RowAssignment) -> Indices {
        let found = rows.joined().enumerated().filter { assignment.dcpChunks.contains($1.chunk) }
        let indices = seat.scratch.indices(found.count)
        indices.copy(found.map { Int32($0.offset) })
        return indices
    }

    private func rows(_ rows: [RowAssignment.Row], _ assignment: RowAssignment, _ maps: [[PageMap]]) -> Step.Rows {
        let plan = assignment.plan
        let positions = seat.scratch.indices(rows.count)
        var requests: [Step.RequestRows] = []
        var first = 0
        for (at, row) in rows.enumerated() {
            positions[at] = Int32(plan.chunks[row.chunk].start + row.offset)
            guard at + 1 == rows.count || rows[at + 1].chunk != row.chunk else { continue }
            requests.append(
                Step.RequestRows(
                    request: plan.chunks[row.chunk].request, rows: first..<at + 1, pages: maps[row.chunk],
                    usesDCP: assignment.dcpChunks.contains(row.chunk)))
            first = at + 1
        }
        return Step.Rows(positions: positions, requests: requests)
    }

    // MARK: - Logits

    /// Computes logits from the states of the output rows, and scores or samples from them.
    ///
    /// - Returns: This rank's findings, and the token sampled from each of `assignment.outputs`; `nil` where none was.
    ///   All ranks of the stage know all tokens where the next-token block needs them.
    private func choose(_ assignment: RowAssignment, _ states: View) throws(GroupFailure) -> (
        [StepReport.Finding], [Int32?]
    ) {
        let wanted = Array(assignment.outputs.joined())
        let own = assignment.drafts ? pick(assignment.outputs[seat.stageRank].map(\.row), of: states) : states
        var findings: [StepReport.Finding] = []
        let chosen = try readLogits(of: own, counts: assignment.outputs.map(\.count), sharing: assignment.drafts) {
            logits, index in
            findings.append(read(logits, wanted[index], assignment.plan))
            return findings.last!.sampled?.token
        }
        return (findings, chosen)
    }

    func pick(_ rows: [Int], of states: View) -> View {
        let picked = seat.scratch.rows(rows.count, states.columns)
        let numbers = seat.scratch.indices(rows.count)
        numbers.copy(rows.map { Int32($0) })
        seat.kernels.copyRows(states, xRows: ComputedIndices(numbers), into: picked)
        return picked
    }

    /// Computes the logits of all ranks' rows, and calls `read` for each row on one of the ranks. A few rows are
    /// computed at a time, so that the output head is read once for all requests of a tile. Every rank computes its
    /// part of the vocabulary for all rows; an all-to-all exchange then brings each row's parts together.
    ///
    /// - Parameters:
    ///   - states: The states of this rank's rows, `[rows, hidden]`.
    ///   - counts: The number of rows of each rank of the stage.
    ///   - sharing: True if all ranks are to know all sampled tokens.
    ///   - areDrafts: True if the next-token block made the states.
    ///   - read: Receives one row of logits `[vocabulary]` and the row's index over all ranks; returns the sampled
    ///     token, if any.
    /// - Returns: The token sampled from each row.
    func readLogits(
        of states: View, counts: [Int], sharing: Bool, areDrafts: Bool = false,
        _ read: (Span<Float>, Int) -> Int32?
    ) throws(GroupFailure) -> [Int32?] {
        let rowCounts = seat.scratch.indices(counts.count)
        rowCounts.copy(counts.map { Int32($0) })
        let all = try seat.gather("outputs", along: .stage, states, counts: rowCounts)
        var chosen = [Int32?](repeating: nil, count: all.rows)
        var first = 0
        while first < all.rows {
            let mark = seat.scratch.mark()
            defer { seat.scratch.reset(to: mark) }
            let tile = first..<min(first + Self.logitRows * seat.degree(.stage), all.rows)
            let (logits, mine) = try logits(all.rows(tile), areDrafts: areDrafts)
            let rows = seat.kernels.synchronize(logits)
            for (row, place) in mine.enumerated() {
                let values = unsafe Span(_unsafeElements: rows.row(row))
                chosen[tile.lowerBound + place] = read(values, tile.lowerBound + place)
            }
            first = tile.upperBound
        }
        return sharing ? try share(chosen) : chosen
    }

    /// Gathers the sampled tokens of all ranks. Row `i` was read by rank `i mod ranks`; see `logits`.
    private func share(_ chosen: [Int32?]) throws(GroupFailure) -> [Int32?] {
        let ranks = seat.degree(.stage)
        let turns = (0..<ranks).map { stride(from: $0, to: chosen.count, by: ranks) }
        let counts = seat.scratch.indices(ranks)
        counts.copy(turns.map { Int32($0.underestimatedCount) })
        let own = turns[seat.place(along: .stage)].map { chosen[$0] ?? -1 }
        let part = seat.scratch.indices(own.count)
        part.copy(own)
        let all = seat.kernels.synchronize(
            try seat.gather("choices", along: .stage, part.bits(columns: 1), counts: counts).integers)
        var shared = chosen
        var place = 0
        for (rank, rows) in turns.enumerated() {
            for row in rows {
                // The next-token block reads this token's embedding.
                guard (-1..<Int32(model.vocabularySize)).contains(all[place]) else {
                    throw seat.failure(
                        of: rank, along: .stage,
                        "it sampled token \(all[place]) of a vocabulary of \(model.vocabularySize)")
                }
                shared[row] = all[place] < 0 ? nil : all[place]
                place += 1
            }
        }
        return shared
    }

    /// - Returns: The whole rows of logits that this rank reads, `[rows, vocabulary]`, and the indices of those rows in
    ///   the tile.
    private func logits(_ hidden: View, areDrafts: Bool) throws(GroupFailure) -> (View, mine: StrideTo<Int>) {
        func logits(_ states: View, vocabulary: Range<Int>, into out: View) {
            if areDrafts { return model.draftLogits(states, vocabulary: vocabulary, seat, into: out) }
            model.logits(states, vocabulary: vocabulary, seat, into: out)
        }
        let (ranks, vocabulary) = (seat.degree(.stage), model.vocabularySize)
        let mine = stride(from: seat.place(along: .stage), to: hidden.rows, by: ranks)
        let whole = seat.scratch.rows(mine.underestimatedCount, vocabulary)
        if ranks == 1 {
            logits(hidden, vocabulary: 0..<vocabulary, into: whole)
            return (whole, mine)
        }
        let (order, counts) = (seat.scratch.indices(hidden.rows), seat.scratch.indices(ranks))
        var next = 0
        for rank in 0..<ranks {
            let before = next
            for row in stride(from: rank, to: hidden.rows, by: ranks) {
                order[next] = Int32(row)
                next += 1
            }
            counts[rank] = Int32(next - before)
        }
        let sorted = seat.scratch.rows(hidden.rows, hidden.columns)
        seat.kernels.copyRows(hidden, xRows: ComputedIndices(order), into: sorted)
        let part = seat.part(of: vocabulary, along: .stage)
        let parts = seat.scratch.rows(hidden.rows, (vocabulary + ranks - 1) / ranks)
        logits(sorted, vocabulary: part, into: parts.columns(0..<part.count))
        let pending = try seat.startExchange(
            "logits", along: .stage, parts, counts: counts, expecting: seat.counts(whole.rows, along: .stage))
        let received = try seat.finish(pending)
        for rank in 0..<ranks {
            let part = seat.part(of: vocabulary, along: .stage, at: rank)
            let rows = received.rows(rank * whole.rows..<(rank + 1) * whole.rows)
            seat.kernels.copyRows(rows.columns(0..<part.count), into: whole.columns(part))
        }
        return (whole, mine)
    }

    /// Samples a token of a chunk among those that the request's grammar allows.
    func sampleToken(
        _ logits: Span<Float>, as sample: StepPlan.Sample, of chunk: StepPlan.Chunk, topLogProbs: Int? = nil
    ) throws(SamplingFailure) -> TokenLogProbs {
        var sample = sample
        let known = chunk.sample?.generated.count ?? 0
        let choices = try grammars.choices(for: chunk.request, sample, known: known)
        // A complete answer ends even where `minNewTokens` asks for more.
        if choices?.mustEnd ?? false { sample.minTokensRemaining = 0 }
        return try sampler.choose(logits, as: sample, allowed: choices?.allowed, topLogProbs: topLogProbs)
    }

    /// Reads one row of logits: scores a known token, samples the next one, or both.
    private func read(_ logits: Span<Float>, _ output: RowAssignment.Output, _ plan: StepPlan) -> StepReport.Finding {
        let chunk = plan.chunks[output.chunk]
        var finding = StepReport.Finding(chunk: output.chunk, offset: output.offset)
        if let recorder {
            recorder.record(
                .logits, layer: .max, logits.indices.map { logits[$0] }, request: chunk.request,
                position: chunk.start + output.offset)
        }
        do {
            if let target = output.target {
                finding.scored = try sampler.score(logits, target: target, topLogProbs: chunk.topLogProbs ?? 0)
            }
            if chunk.sampledRows.contains(output.offset) {
                let sample = chunk.sample(at: output.offset - chunk.sampledRows.lowerBound)
                finding.sampled = try sampleToken(logits, as: sample, of: chunk, topLogProbs: chunk.topLogProbs)
            }
        } catch {
            finding.failure = error.description
        }
        return finding
    }
}
