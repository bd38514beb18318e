package import Hummingbird
import HummingbirdCore
import NIOCore

/// Returns the server, ready to run, for the command and for tests.
///
/// - Parameter onListening: called with the port once connections are accepted.
/// - Precondition: `configuration.validate()` found nothing.
package func buildApplication(
    configuration: ServerConfiguration, slot: ModelSlot,
    onListening: @escaping @Sendable (Int) async -> Void = { _ in }
) -> some ApplicationProtocol {
    buildApplication(
        configuration: configuration, routes: RouteTable(configuration: configuration, slot: slot),
        countResponse: slot.metrics.countResponse(route:status:), onListening: onListening)
}

/// Returns a server of any routes, with the rules of HTTP, access and limits that all servers have.
///
/// - Parameters:
///   - countResponse: called with the route's pattern and the status of every response.
///   - onListening: called with the port once connections are accepted.
/// - Precondition: `configuration.validate()` found nothing.
package func buildApplication(
    configuration: ServerConfiguration, routes: RouteTable,
    countResponse: @escaping @Sendable (_ route: String, _ status: Int) -> Void,
    onListening: @escaping @Sendable (Int) async -> Void = { _ in }
) -> some ApplicationProtocol {
    precondition(configuration.validate().isEmpty, "an invalid configuration")
    let router = Router(context: ServingContext.self, options: .autoGenerateHeadEndpoints)
    if configuration.logsAccess { router.add(middleware: AccessLog()) }
    router.add(middleware: RequestIdentifiers())
    if !configuration.corsOrigins.isEmpty { router.add(middleware: CrossOrigin(configuration)) }
    router.add(middleware: ErrorResponses(countResponse: countResponse, routes: routes))
    if configuration.apiKeys.isEmpty {
        router.add(middleware: OriginGuard(configuration))
    } else {
        router.add(middleware: BearerAuthentication(configuration))
    }
    for route in routes.routes {
        router.on(RouterPath(route.pattern), method: route.method, use: route.handler)
    }
    let table = ConnectionTable(
        most: configuration.maxConnections, perAddress: configuration.maxConnectionsPerAddress)
    let (maxHeaderBytes, writeTimeout) = (configuration.maxHeaderBytes, configuration.writeTimeout)
    let channel = HTTP1Channel.Configuration(
        additionalChannelHandlers: [
            ProtocolHandler.Installer(table, maxFramingBytes: maxHeaderBytes, writeTimeout: writeTimeout),
            HangUpHandler(), ContinueHandler(),
        ],
        idleTimeout: .seconds(1) * Int64(max(1, (configuration.idleTimeout / .seconds(1)).rounded())),
        httpDecoderConfiguration: .init(
            maxHeaderFieldSize: configuration.maxHeaderBytes, maxHeaderListSize: configuration.maxHeaderBytes,
            maxHeaderFieldCount: configuration.maxHeaderCount))
    return Application(
        router: router, server: .http1(configuration: channel),
        configuration: ApplicationConfiguration(
            address: .hostname(configuration.host, port: configuration.port), serverName: "braid",
            availableConnectionsDelegate: MaximumAvailableConnections(
                configuration.maxConnections + 2 * ConnectionTable.reserve)),
        onServerRunning: { channel in await onListening(channel.localAddress?.port ?? configuration.port) })
}
