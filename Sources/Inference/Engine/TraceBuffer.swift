import Parallelism

/// A trace buffer collects the spans of one rank during one step, until the step's report takes them. Only the rank's
/// thread uses it.
final class TraceBuffer {
    private var spans: [TraceSpan] = []
    /// The maximum number of spans of a step, and thereby its memory; a model's layers have far fewer.
    private static let most = 1 << 16

    func add(_ span: TraceSpan) {
        if spans.count < Self.most { spans.append(span) }
    }

    func take() -> [TraceSpan] {
        defer { spans = [] }
        return spans
    }
}
