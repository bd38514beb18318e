package import Models
package import Parallelism

extension StepReport: Wired {
    package static var blank: StepReport { StepReport(rank: 0, step: 0) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&rank)
        try wire.pass(&step)
        try wire.pass(&findings)
        var (guessing, guessed) = (guesses.keys.sorted(), [Guesses]())
        guessed = guessing.map { Guesses(tokens: guesses[$0]!) }
        try wire.pass(&guessing)
        try wire.pass(&guessed)
        guard guessing.count == guessed.count else { throw Wire.Failure(description: "guesses for each chunk") }
        guesses = Dictionary(zip(guessing, guessed.map(\.tokens))) { $1 }
        try wire.pass(&rows)
        try wire.pass(&seconds)
        try wire.pass(&work.scored)
        try wire.pass(&work.attended)
        try wire.pass(&operations)
        try wire.pass(&spans)
        try wire.pass(&records)
    }
}

/// What was guessed to follow one chunk.
private struct Guesses: Wired {
    var tokens: [Int32]

    static var blank: Guesses { Guesses(tokens: []) }

    mutating func pass(_ wire: inout Wire) throws(Wire.Failure) { try wire.pass(&tokens) }
}

extension StepReport.Finding: Wired {
    static var blank: StepReport.Finding { StepReport.Finding(chunk: 0, offset: 0) }

    mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&chunk)
        try wire.pass(&offset)
        try wire.pass(&scored)
        try wire.pass(&sampled)
        try wire.pass(&failure)
    }
}

extension TokenLogProbs: Wired {
    package static var blank: TokenLogProbs { TokenLogProbs(token: 0) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&token)
        try wire.pass(&logProb)
        try wire.pass(&top)
    }
}

extension ScoredToken: Wired {
    package static var blank: ScoredToken { ScoredToken(token: 0, logProb: 0) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&token)
        try wire.pass(&logProb)
    }
}

extension Meter.Account: Wired {
    package static var blank: Meter.Account { Meter.Account(name: "") }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&name)
        try wire.pass(&calls)
        try wire.pass(&bytes)
        try wire.pass(&seconds)
    }
}

extension TraceSpan: Wired {
    package static var blank: TraceSpan { TraceSpan("", begin: 0, end: 0) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&name)
        try wire.pass(&number)
        try wire.pass(&begin)
        try wire.pass(&end)
    }
}

extension StageRecords: Wired {
    package static var blank: StageRecords { StageRecords() }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        var rows = values.flatMap { key, rows in rows.map { RecordedRow(key: key, place: $0, values: $1) } }
        try wire.pass(&rows)
        values = [:]
        for row in rows { values[row.key, default: [:]][row.place] = row.values }
    }
}

/// One row of the records.
private struct RecordedRow: Wired {
    var key: StageRecords.Key
    var place: StageRecords.Place
    var values: [Float]

    static var blank: RecordedRow {
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
    /// Whether a report that came from elsewhere can be one of a plan.
    ///
    /// - Parameter operationsBefore: of the rank's report before; accounts only grow.
    func fits(_ plan: StepPlan, vocabularySize: Int, operationsBefore: [Meter.Account] = []) -> Bool {
        let areFound = findings.allSatisfy { finding in
            plan.chunks.indices.contains(finding.chunk)
                && plan.chunks[finding.chunk].outputRows.contains(finding.offset)
        }
        let tokens = findings.compactMap(\.sampled?.token) + guesses.values.joined()
        let continuesAccounts =
            operations.count >= operationsBefore.count
            && zip(operations, operationsBefore).allSatisfy {
                $0.name == $1.name && $0.calls >= $1.calls && $0.bytes >= $1.bytes
            }
        return areFound && guesses.keys.allSatisfy(plan.chunks.indices.contains)
            && tokens.allSatisfy { (0..<vocabularySize).contains(Int($0)) } && continuesAccounts
            && (0...plan.chunks.reduce(0) { $0 + $1.tokens.count }).contains(rows)
    }
}
