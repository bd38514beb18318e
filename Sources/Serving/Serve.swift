package import Hummingbird
import Inference
import Logging
import ServiceLifecycle
import Synchronization
import UnixSignals

/// Serves until the process receives SIGTERM or SIGINT, then drains: new requests are refused with 503, and running
/// ones may go on for at most `configuration.drainTimeout`. After that time, or at a second signal, the remaining
/// requests are answered with an error and the server ends.
///
/// - Parameter onListening: called with the port once connections are accepted.
/// - Returns: whether running requests were ended early.
/// - Throws: an error if the server cannot listen on the address.
@discardableResult
package func serve(
    configuration: ServerConfiguration, slot: ModelSlot,
    onListening: @escaping @Sendable (Int) async -> Void = { _ in }
) async throws -> ServerEnd {
    let application = buildApplication(configuration: configuration, slot: slot, onListening: onListening)
    return try await serve(application, configuration, slot)
}

/// Serves as `serve(configuration:slot:onListening:)` does, with an application that is already built.
@discardableResult
package func serve(
    _ application: some ApplicationProtocol, _ configuration: ServerConfiguration, _ slot: some Drainable
) async throws -> ServerEnd {
    FileLimit.raise()
    let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
    let (stops, continuation) = AsyncStream.makeStream(of: Void.self)
    let forwarding = Task {
        for await _ in signals { continuation.yield() }
    }
    defer { forwarding.cancel() }
    return try await serve(application, configuration, slot, stops: stops)
}

/// Keeps the process alive at SIGHUP, which it gets when a terminal or a service manager that started it ends: there is
/// no file to read again, and the log is standard error.
///
/// It is called before anything that takes long, so that no early signal ends the process.
package func outliveHangUps() async {
    let hangUps = await UnixSignalsSequence(trapping: .sighup)
    Task {
        for await _ in hangUps {
            Log.write(.notice, "SIGHUP: nothing is read again, and the server goes on; SIGTERM ends it")
        }
    }
}

/// The outcome of serving.
package enum ServerEnd: Sendable, Equatable {
    /// Every request was answered.
    case drained
    /// The requests that still ran were answered with this error.
    case cutShort(String)
}

/// What a server does for its requests when it stops.
package protocol Drainable: Sendable {
    /// Refuses new requests from now on; running ones go on.
    func startDraining()
    /// Returns when no request runs.
    func drain() async
    /// Ends the requests that still run with an error.
    func stop(_ reason: String)
}

extension ModelSlot: Drainable {
    package func drain() async { await loaded?.engine.drain() }

    package func stop(_ reason: String) { loaded?.engine.stop(reason) }
}

/// Serves an application that is already built.
///
/// - Parameter stops: signals; the first starts the drain, the second ends the server.
@discardableResult
package func serve(
    _ application: some ApplicationProtocol, _ configuration: ServerConfiguration, _ slot: some Drainable,
    stops: AsyncStream<Void>
) async throws -> ServerEnd {
    let group = ServiceGroup(configuration: .init(services: [application], logger: application.logger))
    let end = EndReason()
    try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await group.run() }
        let housekeeping = Task { await FreeMemory.keepReturning() }
        defer { housekeeping.cancel() }
        tasks.addTask {
            await next(of: stops)
            // A server that could not start has nothing to drain.
            guard !Task.isCancelled else { return }
            application.logger.notice("draining: new requests are refused, running ones may end")
            slot.startDraining()
            let reason = await drain(slot, group, for: configuration.drainTimeout, stops: stops)
            guard !Task.isCancelled else { return }
            if let reason {
                end.reason.withLock { $0 = reason }
                application.logger.error("\(reason)")
                slot.stop(reason)
                await group.triggerGracefulShutdown()
            }
            // Streams need a moment to send their error event, and connections to end.
            try? await Task.sleep(for: timeToEnd)
        }
        // The first task to end cancels the other: the server could not start or has drained, or the drain was cut
        // short.
        defer { tasks.cancelAll() }
        try await tasks.next()
    }
    return end.reason.withLock { $0 }.map(ServerEnd.cutShort) ?? .drained
}

/// The reason why requests were ended early; `nil` if none was.
private final class EndReason: Sendable {
    let reason = Mutex<String?>(nil)
}

/// The time that connections have to end after the drain; those that are left are then closed.
private let timeToEnd = Duration.seconds(1)

/// Waits until running requests have ended, then shuts the group down. It returns early when the time is over or at the
/// next signal to stop.
///
/// - Returns: the reason why requests that still run must be ended; `nil` if none is left.
private func drain(
    _ slot: some Drainable, _ group: ServiceGroup, for limit: Duration, stops: AsyncStream<Void>
) async -> String? {
    await withTaskGroup(of: String.self) { race in
        race.addTask {
            await next(of: stops)
            return "the server was told to stop a second time"
        }
        race.addTask {
            try? await Task.sleep(for: limit)
            return "the server stops, and its time to drain is over (--drain-timeout)"
        }
        let hasDrained = Mutex(false)
        let draining = Task {
            await slot.drain()
            guard !Task.isCancelled else { return }
            hasDrained.withLock { $0 = true }
            await group.triggerGracefulShutdown()
        }
        let reason = await race.next()
        draining.cancel()
        race.cancelAll()
        return hasDrained.withLock { $0 } ? nil : reason
    }
}

private func next(of stops: AsyncStream<Void>) async {
    for await _ in stops { return }
}
