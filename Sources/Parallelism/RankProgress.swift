import Synchronization

/// Publishes what a rank is doing and since when, for the watchdog and for the error message when a rank hangs. Other
/// threads read it while the rank works. An update costs a few stores and allocates nothing.
package final class RankProgress: Sendable {
    /// The time when the present part began, in nanoseconds of `Meter.now`.
    private let since = Atomic<UInt64>(0)
    /// The address of the part's name, which ends with a zero byte; 0 means none.
    private let part = Atomic<UInt>(0)
    private let number = Atomic<Int>(0)
    private let awaited = Atomic<UInt>(0)

    package init() {}

    /// Describes what a rank is doing at a moment.
    package struct Snapshot: Sendable, CustomStringConvertible {
        /// The time when it began, in nanoseconds of `Meter.now`; 0 before the rank did anything.
        package let since: UInt64
        /// True if the rank waits for other ranks; otherwise they may wait for it.
        package let isWaiting: Bool
        /// The activity in words, such as `in layer 3` or `in layer 3, waiting in 'keys'`.
        package let description: String

        package init(since: UInt64, isWaiting: Bool, description: String) {
            self.since = since
            self.isWaiting = isWaiting
            self.description = description
        }
    }

    package var snapshot: Snapshot {
        let (part, awaited) = (
            Self.name(part.load(ordering: .acquiring)), Self.name(awaited.load(ordering: .acquiring))
        )
        let place = part.map { "in \($0) \(number.load(ordering: .relaxed))" } ?? "outside of a step"
        return Snapshot(
            since: since.load(ordering: .acquiring), isWaiting: awaited != nil,
            description: place + (awaited.map { ", waiting in '\($0)'" } ?? ""))
    }

    /// A named part of the work.
    struct Part {
        fileprivate let name: UInt
        fileprivate let number: Int
    }

    /// Begins a part of the work.
    ///
    /// - Returns: the enclosing part, for `leave`.
    func enter(_ name: StaticString, _ number: Int) -> Part {
        let outer = Part(name: part.load(ordering: .relaxed), number: self.number.load(ordering: .relaxed))
        resume(Part(name: Self.address(name), number: number))
        return outer
    }

    func leave(for outer: Part) { resume(outer) }

    private func resume(_ part: Part) {
        number.store(part.number, ordering: .relaxed)
        self.part.store(part.name, ordering: .releasing)
        since.store(Meter.now(), ordering: .releasing)
    }

    func beginWait(in operation: StaticString) {
        awaited.store(Self.address(operation), ordering: .releasing)
        since.store(Meter.now(), ordering: .releasing)
    }

    func endWait() {
        // In this order, because no reader may see a rank as busy since it began to wait.
        since.store(Meter.now(), ordering: .releasing)
        awaited.store(0, ordering: .releasing)
    }

    private static func address(_ name: StaticString) -> UInt { unsafe UInt(bitPattern: name.utf8Start) }

    private static func name(_ address: UInt) -> String? {
        unsafe UnsafePointer<CChar>(bitPattern: address).map { unsafe String(cString: $0) }
    }
}
