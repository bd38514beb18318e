import Synchronization

/// Memory for requests being read and answers being collected, shared by all of them. What a request will take is
/// estimated before it is taken, and refused where it does not fit.
package final class MemoryBudget: Sendable {
    package let total: Int
    private let used = Mutex(0)

    package init(total: Int) { self.total = total }

    /// Bytes that are spoken for.
    package var usedBytes: Int { used.withLock { $0 } }

    /// Bytes a request has been promised; given back when it is dropped.
    final class Share: Sendable {
        private let budget: MemoryBudget
        private let bytes = Mutex(0)

        fileprivate init(_ budget: MemoryBudget) { self.budget = budget }

        deinit { budget.used.withLock { $0 -= bytes.withLock { $0 } } }

        /// Makes the share at least as large as `count` bytes.
        func grow(to count: Int) throws(RequestError) {
            if bytes.withLock({ $0 }) < count { try resize(to: count) }
        }

        /// Makes the share as large as `count` bytes, or smaller.
        ///
        /// - Throws: 413 where so much will never fit, 429 where it does not now.
        func resize(to count: Int) throws(RequestError) {
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

    /// - Throws: as `Share.resize`.
    func share(of bytes: Int) throws(RequestError) -> Share {
        let share = Share(self)
        try share.resize(to: bytes)
        return share
    }
}
