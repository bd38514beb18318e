import NIOCore
import Synchronization

/// A TCP connection that carries records: a length of four bytes, little-endian, and as many bytes.
///
/// Records go to one receiver at a time, on the connection's event loop: first to the handshake, then to the link. A few
/// may wait while there is none.
final class RecordConnection: Sendable {
    let channel: any Channel
    private let state = Mutex(State())

    enum Event: Sendable {
        case record([UInt8])
        /// The connection has ended. Nothing follows.
        case ended(String)
    }

    /// The bounds of what the connection reads.
    struct Bounds: Sendable {
        /// The longest record. Longer ones end the connection before memory is reserved for them.
        var record: Int
        /// The number of bytes that may still come at all.
        var total = Int.max
    }

    private struct State {
        var bounds = Bounds(record: TransferHandshake.maxUnprovenBytes, total: TransferHandshake.maxUnprovenBytes)
        var receive: (@Sendable (Event) -> Void)?
        /// Counts the receivers, so that an earlier one gets nothing more.
        var receivers = 0
        var waiting: [Event] = []
        var hasEnded = false
    }

    /// The number of records that may wait for a receiver.
    private static let maxWaiting = 64

    init(_ channel: any Channel) { self.channel = channel }

    /// Adds the handler of records to a channel that is being set up.
    static func prepare(_ channel: any Channel) -> EventLoopFuture<RecordConnection> {
        channel.eventLoop.makeCompletedFuture {
            let connection = RecordConnection(channel)
            try channel.pipeline.syncOperations.addHandler(RecordReader(connection))
            return connection
        }
    }

    /// Returns the connection of a channel that was prepared. It must be called on the channel's event loop.
    static func of(_ channel: any Channel) throws -> RecordConnection {
        try channel.pipeline.syncOperations.handler(type: RecordReader.self).connection
    }

    /// The bounds of what is read from now on.
    var bounds: Bounds {
        get { state.withLock { $0.bounds } }
        set { state.withLock { $0.bounds = newValue } }
    }

    /// Lets a receiver have what waits and what follows; `nil` lets it wait.
    func deliver(to receive: (@Sendable (Event) -> Void)?) {
        let number = state.withLock { state in
            state.receive = nil
            state.receivers += 1
            return state.receivers
        }
        guard let receive else { return }
        channel.eventLoop.execute { [self] in
            while let event = next(number, receive) { receive(event) }
        }
    }

    /// Returns the next event that waits. If none waits, it returns `nil` and passes later events to `receive`. It also
    /// returns `nil` if another receiver has taken over.
    private func next(_ number: Int, _ receive: @escaping @Sendable (Event) -> Void) -> Event? {
        state.withLock { state in
            guard state.receivers == number else { return nil }
            if !state.waiting.isEmpty { return state.waiting.removeFirst() }
            if !state.hasEnded { state.receive = receive }
            return nil
        }
    }

    /// Takes an event from the channel, on its event loop.
    fileprivate func take(_ event: Event) {
        let receive: (@Sendable (Event) -> Void)? = state.withLock { state in
            if state.hasEnded { return nil }
            let receive = state.receive
            if case .ended = event { (state.hasEnded, state.receive) = (true, nil) }
            if receive == nil { state.waiting.append(event) }
            return receive
        }
        receive?(event)
        if state.withLock({ $0.waiting.count }) > Self.maxWaiting { channel.close(promise: nil) }
    }

    /// Counts bytes that came. Returns the longest record that may come, or `nil` if too many bytes have come.
    fileprivate func count(_ bytes: Int) -> Int? {
        state.withLock { state in
            if state.bounds.total != .max { state.bounds.total -= bytes }
            return state.bounds.total < 0 ? nil : state.bounds.record
        }
    }

    /// Sends a record. The future ends when the system has taken it.
    ///
    /// The write is never made on the caller's stack: if it fails, the receiver is told at once, and the caller may hold a
    /// lock that the receiver needs.
    @discardableResult
    func send(_ record: [UInt8]) -> EventLoopFuture<Void> {
        var buffer = channel.allocator.buffer(capacity: RecordReader.lengthBytes + record.count)
        buffer.writeInteger(UInt32(record.count), endianness: .little)
        buffer.writeBytes(record)
        let sent = channel.eventLoop.makePromise(of: Void.self)
        channel.eventLoop.execute { [channel, buffer] in channel.writeAndFlush(buffer, promise: sent) }
        return sent.futureResult
    }

    func close() { channel.close(promise: nil) }
}

/// Reads records from the bytes of a channel.
private final class RecordReader: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    static let lengthBytes = 4
    let connection: RecordConnection
    private var buffer = ByteBuffer()

    init(_ connection: RecordConnection) { self.connection = connection }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        guard connection.count(bytes.readableBytes) != nil else {
            return end(context, "it sends too much before it proves who it is")
        }
        buffer.writeBuffer(&bytes)
        while let length = buffer.getInteger(at: buffer.readerIndex, endianness: .little, as: UInt32.self) {
            // The receiver of the last record may have changed the bound.
            guard let bound = connection.count(0), length > 0, length <= bound else {
                return end(context, Self.problem(of: length))
            }
            guard buffer.readableBytes >= Self.lengthBytes + Int(length) else { break }
            buffer.moveReaderIndex(forwardBy: Self.lengthBytes)
            guard let record = buffer.readBytes(length: Int(length)) else { break }
            connection.take(.record(record))
        }
        if buffer.readableBytes == 0 { buffer.clear() } else { buffer.discardReadBytes() }
    }

    /// Says what is wrong with a length. Those of HTTP's first words tell that one port was taken for another.
    private static func problem(of length: UInt32) -> String {
        let word = String(decoding: (0..<4).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) }, as: UTF8.self)
        if ["HTTP", "GET ", "POST", "HEAD"].contains(word) {
            return "it speaks HTTP; keys go to the port of --disaggregation-bootstrap-port"
        }
        return "it announces a record of \(length) bytes"
    }

    func channelInactive(context: ChannelHandlerContext) {
        connection.take(.ended("the other server has closed the connection"))
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { end(context, "\(error)") }

    private func end(_ context: ChannelHandlerContext, _ reason: String) {
        buffer.clear()
        connection.take(.ended("the connection is over: \(reason)"))
        context.close(promise: nil)
    }
}
