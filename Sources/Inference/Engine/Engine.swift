import Foundation
package import Grammar
package import Modeling
package import Parallelism
import Synchronization

/// Requests in, tokens out: the scheduler, and the thread that hands its plans to the ranks.
///
/// Two rules keep it simple. The scheduler is touched only under the lock, and the lock is never held while a model
/// runs or an event is delivered. The thread is an ordinary one, because steps block and the cooperative pool must not.
package final class Engine: EngineClient {
    package let limits: EngineLimits
    private let state: Mutex<State>
    /// Where the events of each request go. Apart from the state, whose lock a thread that trapped may hold for ever.
    private let streams = Mutex<[UInt64: AsyncStream<GenerationEvent>.Continuation]>([:])
    /// Written when the state has changed, with the ranks' part once a step; read without the state's lock.
    private let published = PublishedStatus()
    /// Whether a thread of this process trapped that the engine cannot do without.
    private let hasTrapped = Atomic(false)
    /// The failure that ended service, once; ends when the engine is stopped.
    package let failures: AsyncStream<EngineFailure>
    private let failed: AsyncStream<EngineFailure>.Continuation
    private let makePool: @Sendable () -> RankPool
    private let grammars: GrammarCache?
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
        var nextID: UInt64 = 1
        var drained: [CheckedContinuation<Void, Never>] = []
        var isStopped = false
    }

    /// Starts the engine's thread.
    ///
    /// - Parameters:
    ///   - configuration: must be valid; see `EngineConfiguration.validate`.
    ///   - processes: where ranks live, if not all in this one; see `RankPool`.
    ///   - grammars: of the model's vocabulary; without it requests that follow a grammar are refused.
    ///   - trace: where everything the ranks do is written.
    ///   - log: called with a line about what an operator should know.
    ///   - audit: says what is wrong with the books, where the configuration asks for that.
    package init(
        _ model: any Model, _ configuration: EngineConfiguration, processes: Processes? = nil,
        grammars: GrammarCache? = nil, trace: TraceWriter? = nil, log: @escaping @Sendable (String) -> Void = { _ in },
        audit: @escaping @Sendable (Scheduler) -> [String] = { $0.checkInvariants() }
    ) {
        precondition(
            grammars?.vocabulary.size ?? model.vocabularySize == model.vocabularySize,
            "the grammars' vocabulary is of another size than the model's")
        let scheduler = Scheduler(configuration: configuration.scheduler(for: model))
        limits = scheduler.limits
        let wake = DispatchSemaphore(value: 0)
        self.wake = wake
        makePool = {
            RankPool(model, configuration, processes: processes, grammars: grammars, trace: trace, progress: wake)
        }
        self.grammars = grammars
        self.trace = trace
        restartsOnFailure = configuration.restartsOnFailure
        self.log = log
        self.audit = configuration.checksInvariants ? audit : nil
        (failures, failed) = AsyncStream.makeStream(of: EngineFailure.self)
        let pool = makePool()
        published.publish(pool, scheduler)
        state = Mutex(State(scheduler: scheduler, pool: pool))
        Thread { [self] in
            ThreadName.current = "braid engine"
            Traps.shared.watch(onTrap: { self.end(afterTrap: $0, of: "the engine's thread") }, while: run)
        }.start()
    }

    /// From now on also a trap of a thread that is neither a rank's nor the engine's, such as a server's, ends every
    /// request with an error and service with a failure.
    package func answerForAllThreads() {
        Traps.shared.watchOtherThreads { [weak self] in self?.end(afterTrap: $0, of: "a thread of this process") }
    }

    /// The thread that trapped may hold any lock: only what needs none but the streams' own is done. `failures` tells
    /// whoever ends or restarts the process; the thread that trapped does it, if nobody else.
    private func end(afterTrap signal: String, of thread: String) {
        let reason = "\(thread) trapped (\(signal))"
        hasTrapped.store(true, ordering: .releasing)
        let streams = streams.withLock { streams in
            defer { streams = [:] }
            return Array(streams.values)
        }
        for stream in streams {
            stream.yield(.failed(reason))
            stream.finish()
        }
        failed.yield(EngineFailure(reason: reason, isTrap: true))
        published.fail(reason)
    }

    /// Changes the state, and publishes what others may know of it.
    private func update<Result>(_ change: (inout State) -> Result) -> Result {
        state.withLock { state in
            defer { published.publish(state.scheduler) }
            return change(&state)
        }
    }

    package func submit(_ request: GenerationRequest) throws(EngineError) -> Generation {
        if hasTrapped.load(ordering: .acquiring) { throw .failed(published.failure ?? "a thread trapped") }
        try request.checkGrammar(with: grammars)
        let (events, continuation) = AsyncStream.makeStream(of: GenerationEvent.self)
        let outcome: Result<UInt64, EngineError> = update { state in
            let id = state.nextID
            do throws(EngineError) {
                try state.scheduler.submit(id, request)
            } catch {
                return .failure(error)
            }
            state.nextID += 1
            streams.withLock { $0[id] = continuation }
            return .success(id)
        }
        let id = try outcome.get()
        continuation.onTermination = { [weak self] reason in
            if case .cancelled = reason { self?.abort(id) }
        }
        wake.signal()
        return Generation(id: id, events: events)
    }

    /// The reason why new work would be refused: draining or failed; `nil` while it is taken. Takes no lock of the engine.
    package var refusal: EngineError? {
        let status = published.value
        if let failure = status.failure { return .failed(failure) }
        return status.isDraining ? .draining : nil
    }

    package func status() -> EngineStatus { published.value }

    package func flushCache() -> Int { update { $0.scheduler.flushCache() } }

    package func drain() async {
        await withCheckedContinuation { continuation in
            let isIdle = update { state in
                state.scheduler.drain()
                if !state.scheduler.isIdle { state.drained.append(continuation) }
                return state.scheduler.isIdle
            }
            if isIdle { continuation.resume() }
        }
    }

    package func stop(_ reason: String) {
        if hasTrapped.load(ordering: .acquiring) { return }
        let deliveries = update { state in
            state.isStopped = true
            return take(state.scheduler.fail(reason))
        }
        deliver(deliveries)
        wake.signal()
    }

    /// What is wrong with the bookkeeping right now; empty when every page is accounted for.
    package func checkInvariants() -> [String] { state.withLock { $0.scheduler.checkInvariants() } }

    package func abort(_ id: UInt64) {
        if hasTrapped.load(ordering: .acquiring) { return }
        let deliveries = state.withLock { state in
            // No step may follow that would say which tokens ranks still own.
            defer { published.publish(state.pool, state.scheduler) }
            return take(state.scheduler.abort(id))
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
                        published.publish(pool, state.scheduler)
                        // An audit that finds something ends service, which others are to know at once.
                        defer { published.publish(state.scheduler) }
                        return take(events) + audited(&state)
                    }
                    deliver(deliveries)
                }
            }
            if let failure = pool.failure, replace(pool, after: failure) { continue }
            if let plan = traced("plan", { update { $0.isStopped ? nil : $0.scheduler.nextStep() } }) {
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
            + problems.prefix(Self.maxProblems).joined(separator: "; ")
        failed.yield(EngineFailure(reason: reason, isTrap: false))
        return take(state.scheduler.fail(reason))
    }

    /// Problems that one message names.
    private static let maxProblems = 5

    /// The ranks are lost: every request ends with the reason. Then there are new ranks, or every later request ends
    /// with it too.
    ///
    /// - Returns: whether there are new ranks.
    private func replace(_ pool: RankPool, after failure: GroupFailure) -> Bool {
        // After a trap nothing in this process can be relied on; and ranks that fail at once would do so for ever.
        let (deliveries, restarts, isNews) = update { state in
            let isNews = state.scheduler.failure == nil
            let deliveries = take(state.scheduler.fail(failure.description))
            let restarts =
                restartsOnFailure && isNews && !state.isStopped && !pool.hasTrapped
                && state.restarts < Self.maxFutileRestarts
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
        state.withLock { state in
            state.pool = fresh
            published.publish(fresh, state.scheduler)
        }
        log("new ranks are ready")
        return true
    }

    /// Without a completed step between them.
    private static let maxFutileRestarts = 3

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
    private func take(_ events: [Scheduler.Event]) -> [Delivery] {
        streams.withLock { streams in
            events.compactMap { event in
                guard let stream = streams[event.request] else { return nil }
                switch event.event {
                case .finished, .failed:
                    streams[event.request] = nil
                    return (stream, event.event, last: true)
                case .token, .promptLogProbs:
                    return (stream, event.event, last: false)
                }
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
