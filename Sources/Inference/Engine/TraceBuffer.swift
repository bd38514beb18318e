import Parallelism

/// What a rank does in one step, until the step's report takes it. One thread.
final class TraceBuffer {
    private var spans: [TraceSpan] = []
    /// Bounds a step's memory: far more than any model's layers have parts.
    private static let most = 1 << 16

    func add(_ span: TraceSpan) {
        if spans.count < Self.most { spans.append(span) }
    }

    func take() -> [TraceSpan] {
        defer { spans = [] }
        return spans
    }
}
