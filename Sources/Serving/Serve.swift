package import Hummingbird
import Inference
import Logging
import ServiceLifecycle
import UnixSignals

/// Serves until the process is asked to stop (SIGTERM or SIGINT), then drains: new work is refused with 503,
/// what runs goes on for at most `configuration.drainTimeout`. Then, or at a second signal, clients that still wait are
/// told and everything ends.
///
/// - Parameter onListening: called with the port once connections are taken.
/// - Throws: when the address cannot be listened on; `DrainCut` when answers were cut short.
package func serve(
    configuration: ServerConfiguration, slot: ModelSlot,
    onListening: @escaping @Sendable (Int) async -> Void = { _ in }
) async throws {
    let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
    let (stops, continuation) = AsyncStream.makeStream(of: Void.self)
    let forwarding = Task {
        for await _ in signals { continuation.yield() }
    }
    defer { forwarding.cancel() }
    let application = buildApplication(configuration: configuration, slot: slot, onListening: onListening)
    try await serve(application, configuration, slot, stops: stops)
}

/// The same for an application that is built already.
/// - Parameter stops: its first element starts the drain, its second ends everything.
package func serve(
    _ application: some ApplicationProtocol, _ configuration: ServerConfiguration, _ slot: ModelSlot,
    stops: AsyncStream<Void>
) async throws {
    let group = ServiceGroup(configuration: .init(services: [application], logger: application.logger))
    try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await group.run() }
        tasks.addTask {
            await next(of: stops)
            application.logger.notice("draining: new requests are refused, running ones may end")
            slot.startDraining()
            await drain(slot, group, for: configuration.drainTimeout, stops: stops)
            try await cut(slot)
        }
        // Whichever ends first ends the other: a server that could not start or has drained, or a drain cut short.
        defer { tasks.cancelAll() }
        try await tasks.next()
    }
}

/// Lets running requests end, then tells the group to stop; returns when time is up or at the next stop.
private func drain(
    _ slot: ModelSlot, _ group: ServiceGroup, for limit: Duration, stops: AsyncStream<Void>
) async {
    await withTaskGroup(of: Void.self) { race in
        race.addTask { await next(of: stops) }
        race.addTask { try? await Task.sleep(for: limit) }
        let draining = Task {
            await slot.loaded?.engine.drain()
            guard !Task.isCancelled else { return }
            await group.triggerGracefulShutdown()
        }
        await race.next()
        draining.cancel()
        race.cancelAll()
    }
}

/// Answers that did not end before the server.
package struct DrainCut: Error, CustomStringConvertible {
    package let answers: Int

    package var description: String {
        "\(answers) answers were cut short; their clients were told. More time: --drain-timeout"
    }
}

/// Tells whoever still waits for an answer that none will come, and gives the connections a moment to say so.
private func cut(_ slot: ModelSlot) async throws {
    let answers = slot.running.count
    guard answers > 0 else { return }
    slot.running.end(
        with: RequestError(
            .unavailable, "the server is shutting down and cuts this answer short", code: "shutting_down"))
    for _ in 0..<100 where slot.running.count > 0 { try await Task.sleep(for: .milliseconds(10)) }
    // What was written is on its way.
    try await Task.sleep(for: .milliseconds(100))
    throw DrainCut(answers: answers)
}

private func next(of stops: AsyncStream<Void>) async {
    for await _ in stops { return }
}
