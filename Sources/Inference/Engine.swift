import Foundation
package import Models
import Parallelism
import Synchronization

/// Requests in, tokens out: the scheduler, and the thread that hands its plans to the ranks.
///
/// Two rules keep it simple. The scheduler is touched only under the lock, and the lock is never held while a model
/// runs or an event is delivered. The thread is an ordinary one, because steps block and the cooperative pool must not.
package final class Engine: EngineClient {
    package let limits: EngineLimits
    private let state: Mutex<State>
    /// Raised when there may be something to do.
    private let wake = DispatchSemaphore(value: 0)

    private struct State {
        var scheduler: Scheduler
        let pool: RankPool
        var streams: [UInt64: AsyncStream<GenerationEvent>.Continuation] = [:]
        var nextID: UInt64 = 1
        var drained: [CheckedContinuation<Void, Never>] = []
        var isStopped = false
    }

    /// Starts the engine's thread.
    ///
    /// - Parameter configuration: must be valid; see `EngineConfiguration.validate`.
    package init(_ model: any Model, _ configuration: EngineConfiguration) {
        let scheduler = Scheduler(configuration: configuration.scheduler(for: model))
        limits = scheduler.limits
        let pool = RankPool(model, configuration, progress: wake)
        state = Mutex(State(scheduler: scheduler, pool: pool))
        let thread = Thread { [self] in run(pool) }
        thread.name = "braid coordinator"
        thread.start()
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

    package func status() -> EngineStatus {
        var (status, pool) = state.withLock { ($0.scheduler.status, $0.pool) }
        status.layout = pool.layout
        status.ranks = pool.status
        return status
    }

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

    private func abort(_ id: UInt64) {
        let deliveries = state.withLock { state in
            take(state.scheduler.abort(id), &state)
        }
        deliver(deliveries)
        wake.signal()
    }

    /// The coordinator's loop: take results, plan, hand out.
    private func run(_ pool: RankPool) {
        while true {
            while let outcome = pool.nextResult() {
                let deliveries = state.withLock { state in
                    // A stopped scheduler has forgotten its steps.
                    guard state.scheduler.isStepInFlight else { return [Delivery]() }
                    return take(state.scheduler.finish(outcome.result, seconds: outcome.seconds), &state)
                }
                deliver(deliveries)
            }
            if let failure = pool.failure { fail(failure) }
            if let plan = state.withLock({ $0.isStopped ? nil : $0.scheduler.nextStep() }) {
                pool.submit(plan)
                continue
            }
            finishDrain()
            if state.withLock({ $0.isStopped }) { return pool.stop() }
            wake.wait()
        }
    }

    /// The ranks are lost: every request ends with the reason, and so does every later one.
    private func fail(_ failure: GroupFailure) {
        deliver(state.withLock { take($0.scheduler.fail(failure.description), &$0) })
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
