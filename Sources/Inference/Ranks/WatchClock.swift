/// Tells the watchdog which time counts: not that in which the whole process stood still, as between SIGSTOP and SIGCONT
/// or in a machine that was suspended. It is noticed by the watchdog's own looks, which are far apart only then.
package struct WatchClock: Sendable {
    /// When this process last went on after it had stood still; what ranks did before says nothing about them.
    package private(set) var resumed: UInt64 = 0
    private var lastLook: UInt64?
    /// Nanoseconds between two looks, at most, while this process runs.
    private let interval: UInt64
    /// A busy processor may hold up a look for so many nanoseconds more.
    private static let delay: UInt64 = 100_000_000

    package init(interval: UInt64) { self.interval = interval }

    /// Says that the watchdog looks, at a time of `Meter.now`.
    package mutating func look(at now: UInt64) {
        if let lastLook, now > lastLook + 2 * interval + Self.delay { resumed = now }
        lastLook = now
    }

    /// Says that the watchdog does not look until there is something to watch.
    package mutating func rest() { lastLook = nil }
}
