import Hummingbird
import NIOCore

/// The context of a request that handlers receive, with the connection on which it arrived.
struct ServingContext: RequestContext {
    var coreContext: CoreRequestContextStorage
    let connection: ClientConnection

    init(source: ApplicationRequestContextSource) {
        coreContext = CoreRequestContextStorage(source: source)
        connection = ClientConnection(channel: source.channel)
    }
}

/// A client's connection, by which handlers detect that the client has disconnected.
struct ClientConnection: Sendable {
    let channel: any Channel

    /// Calls `action` once if the client hangs up before the returned watch is dropped.
    func onHangUp(_ action: @escaping @Sendable () -> Void) async -> HangUpHandler.Watch? {
        // Tests of the routes alone have no network and no handler.
        guard let handler = try? await channel.pipeline.handler(type: HangUpHandler.self).get() else { return nil }
        return handler.watch(action)
    }

    /// Closes the connection, so that a write that waits for its reader fails.
    func close() {
        channel.close(promise: nil)
    }
}
