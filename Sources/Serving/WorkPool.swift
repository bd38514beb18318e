import Foundation
import Grammar
import Synchronization

/// Runs the CPU work of requests (parsing JSON, tokenizing, writing long answers) on threads of its own, because a
/// large request would otherwise block the threads that serve connections and streams.
///
/// A few jobs run at the same time. After a time slice a job yields to the job that has waited longest, so that a small
/// job need not wait for the end of a large one. A job whose client has disconnected ends at its next yield.
package final class WorkPool: Sendable {
    /// The maximum number of jobs that run at the same time.
    private let turns: Int
    /// The time that a job runs before it yields to waiting jobs.
    private let slice: Duration
    /// The maximum number of jobs that have begun and not ended; further ones wait for one of these to end.
    private let maxThreads: Int
    private let state = Mutex(State())

    private struct State {
        var running = 0
        var threads = 0
        /// The jobs that have yielded.
        var waiting: [Job] = []
        /// The jobs that have not begun.
        var fresh: [Job] = []
        var lastWasFresh = false
    }

    /// Work on fewer bytes runs on the caller's thread, since starting a job would take longer.
    package static let smallBytes = 16 << 10

    package init(turns: Int, slice: Duration = .milliseconds(5), maxThreads: Int = 64) {
        precondition(turns > 0 && maxThreads >= turns, "work needs a thread")
        self.turns = turns
        self.slice = slice
        self.maxThreads = maxThreads
    }

    /// The pool for all requests of a process. It runs at least two jobs at the same time, so that one large request
    /// does not block the others.
    package static let shared = WorkPool(turns: max(2, ProcessInfo.processInfo.activeProcessorCount / 4))

    /// A piece of work, which has a thread of its own while it is not finished.
    final class Job: Sendable {
        /// The work, which is given its job. It must not hold the job itself: that would keep the request's bytes and its
        /// share of the memory budget for ever.
        fileprivate let work: @Sendable (Job) -> Void
        fileprivate let turn = DispatchSemaphore(value: 0)
        private let pool: WorkPool
        private let facts = Mutex((isCancelled: false, since: ContinuousClock.now, hasBegun: false))

        fileprivate init(pool: WorkPool, work: @escaping @Sendable (Job) -> Void) {
            self.pool = pool
            self.work = work
        }

        func cancel() { facts.withLock { $0.isCancelled = true } }

        var isCancelled: Bool { facts.withLock { $0.isCancelled } }

        fileprivate func beginTurn() -> Bool {
            facts.withLock { facts in
                defer { (facts.since, facts.hasBegun) = (.now, true) }
                return facts.hasBegun
            }
        }

        /// Returns whether the job is still wanted. If its time slice is over, it first yields to waiting jobs.
        fileprivate func mayContinue() -> Bool {
            let (isCancelled, since) = facts.withLock { ($0.isCancelled, $0.since) }
            if isCancelled { return false }
            if since.duration(to: .now) >= pool.slice { pool.yield(self) }
            return !self.isCancelled
        }
    }

    @TaskLocal private static var current: Job?

    /// True if the work of this thread is still wanted; it always is if the thread is not a pool's. Long work reads
    /// this about every millisecond, which also lets it yield to other jobs.
    package static var mayContinue: Bool { current?.mayContinue() ?? true }

    /// Checks that the work of this thread is still wanted.
    ///
    /// - Throws: `clientGone` if it is not.
    static func checkCancellation() throws(RequestError) {
        if current?.isCancelled == true { throw .clientGone }
    }

    /// Runs `work`, on a thread of the pool if it concerns many bytes.
    ///
    /// - Parameters:
    ///   - bytes: the approximate number of bytes that the work reads or writes.
    ///   - onStart: a closure that receives an action which cancels the work. It is not called for small work.
    package func run<Outcome: Sendable>(
        bytes: Int, onStart: (@escaping @Sendable () -> Void) async -> Void = { _ in },
        _ work: @escaping @Sendable () throws -> Outcome
    ) async throws -> Outcome {
        if bytes < Self.smallBytes { return try work() }
        let (outcomes, continuation) = AsyncStream.makeStream(of: Result<Outcome, any Error>.self)
        let job = Job(pool: self) { job in
            continuation.yield(Result { try Self.$current.withValue(job) { try work() } })
            continuation.finish()
        }
        // A connection may keep the action for as long as it lives.
        await onStart { [weak job] in job?.cancel() }
        start(job)
        return try await withTaskCancellationHandler {
            for await outcome in outcomes {
                // A cancellation counts even if the work has ended with a result.
                if job.isCancelled { throw RequestError.clientGone }
                return try outcome.get()
            }
            throw RequestError.clientGone
        } onCancel: {
            job.cancel()
        }
    }

    // MARK: - Scheduling

    private func start(_ job: Job) {
        let begins = state.withLock { state in
            guard state.running < turns, state.threads < maxThreads else {
                state.fresh.append(job)
                return false
            }
            state.running += 1
            state.threads += 1
            return true
        }
        if begins { giveTurn(to: job) }
    }

    private func giveTurn(to job: Job) {
        guard !job.beginTurn() else {
            _ = job.turn.signal()
            return
        }
        Thread.detachNewThread { [self] in
            // Ranks and connections come first where processors are scarce.
            #if os(Linux)
                _ = setpriority(Int32(PRIO_PROCESS.rawValue), 0, 10)
            #endif
            // Grammars are compiled by functions that know no pool.
            GrammarWork.asking({ job.mayContinue() }) { job.work(job) }
            let next = state.withLock { state in
                state.threads -= 1
                let next = Self.next(&state, maxThreads: maxThreads)
                if next == nil { state.running -= 1 }
                return next
            }
            if let next { giveTurn(to: next) }
        }
    }

    /// Removes the next job from its queue and returns it: alternately one that has yielded and one that has not begun.
    private static func next(_ state: inout State, maxThreads: Int) -> Job? {
        let canBegin = !state.fresh.isEmpty && state.threads < maxThreads
        guard canBegin, state.waiting.isEmpty || !state.lastWasFresh else {
            state.lastWasFresh = false
            return state.waiting.isEmpty ? nil : state.waiting.removeFirst()
        }
        state.lastWasFresh = true
        state.threads += 1
        return state.fresh.removeFirst()
    }

    private func yield(_ job: Job) {
        let next = state.withLock { state -> Job? in
            guard let next = Self.next(&state, maxThreads: maxThreads) else { return nil }
            state.waiting.append(job)
            return next
        }
        guard let next else {
            _ = job.beginTurn()
            return
        }
        giveTurn(to: next)
        job.turn.wait()
    }
}
