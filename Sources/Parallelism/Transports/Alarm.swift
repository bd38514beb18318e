import Foundation
import Synchronization
import Tensors

/// Ends all waiting of a job when one of its ranks fails.
package final class Alarm: Sendable {
    private let isRaised = Atomic(false)
    private let state = Mutex(State())

    private struct State {
        var failure: GroupFailure?
        var tallies: [Tally] = []
    }

    package init() {}

    /// The first failure, if there was one.
    package var failure: GroupFailure? { isRaised.load(ordering: .acquiring) ? state.withLock { $0.failure } : nil }

    /// Wakes everybody who waits; they throw the first failure that was raised.
    package func raise(_ failure: GroupFailure) {
        let tallies = state.withLock { state in
            if state.failure == nil { state.failure = failure }
            // Under the lock: who adds a tally from now on, and so is not woken below, sees it before falling asleep.
            isRaised.store(true, ordering: .sequentiallyConsistent)
            return state.tallies
        }
        for tally in tallies { tally.wake() }
    }

    /// Throws once the alarm has been raised.
    package func check() throws(GroupFailure) {
        if isRaised.load(ordering: .sequentiallyConsistent) { throw state.withLock { $0.failure! } }
    }

    fileprivate func add(_ tally: Tally) { state.withLock { $0.tallies.append(tally) } }
}

/// A number that only grows, and threads that wait for it to reach a value: first spinning, then asleep.
final class Tally: Sendable {
    private let count = Atomic(0)
    private let sleepers = Atomic(0)
    private let bell = NSCondition()
    private let alarm: Alarm
    /// Sleepers are woken when the number becomes a multiple of this.
    private let period: Int
    private let spins: Int

    /// - Parameter spins: how often to look before going to sleep; few where ranks outnumber cores.
    init(period: Int, spins: Int, alarm: Alarm) {
        self.period = period
        self.spins = spins
        self.alarm = alarm
        alarm.add(self)
    }

    func advance() {
        // Sequentially consistent with the sleeper's two steps below: either it sees the new number, or we see it.
        let new = count.add(1, ordering: .sequentiallyConsistent).newValue
        if new % period == 0, sleepers.load(ordering: .sequentiallyConsistent) > 0 { wake() }
    }

    func wait(for target: Int) throws(GroupFailure) {
        for _ in 0..<spins {
            if count.load(ordering: .acquiring) >= target { return }
            Kernels.pause()
        }
        bell.lock()
        sleepers.add(1, ordering: .sequentiallyConsistent)
        while count.load(ordering: .sequentiallyConsistent) < target, alarm.failure == nil { bell.wait() }
        sleepers.subtract(1, ordering: .relaxed)
        bell.unlock()
        if count.load(ordering: .acquiring) < target { try alarm.check() }
    }

    func wake() {
        bell.lock()
        bell.broadcast()
        bell.unlock()
    }
}
