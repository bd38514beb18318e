package import Hummingbird
import Inference
import Logging
import ServiceLifecycle
import Synchronization
import UnixSignals

/// Serves until the process is asked to stop (SIGTERM or SIGINT), then drains: new work is refused with 503,
/// what runs goes on for at most `configuration.drainTimeout`. Then, or at a second signal, clients that still wait are
/// told and everything ends.
///
/// - Parameter onListening: called with the port once connections are taken.
/// - Returns: whether requests that ran were ended before their time.
/// - Throws: when the address cannot be listened on.
@discardableResult
package func serve(
    configuration: ServerConfiguration, slot: ModelSlot,
    onListening: @escaping @Sendable (Int) async -> Void = { _ in }
) async throws -> ServerEnd {
    let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
    let (stops, continuation) = AsyncStream.makeStream(of: Void.self)
    let forwarding = Task {
        for await _ in signals { continuation.yield() }
    }
    defer { forwarding.cancel() }
    let application = buildApplication(configuration: configuration, slot: slot, onListening: onListening)
    return try await serve(application, configuration, slot, stops: stops)
}

/// How a server ended.
package enum ServerEnd: Sendable, Equatable {
    /// Every request had its answer.
    case drained
    /// Requests that ran were answered with this error.
    case cutShort(String)
}

/// The same for an application that is built already.
/// - Parameter stops: its first element starts the drain, its second ends everything.
@discardableResult
package func serve(
    _ application: some ApplicationProtocol, _ configuration: ServerConfiguration, _ slot: ModelSlot,
    stops: AsyncStream<Void>
) async throws -> ServerEnd {
    let group = ServiceGroup(configuration: .init(services: [application], logger: application.logger))
    let end = EndReason()
    try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await group.run() }
        tasks.addTask {
            await next(of: stops)
            application.logger.notice("draining: new requests are refused, running ones may end")
            slot.startDraining()
            let reason = await drain(slot, group, for: configuration.drainTimeout, stops: stops)
            guard let reason, !Task.isCancelled else { return }
            end.reason.withLock { $0 = reason }
            application.logger.error("\(reason)")
            // Every stream ends with an error event, for which it gets a moment.
            slot.loaded?.engine.stop(reason)
            await group.triggerGracefulShutdown()
            try? await Task.sleep(for: timeToAnswer)
        }
        // Whichever ends first ends the other: a server that could not start or has drained, or a drain cut short.
        defer { tasks.cancelAll() }
        try await tasks.next()
    }
    return end.reason.withLock { $0 }.map(ServerEnd.cutShort) ?? .drained
}

/// Why requests were ended before their time; `nil` where none was.
private final class EndReason: Sendable {
    let reason = Mutex<String?>(nil)
}

/// After an error event was written to the last stream of a drain that is cut short.
private let timeToAnswer = Duration.seconds(1)

/// Lets running requests end, then tells the group to stop; returns when time is up or at the next stop.
///
/// - Returns: why requests that still run are ended; `nil` where none is left.
private func drain(
    _ slot: ModelSlot, _ group: ServiceGroup, for limit: Duration, stops: AsyncStream<Void>
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
            await slot.loaded?.engine.drain()
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
