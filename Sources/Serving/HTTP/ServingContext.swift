import Hummingbird
import NIOCore

/// What a handler knows of its request besides the request: also the connection it came by.
struct ServingContext: RequestContext {
    var coreContext: CoreRequestContextStorage
    let connection: ClientConnection

    init(source: ApplicationRequestContextSource) {
        coreContext = CoreRequestContextStorage(source: source)
        connection = ClientConnection(channel: source.channel)
    }
}

/// A client's connection, as far as one has to know whether the client is still there.
struct ClientConnection: Sendable {
    let channel: any Channel

    /// Calls `action` once if the client hangs up before the returned watch is dropped.
    func onHangUp(_ action: @escaping @Sendable () -> Void) async -> HangUpHandler.Watch? {
        // There is no handler where there is no network, as in tests of the routes alone.
        guard let handler = try? await channel.pipeline.handler(type: HangUpHandler.self).get() else { return nil }
        return handler.watch(action)
    }

    /// Ends the connection, so that a write that waits for its reader fails.
    func close() {
        channel.close(promise: nil)
    }
}
