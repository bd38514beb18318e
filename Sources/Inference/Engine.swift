import Foundation
package import Models
package import Parallelism
import Synchronization

/// Requests in, tokens out: the scheduler, and the thread that hands its plans to the ranks.
///
/// Two rules keep it simple. The scheduler is touched only under the lock, and the lock is never held while a model
/// runs or an event is delivered. The thread is an ordinary one, because steps block and the cooperative pool must not.
package final class Engine: EngineClient {
    package let limits: EngineLimits
    private let state: Mutex<State>
    /// The failure that ended service, once; ends when the engine is stopped.
    package let failures: AsyncStream<EngineFailure>
    private let failed: AsyncStream<EngineFailure>.Continuation
    private let makePool: @Sendable () -> RankPool
    private let restartsOnFailure: Bool
    private let trace: TraceWriter?
    private let log: @Sendable (String) -> Void
    /// Says after every step what is wrong with the books; `nil` where nobody looks.
    private let audit: (@Sendable (Scheduler) -> [String])?
    /// Raised when there may be something to do.
    private let wake: DispatchSemaphore

    private struct State {
        var scheduler: Scheduler
        var pool: RankPool
        /// Since a step was completed.
        var restarts = 0
        var streams: [UInt64: AsyncStream<GenerationEvent>.Continuation] = [:]
        var nextID: UInt64 = 1
        var drained: [CheckedContinuation<Void, Never>] = []
        var isStopped = false
    }

    /// Starts the engine's thread.
    ///
    /// - Parameters:
    ///   - configuration: must be valid; see `EngineConfiguration.validate`.
    ///   - processes: where ranks live, if not all in this one; see `RankPool`.
    ///   - trace: where everything the ranks do is written.
    ///   - log: called with a line about what an operator should know.
    ///   - audit: says what is wrong with the books, where the configuration asks for that.
    package init(
        _ model: any Model, _ configuration: EngineConfiguration, processes: Processes? = nil,
        trace: TraceWriter? = nil, log: @escaping @Sendable (String) -> Void = { _ in },
        audit: @escaping @Sendable (Scheduler) -> [String] = { $0.checkInvariants() }
    ) {
        let scheduler = Scheduler(configuration: configuration.scheduler(for: model))
        limits = scheduler.limits
        let wake = DispatchSemaphore(value: 0)
        self.wake = wake
        makePool = { RankPool(model, configuration, processes: processes, trace: trace, progress: wake) }
        self.trace = trace
        restartsOnFailure = configuration.restartsOnFailure
        self.log = log
        self.audit = configuration.checksInvariants ? audit : nil
        (failures, failed) = AsyncStream.makeStream(of: EngineFailure.self)
        state = Mutex(State(scheduler: scheduler, pool: makePool()))
        Thread { [self] in
            ThreadName.current = "braid engine"
            run()
        }.start()
    }

    package func submit(_ request: GenerationRequest) throws(EngineError) -> Generation {
        let (events, continuation) = AsyncStream.makeStream(of: GenerationEvent.self)
        let outcome: Result<UInt64, EngineError> = state.withLock { state in
            let id = state.nextID
            do throws(EngineError) {
                try state.scheduler.submit(id, request)
            } catch {
                return .failure(error)
            }
            state.nextID += 1
            state.streams[id] = continuation
            return .success(id)
        }
        let id = try outcome.get()
        continuation.onTermination = { [weak self] reason in
            if case .cancelled = reason { self?.abort(id) }
        }
        wake.signal()
        return Generation(id: id, events: events)
    }

    package var refusal: EngineError? {
        state.withLock { state in
            if let failure = state.scheduler.failure { return .failed(failure) }
            return state.scheduler.isDraining ? .draining : nil
        }
    }

    package func status() -> EngineStatus {
        var (status, pool, computed) = state.withLock { ($0.scheduler.status, $0.pool, $0.scheduler.computedTokens) }
        let parallel = pool.configuration
        status.layout = pool.layout
        status.threadsPerRank = pool.threadsPerRank
        status.keyOwners = parallel.ownership.ranks
        status.keyUnit = parallel.ownership.unit
        status.ranks = pool.status
        for rank in status.ranks.indices {
            let (owner, group) = (
                parallel.place(of: rank, along: .ownership), parallel.mesh.coordinate(of: rank, on: .data)
            )
            status.ranks[rank].keyOwner = owner
            status.ranks[rank].ownedTokens = computed.reduce(0) {
                $1.group == group ? $0 + parallel.ownership.count(of: $1.tokens, for: owner) : $0
            }
        }
        return status
    }

    package func flushCache() -> Int { state.withLock { $0.scheduler.flushCache() } }

    package func drain() async {
        await withCheckedContinuation { continuation in
            let isIdle = state.withLock { state in
                state.scheduler.drain()
                if !state.scheduler.isIdle { state.drained.append(continuation) }
                return state.scheduler.isIdle
            }
            if isIdle { continuation.resume() }
        }
    }

    /// Ends the engine's thread; requests still running fail.
    package func stop() {
        let deliveries = state.withLock { state in
            state.isStopped = true
            return take(state.scheduler.fail("the engine was stopped"), &state)
        }
        deliver(deliveries)
        wake.signal()
    }

    /// What is wrong with the bookkeeping right now; empty when every page is accounted for.
    package func checkInvariants() -> [String] { state.withLock { $0.scheduler.checkInvariants() } }

    package func abort(_ id: UInt64) {
        let deliveries = state.withLock { state in
            take(state.scheduler.abort(id), &state)
        }
        deliver(deliveries)
        wake.signal()
    }

    /// The coordinator's loop: take results, plan, hand out.
    private func run() {
        while true {
            let pool = state.withLock { $0.pool }
            while let outcome = pool.nextResult() {
                traced("finish") {
                    let deliveries = state.withLock { state in
                        state.restarts = 0
                        // A stopped scheduler has forgotten its steps.
                        guard state.scheduler.isStepInFlight else { return [Delivery]() }
                        let events = state.scheduler.finish(outcome.result, seconds: outcome.seconds)
                        return take(events, &state) + audited(&state)
                    }
                    deliver(deliveries)
                }
            }
            if let failure = pool.failure, replace(pool, after: failure) { continue }
            if let plan = traced("plan", { state.withLock { $0.isStopped ? nil : $0.scheduler.nextStep() } }) {
                pool.submit(plan)
                continue
            }
            finishDrain()
            if state.withLock({ $0.isStopped }) {
                failed.finish()
                return pool.stop()
            }
            pool.waitForProgress()
        }
    }

    /// Ends service where the books are wrong, if anybody looks: what else they say could be wrong too.
    private func audited(_ state: inout State) -> [Delivery] {
        guard let audit, state.scheduler.failure == nil else { return [] }
        let problems = audit(state.scheduler)
        guard !problems.isEmpty else { return [] }
        let reason =
            "the books are wrong after step \(state.scheduler.status.steps) (--check-invariants): "
            + problems.prefix(Self.mostProblems).joined(separator: "; ")
        failed.yield(EngineFailure(reason: reason, isTrap: false))
        return take(state.scheduler.fail(reason), &state)
    }

    /// Of those in one message.
    private static let mostProblems = 5

    /// The ranks are lost: every request ends with the reason. Then there are new ranks, or every later request ends
    /// with it too.
    ///
    /// - Returns: whether there are new ranks.
    private func replace(_ pool: RankPool, after failure: GroupFailure) -> Bool {
        // After a trap nothing in this process can be relied on; and ranks that fail at once would do so for ever.
        let (deliveries, restarts, isNews) = state.withLock { state in
            let isNews = state.scheduler.failure == nil
            let deliveries = take(state.scheduler.fail(failure.description), &state)
            let restarts =
                restartsOnFailure && isNews && !state.isStopped && !pool.hasTrapped
                && state.restarts < Self.mostFutileRestarts
            if restarts {
                state.scheduler.restart()
                state.restarts += 1
            }
            return (deliveries, restarts, isNews)
        }
        deliver(deliveries)
        if isNews, !restarts { failed.yield(EngineFailure(reason: failure.description, isTrap: pool.hasTrapped)) }
        guard restarts else { return false }
        log("\(failure); starting new ranks")
        pool.stop()
        let fresh = makePool()
        state.withLock { $0.pool = fresh }
        log("new ranks are ready")
        return true
    }

    /// Without a completed step between them.
    private static let mostFutileRestarts = 3

    private func traced<Result>(_ name: StaticString, _ body: () -> Result) -> Result {
        guard let trace else { return body() }
        let began = Meter.now()
        defer { trace.write(TraceSpan(name, begin: began, end: Meter.now())) }
        return body()
    }

    private func finishDrain() {
        let waiting = state.withLock { state in
            guard state.scheduler.isIdle else { return [CheckedContinuation<Void, Never>]() }
            defer { state.drained = [] }
            return state.drained
        }
        for continuation in waiting { continuation.resume() }
    }

    private typealias Delivery = (AsyncStream<GenerationEvent>.Continuation, GenerationEvent, last: Bool)

    /// Pairs events with the streams they go to, forgetting streams that end.
    private func take(_ events: [Scheduler.Event], _ state: inout State) -> [Delivery] {
        events.compactMap { event in
            guard let stream = state.streams[event.request] else { return nil }
            switch event.event {
            case .finished, .failed:
                state.streams[event.request] = nil
                return (stream, event.event, last: true)
            case .token, .promptLogProbs:
                return (stream, event.event, last: false)
            }
        }
    }

    /// Outside the lock: a stream's end may call back into `abort`.
    private func deliver(_ deliveries: [Delivery]) {
        for (stream, event, last) in deliveries {
            stream.yield(event)
            if last { stream.finish() }
        }
    }
}
