package import Modeling
package import Parallelism

extension StepReport: WireCodable {
    package static var empty: StepReport { StepReport(rank: 0, step: 0) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&rank)
        try wire.pass(&step)
        try wire.pass(&findings)
        var (drafting, drafted) = (drafts.keys.sorted(), [DraftTokens]())
        drafted = drafting.map { DraftTokens(tokens: drafts[$0]!) }
        try wire.pass(&drafting)
        try wire.pass(&drafted)
        guard drafting.count == drafted.count else { throw Wire.Failure(description: "drafts for each chunk") }
        drafts = Dictionary(zip(drafting, drafted.map(\.tokens))) { $1 }
        try wire.pass(&rows)
        try wire.pass(&seconds)
        try wire.pass(&work.indexed)
        try wire.pass(&work.scored)
        try wire.pass(&work.attended)
        try wire.pass(&work.compressed)
        try wire.pass(&operations)
        try wire.pass(&spans)
        try wire.pass(&records)
    }
}

/// The draft tokens after one chunk.
private struct DraftTokens: WireCodable {
    var tokens: [Int32]

    static var empty: DraftTokens { DraftTokens(tokens: []) }

    mutating func pass(_ wire: inout Wire) throws(Wire.Failure) { try wire.pass(&tokens) }
}

extension StepReport.Finding: WireCodable {
    static var empty: StepReport.Finding { StepReport.Finding(chunk: 0, offset: 0) }

    mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&chunk)
        try wire.pass(&offset)
        try wire.pass(&scored)
        try wire.pass(&sampled)
        try wire.pass(&failure)
    }
}

extension TokenLogProbs: WireCodable {
    package static var empty: TokenLogProbs { TokenLogProbs(token: 0) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&token)
        try wire.pass(&logProb)
        try wire.pass(&top)
    }
}

extension ScoredToken: WireCodable {
    package static var empty: ScoredToken { ScoredToken(token: 0, logProb: 0) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&token)
        try wire.pass(&logProb)
    }
}

extension Meter.CollectiveStatistics: WireCodable {
    package static var empty: Meter.CollectiveStatistics { Meter.CollectiveStatistics(name: "") }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&name)
        try wire.pass(&calls)
        try wire.pass(&bytes)
        try wire.pass(&seconds)
    }
}

extension TraceSpan: WireCodable {
    package static var empty: TraceSpan { TraceSpan("", begin: 0, end: 0) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&name)
        try wire.pass(&number)
        try wire.pass(&begin)
        try wire.pass(&end)
    }
}

extension StageRecords: WireCodable {
    package static var empty: StageRecords { StageRecords() }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        var rows = values.flatMap { key, rows in rows.map { RecordedRow(key: key, place: $0, values: $1) } }
        try wire.pass(&rows)
        values = [:]
        for row in rows { values[row.key, default: [:]][row.place] = row.values }
    }
}

/// One recorded row, with its key and its place.
private struct RecordedRow: WireCodable {
    var key: StageRecords.Key
    var place: StageRecords.Place
    var values: [Float]

    static var empty: RecordedRow {
        RecordedRow(
            key: StageRecords.Key(layer: 0, stage: .logits), place: StageRecords.Place(request: 0, position: 0),
            values: [])
    }

    mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        var (layer, stage, request, position) = (key.layer, key.stage, place.request, place.position)
        try wire.pass(&layer)
        try wire.pass(&stage)
        try wire.pass(&request)
        try wire.pass(&position)
        try wire.pass(&values)
        key = StageRecords.Key(layer: layer, stage: stage)
        place = StageRecords.Place(request: request, position: position)
    }
}

extension StepReport {
    /// Returns whether a report that another process sent can belong to a step: it has a finding for each row whose
    /// logits this rank reads, in order, and for no other row.
    ///
    /// - Parameter operationsBefore: The collectives of the rank's previous report; their counts never decrease.
    func fits(
        _ assignment: RowAssignment, vocabularySize: Int, operationsBefore: [Meter.CollectiveStatistics] = []
    ) -> Bool {
        let plan = assignment.plan
        let continuesAccounts =
            operations.count >= operationsBefore.count
            && zip(operations, operationsBefore).allSatisfy {
                $0.name == $1.name && $0.calls >= $1.calls && $0.bytes >= $1.bytes
            }
        return continuesAccounts && fitsFindings(assignment, vocabularySize) && fitsDrafts(assignment, vocabularySize)
            && (0...plan.chunks.reduce(0) { $0 + $1.tokens.count }).contains(rows) && seconds >= 0 && seconds.isFinite
            && [work.indexed, work.scored, work.attended, work.compressed].allSatisfy { $0 >= 0 }
    }

    private func fitsFindings(_ assignment: RowAssignment, _ vocabularySize: Int) -> Bool {
        let ranks = assignment.configuration.stageRanks
        let isLastStage = rank / ranks == assignment.configuration.pipeline - 1
        // The ranks of the last stage read the logits of every `ranks`-th row each: see `RankWorker.readLogits`.
        let outputs = isLastStage ? Array(assignment.outputs.joined()) : []
        let own = stride(from: rank % ranks, to: outputs.count, by: ranks).map { outputs[$0] }
        func isKnown(_ token: Int32) -> Bool { (0..<vocabularySize).contains(Int(token)) }
        func isKnown(_ found: TokenLogProbs?) -> Bool {
            guard let found else { return true }
            return isKnown(found.token) && found.top.allSatisfy { isKnown($0.token) }
        }
        return findings.count == own.count
            && zip(findings, own).allSatisfy { finding, output in
                let chunk = assignment.plan.chunks[output.chunk]
                let samples = chunk.sampledRows.contains(output.offset)
                let isWhole =
                    finding.failure != nil
                    || finding.scored?.token == output.target && (finding.sampled != nil) == samples
                return finding.chunk == output.chunk && finding.offset == output.offset && isWhole
                    && (finding.sampled == nil || samples) && (finding.scored == nil || output.target != nil)
                    && isKnown(finding.scored) && isKnown(finding.sampled)
            }
    }

    private func fitsDrafts(_ assignment: RowAssignment, _ vocabularySize: Int) -> Bool {
        drafts.allSatisfy { chunk, tokens in
            assignment.plan.chunks.indices.contains(chunk)
                && tokens.count <= assignment.plan.chunks[chunk].speculation?.ahead ?? 0
                && tokens.allSatisfy { (0..<vocabularySize).contains(Int($0)) }
        }
    }
}
