import JSON
import Synchronization

/// The generations that run, by the id that their request gave (`rid`), so that another request can abort them.
final class RunningRequests: Sendable {
    private struct Entry {
        let id: String?
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
    /// - Parameter ids: the id of each; `nil` or empty if the request gave none.
    /// - Returns: the number by which the other methods know each generation.
    /// - Throws: an error if a generation of another request has one of the ids.
    func add(_ ids: [String?]) throws(RequestError) -> [Int] {
        try state.withLock { state throws(RequestError) in
            let ids = ids.map { $0?.isEmpty == true ? nil : $0 }
            let wanted = Set(ids.lazy.compactMap { $0 }.map(JSONKey.init))
            let taken = state.entries.values.lazy.compactMap(\.id).first { wanted.contains(JSONKey($0)) }
            if let taken {
                throw .invalid(
                    "rid",
                    "the id \(taken.quotedForMessage) is that of a request that is being answered; wait for its end, or "
                        + "give every request an id of its own", code: "duplicate_request_id")
            }
            let numbers = state.next..<state.next + ids.count
            state.next += ids.count
            for (number, id) in zip(numbers, ids) { state.entries[number] = Entry(id: id) }
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

    /// Aborts all generations, or those of the request with an id: where a request has several answers, their ids are
    /// `id_0`, `id_1` and so on.
    ///
    /// - Returns: the number of aborted generations.
    func abort(_ id: String?) -> Int {
        let aborts = state.withLock { state in
            let numbers = state.entries.keys.filter { number in
                guard let id else { return true }
                return state.entries[number]?.id.map { Self.isAnswer($0, of: id) } ?? false
            }
            for number in numbers { state.entries[number]?.isAborted = true }
            return numbers.map { state.entries[$0]?.abort }
        }
        for abort in aborts { abort?() }
        return aborts.count
    }

    private static func isAnswer(_ id: String, of request: String) -> Bool {
        if id.utf8.elementsEqual(request.utf8) { return true }
        guard id.utf8.starts(with: (request + "_").utf8) else { return false }
        return id.utf8.dropFirst(request.utf8.count + 1).allSatisfy { (0x30...0x39).contains($0) }
    }
}
