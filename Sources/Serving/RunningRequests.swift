import Inference
import Synchronization

/// The generations that run, by the id that their request gave (`rid`), so that another request can abort them.
final class RunningRequests: Sendable {
    private struct Entry {
        let id: String?
        let abort: @Sendable () -> Void
    }

    private struct State {
        var entries: [Int: Entry] = [:]
        var next = 0
    }

    private let state = Mutex(State())

    /// Adds a generation.
    ///
    /// - Parameter id: the request's id; `nil` if it gave none.
    /// - Returns: the number by which `remove` knows the generation.
    func add(_ id: String?, abort: @escaping @Sendable () -> Void) -> Int {
        state.withLock { state in
            defer { state.next += 1 }
            state.entries[state.next] = Entry(id: id, abort: abort)
            return state.next
        }
    }

    func remove(_ number: Int) {
        state.withLock { _ = $0.entries.removeValue(forKey: number) }
    }

    /// Aborts all generations, or those of the request with an id: where a request has several answers, their ids are
    /// `id_0`, `id_1` and so on.
    ///
    /// - Returns: the number of aborted generations.
    func abort(_ id: String?) -> Int {
        let aborts = state.withLock { state in
            state.entries.values.filter { entry in
                guard let id else { return true }
                return entry.id.map { Self.isAnswer($0, of: id) } ?? false
            }.map(\.abort)
        }
        for abort in aborts { abort() }
        return aborts.count
    }

    private static func isAnswer(_ id: String, of request: String) -> Bool {
        if id.utf8.elementsEqual(request.utf8) { return true }
        guard id.utf8.starts(with: (request + "_").utf8) else { return false }
        return id.utf8.dropFirst(request.utf8.count + 1).allSatisfy { (0x30...0x39).contains($0) }
    }
}
