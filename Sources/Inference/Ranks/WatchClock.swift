/// A watch clock excludes the time in which the whole process stood still, as between SIGSTOP and SIGCONT or in a
/// suspended machine. It notices that by the distance between the watchdog's checks.
package struct WatchClock: Sendable {
    /// The time at which this process last went on after it stood still. The watchdog ignores what ranks did before.
    package private(set) var resumed: UInt64 = 0
    private var lastLook: UInt64?
    /// The watchdog checks at least this often, in nanoseconds, while the process runs.
    private let interval: UInt64
    /// A busy processor may delay a check by this many nanoseconds.
    private static let delay: UInt64 = 100_000_000

    package init(interval: UInt64) { self.interval = interval }

    /// Records a check of the watchdog at time `now`, in nanoseconds of `Meter.now`.
    package mutating func look(at now: UInt64) {
        if let lastLook, now > lastLook + 2 * interval + Self.delay { resumed = now }
        lastLook = now
    }

    /// Records that the watchdog pauses until a step is in flight.
    package mutating func rest() { lastLook = nil }
}
