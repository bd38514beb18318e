import Foundation

/// Runs a closure on several threads at once, each with a stack like a rank's, and returns their results in order.
///
/// - Parameters:
///   - ranks: the number of threads; the closure receives the thread's index.
///   - limit: the number of seconds after which threads that have not returned are reported: five minutes by
///     default. It only ends what never ends; a test's own time limit would end no thread.
/// - Throws: the first error that was thrown, once all threads have ended; `UnfinishedRanks` if some do not end.
package func onEveryRank<Found: Sendable>(
    of ranks: Int, limit: Double = 300, _ body: @escaping @Sendable (Int) throws -> Found
) throws -> [Found] {
    let gathering = Gathering<Found>(ranks)
    for rank in 0..<ranks {
        let thread = Thread { gathering.put(Result { try body(rank) }, of: rank) }
        thread.name = "rank \(rank)"
        thread.stackSize = 16 << 20
        thread.start()
    }
    return try gathering.wait(limit: limit)
}

/// The error for ranks that did not return; their threads still run.
package struct UnfinishedRanks: Error, CustomStringConvertible {
    package let ranks: [Int]
    package var description: String { "ranks \(ranks) did not return" }
}

/// The results of the ranks, in order.
private final class Gathering<Found: Sendable>: @unchecked Sendable {
    private let bell = NSCondition()
    private var found: [Found?]
    private var missing: Set<Int>
    private var error: (any Error)?

    init(_ ranks: Int) {
        found = Array(repeating: nil, count: ranks)
        missing = Set(0..<ranks)
    }

    func put(_ result: Result<Found, any Error>, of rank: Int) {
        bell.lock()
        defer { bell.unlock() }
        switch result {
        case .success(let value): found[rank] = value
        case .failure(let failure): error = error ?? failure
        }
        missing.remove(rank)
        if missing.isEmpty { bell.broadcast() }
    }

    func wait(limit: Double) throws -> [Found] {
        let deadline = Date(timeIntervalSinceNow: limit)
        bell.lock()
        defer { bell.unlock() }
        while !missing.isEmpty {
            if !bell.wait(until: deadline) { throw UnfinishedRanks(ranks: missing.sorted()) }
        }
        if let error { throw error }
        return found.map { $0! }
    }
}
