import Connections
import Foundation
package import NIOCore
package import NIOHTTP1
import NIOPosix

/// The reason why a worker's answer is not complete.
package enum UpstreamError: Error, Sendable, CustomStringConvertible {
    /// There is no connection.
    case refused(String)
    /// There is no connection because this machine has no file descriptor, port or memory for one.
    case exhausted(String)
    /// The connection ended, or what the worker sent is no HTTP.
    case lost(String)

    package var description: String {
        switch self {
        case .refused(let reason): "no connection: \(reason)"
        case .exhausted(let reason): "the router can open no connection: \(reason)"
        case .lost(let reason): reason
        }
    }
}

/// One request to a worker on a connection of its own, and the answer, which is read from the connection only as fast
/// as it is taken: a client that reads slowly slows down its worker.
///
/// A connection that is used again could be closed by the worker just when a request is written, and nobody could say
/// whether the worker has seen it.
package final class UpstreamExchange: Sendable {
    /// A part of an answer.
    package enum Part: Sendable {
        case head(HTTPResponseHead)
        case body(ByteBuffer)
        case end
    }

    private let channel: any Channel
    private let reader: NIOLoopBound<AnswerReader>

    private init(_ channel: any Channel, _ reader: NIOLoopBound<AnswerReader>) {
        (self.channel, self.reader) = (channel, reader)
    }

    deinit { close() }

    /// Connects to a worker and sends a request.
    ///
    /// - Throws: `UpstreamError.refused` if there is no connection.
    package static func open(
        to address: ServerAddress, _ head: HTTPRequestHead, _ body: ByteBuffer, connectTimeout: Duration
    ) async throws(UpstreamError) -> UpstreamExchange {
        let exchange: UpstreamExchange
        do {
            let milliseconds = Int64(max(1, connectTimeout / .milliseconds(1)))
            exchange = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connectTimeout(.milliseconds(milliseconds))
                .channelOption(.autoRead, value: false)
                .connect(host: address.host, port: address.port) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        let reader = AnswerReader(channel)
                        try channel.pipeline.syncOperations.addHTTPClientHandlers()
                        try channel.pipeline.syncOperations.addHandler(reader)
                        return UpstreamExchange(channel, NIOLoopBound(reader, eventLoop: channel.eventLoop))
                    }
                }
        } catch {
            let isExhaustion = error.systemError.map(Self.exhaustions.contains) ?? false
            throw isExhaustion ? .exhausted(error.connectionReason) : .refused(error.connectionReason)
        }
        exchange.channel.write(HTTPClientRequestPart.head(head), promise: nil)
        if body.readableBytes > 0 {
            exchange.channel.write(HTTPClientRequestPart.body(.byteBuffer(body)), promise: nil)
        }
        // A write that fails shows when the answer is read; a worker may have answered before.
        exchange.channel.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
        return exchange
    }

    /// The numbers by which the system says that this machine has no more of something.
    private static let exhaustions = [EMFILE, ENFILE, EADDRNOTAVAIL, ENOBUFS, ENOMEM]

    /// Waits for the next part of the answer.
    package func next() async throws(UpstreamError) -> Part {
        let (channel, reader) = (channel, reader)
        do {
            return try await channel.eventLoop.flatSubmit { reader.value.next() }.get()
        } catch {
            throw (error as? UpstreamError) ?? .lost("\(error)")
        }
    }

    /// Closes the connection; whoever waits for a part gets an error.
    package func close() { channel.close(promise: nil) }
}

/// Hands out the parts of an answer one by one, and reads from the connection only while one is waited for.
private final class AnswerReader: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPClientResponsePart

    private let channel: any Channel
    /// Parts that have arrived together with one that was waited for.
    private var parts: CircularBuffer<UpstreamExchange.Part> = []
    private var waiting: EventLoopPromise<UpstreamExchange.Part>?
    /// Why no further part will come.
    private var failure: UpstreamError?

    init(_ channel: any Channel) { self.channel = channel }

    func next() -> EventLoopFuture<UpstreamExchange.Part> {
        if let part = parts.popFirst() { return channel.eventLoop.makeSucceededFuture(part) }
        if let failure { return channel.eventLoop.makeFailedFuture(failure) }
        precondition(waiting == nil, "two tasks read the answer of one request")
        let promise = channel.eventLoop.makePromise(of: UpstreamExchange.Part.self)
        waiting = promise
        channel.read()
        return promise.futureResult
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let part: UpstreamExchange.Part =
            switch unwrapInboundIn(data) {
            case .head(let head): .head(head)
            case .body(let bytes): .body(bytes)
            case .end: .end
            }
        guard let waiting else { return parts.append(part) }
        self.waiting = nil
        waiting.succeed(part)
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        // What was read may have been too little for a part.
        if waiting != nil { context.read() }
    }

    func channelInactive(context: ChannelHandlerContext) {
        fail(.lost("the worker closed the connection before its answer was complete"))
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail(.lost(String("the connection failed: \(error)".prefix(256))))
        context.close(promise: nil)
    }

    private func fail(_ error: UpstreamError) {
        if failure == nil { failure = error }
        waiting?.fail(error)
        waiting = nil
    }
}
