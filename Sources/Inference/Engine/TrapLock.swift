import Foundation
import Synchronization

/// A lock around a value, of which a thread that traps may be the holder: it then never gives the lock back.
///
/// Callers that clients wait for use `withLockUnlessTrapped`. A thread without which there is no service, or for which
/// nobody waits, may use `withLock` and be lost with the lock.
final class TrapLock<Value: Sendable>: Sendable {
    private let value: Mutex<Value>
    private let trapped = Atomic(false)

    /// The time between two attempts to take the lock, in seconds.
    private static var pause: Double { 0.0005 }

    init(_ value: Value) { self.value = Mutex(value) }

    /// True if a thread has trapped that may hold the lock.
    var hasTrapped: Bool { trapped.load(ordering: .acquiring) }

    /// Records that a thread has trapped that may hold the lock. It takes no lock.
    func noteTrap() { trapped.store(true, ordering: .releasing) }

    /// Calls `body` with the value under the lock, for which it waits however long another thread holds it.
    func withLock<Result>(_ body: (inout Value) -> Result) -> Result { value.withLock { body(&$0) } }

    /// Calls `body` with the value under the lock, for which it waits until another thread gives it back or traps.
    ///
    /// - Returns: `nil` after a trap.
    func withLockUnlessTrapped<Result>(_ body: (inout Value) -> Result) -> Result? {
        while !hasTrapped {
            if let result = value.withLockIfAvailable({ body(&$0) }) { return result }
            Thread.sleep(forTimeInterval: Self.pause)
        }
        return nil
    }
}
