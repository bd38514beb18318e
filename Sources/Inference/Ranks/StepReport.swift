package import Modeling
package import Parallelism

/// What one rank found in a step, and what the step cost it.
package struct StepReport: Sendable {
    package var rank: Int
    /// The plan's number.
    var step: Int
    var findings: [Finding] = []
    /// What was guessed to follow each chunk, by its index; one rank of the last stage says it for all of them.
    var drafts: [Int: [Int32]] = [:]
    /// Rows this rank owned.
    package var rows = 0
    /// From its first instruction to its last, waiting included.
    package var seconds = 0.0
    /// The keys it looked at, since the start.
    package var work = Work()
    /// Its collectives, since the start.
    package var operations: [Meter.CollectiveStatistics] = []
    /// What it did when, when it was asked to.
    var spans: [TraceSpan] = []
    /// What it recorded, when it was asked to.
    package var records: StageRecords?

    /// What one row of logits said.
    struct Finding: Sendable {
        var chunk: Int
        /// Which of the chunk's rows.
        var offset: Int
        var scored: TokenLogProbs?
        var sampled: TokenLogProbs?
        var failure: String?
    }

    init(rank: Int, step: Int) {
        self.rank = rank
        self.step = step
    }
}

extension StepResult {
    /// Puts together what the ranks found.
    init(_ plan: StepPlan, _ reports: [StepReport]) {
        self.init(chunks: plan.chunks.map { ChunkResult(request: $0.request) })
        var choices = plan.chunks.map { _ in [StepReport.Finding]() }
        for finding in reports.flatMap(\.findings).sorted(by: { ($0.chunk, $0.offset) < ($1.chunk, $1.offset) }) {
            if let scored = finding.scored { chunks[finding.chunk].scored.append(scored) }
            if plan.chunks[finding.chunk].sampledRows.contains(finding.offset) {
                choices[finding.chunk].append(finding)
            } else {
                chunks[finding.chunk].failure = chunks[finding.chunk].failure ?? finding.failure
            }
        }
        for (index, chunk) in plan.chunks.enumerated() {
            let counting = chunk.acceptedCount(choices[index].map(\.sampled?.token))
            for choice in choices[index].prefix(counting) {
                if let sampled = choice.sampled { chunks[index].sampled.append(sampled) }
                chunks[index].failure = chunks[index].failure ?? choice.failure
            }
        }
        for (index, drafts) in reports.flatMap(\.drafts) { chunks[index].drafts = drafts }
    }
}
