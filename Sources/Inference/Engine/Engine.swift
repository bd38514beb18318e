import Foundation
package import Grammar
package import Modeling
package import Parallelism
import Synchronization

/// The engine turns requests into tokens: it owns the scheduler, and a thread that submits the scheduler's plans to the
/// ranks.
///
/// The scheduler is touched only under the lock, and the lock is never held while a model runs or an event is
/// delivered. The engine has a thread of its own because steps block, which Swift's cooperative thread pool does not
/// allow.
package final class Engine: EngineClient {
    package let limits: EngineLimits
    private let state: TrapLock<State>
    /// The streams of the requests. Events are queued under the engine's lock, and delivered without it.
    private let delivery = EventDelivery()
    private let drainWaiters = DrainWaiters()
    /// The published status is written whenever the state changes, and its part about the ranks once per step. It is
    /// read without the lock of `state`.
    private let published = PublishedStatus()
    private let timelines = TimelineRequests()
    /// Yields the failure that ended service, at most once, and finishes when the engine is stopped.
    package let failures: AsyncStream<EngineFailure>
    private let failed: AsyncStream<EngineFailure>.Continuation
    private let makePool: @Sendable () -> RankPool
    private let grammars: GrammarCache?
    private let restartsOnFailure: Bool
    private let trace: TraceWriter?
    private let log: @Sendable (String) -> Void
    /// Returns the violated invariants of a scheduler. It runs after every step with `--check-invariants`; otherwise it
    /// is `nil`.
    private let audit: (@Sendable (Scheduler) -> [String])?
    /// Signals the engine's thread that there may be work.
    private let wake: DispatchSemaphore

    private struct State {
        var scheduler: Scheduler
        var pool: RankPool
        /// Carries out what the scheduler wants of another server; `nil` if this server computes whole requests only.
        var partner: (any TransferPartner)?
        /// Keeps blocks of the prefix cache outside of it; `nil` if nothing does.
        var store: (any PrefixStore)?
        /// The number of restarts of the ranks since the last completed step.
        var restarts = 0
        var nextID: UInt64 = 1
        var isStopped = false
    }

    /// Starts the ranks and the engine's thread.
    ///
    /// - Parameters:
    ///   - configuration: A valid configuration; see `EngineConfiguration.validate`.
    ///   - processes: The processes the ranks are divided among; `nil` where all ranks run in this one. See `RankPool`.
    ///   - grammars: The grammar cache of the model's vocabulary. Without it, requests that follow a grammar are
    ///     refused.
    ///   - trace: The trace that receives everything the ranks do.
    ///   - log: Receives single lines that an operator should read.
    ///   - audit: Returns the violated invariants of a scheduler. It is called after every step where the configuration
    ///     asks for it.
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
        state = TrapLock(State(scheduler: scheduler, pool: pool))
        Thread { [self] in
            ThreadName.current = "braid engine"
            Traps.shared.watch(onTrap: { self.end(afterTrap: $0, of: "the engine's thread") }, while: run)
        }.start()
    }

    /// Extends trap handling to every thread of the process, such as a server's: from now on a trap of any of them ends
    /// every request with an error and service with a failure.
    package func answerForAllThreads() {
        Traps.shared.watchOtherThreads { [weak self] in self?.end(afterTrap: $0, of: "a thread of this process") }
    }

    /// Ends every request after a trap. The thread that trapped may hold any lock, so this takes no lock but those of
    /// the streams and of the waiting callers. The reader of `failures` then ends or restarts the process; if it does not,
    /// the thread that trapped does so after its grace period.
    package func end(afterTrap signal: String, of thread: String) {
        let reason = "\(thread) trapped (\(signal))"
        state.noteTrap()
        delivery.end(with: reason)
        // The failure comes before the end of a drain, after which a process could end as if it had served everything.
        failed.yield(EngineFailure(reason: reason, isTrap: true))
        drainWaiters.end()
        published.fail(reason)
    }

    /// Changes the state under its lock and publishes the new status.
    private func update<Result>(_ change: (inout State) -> Result) -> Result {
        state.withLock { state in
            defer { published.publish(state.scheduler) }
            return change(&state)
        }
    }

    /// Changes the state as `update` does, and does not wait for a thread that has trapped.
    ///
    /// - Returns: `nil` after a trap.
    private func updateUnlessTrapped<Result>(_ change: (inout State) -> Result) -> Result? {
        state.withLockUnlessTrapped { state in
            defer { published.publish(state.scheduler) }
            return change(&state)
        }
    }

    /// The reason that callers get after a trap.
    private var trapReason: String { published.failure ?? "a thread trapped" }
    private var trapError: EngineError { .failed(trapReason) }

    package func prepare(_ grammar: GrammarSource) throws(EngineError) { try grammar.compile(with: grammars) }

    package func cachedTokens(of id: UInt64) -> Int? {
        state.withLockUnlessTrapped { $0.scheduler.cachedTokens(of: id) } ?? nil
    }

    package func submit(_ request: GenerationRequest) throws(EngineError) -> Generation {
        if state.hasTrapped { throw trapError }
        try request.checkGrammar(with: grammars)
        let (events, continuation) = AsyncStream.makeStream(of: GenerationEvent.self)
        let outcome = updateUnlessTrapped { state -> Result<UInt64, EngineError> in
            let id = state.nextID
            do throws(EngineError) {
                guard request.mode == .none || request.mode == .decode && state.partner?.computesPrompts == true else {
                    throw .invalid(
                        parameter: "mode", message: "is \(request.mode), and this engine has no prefill server to ask")
                }
                try state.scheduler.submit(id, request)
            } catch {
                return .failure(error)
            }
            state.nextID += 1
            delivery.add(continuation, for: id)
            settle(&state)
            return .success(id)
        }
        guard let id = try outcome?.get() else { throw trapError }
        // A trap ends the streams that there are, and this one may have been added after that.
        if state.hasTrapped { delivery.end(with: trapReason) }
        delivery.deliver()
        continuation.onTermination = { [weak self] reason in
            if case .cancelled = reason { self?.abort(id) }
        }
        wake.signal()
        return Generation(id: id, events: events)
    }

    /// Gives the engine a partner.
    ///
    /// - Precondition: It has none.
    package func attach(_ partner: any TransferPartner) {
        update { state in
            precondition(state.partner == nil, "an engine has one partner")
            state.partner = partner
        }
    }

    /// Gives the engine a store for prefixes, before the first request.
    ///
    /// - Precondition: It has none, and has a prefix cache.
    package func attach(_ store: any PrefixStore) {
        update { state in
            precondition(state.store == nil, "an engine has one prefix store")
            precondition(state.scheduler.configuration.prefixCache, "a prefix store needs the prefix cache")
            state.store = store
            state.scheduler.storedBlock = store.blockTokens
        }
    }

    /// Reads the scheduler and the caches of all processes under the engine's lock. What `body` has packed of pages in the
    /// prefix cache is final, because no step writes them.
    ///
    /// - Returns: `nil` after a trap.
    package func inspect<Result>(_ body: (borrowing Scheduler, ServerCaches) -> Result) -> Result? {
        if state.hasTrapped { return nil }
        return state.withLock { body($0.scheduler, $0.pool.caches) }
    }

    /// Tells the scheduler what another server has sent, or takes from the cache what is sent to it.
    ///
    /// - Parameter body: Receives the scheduler and the caches of all processes, under the engine's lock, and returns the
    ///   events that follow. It is not called after a trap.
    package func exchange(_ body: (inout Scheduler, ServerCaches) -> [Scheduler.Event]) {
        if state.hasTrapped { return }
        update { state in
            let events = body(&state.scheduler, state.pool.caches)
            settle(&state, events)
        }
        delivery.deliver()
        wake.signal()
    }

    /// The error that new requests would get (`draining` or `failed`); `nil` while requests are accepted. Reading it
    /// takes no lock of the engine.
    package var refusal: EngineError? {
        let status = published.value
        if let failure = status.failure { return .failed(failure) }
        return status.isDraining ? .draining : nil
    }

    package func status() -> EngineStatus { published.value }

    package func timeline() -> StepTimeline? { timelines.ask() }

    package func flushCache() async throws(EngineError) -> Int {
        let freed = updateUnlessTrapped { state -> Result<Int, EngineError> in
            if let failure = state.scheduler.failure { return .failure(.failed(failure)) }
            return .success(state.scheduler.flushCache())
        }
        guard let freed = try freed?.get() else { throw trapError }
        return freed
    }

    package func drain() async {
        guard updateUnlessTrapped({ $0.scheduler.drain() }) != nil else { return }
        // No request comes from here on, so an engine that is idle stays so. Its thread may have found it idle before this
        // caller waits, therefore it is asked once more.
        let idle = drainWaiters.add()
        if updateUnlessTrapped({ $0.scheduler.isIdle }) ?? true { drainWaiters.resume() }
        for await _ in idle {}
    }

    package func stop(_ reason: String) {
        let isStopped: Void? = updateUnlessTrapped { state in
            state.isStopped = true
            settle(&state, state.scheduler.fail(reason))
        }
        if isStopped == nil { return }
        delivery.deliver()
        wake.signal()
    }

    /// Returns the invariants that are violated right now, in words; empty when every page is accounted for.
    package func checkInvariants() -> [String] { state.withLock { $0.scheduler.checkInvariants() } }

    package func abort(_ id: UInt64) {
        let isAborted: Void? = state.withLockUnlessTrapped { state in
            // Publishes the ranks' part too: no later step may come to update how many tokens each rank owns.
            defer { published.publish(state.pool, state.scheduler) }
            settle(&state, state.scheduler.abort(id))
        }
        if isAborted == nil { return }
        delivery.deliver()
        wake.signal()
    }

    /// Runs the engine's loop: take the results of finished steps, plan the next step, submit it to the ranks.
    private func run() {
        while true {
            let pool = state.withLock { $0.pool }
            while let outcome = pool.nextResult() {
                if let timeline = outcome.timeline { timelines.keep(timeline) }
                traced("finish") {
                    state.withLock { state in
                        state.restarts = 0
                        // After `fail` the scheduler no longer knows its steps in flight.
                        guard state.scheduler.isStepInFlight else { return }
                        let events = state.scheduler.finish(outcome.result, seconds: outcome.seconds)
                        published.publish(pool, state.scheduler)
                        // A violated invariant ends service, which must show in the status at once.
                        defer { published.publish(state.scheduler) }
                        settle(&state, events)
                        endIfInvariantsAreViolated(&state)
                    }
                    delivery.deliver()
                }
            }
            if pool.stored.takeNews() { state.withLock { $0.partner?.keysAreStored() } }
            if let failure = pool.failure, replace(pool, after: failure) { continue }
            let plan = traced("plan") {
                update { state in
                    defer { settle(&state) }
                    return state.isStopped ? nil : state.scheduler.nextStep()
                }
            }
            delivery.deliver()
            if var plan {
                plan.isTraced = timelines.takeNext()
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

    /// Checks the invariants, where the configuration asks for it, and ends service if one is violated: the scheduler's
    /// other state can then not be trusted either.
    private func endIfInvariantsAreViolated(_ state: inout State) {
        guard let audit, state.scheduler.failure == nil else { return }
        let problems = audit(state.scheduler)
        guard !problems.isEmpty else { return }
        let reason =
            "invariants are violated after step \(state.scheduler.status.steps) (--check-invariants): "
            + problems.prefix(Self.maxProblems).joined(separator: "; ")
        failed.yield(EngineFailure(reason: reason, isTrap: false))
        settle(&state, state.scheduler.fail(reason))
    }

    /// The maximum number of violated invariants that one message lists.
    private static let maxProblems = 5

    /// Ends every request after the ranks failed, and starts new ranks if the configuration and the failure allow it.
    /// Otherwise every later request fails with the same reason.
    ///
    /// - Returns: True if new ranks were started.
    private func replace(_ pool: RankPool, after failure: GroupFailure) -> Bool {
        // After a trap no memory of this process can be relied on; and ranks that fail at once would be restarted
        // forever.
        let (restarts, isNews) = update { state in
            let isNews = state.scheduler.failure == nil
            settle(&state, state.scheduler.fail(failure.description))
            let restarts =
                restartsOnFailure && isNews && !state.isStopped && !pool.hasTrapped
                && state.restarts < Self.maxFutileRestarts
            if restarts {
                state.scheduler.restart()
                state.restarts += 1
            }
            return (restarts, isNews)
        }
        delivery.deliver()
        if isNews, !restarts { failed.yield(EngineFailure(reason: failure.description, isTrap: pool.hasTrapped)) }
        guard restarts else { return false }
        log("\(failure); starting new ranks")
        pool.stop()
        let fresh = makePool()
        update { state in
            // Prefixes that were restored meanwhile are in the cache of the old ranks.
            state.scheduler.dropRestored()
            state.pool = fresh
            published.publish(fresh, state.scheduler)
        }
        log("new ranks are ready")
        return true
    }

    /// The maximum number of restarts of ranks without a completed step between them.
    private static let maxFutileRestarts = 3

    private func traced<Result>(_ name: StaticString, _ body: () -> Result) -> Result {
        guard let trace else { return body() }
        let began = Meter.now()
        defer { trace.write(TraceSpan(name, begin: began, end: Meter.now())) }
        return body()
    }

    private func finishDrain() {
        if state.withLock({ $0.scheduler.isIdle }) { drainWaiters.resume() }
    }

    /// Lets the partner carry out what the scheduler wants of another server, tells the store which prefixes are looked
    /// for and which are new, and queues the events for delivery. It must be called after every change of the scheduler,
    /// and before the next plan is submitted.
    private func settle(_ state: inout State, _ events: [Scheduler.Event] = []) {
        if let partner = state.partner {
            // What the partner answers may allow another plan.
            if state.scheduler.hasTransferActions { wake.signal() }
            delivery.queue(partner.carryOut(&state.scheduler, events))
        } else {
            delivery.queue(events)
        }
        guard let store = state.store else { return }
        for lookup in state.scheduler.takePrefixLookups() where !store.restore(lookup, for: self) {
            state.scheduler.endRestoring(lookup.request)
            wake.signal()
        }
        for prefix in state.scheduler.takeStorablePrefixes() { store.save(prefix, from: self) }
    }
}
