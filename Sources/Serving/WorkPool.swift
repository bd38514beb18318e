import Foundation
import Synchronization

/// Does the CPU work of requests (reading JSON, making tokens, writing long answers) beside the threads that serve
/// connections and streams, which a large request would otherwise stop for everybody.
///
/// A few jobs run at once, each on a thread of its own. After a slice of time a job gives its turn to the job that has
/// waited longest, so that a small one is never behind a large one; a job whose client is gone ends at its next slice.
package final class WorkPool: Sendable {
    /// How many jobs may run at once, and how long one runs before others have a turn.
    private let turns: Int
    private let slice: Duration
    /// Jobs that have a thread; further ones wait for one of these to end.
    private let maxThreads: Int
    private let state = Mutex(State())

    private struct State {
        var running = 0
        var threads = 0
        /// Jobs that have begun and gave up their turn, and jobs that have not begun.
        var waiting: [Job] = []
        var fresh: [Job] = []
        var lastWasFresh = false
    }

    /// Work of fewer bytes is done where it is asked for: handing it over would take longer.
    package static let smallBytes = 16 << 10

    package init(turns: Int, slice: Duration = .milliseconds(5), maxThreads: Int = 64) {
        precondition(turns > 0 && maxThreads >= turns, "work needs a thread")
        self.turns = turns
        self.slice = slice
        self.maxThreads = maxThreads
    }

    /// One for all requests of a process. Two turns at least, so that one large request does not hold up the others.
    package static let shared = WorkPool(turns: max(2, ProcessInfo.processInfo.activeProcessorCount / 4))

    /// What a job knows of its turn while it runs.
    final class Job: Sendable {
        fileprivate let work: @Sendable () -> Void
        fileprivate let turn = DispatchSemaphore(value: 0)
        private let pool: WorkPool
        private let facts = Mutex((isCancelled: false, since: ContinuousClock.now, hasBegun: false))

        fileprivate init(pool: WorkPool, work: @escaping @Sendable () -> Void) {
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

        /// Whether to go on. Waits for the next turn first if this one is over.
        fileprivate func mayContinue() -> Bool {
            let (isCancelled, since) = facts.withLock { ($0.isCancelled, $0.since) }
            if isCancelled { return false }
            if since.duration(to: .now) >= pool.slice { pool.yield(self) }
            return !self.isCancelled
        }
    }

    @TaskLocal private static var current: Job?

    /// Whether the work of this thread is still wanted; true where it is not a pool's. Long work asks about every
    /// millisecond.
    package static var mayContinue: Bool { current?.mayContinue() ?? true }

    /// - Throws: `clientGone` where the work of this thread is not wanted any more.
    static func checkCancellation() throws(RequestError) {
        if current?.isCancelled == true { throw .clientGone }
    }

    /// Does `work`, on the pool if it is about many bytes.
    ///
    /// - Parameters:
    ///   - bytes: what the work is about, roughly.
    ///   - onStart: gets an action that makes the work end early, if it takes long enough to be worth it.
    package func run<Outcome: Sendable>(
        bytes: Int, onStart: (@escaping @Sendable () -> Void) async -> Void = { _ in },
        _ work: @escaping @Sendable () throws -> Outcome
    ) async throws -> Outcome {
        if bytes < Self.smallBytes { return try work() }
        let (outcomes, continuation) = AsyncStream.makeStream(of: Result<Outcome, any Error>.self)
        let slot = JobSlot()
        let job = Job(pool: self) {
            continuation.yield(Result { try Self.$current.withValue(slot.job) { try work() } })
            continuation.finish()
        }
        slot.job = job
        await onStart { job.cancel() }
        start(job)
        return try await withTaskCancellationHandler {
            for await outcome in outcomes {
                // The last turn's cancellation counts, whatever the work made of it.
                if job.isCancelled { throw RequestError.clientGone }
                return try outcome.get()
            }
            throw RequestError.clientGone
        } onCancel: {
            job.cancel()
        }
    }

    /// Lets a job's own closure find it.
    private final class JobSlot: Sendable {
        private let content = Mutex<Job?>(nil)
        var job: Job? {
            get { content.withLock { $0 } }
            set { content.withLock { $0 = newValue } }
        }
    }

    // MARK: - Turns

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
            // Behind ranks and connections wherever processors are short.
            #if os(Linux)
                _ = setpriority(Int32(PRIO_PROCESS.rawValue), 0, 10)
            #endif
            job.work()
            let next = state.withLock { state in
                state.threads -= 1
                let next = Self.next(&state, maxThreads: maxThreads)
                if next == nil { state.running -= 1 }
                return next
            }
            if let next { giveTurn(to: next) }
        }
    }

    /// The job whose turn it is, taken out of its queue: by turns one that has begun and one that has not.
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
