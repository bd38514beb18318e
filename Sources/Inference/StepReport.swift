package import Models
package import Parallelism

/// What one rank found in a step, and what the step cost it.
package struct StepReport: Sendable {
    package let rank: Int
    var findings: [Finding] = []
    /// Rows this rank owned.
    package var rows = 0
    /// From its first instruction to its last, waiting included.
    package var seconds = 0.0
    /// The keys it looked at, since the start.
    package var work = Work()
    /// Its collectives, since the start.
    package var operations: [Meter.Account] = []
    /// What it did when, when it was asked to.
    var spans: [TraceSpan] = []
    /// What it recorded, when it was asked to.
    package var records: StageRecords?

    /// What one row of logits said.
    struct Finding: Sendable {
        let chunk: Int
        /// Index among the chunk's output rows.
        let place: Int
        var scored: TokenLogProbs?
        var sampled: TokenLogProbs?
        var failure: String?
    }

    init(rank: Int) { self.rank = rank }
}

extension StepResult {
    /// Puts together what the ranks found.
    init(_ plan: StepPlan, _ reports: [StepReport]) {
        self.init(chunks: plan.chunks.map { ChunkResult(request: $0.request) })
        for finding in reports.flatMap(\.findings).sorted(by: { ($0.chunk, $0.place) < ($1.chunk, $1.place) }) {
            if let scored = finding.scored { chunks[finding.chunk].scored.append(scored) }
            chunks[finding.chunk].sampled = finding.sampled ?? chunks[finding.chunk].sampled
            chunks[finding.chunk].failure = chunks[finding.chunk].failure ?? finding.failure
        }
    }
}
