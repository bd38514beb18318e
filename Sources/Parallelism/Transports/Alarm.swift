import Foundation
import Synchronization
import Tensors

/// Ends all waiting of a job when one of its ranks fails.
package final class Alarm: Sendable {
    private let isRaised = Atomic(false)
    private let state = Mutex(State())

    private struct State {
        var failure: GroupFailure?
        /// Those who may be waited for. Counters keep their alarm, so the alarm does not keep them.
        var counters: [WeakCounter] = []
        /// How many of those there may be before the ones that are gone are looked for.
        var pruneCount = 32
        var observers: [@Sendable () -> Void] = []
    }

    private struct WeakCounter {
        weak var counter: AbortableCounter?
    }

    /// Tells the other processes.
    private let announce: @Sendable (GroupFailure) -> Void

    package convenience init() { self.init(announce: { _ in }) }

    /// - Parameter announce: called with the first failure, if it is one of this process.
    init(announce: @escaping @Sendable (GroupFailure) -> Void) { self.announce = announce }

    /// The first failure, if there was one.
    package var failure: GroupFailure? { isRaised.load(ordering: .acquiring) ? state.withLock { $0.failure } : nil }

    /// Wakes everybody who waits; they throw the first failure that was raised.
    ///
    /// - Parameter isNews: whether other processes do not know of it yet.
    package func raise(_ failure: GroupFailure, isNews: Bool = true) {
        let (isFirst, counters, observers) = state.withLock { state in
            let isFirst = state.failure == nil
            if isFirst { state.failure = failure }
            // Under the lock: who adds a counter from now on, and so is not woken below, sees it before falling asleep.
            isRaised.store(true, ordering: .sequentiallyConsistent)
            return (isFirst, state.counters, isFirst ? state.observers : [])
        }
        if isFirst, isNews { announce(failure) }
        for counter in counters { counter.counter?.wake() }
        for observer in observers { observer() }
    }

    /// `body` is called once, when the alarm has been raised.
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

/// A counter of a group's members, who throw instead of waiting once the alarm has been raised.
final class AbortableCounter: Sendable {
    private let counter: EventCounter
    private let alarm: Alarm

    /// - Parameters:
    ///   - period: those who sleep are woken when the number becomes a multiple of this.
    ///   - spins: how often to look before going to sleep; few where ranks outnumber cores.
    init(period: Int, spins: Int, alarm: Alarm) {
        counter = EventCounter(period: period, spins: spins)
        self.alarm = alarm
        alarm.add(self)
    }

    var value: Int { counter.value }

    /// - Returns: the new number.
    @discardableResult func advance() -> Int { counter.advance() }

    /// - Parameter spins: where it is not the usual.
    func wait(for target: Int, spins: Int? = nil) throws(GroupFailure) {
        if !counter.wait(for: target, spins: spins, unless: { alarm.failure != nil }) { try alarm.check() }
    }

    func wake() { counter.wake() }
}
