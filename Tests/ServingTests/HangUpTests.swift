import NIOCore
import NIOEmbedded
import Serving
import Synchronization
import TestSupport
import Testing

/// When a request's handler hears that its client has hung up.
@Suite(.timeLimit(.minutes(15))) struct `Hanging up` {
    private func connect() async throws -> NIOAsyncTestingChannel {
        let channel = NIOAsyncTestingChannel()
        try await channel.pipeline.addHandler(HangUpHandler())
        try await channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 9))
        return channel
    }

    private func close(_ channel: NIOAsyncTestingChannel) async throws {
        try await channel.close()
        await channel.testingEventLoop.run()
    }

    @Test func `a client that hangs up while its request is answered is heard`() async throws {
        let channel = try await connect()
        let heard = Heard()
        let watch = await ClientConnection(channel: channel).onHangUp { heard.set() }
        #expect(watch != nil)
        #expect(!heard.isSet)
        try await close(channel)
        #expect(await eventually { heard.isSet })
    }

    @Test func `one that has hung up before the handler listens is heard, too`() async throws {
        let channel = try await connect()
        try await close(channel)
        let heard = Heard()
        let watch = await ClientConnection(channel: channel).onHangUp { heard.set() }
        #expect(await eventually { heard.isSet })
        withExtendedLifetime(watch) {}
    }

    private final class Heard: Sendable {
        private let flag = Atomic(false)
        var isSet: Bool { flag.load(ordering: .acquiring) }
        func set() { flag.store(true, ordering: .releasing) }
    }
}
