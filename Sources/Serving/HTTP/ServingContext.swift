package import Hummingbird
import NIOCore

/// The context of a request that handlers receive, with the connection on which it arrived.
package struct ServingContext: RequestContext {
    package var coreContext: CoreRequestContextStorage
    package let connection: ClientConnection

    package init(source: ApplicationRequestContextSource) {
        coreContext = CoreRequestContextStorage(source: source)
        connection = ClientConnection(channel: source.channel)
    }
}

/// A client's connection, by which handlers detect that the client has disconnected.
package struct ClientConnection: Sendable {
    let channel: any Channel

    package init(channel: any Channel) { self.channel = channel }

    /// Calls `action` once if the client hangs up before the returned watch is dropped, or at once if it already has.
    package func onHangUp(_ action: @escaping @Sendable () -> Void) async -> HangUpHandler.Watch? {
        guard let handler = try? await channel.pipeline.handler(type: HangUpHandler.self).get() else {
            // A connection that has been closed has no handlers any more. Neither have tests of the routes alone, whose
            // channel is never closed.
            channel.closeFuture.whenComplete { _ in action() }
            return nil
        }
        return handler.watch(action)
    }

    /// True if the client is a program of this machine.
    package var isLocal: Bool {
        guard let address = channel.remoteAddress?.ipAddress else { return false }
        return address == "::1" || address.hasPrefix("127.") || address.hasPrefix("::ffff:127.")
    }

    /// Waits until the connection's event loop has taken what was written before. Only then is it known whether the
    /// client reads, and the next write waits for it: a source that is faster than a busy event loop would otherwise be
    /// read without bounds.
    package func takeWrites() async throws { try await channel.eventLoop.submit {}.get() }

    /// Tells a client that waits for it that the body of its request is now read.
    func askForBody(of request: Request) {
        if request.head.expectsContinue {
            channel.triggerUserOutboundEvent(ContinueHandler.BodyIsRead(), promise: nil)
        }
    }

    /// Closes the connection, so that a write that waits for its reader fails.
    package func close() {
        channel.close(promise: nil)
    }
}
