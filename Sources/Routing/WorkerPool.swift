import JSON

/// The workers of a router, and the choice among them. All times are arguments.
package struct WorkerPool: Sendable {
    package struct Settings: Sendable {
        package var policy = RoutingPolicy.cacheAware
        package var breaker = Breaker.Settings()
        package var health = WorkerHealth.Settings()
        package var indexCapacity = PrefixIndex.usualCapacity
        /// Returns a random number below its argument.
        package var random: @Sendable (Int) -> Int = { Int.random(in: 0..<$0) }

        package init() {}
    }

    /// The reason why a worker cannot be added.
    package enum Problem: Error, Equatable, CustomStringConvertible {
        case isThere(String)
        case tooMany

        package var description: String {
            switch self {
            case .isThere(let address): "\(address) is a worker already"
            case .tooMany: "a router has at most \(PrefixIndex.maxSlots) workers; start another router for more"
            }
        }
    }

    private let settings: Settings
    /// The workers in the order in which they were added.
    package private(set) var workers: [RoutedWorker] = []
    private var index: PrefixIndex
    private var budget = RetryBudget()
    private var turn = 0
    private var nextID = 0
    /// The bytes of routed text, and those that the chosen worker had seen.
    package private(set) var routedBytes = 0
    package private(set) var matchedBytes = 0

    package init(_ settings: Settings) {
        self.settings = settings
        index = PrefixIndex(capacity: settings.indexCapacity)
    }

    // MARK: - Workers

    package mutating func add(
        _ address: ServerAddress, _ role: RoutedWorker.Role, at now: ContinuousClock.Instant
    ) throws(Problem) {
        guard !workers.contains(where: { $0.address == address }) else { throw .isThere("\(address)") }
        let used = Set(workers.map(\.slot))
        guard let slot = (0..<PrefixIndex.maxSlots).first(where: { !used.contains($0) }) else { throw .tooMany }
        workers.append(
            RoutedWorker(
                id: nextID, address: address, role: role, slot: slot,
                health: WorkerHealth(settings.health, now: now), breaker: Breaker(settings.breaker)))
        nextID += 1
    }

    /// Removes a worker. Its requests go on.
    ///
    /// - Returns: whether there was one.
    package mutating func remove(_ address: ServerAddress) -> Bool {
        guard let place = workers.firstIndex(where: { $0.address == address }) else { return false }
        index.forget(slot: workers[place].slot)
        workers.remove(at: place)
        return true
    }

    // MARK: - Requests

    /// Chooses a worker, and counts the request as its load.
    ///
    /// - Parameter excluded: the ids of workers that the request has been sent to.
    /// - Returns: `nil` if no worker is left.
    package mutating func assign(
        _ text: RoutedText, excluding excluded: Set<Int>, at now: ContinuousClock.Instant
    ) -> Assignment? {
        let free = workers.indices.filter { place in
            !excluded.contains(workers[place].id) && workers[place].isAvailable(at: now)
        }
        let usesIndex = settings.policy == .cacheAware
        let matched = usesIndex ? index.matchedBytes(text) : []
        let candidates = free.map { place in
            RoutingPolicy.Candidate(
                load: workers[place].load, matchedBytes: usesIndex ? matched[workers[place].slot] : 0,
                isDecodeServer: workers[place].role == .decode)
        }
        guard
            let chosen = settings.policy.choose(
                from: candidates, bytes: text.byteCount, turn: turn, random: settings.random)
        else { return nil }
        turn &+= 1
        turn &= Int.max
        let (place, found) = (free[chosen], candidates[chosen].matchedBytes)
        let unmatched = text.byteCount - found
        let isProbe = workers[place].breaker.begin(at: now)
        workers[place].load.begin(unmatchedBytes: unmatched)
        if usesIndex { index.insert(text, slot: workers[place].slot) }
        routedBytes += text.byteCount
        matchedBytes += found
        return Assignment(
            worker: workers[place].id, address: workers[place].address, unmatchedBytes: unmatched, isProbe: isProbe)
    }

    /// Records that the answer to a request has begun. A good one closes the breaker, however long the answer is.
    package mutating func answer(_ assignment: Assignment, isGood: Bool = true) {
        change(assignment.worker) { worker in
            worker.load.answer(unmatchedBytes: assignment.unmatchedBytes)
            guard isGood else { return }
            worker.breaker.succeed()
            if assignment.isProbe { worker.breaker.release() }
        }
    }

    /// Records the end of a request.
    ///
    /// - Parameter isAnswered: whether `answer` was called for it.
    package mutating func end(
        _ assignment: Assignment, isAnswered: Bool, _ outcome: RequestOutcome, at now: ContinuousClock.Instant
    ) {
        change(assignment.worker) { worker in
            worker.load.end(unmatchedBytes: isAnswered ? 0 : assignment.unmatchedBytes)
            switch outcome {
            case .succeeded: if !isAnswered { worker.breaker.succeed() }
            case .failed: worker.breaker.fail(at: now)
            case .abandoned: break
            case .refused(let refusal):
                switch refusal.kind {
                // The worker itself is well.
                case .full, .prefillLost, .noResources: break
                case .notReady: worker.health.record(.notReady(refusal.reason), at: now)
                case .lost, .failed: worker.breaker.fail(at: now)
                case .unreachable:
                    worker.breaker.fail(at: now)
                    worker.health.recordRefusedConnection(refusal.reason)
                }
            }
            if assignment.isProbe { worker.breaker.release() }
        }
    }

    /// Counts a request of a client, for the budget of retries.
    package mutating func countRequest() { budget.countRequest() }

    /// Returns whether a request may be sent to one more worker.
    package mutating func takeRetry() -> Bool { budget.take() }

    // MARK: - Health

    package mutating func record(_ check: WorkerHealth.Check, of worker: Int, at now: ContinuousClock.Instant) {
        change(worker) { $0.health.record(check, at: now) }
    }

    /// Records what a worker tells of its load. One that has started again has an empty cache.
    package mutating func record(_ report: LoadReport, of worker: Int) {
        guard let place = workers.firstIndex(where: { $0.id == worker }) else { return }
        workers[place].load.report(report)
        if let old = workers[place].startTime, let new = report.startTime, old != new {
            index.forget(slot: workers[place].slot)
        }
        workers[place].startTime = report.startTime ?? workers[place].startTime
        workers[place].modelName = report.modelName
        workers[place].mode = report.mode
    }

    /// Returns what an operator has probably got wrong about a worker, by what the workers have told of themselves.
    package func warnings(about worker: Int) -> [String] {
        guard let worker = workers.first(where: { $0.id == worker }) else { return [] }
        var warnings = worker.roleProblem.map { [$0] } ?? []
        let other = workers.first { $0.modelName != nil && $0.modelName != worker.modelName }
        if let name = worker.modelName, let other, let otherName = other.modelName {
            warnings.append(
                "serves \(name.quotedForMessage), but \(other.address) serves \(otherName.quotedForMessage): every request may go to either; start them "
                    + "with the same model and --served-model-name, or a router for each")
        }
        return warnings
    }

    /// Changes a worker, unless it was removed.
    private mutating func change(_ id: Int, _ body: (inout RoutedWorker) -> Void) {
        guard let place = workers.firstIndex(where: { $0.id == id }) else { return }
        body(&workers[place])
    }
}
