import KVCache
import Models
import Parallelism
import Tensors

/// One rank's part of a step: takes its rows, runs its layers once, chooses tokens. One thread.
final class RankWorker {
    private let model: any Model
    private let cache: CacheStore
    let seat: Seat
    private var sampler: Sampler
    private let recorder: StageRecorder?
    private let trace: TraceBuffer?
    private let pageShift: Int
    /// Rows of logits held at once; bounds memory when a whole prompt is scored.
    private static let logitRows = 32

    init(_ model: any Model, _ cache: CacheStore, _ seat: Seat, recorder: StageRecorder?, trace: TraceBuffer? = nil) {
        self.model = model
        self.cache = cache
        self.seat = seat
        self.recorder = recorder
        self.trace = trace
        if let trace { seat.meter.tracer = { trace.add($0) } }
        sampler = Sampler(vocabularySize: model.vocabularySize)
        pageShift = cache.format.pageSize.trailingZeroBitCount
    }

    /// Runs a step and reports what this rank found.
    func run(_ deal: Deal) throws(GroupFailure) -> StepReport {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let began = Meter.now()
        seat.begin(rows: deal.rows.map(\.count))
        let step = step(for: deal)
        let hidden = seat.scratch.rows(step.outputs.count, model.hiddenSize)
        var report = StepReport(rank: seat.rank)
        try seat.span("step", deal.plan.number) { () throws(GroupFailure) in
            try model.forward(step, seat, into: hidden)
            guard seat.isLastStage else { return }
            try seat.span("choose", deal.plan.number) { () throws(GroupFailure) in
                report.findings = try choose(deal, hidden: hidden)
            }
        }
        report.rows = step.own.count
        report.seconds = Double(Meter.now() - began) * 1e-9
        report.work = seat.work
        report.operations = seat.meter.accounts.map { $0 }
        report.records = recorder?.take()
        report.spans = trace?.take() ?? []
        return report
    }

    private func step(for deal: Deal) -> Step {
        let own = deal.rows[seat.stageRank]
        let scratch = seat.scratch
        let (tokens, slots) = (scratch.indices(own.count), scratch.indices(own.count))
        let maps = deal.plan.chunks.map { chunk in
            let pages = scratch.indices(chunk.pages.count)
            pages.copy(chunk.pages)
            return PageMap(pages: pages, shift: pageShift)
        }
        for (at, row) in own.enumerated() {
            let chunk = deal.plan.chunks[row.chunk]
            tokens[at] = chunk.tokens[row.offset]
            slots[at] = maps[row.chunk].slot(of: chunk.start + row.offset)
        }
        let outputs = scratch.indices(seat.isLastStage ? deal.outputs[seat.stageRank].count : 0)
        if seat.isLastStage { outputs.copy(deal.outputs[seat.stageRank].map { Int32($0.row) }) }
        let first = seat.stageRank - seat.place(along: .tensor)
        let attended = deal.rows[first..<first + seat.degree(.tensor)].flatMap { $0 }
        return Step(
            own: rows(own, deal, maps), tokens: tokens, slots: slots, attended: rows(attended, deal, maps),
            travelling: travelling(deal, maps), outputs: outputs, cache: cache,
            recorder: recorder?.wantsLayers == true ? recorder : nil)
    }

    /// The rows whose queries go to the keys, of the ranks among which this one's data group divides them.
    private func travelling(_ deal: Deal, _ maps: [PageMap]) -> Step.Travellers? {
        if deal.travelling.isEmpty { return nil }
        let members = seat.members(along: .ownership)
        let own = members.map { member in deal.rows[member].filter { deal.travelling.contains($0.chunk) } }
        let attended = members.map { member in
            let first = member - member % seat.degree(.tensor)
            return deal.rows[first..<first + seat.degree(.tensor)].flatMap { $0 }
                .filter { deal.travelling.contains($0.chunk) }
        }
        let (ownCounts, attendedCounts) = (seat.scratch.indices(members.count), seat.scratch.indices(members.count))
        ownCounts.copy(own.map { Int32($0.count) })
        attendedCounts.copy(attended.map { Int32($0.count) })
        return Step.Travellers(
            own: rows(own.flatMap { $0 }, deal, maps), attended: rows(attended.flatMap { $0 }, deal, maps),
            ownCounts: ownCounts, attendedCounts: attendedCounts)
    }

    private func rows(_ rows: [Deal.Row], _ deal: Deal, _ maps: [PageMap]) -> Step.Rows {
        let plan = deal.plan
        let positions = seat.scratch.indices(rows.count)
        var requests: [Step.RequestRows] = []
        var first = 0
        for (at, row) in rows.enumerated() {
            positions[at] = Int32(plan.chunks[row.chunk].start + row.offset)
            guard at + 1 == rows.count || rows[at + 1].chunk != row.chunk else { continue }
            requests.append(
                Step.RequestRows(
                    request: plan.chunks[row.chunk].request, rows: first..<at + 1, pages: maps[row.chunk],
                    travels: deal.travelling.contains(row.chunk)))
            first = at + 1
        }
        return Step.Rows(positions: positions, requests: requests)
    }

    // MARK: - Logits

    /// Scores and samples from the step's hidden states, a few rows of logits at a time: the head is read once for all
    /// requests of a tile. Every rank computes its part of the vocabulary for all rows; each row's parts then come
    /// together on one of them.
    private func choose(_ deal: Deal, hidden: View) throws(GroupFailure) -> [StepReport.Finding] {
        let counts = seat.scratch.indices(deal.outputs.count)
        counts.copy(deal.outputs.map { Int32($0.count) })
        let all = try seat.gather("outputs", along: .stage, hidden, counts: counts)
        let wanted = deal.outputs.flatMap { $0 }
        var findings: [StepReport.Finding] = []
        var first = 0
        while first < wanted.count {
            let mark = seat.scratch.mark()
            defer { seat.scratch.reset(to: mark) }
            let tile = first..<min(first + Self.logitRows * seat.degree(.stage), wanted.count)
            let (logits, mine) = try logits(all.rows(tile))
            for (row, place) in mine.enumerated() {
                let values = unsafe Span(_unsafeElements: logits.row(row))
                findings.append(read(values, wanted[tile.lowerBound + place], deal.plan))
            }
            first = tile.upperBound
        }
        return findings
    }

    /// - Returns: whole rows of logits, and which of the tile's rows they are.
    private func logits(_ hidden: View) throws(GroupFailure) -> (View, mine: StrideTo<Int>) {
        let (ranks, vocabulary) = (seat.degree(.stage), model.vocabularySize)
        let mine = stride(from: seat.place(along: .stage), to: hidden.rows, by: ranks)
        let whole = seat.scratch.rows(mine.underestimatedCount, vocabulary)
        if ranks == 1 {
            model.logits(hidden, vocabulary: 0..<vocabulary, seat, into: whole)
            return (whole, mine)
        }
        let sorted = seat.scratch.rows(hidden.rows, hidden.columns)
        let counts = seat.scratch.indices(ranks)
        var next = 0
        for rank in 0..<ranks {
            let before = next
            for row in stride(from: rank, to: hidden.rows, by: ranks) {
                sorted.rows(next..<next + 1).copy(hidden.rows(row..<row + 1))
                next += 1
            }
            counts[rank] = Int32(next - before)
        }
        let part = seat.part(of: vocabulary, along: .stage)
        let parts = seat.scratch.rows(hidden.rows, (vocabulary + ranks - 1) / ranks)
        model.logits(sorted, vocabulary: part, seat, into: parts.columns(0..<part.count))
        let crossing = try seat.startExchange(
            "logits", along: .stage, parts, counts: counts, most: ranks * whole.rows)
        let received = try seat.finishExchange(crossing, own: counts).rows
        for rank in 0..<ranks {
            let part = seat.part(of: vocabulary, along: .stage, at: rank)
            let rows = received.rows(rank * whole.rows..<(rank + 1) * whole.rows)
            whole.columns(part).copy(rows.columns(0..<part.count))
        }
        return (whole, mine)
    }

    /// What one row of logits is for: the score of a known token, or the choice of the next.
    private func read(_ logits: Span<Float>, _ output: Deal.Output, _ plan: StepPlan) -> StepReport.Finding {
        let chunk = plan.chunks[output.chunk]
        var finding = StepReport.Finding(chunk: output.chunk, place: output.place)
        let row = chunk.outputRows[output.place]
        if let recorder {
            recorder.record(
                .logits, layer: .max, logits.indices.map { logits[$0] }, request: chunk.request,
                position: chunk.start + row)
        }
        do {
            if output.place < chunk.score.count {
                let target = chunk.score[output.place].target
                finding.scored = try sampler.score(logits, target: target, topLogProbs: chunk.topLogProbs ?? 0)
            }
            if let sample = chunk.sample, row == chunk.tokens.count - 1 {
                finding.sampled = try sampler.choose(logits, as: sample, topLogProbs: chunk.topLogProbs)
            }
        } catch {
            finding.failure = error.description
        }
        return finding
    }
}
