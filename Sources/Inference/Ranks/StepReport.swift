package import Modeling
package import Parallelism

/// A step report contains what one rank found in a step, and what the step cost it.
package struct StepReport: Sendable {
    package var rank: Int
    /// The number of the step's plan.
    var step: Int
    var findings: [Finding] = []
    /// The draft tokens after each chunk, by its index. One rank of the last stage reports them for all chunks.
    var drafts: [Int: [Int32]] = [:]
    /// The number of rows this rank owned in the step.
    package var rows = 0
    /// The duration of the rank's part, with its waits.
    package var seconds = 0.0
    /// The work of the rank since the start: rows, and the keys it read.
    package var work = Work()
    /// The statistics of the rank's collectives, since the start.
    package var operations: [Meter.CollectiveStatistics] = []
    /// The rank's trace spans; empty where no trace is written.
    var spans: [TraceSpan] = []
    /// The values the rank recorded; `nil` where none were to be recorded.
    package var records: StageRecords?

    /// A finding is the result of one row of logits.
    struct Finding: Sendable {
        var chunk: Int
        /// The row's index in the chunk.
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
    /// Combines the findings of all ranks into the result of a step.
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
