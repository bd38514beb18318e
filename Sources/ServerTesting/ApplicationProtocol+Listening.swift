package import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import ServiceLifecycle

extension ApplicationProtocol {
    /// Runs `body` while the application listens on a free port of 127.0.0.1, and then stops the application.
    ///
    /// - Parameter body: receives the port.
    /// - Throws: `ServerTestError` if the application does not start or stop in time; otherwise the error of `body`.
    package func listening<Value>(_ body: (Int) async throws -> Value) async throws -> Value {
        let (ports, continuation) = AsyncStream.makeStream(of: Int.self)
        let application = ListeningApplication(base: self) { continuation.yield($0) }
        let group = ServiceGroup(configuration: .init(services: [application], logger: logger))
        let running = Task {
            defer { continuation.finish() }
            try await group.run()
        }
        defer { running.cancel() }
        let port = try await bounded("the start of the server") { () -> Int in
            for await port in ports { return port }
            try await running.value
            throw ServerTestError(description: "the server ended before it accepted connections")
        }
        let outcome: Result<Value, any Error>
        do {
            outcome = .success(try await body(port))
        } catch {
            outcome = .failure(error)
        }
        await group.triggerGracefulShutdown()
        do {
            try await bounded("the end of the server") { try await running.value }
        } catch {
            // What has failed before says more.
            _ = try outcome.get()
            throw error
        }
        return try outcome.get()
    }
}

/// An application that listens on a free port of this machine, whatever its configuration says.
private struct ListeningApplication<Base: ApplicationProtocol>: ApplicationProtocol {
    typealias Responder = Base.Responder

    let base: Base
    let onListening: @Sendable (Int) -> Void

    var responder: Responder { get async throws { try await base.responder } }
    var server: HTTPServerBuilder { base.server }
    var eventLoopGroup: any EventLoopGroup { base.eventLoopGroup }
    var logger: Logger { base.logger }
    var services: [any Service] { base.services }
    var processesRunBeforeServerStart: [@Sendable () async throws -> Void] { base.processesRunBeforeServerStart }

    var configuration: ApplicationConfiguration {
        var configuration = base.configuration
        configuration.address = .hostname("127.0.0.1", port: 0)
        return configuration
    }

    @Sendable func onServerRunning(_ channel: any Channel) async {
        await base.onServerRunning(channel)
        if let port = channel.localAddress?.port { onListening(port) }
    }
}
