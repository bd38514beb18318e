import Foundation
import Synchronization

/// A number that only grows, and threads that wait for it to reach a value: first spinning, then asleep.
package final class EventCounter: Sendable {
    private let number = Atomic(0)
    private let sleepers = Atomic(0)
    private let bell = NSCondition()
    /// Sleepers are woken when the number becomes a multiple of this.
    private let period: Int
    private let spins: Int

    /// - Parameter spins: how often to look before going to sleep; few where threads outnumber cores.
    package init(period: Int, spins: Int) {
        self.period = period
        self.spins = spins
    }

    package var value: Int { number.load(ordering: .acquiring) }

    /// - Returns: the new number.
    @discardableResult package func advance() -> Int {
        // Sequentially consistent with the sleeper's two steps below: either it sees the new number, or we see it.
        let new = number.add(1, ordering: .sequentiallyConsistent).newValue
        if new % period == 0, sleepers.load(ordering: .sequentiallyConsistent) > 0 { wake() }
        return new
    }

    /// Waits until the number is `target`, or more.
    ///
    /// - Parameters:
    ///   - spins: where it is not the usual.
    ///   - isOver: ends the wait, if whoever makes it true then calls `wake`.
    /// - Returns: whether the number was reached.
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

    /// Has all who sleep look again.
    package func wake() {
        bell.lock()
        bell.broadcast()
        bell.unlock()
    }
}
