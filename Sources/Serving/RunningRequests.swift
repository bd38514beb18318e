import JSON
import Synchronization

/// The generations that run, by the ids that their request gave (`rid`), so that another request can abort them.
final class RunningRequests: Sendable {
    private struct Entry {
        let ids: [JSONKey]
        /// Aborts the generation; `nil` until it has been submitted.
        var abort: (@Sendable () -> Void)?
        /// True if the generation is to be aborted as soon as it has been submitted.
        var isAborted = false
    }

    private struct State {
        var entries: [Int: Entry] = [:]
        var next = 0
    }

    private let state = Mutex(State())

    /// Adds the generations of a request, before they are submitted.
    ///
    /// - Parameter ids: the ids of each, of which empty ones count as none.
    /// - Returns: the number by which the other methods know each generation.
    /// - Throws: an error if a generation of another request has one of the ids.
    func add(_ ids: [[String]]) throws(RequestError) -> [Int] {
        try state.withLock { state throws(RequestError) in
            let ids = ids.map { $0.filter { !$0.isEmpty }.map(JSONKey.init) }
            let wanted = Set(ids.joined())
            if let taken = state.entries.values.lazy.flatMap(\.ids).first(where: wanted.contains) {
                throw .invalid(
                    "rid",
                    "the id \(taken.text.quotedForMessage) is that of a request that is being answered; wait for its end, or "
                        + "give every request an id of its own", code: "duplicate_request_id")
            }
            let numbers = state.next..<state.next + ids.count
            state.next += ids.count
            for (number, ids) in zip(numbers, ids) { state.entries[number] = Entry(ids: ids) }
            return Array(numbers)
        }
    }

    /// Says how to abort a generation, which has been submitted now.
    func start(_ number: Int, abort: @escaping @Sendable () -> Void) {
        let isAborted = state.withLock { state in
            state.entries[number]?.abort = abort
            return state.entries[number]?.isAborted ?? false
        }
        if isAborted { abort() }
    }

    func remove(_ numbers: [Int]) {
        state.withLock { state in for number in numbers { state.entries[number] = nil } }
    }

    /// Aborts all generations, or those with an id.
    ///
    /// - Returns: the number of aborted generations.
    func abort(_ id: String?) -> Int {
        let aborts = state.withLock { state in
            let key = id.map(JSONKey.init)
            let numbers = state.entries.filter { entry in key.map(entry.value.ids.contains) ?? true }.map(\.key)
            for number in numbers { state.entries[number]?.isAborted = true }
            return numbers.map { state.entries[$0]?.abort }
        }
        for abort in aborts { abort?() }
        return aborts.count
    }
}
