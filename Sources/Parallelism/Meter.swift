import Dispatch

/// Measures the cost of a rank's collectives, by operation. Only one thread may write it.
package final class Meter {
    /// Sums up one operation since the start.
    package struct CollectiveStatistics: Sendable {
        package var name: String
        package var calls = 0
        /// The number of bytes that this rank received from others.
        package var bytes = 0
        /// The total time of waiting for others and of copying, in seconds.
        package var seconds = 0.0

        package init(name: String) { self.name = name }
    }

    package private(set) var collectives: [CollectiveStatistics] = []
    /// The names of the statistics, to find one without creating strings.
    private var names: [StaticString] = []
    /// Receives everything that is counted, and the parts of a step.
    package var tracer: ((TraceSpan) -> Void)?

    package init() {}

    /// The total time of all collectives, in seconds.
    package var seconds: Double { collectives.reduce(0) { $0 + $1.seconds } }

    /// Adds one call, from `begin` until now.
    ///
    /// - Parameter before: nanoseconds that were spent on it earlier.
    func add(_ name: StaticString, bytes: Int, since begin: UInt64, before: UInt64 = 0) {
        let end = Self.now()
        let index = index(of: name)
        collectives[index].calls += 1
        collectives[index].bytes += bytes
        collectives[index].seconds += Double(end - begin + before) * 1e-9
        tracer?(TraceSpan(name, begin: begin, end: end))
    }

    /// Returns the nanoseconds of a monotonic clock.
    package static func now() -> UInt64 { DispatchTime.now().uptimeNanoseconds }

    private func index(of name: StaticString) -> Int {
        for index in names.indices where names[index].hasSameText(as: name) { return index }
        names.append(name)
        collectives.append(CollectiveStatistics(name: "\(name)"))
        return collectives.count - 1
    }
}

extension StaticString {
    /// Compares without creating strings, because it runs inside steps.
    package func hasSameText(as other: StaticString) -> Bool {
        guard utf8CodeUnitCount == other.utf8CodeUnitCount else { return false }
        return (0..<utf8CodeUnitCount).allSatisfy { unsafe utf8Start[$0] == other.utf8Start[$0] }
    }
}
