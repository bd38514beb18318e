import Dispatch

/// What a rank's collectives cost it, by operation. One thread writes it.
package final class Meter {
    /// One operation's account since the start.
    package struct CollectiveStatistics: Sendable {
        package var name: String
        package var calls = 0
        /// Bytes this rank got from others.
        package var bytes = 0
        /// Waiting for others and copying.
        package var seconds = 0.0

        package init(name: String) { self.name = name }
    }

    package private(set) var collectives: [CollectiveStatistics] = []
    /// Of the accounts: to find one without making strings.
    private var names: [StaticString] = []
    /// Told of everything that is counted, and of the parts of a step.
    package var tracer: ((TraceSpan) -> Void)?

    package init() {}

    /// Time spent in collectives, all operations together.
    package var seconds: Double { collectives.reduce(0) { $0 + $1.seconds } }

    /// Enters one call, from `begin` until now.
    ///
    /// - Parameter before: nanoseconds that were spent on it at another time.
    func add(_ name: StaticString, bytes: Int, since begin: UInt64, before: UInt64 = 0) {
        let end = Self.now()
        let index = index(of: name)
        collectives[index].calls += 1
        collectives[index].bytes += bytes
        collectives[index].seconds += Double(end - begin + before) * 1e-9
        tracer?(TraceSpan(name, begin: begin, end: end))
    }

    /// Nanoseconds of a clock that never goes back.
    package static func now() -> UInt64 { DispatchTime.now().uptimeNanoseconds }

    private func index(of name: StaticString) -> Int {
        for index in names.indices where names[index].hasSameText(as: name) { return index }
        names.append(name)
        collectives.append(CollectiveStatistics(name: "\(name)"))
        return collectives.count - 1
    }
}

extension StaticString {
    /// Without making strings: this runs inside steps.
    package func hasSameText(as other: StaticString) -> Bool {
        guard utf8CodeUnitCount == other.utf8CodeUnitCount else { return false }
        return (0..<utf8CodeUnitCount).allSatisfy { unsafe utf8Start[$0] == other.utf8Start[$0] }
    }
}
