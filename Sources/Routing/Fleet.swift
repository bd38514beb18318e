import Synchronization

/// The workers of a running router, shared by all requests and the health checks.
package final class Fleet: Sendable {
    private let pool: Mutex<WorkerPool>
    private let leases = Mutex<[ObjectIdentifier: WeakLease]>([:])
    private let now: @Sendable () -> ContinuousClock.Instant
    private let isStopped = Atomic(false)

    /// A request that is with a worker; its lease removes it.
    private struct WeakLease: Sendable {
        weak var lease: Lease?
    }

    /// - Parameter now: returns the time, which tests set.
    package init(_ settings: WorkerPool.Settings, now: @escaping @Sendable () -> ContinuousClock.Instant = { .now }) {
        pool = Mutex(WorkerPool(settings))
        self.now = now
    }

    /// The workers in the order in which they were added.
    package var workers: [RoutedWorker] { pool.withLock { $0.workers } }

    /// The workers that get requests now.
    package var available: [RoutedWorker] {
        let time = now()
        return workers.filter { $0.isAvailable(at: time) }
    }

    /// The bytes of text that were routed, and those that the chosen worker had seen.
    package var routedText: (bytes: Int, matched: Int) { pool.withLock { ($0.routedBytes, $0.matchedBytes) } }

    package func add(_ address: ServerAddress, _ role: RoutedWorker.Role) throws(WorkerPool.Problem) {
        try pool.withLock { pool throws(WorkerPool.Problem) in try pool.add(address, role, at: now()) }
    }

    package func remove(_ address: ServerAddress) -> Bool { pool.withLock { $0.remove(address) } }

    /// Adds and removes workers, so that these are there.
    ///
    /// - Returns: what has changed, in words.
    package func set(_ wanted: [(address: ServerAddress, role: RoutedWorker.Role)]) -> [String] {
        let old = workers
        var changes: [String] = []
        for worker in old where !wanted.contains(where: { $0.address == worker.address && $0.role == worker.role }) {
            if remove(worker.address) { changes.append("removed \(worker.address)") }
        }
        for (address, role) in wanted
        where !old.contains(where: { $0.address == address && $0.role == role }) {
            do {
                try add(address, role)
                changes.append("added \(address)")
            } catch {
                changes.append("not added: \(error)")
            }
        }
        return changes
    }

    package func countRequest() { pool.withLock { $0.countRequest() } }

    package func takeRetry() -> Bool { pool.withLock { $0.takeRetry() } }

    package func record(_ check: WorkerHealth.Check, of worker: Int) {
        pool.withLock { $0.record(check, of: worker, at: now()) }
    }

    package func record(_ report: LoadReport, of worker: Int) { pool.withLock { $0.record(report, of: worker) } }

    /// Returns what an operator has probably got wrong about a worker.
    package func warnings(about worker: Int) -> [String] { pool.withLock { $0.warnings(about: worker) } }

    /// The workers that were removed and still have requests, by their ids.
    var departed: [Int: ServerAddress] {
        let ids = Set(workers.map(\.id))
        let left = runningLeases.map(\.assignment).filter { !ids.contains($0.worker) }
        return Dictionary(left.map { ($0.worker, $0.address) }) { first, _ in first }
    }

    /// Chooses a worker for a request.
    ///
    /// - Returns: `nil` if there is none.
    package func assign(_ text: RoutedText, excluding excluded: Set<Int>) -> Lease? {
        if isStopped.load(ordering: .relaxed) { return nil }
        guard let assignment = pool.withLock({ $0.assign(text, excluding: excluded, at: now()) }) else { return nil }
        let lease = Lease(self, assignment)
        leases.withLock { $0[ObjectIdentifier(lease)] = WeakLease(lease: lease) }
        return lease
    }

    private var runningLeases: [Lease] { leases.withLock { $0.values.compactMap(\.lease) } }

    /// Ends the requests that are with a worker and of which nothing was heard for a while.
    package func closeRequests(of worker: Int, silentFor limit: Duration) {
        let time = now()
        for lease in runningLeases where lease.assignment.worker == worker {
            if lease.lastSignOfLife.duration(to: time) > limit { lease.close() }
        }
    }

    /// Ends all requests; from now on no worker gets one.
    package func closeAllRequests() {
        isStopped.store(true, ordering: .relaxed)
        for lease in runningLeases { lease.close() }
    }

    // MARK: - Leases

    /// One request's hold on a worker. Its load is given back when it ends, at the latest when it is dropped.
    package final class Lease: Sendable {
        private struct State {
            var isAnswered = false
            var hasEnded = false
            var lastSignOfLife: ContinuousClock.Instant
            var close: (@Sendable () -> Void)?
        }

        package let assignment: Assignment
        private let fleet: Fleet
        private let state: Mutex<State>

        fileprivate init(_ fleet: Fleet, _ assignment: Assignment) {
            (self.fleet, self.assignment) = (fleet, assignment)
            state = Mutex(State(lastSignOfLife: fleet.now()))
        }

        deinit { end(.abandoned) }

        /// Sets how the request is ended from outside.
        package func setClose(_ close: @escaping @Sendable () -> Void) { state.withLock { $0.close = close } }

        fileprivate func close() { state.withLock { $0.close }?() }

        fileprivate var lastSignOfLife: ContinuousClock.Instant { state.withLock { $0.lastSignOfLife } }

        /// Records that bytes of the answer have arrived.
        package func recordSignOfLife() { state.withLock { $0.lastSignOfLife = fleet.now() } }

        /// Records that the answer has begun.
        package func answer(isGood: Bool = true) {
            let isFirst = state.withLock { state in
                defer { state.isAnswered = true }
                return !state.isAnswered && !state.hasEnded
            }
            if isFirst { fleet.pool.withLock { $0.answer(assignment, isGood: isGood) } }
        }

        /// Records the end of the request; only the first call counts.
        package func end(_ outcome: RequestOutcome) {
            let isAnswered = state.withLock { state -> Bool? in
                defer { state.hasEnded = true }
                return state.hasEnded ? nil : state.isAnswered
            }
            guard let isAnswered else { return }
            _ = fleet.leases.withLock { $0.removeValue(forKey: ObjectIdentifier(self)) }
            fleet.pool.withLock { $0.end(assignment, isAnswered: isAnswered, outcome, at: fleet.now()) }
        }
    }
}
