package import Hummingbird
package import Serving
import Synchronization
import UnixSignals

/// A router: the HTTP server, the workers, and the checks of their health.
package final class RouterService: Drainable {
    package let fleet: Fleet
    package let configuration: RouterConfiguration
    private let gate: AdmissionGate
    private let metrics = RouterMetrics()
    private let isDraining = Mutex(false)

    /// - Precondition: `configuration.validate()` found nothing.
    package init(_ configuration: RouterConfiguration) {
        precondition(configuration.validate().isEmpty, "an invalid configuration")
        self.configuration = configuration
        fleet = Fleet(configuration.pool)
        gate = AdmissionGate(
            limit: configuration.maxConcurrentRequests, queueSize: configuration.queueSize,
            timeout: configuration.queueTimeout)
    }

    /// Returns the HTTP server, ready to run.
    ///
    /// - Parameter onListening: called with the port once connections are accepted.
    package func application(
        onListening: @escaping @Sendable (Int) async -> Void = { _ in }
    ) -> some ApplicationProtocol {
        let routes = RouterRoutes(configuration, fleet, gate, metrics) { [weak self] in
            self?.isDraining.withLock { $0 } ?? true
        }
        return buildApplication(
            configuration: configuration.server, routes: routes.table,
            countResponse: metrics.countResponse(route:status:), onListening: onListening)
    }

    /// Checks the health of workers until the task is cancelled.
    package func checkWorkers() async { await HealthMonitor(configuration, fleet).run() }

    /// Serves until the process receives SIGTERM or SIGINT, then drains, as `braid serve` does.
    ///
    /// - Parameters:
    ///   - onListening: called with the port once connections are accepted.
    ///   - onReload: called at every SIGHUP.
    package func serve(
        onListening: @escaping @Sendable (Int) async -> Void, onReload: @escaping @Sendable () -> Void
    ) async throws -> ServerEnd {
        let checks = Task { await checkWorkers() }
        // Before anything waits, so that an early signal does not end the process.
        let hangUps = await UnixSignalsSequence(trapping: .sighup)
        let reloads = Task { for await _ in hangUps { onReload() } }
        defer {
            checks.cancel()
            reloads.cancel()
        }
        return try await Serving.serve(application(onListening: onListening), configuration.server, self)
    }

    // MARK: - Draining

    package func startDraining() { isDraining.withLock { $0 = true } }

    package func drain() async {
        while gate.status != AdmissionGate.Status(), (try? await Task.sleep(for: .milliseconds(20))) != nil {}
    }

    package func stop(_ reason: String) { fleet.closeAllRequests() }
}
