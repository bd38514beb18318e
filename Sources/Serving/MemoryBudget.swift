import Synchronization

/// The memory that all requests being read and answers being collected may take together. The need of a request is
/// estimated before its memory is allocated, and refused if it does not fit.
package final class MemoryBudget: Sendable {
    package let total: Int
    private let used = Mutex(0)

    package init(total: Int) { self.total = total }

    /// The bytes of a budget where there is enough memory.
    package static let usualTotal = 1 << 30
    /// The bytes of a budget where there is next to none, which a request of a few megabytes needs.
    private static let smallestTotal = 64 << 20

    /// Returns the bytes of the budget of a server that has `available` bytes: at most an eighth of them, for most of them
    /// are for the KV cache.
    package static func total(of available: Int) -> Int { min(max(available / 8, smallestTotal), usualTotal) }

    /// The bytes that are reserved for one request, and released when the share is dropped.
    package final class Share: Sendable {
        private let budget: MemoryBudget
        private let bytes = Mutex(0)

        fileprivate init(_ budget: MemoryBudget) { self.budget = budget }

        deinit { budget.used.withLock { $0 -= bytes.withLock { $0 } } }

        /// Enlarges the share to at least `count` bytes.
        ///
        /// - Throws: an error as `resize` does.
        func grow(to count: Int) throws(RequestError) {
            if bytes.withLock({ $0 }) < count { try resize(to: count) }
        }

        /// Sets the share to `count` bytes.
        ///
        /// - Throws: an error with status 413 if so much can never fit, or 429 if it does not fit now.
        package func resize(to count: Int) throws(RequestError) {
            guard count <= budget.total else {
                throw RequestError(
                    .tooLarge,
                    "this request would take about \(count >> 20) MiB of memory; the most is \(budget.total >> 20) MiB",
                    code: "request_too_large")
            }
            let fits = bytes.withLock { bytes in
                let fits = budget.used.withLock { used in
                    guard count <= bytes || used + count - bytes <= budget.total else { return false }
                    used += count - bytes
                    return true
                }
                if fits { bytes = count }
                return fits
            }
            guard fits else {
                throw RequestError(
                    .overloaded(retryAfterSeconds: 1),
                    "large requests use up the memory set aside for them; try again", code: "rate_limit_exceeded")
            }
        }
    }

    /// Reserves `bytes` bytes.
    ///
    /// - Throws: an error as `Share.resize` does.
    func share(of bytes: Int) throws(RequestError) -> Share {
        let share = Share(self)
        try share.resize(to: bytes)
        return share
    }
}
