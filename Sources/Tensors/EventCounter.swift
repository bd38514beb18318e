import Foundation
import Synchronization

/// Counts events upwards, and lets threads wait until the count reaches a value: first spinning, then asleep.
package final class EventCounter: Sendable {
    private let number = Atomic(0)
    private let sleepers = Atomic(0)
    private let bell = NSCondition()
    /// Sleepers are woken when the count becomes a multiple of this.
    private let period: Int
    private let spins: Int

    /// Creates a counter at zero.
    ///
    /// - Parameters:
    ///   - period: the multiple of the count at which sleepers are woken.
    ///   - spins: how often a waiting thread looks before it sleeps; few if threads outnumber cores.
    package init(period: Int, spins: Int) {
        self.period = period
        self.spins = spins
    }

    package var value: Int { number.load(ordering: .acquiring) }

    /// Adds one, and wakes sleepers at a multiple of the period.
    ///
    /// - Returns: the new count.
    @discardableResult package func advance() -> Int {
        // Sequentially consistent with the sleeper's two steps below: either it sees the new count, or we see the
        // sleeper.
        let new = number.add(1, ordering: .sequentiallyConsistent).newValue
        if new % period == 0, sleepers.load(ordering: .sequentiallyConsistent) > 0 { wake() }
        return new
    }

    /// Waits until the count is at least `target`.
    ///
    /// - Parameters:
    ///   - spins: the number of looks before sleep, if it is not the counter's own.
    ///   - isOver: ends the wait once it is true. The thread that makes it true must then call `wake`.
    /// - Returns: true if the count was reached.
    @discardableResult package func wait(
        for target: Int, spins: Int? = nil, unless isOver: () -> Bool = { false }
    ) -> Bool {
        for _ in 0..<(spins ?? self.spins) {
            if number.load(ordering: .acquiring) >= target { return true }
            Kernels.pause()
        }
        bell.lock()
        sleepers.add(1, ordering: .sequentiallyConsistent)
        while number.load(ordering: .sequentiallyConsistent) < target, !isOver() { bell.wait() }
        sleepers.subtract(1, ordering: .relaxed)
        bell.unlock()
        return number.load(ordering: .acquiring) >= target
    }

    /// Makes all sleepers check the count and their condition again.
    package func wake() {
        bell.lock()
        bell.broadcast()
        bell.unlock()
    }
}
