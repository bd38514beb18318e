import Parallelism

/// A step timeline tells what each rank did in one step, and when.
package struct StepTimeline: Sendable, Equatable {
    /// The number of the step.
    package var step: Int
    /// The number of requests that had rows in the step.
    package var requests: Int
    /// The length of the step in nanoseconds, from the first rank's begin to the last one's end.
    package var nanoseconds: UInt64
    /// The ranks in order.
    package var ranks: [Rank]

    package struct Rank: Sendable, Equatable {
        package var rank: Int
        /// The number of rows the rank owned.
        package var rows: Int
        /// The pieces of the rank's work by their begin, a piece before those within it.
        package var spans: [Span]
        /// True if later pieces are left out.
        package var isCut: Bool

        package init(rank: Int, rows: Int, spans: [Span], isCut: Bool = false) {
            self.rank = rank
            self.rows = rows
            self.spans = spans
            self.isCut = isCut
        }
    }

    /// A piece of a rank's work: the step, a layer, or a collective.
    package struct Span: Sendable, Equatable {
        package var name: String
        /// Tells apart pieces with the same name, for instance by a layer's number.
        package var number: Int?
        /// The begin in nanoseconds after the begin of the step.
        package var begin: UInt64
        /// The length in nanoseconds.
        package var length: UInt64

        package init(name: String, number: Int? = nil, begin: UInt64, length: UInt64) {
            self.name = name
            self.number = number
            self.begin = begin
            self.length = length
        }
    }

    package init(step: Int, requests: Int, nanoseconds: UInt64, ranks: [Rank]) {
        self.step = step
        self.requests = requests
        self.nanoseconds = nanoseconds
        self.ranks = ranks
    }

    /// The maximum number of pieces of all ranks together, and thereby the memory of a timeline.
    package static let maxSpans = 32_768
}

extension StepTimeline {
    /// Combines the spans that all ranks reported for a step.
    init(_ plan: StepPlan, _ reports: [StepReport]) {
        let spans = reports.lazy.flatMap(\.spans)
        let begin = spans.map(\.begin).min() ?? 0
        let end = spans.map(\.end).max() ?? begin
        let most = Self.maxSpans / max(reports.count, 1)
        self.init(
            step: plan.number, requests: plan.chunks.count, nanoseconds: max(end, begin) - begin,
            ranks: reports.sorted { $0.rank < $1.rank }.map { report in
                // Reports list a piece when it ends; of two that begin together, the longer one contains the other.
                let ordered = report.spans.sorted { ($0.begin, $1.end) < ($1.begin, $0.end) }
                return Rank(
                    rank: report.rank, rows: report.rows,
                    spans: ordered.prefix(most).map { span in
                        Span(
                            name: span.name, number: span.number, begin: span.begin - begin,
                            length: max(span.end, span.begin) - span.begin)
                    },
                    isCut: ordered.count > most)
            })
    }
}
