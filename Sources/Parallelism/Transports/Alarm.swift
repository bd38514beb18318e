import Foundation
import Synchronization
import Tensors

/// Ends all waits of a job when one of its ranks fails.
package final class Alarm: Sendable {
    private let isRaised = Atomic(false)
    private let state = Mutex(State())

    private struct State {
        var failure: GroupFailure?
        /// The counters that threads may wait for, weakly, because counters keep their alarm alive.
        var counters: [WeakCounter] = []
        /// At this many counters, those that no longer exist are removed.
        var pruneCount = 32
        var observers: [@Sendable () -> Void] = []
    }

    private struct WeakCounter {
        weak var counter: AbortableCounter?
    }

    /// Reports the failure to the other processes.
    private let announce: @Sendable (GroupFailure) -> Void

    package convenience init() { self.init(announce: { _ in }) }

    /// Creates an alarm.
    ///
    /// - Parameter announce: is called with the first failure, if it occurred in this process.
    init(announce: @escaping @Sendable (GroupFailure) -> Void) { self.announce = announce }

    /// The first failure, if there was one.
    package var failure: GroupFailure? { isRaised.load(ordering: .acquiring) ? state.withLock { $0.failure } : nil }

    /// Wakes all waiting threads, which throw the first failure that was raised.
    ///
    /// - Parameter isNews: whether other processes still have to be informed.
    package func raise(_ failure: GroupFailure, isNews: Bool = true) {
        let (isFirst, counters, observers) = state.withLock { state in
            let isFirst = state.failure == nil
            if isFirst { state.failure = failure }
            // Set under the lock: a counter that is added later, and so is not woken below, sees it before it sleeps.
            isRaised.store(true, ordering: .sequentiallyConsistent)
            return (isFirst, state.counters, isFirst ? state.observers : [])
        }
        if isFirst, isNews { announce(failure) }
        for counter in counters { counter.counter?.wake() }
        for observer in observers { observer() }
    }

    /// Calls `body` once when the alarm is raised, or at once if it already was.
    package func observe(_ body: @escaping @Sendable () -> Void) {
        let isRaised = state.withLock { state in
            if state.failure == nil { state.observers.append(body) }
            return state.failure != nil
        }
        if isRaised { body() }
    }

    /// Throws once the alarm has been raised.
    package func check() throws(GroupFailure) {
        if isRaised.load(ordering: .sequentiallyConsistent) { throw state.withLock { $0.failure! } }
    }

    fileprivate func add(_ counter: AbortableCounter) {
        state.withLock { state in
            if state.counters.count >= state.pruneCount {
                state.counters.removeAll { $0.counter == nil }
                state.pruneCount = 2 * state.counters.count + 32
            }
            state.counters.append(WeakCounter(counter: counter))
        }
    }
}

/// A counter of a group's members, which throw instead of waiting once the alarm has been raised.
final class AbortableCounter: Sendable {
    private let counter: EventCounter
    private let alarm: Alarm

    /// Creates a counter at zero.
    ///
    /// - Parameters:
    ///   - period: sleepers are woken when the count becomes a multiple of this.
    ///   - spins: the number of looks before a thread sleeps; few if ranks outnumber cores.
    init(period: Int, spins: Int, alarm: Alarm) {
        counter = EventCounter(period: period, spins: spins)
        self.alarm = alarm
        alarm.add(self)
    }

    var value: Int { counter.value }

    /// Adds one.
    ///
    /// - Returns: the new count.
    @discardableResult func advance() -> Int { counter.advance() }

    /// Waits until the count is at least `target`, or throws once the alarm has been raised.
    ///
    /// - Parameter spins: the number of looks before sleep, if it is not the counter's own.
    func wait(for target: Int, spins: Int? = nil) throws(GroupFailure) {
        if !counter.wait(for: target, spins: spins, unless: { alarm.failure != nil }) { try alarm.check() }
    }

    func wake() { counter.wake() }
}
