package import Serving
import Synchronization

/// Bounds the requests that are with workers at the same time, and those that wait for that, which are let in in the
/// order of their arrival.
package final class AdmissionGate: Sendable {
    package struct Status: Sendable, Equatable {
        package var running = 0
        package var queued = 0
    }

    private struct Waiting {
        let number: Int
        let admission: AsyncStream<Void>.Continuation
    }

    private struct State {
        var running = 0
        var nextNumber = 0
        var queue: [Waiting] = []
        /// The numbers of requests that were let in and do not know it yet.
        var admitted: Set<Int> = []
    }

    private let limit: Int
    private let queueSize: Int
    private let timeout: Duration
    private let state = Mutex(State())

    package init(limit: Int, queueSize: Int, timeout: Duration) {
        precondition(limit > 0, "a gate lets one request through at least")
        (self.limit, self.queueSize, self.timeout) = (limit, queueSize, timeout)
    }

    /// The right of a request to be with a worker, which ends when it is dropped.
    package final class Permit: Sendable {
        private let gate: AdmissionGate

        fileprivate init(_ gate: AdmissionGate) { self.gate = gate }

        deinit { gate.leave() }
    }

    package var status: Status { state.withLock { Status(running: $0.running, queued: $0.queue.count) } }

    /// Waits until the request may go to a worker.
    ///
    /// - Parameter onWait: receives an action that gives up waiting, before the request waits.
    /// - Returns: `nil` if waiting was given up or took too long.
    /// - Throws: `RequestError` if too many requests wait.
    package func enter(onWait: (@escaping @Sendable () -> Void) async -> Void) async throws(RequestError) -> Permit? {
        let (admissions, admission) = AsyncStream.makeStream(of: Void.self)
        let number = state.withLock { state -> Int?? in
            if state.running < limit {
                state.running += 1
                return .some(nil)
            }
            guard state.queue.count < queueSize else { return nil }
            state.nextNumber += 1
            state.queue.append(Waiting(number: state.nextNumber, admission: admission))
            return state.nextNumber
        }
        guard let number else {
            throw RequestError(
                .overloaded(retryAfterSeconds: 1), "\(queueSize) requests wait already; try again later",
                code: "rate_limit_exceeded")
        }
        guard let number else { return Permit(self) }
        await onWait { self.giveUp(number) }
        let timer = Task {
            try await Task.sleep(for: timeout)
            giveUp(number)
        }
        defer { timer.cancel() }
        for await _ in admissions { break }
        // It has ended for one of three reasons: the request was let in, it was given up, or this task was cancelled.
        giveUp(number)
        return state.withLock { $0.admitted.remove(number) } == nil ? nil : Permit(self)
    }

    private func giveUp(_ number: Int) {
        let waiting = state.withLock { state -> Waiting? in
            guard let place = state.queue.firstIndex(where: { $0.number == number }) else { return nil }
            return state.queue.remove(at: place)
        }
        waiting?.admission.finish()
    }

    /// Gives the place of a request to the one that has waited longest.
    private func leave() {
        let next = state.withLock { state -> Waiting? in
            guard !state.queue.isEmpty else {
                state.running -= 1
                return nil
            }
            let next = state.queue.removeFirst()
            state.admitted.insert(next.number)
            return next
        }
        next?.admission.finish()
    }
}
