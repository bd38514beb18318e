import Foundation
import Synchronization
import Tensors

/// Ends all waiting of a job when one of its ranks fails.
package final class Alarm: Sendable {
    private let isRaised = Atomic(false)
    private let state = Mutex(State())

    private struct State {
        var failure: GroupFailure?
        var counters: [AbortableCounter] = []
        var observers: [@Sendable () -> Void] = []
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
            // Under the lock: who adds a tally from now on, and so is not woken below, sees it before falling asleep.
            isRaised.store(true, ordering: .sequentiallyConsistent)
            return (isFirst, state.counters, isFirst ? state.observers : [])
        }
        if isFirst, isNews { announce(failure) }
        for tally in counters { tally.wake() }
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

    fileprivate func add(_ tally: AbortableCounter) { state.withLock { $0.counters.append(tally) } }
}

/// A counter of a group's members, who throw instead of waiting once the alarm has been raised.
final class AbortableCounter: Sendable {
    private let counter: Counter
    private let alarm: Alarm

    /// - Parameters:
    ///   - period: those who sleep are woken when the number becomes a multiple of this.
    ///   - spins: how often to look before going to sleep; few where ranks outnumber cores.
    init(period: Int, spins: Int, alarm: Alarm) {
        counter = Counter(period: period, spins: spins)
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
