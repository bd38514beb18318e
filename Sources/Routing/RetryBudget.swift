/// Bounds the retries of all requests together, so that workers that refuse are not asked ever more often.
package struct RetryBudget: Sendable {
    /// The retries that each request adds to the budget.
    package static let share = 0.1
    /// The retries that are saved up at most, and at the start, for the moment in which a worker with many requests fails.
    package static let most = 100.0

    private var saved = most

    package init() {}

    package mutating func countRequest() { saved = min(saved + Self.share, Self.most) }

    /// Takes one retry.
    ///
    /// - Returns: whether there was one.
    package mutating func take() -> Bool {
        guard saved >= 1 else { return false }
        saved -= 1
        return true
    }
}
