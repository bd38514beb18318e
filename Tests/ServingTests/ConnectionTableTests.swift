import NIOCore
import NIOEmbedded
import Serving
import Testing

/// Connections of one address to a table that holds three of it.
@Suite struct `Closing connections for new ones` {
    private let table = ConnectionTable(most: 100, perAddress: 3)
    private let start = NIODeadline.now()

    private func connect(after milliseconds: Int64) -> EmbeddedChannel {
        let channel = EmbeddedChannel()
        channel.connect(to: try! SocketAddress(ipAddress: "127.0.0.1", port: 9), promise: nil)
        table.open(channel, now: start + .milliseconds(milliseconds))
        return channel
    }

    @Test func `the one that has been idle longest goes first`() {
        let channels = [0, 100, 200].map(connect(after:))
        table.set(.receiving, of: channels[0], now: start)
        _ = connect(after: 5000)
        #expect(channels.map(\.isActive) == [true, false, true])
    }

    @Test func `one that has just connected outlives requests that never end`() {
        let channels = [0, 10].map(connect(after:))
        for channel in channels { table.set(.receiving, of: channel, now: start + .milliseconds(20)) }
        let young = connect(after: 4900)
        _ = connect(after: 5000)
        #expect(young.isActive)
        #expect(channels.count(where: \.isActive) == 1)
    }

    @Test func `one that is being answered stays, and the new one is closed if all are`() {
        let channels = [0, 0, 0].map(connect(after:))
        for channel in channels { table.set(.answering, of: channel, now: start) }
        #expect(!connect(after: 5000).isActive)
        #expect(channels.map(\.isActive) == [true, true, true])
        #expect(table.count == 3)
    }
}
