import Foundation

/// Runs a closure on so many threads at once, each with a stack like a rank's, and returns what each returned, in order.
///
/// - Parameters:
///   - ranks: how many; the closure is told which one it is.
///   - limit: seconds after which ranks that have not returned are given up.
/// - Throws: the first error that was thrown, once all threads have ended; `UnfinishedRanks` where some do not end.
package func onEveryRank<Found: Sendable>(
    of ranks: Int, limit: Double = 60, _ body: @escaping @Sendable (Int) throws -> Found
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

/// Ranks that did not return: their threads are still there.
package struct UnfinishedRanks: Error, CustomStringConvertible {
    package let ranks: [Int]
    package var description: String { "ranks \(ranks) did not return" }
}

/// What the ranks found, one after the other.
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
