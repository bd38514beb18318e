/// The time after which a test gives up waiting for a server. It only ends what never ends: a machine that others use may be
/// slow for a minute.
package let serverTestLimit = Duration.seconds(300)

/// A server under test that did not answer, start or stop.
package struct ServerTestError: Error, CustomStringConvertible {
    package let description: String
}

/// Runs `work` in a task of its own, and gives up when it has taken longer than `limit`, even if it does not end when it is
/// cancelled.
///
/// - Parameters:
///   - what: what is waited for, for the error.
///   - state: describes, for the error, how far the work has come.
/// - Throws: `ServerTestError` if the time is over; otherwise the error of `work`.
package func bounded<Value: Sendable>(
    _ what: String, by limit: Duration = serverTestLimit, state: @escaping @Sendable () -> String = { "" },
    _ work: @escaping @Sendable () async throws -> Value
) async throws -> Value {
    let (results, continuation) = AsyncStream.makeStream(of: Result<Value, any Error>.self)
    let working = Task {
        do {
            continuation.yield(.success(try await work()))
        } catch {
            continuation.yield(.failure(error))
        }
    }
    let timer = Task {
        guard (try? await Task.sleep(for: limit)) != nil else { return }
        continuation.yield(.failure(ServerTestError(description: "\(what): not within \(limit)\(state())")))
    }
    defer {
        working.cancel()
        timer.cancel()
    }
    for await result in results { return try result.get() }
    throw CancellationError()
}
