import JSON
import NIOCore
import NIOHTTP1
import NIOHTTPTypesHTTP1

/// Enforces those rules of HTTP/1 (RFC 9112) that the layers above do not see: versions, hosts, targets, lengths and codings
/// of requests, responses without a body, and the end of connections.
///
/// Requests that are not valid HTTP are refused here, with a body that gives the reason, after the responses to those before
/// them. If a request's response is complete before its body has arrived, the rest is read and discarded up to `drainBytes`;
/// then the connection ends.
///
/// A connection that is closed with bytes unread is reset, and its client may lose a response that it has not read. So a
/// connection ends in two steps: after the last response the sending side is closed, and what still arrives is discarded until
/// the client closes its side, up to `lingerBytes` and `lingerTurns`.
final class ProtocolHandler: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart
    typealias OutboundIn = HTTPServerResponsePart
    typealias OutboundOut = HTTPServerResponsePart

    /// Inserts a `ProtocolHandler` into the pipeline right after the decoder of HTTP, and what sees bytes before it.
    final class Installer: ChannelInboundHandler, RemovableChannelHandler {
        typealias InboundIn = NIOAny

        private let table: ConnectionTable
        private let maxFramingBytes: Int
        private let writeTimeout: Duration

        /// - Parameters:
        ///   - maxFramingBytes: the bytes that a chunked body may have beside its data and the sizes of its chunks.
        ///   - writeTimeout: the time after which a client is disconnected that reads nothing of its answers.
        init(_ table: ConnectionTable, maxFramingBytes: Int, writeTimeout: Duration) {
            self.table = table
            self.maxFramingBytes = maxFramingBytes
            self.writeTimeout = writeTimeout
        }

        func handlerAdded(context: ChannelHandlerContext) {
            let pipeline = context.pipeline.syncOperations
            do {
                let codec = try pipeline.handler(type: HTTP1ToHTTPServerCodec.self)
                let arriving = ArrivingBytes(discardsAtMost: ProtocolHandler.lingerBytes)
                try pipeline.addHandlers([WriteTimeout(writeTimeout), arriving], position: .first)
                let handler = ProtocolHandler(table, arriving, maxFramingBytes: maxFramingBytes)
                try pipeline.addHandler(handler, position: .before(codec))
            } catch {
                context.fireErrorCaught(error)
            }
        }
    }

    /// A request whose response is not complete.
    private struct Exchange {
        let isHTTP10: Bool
        let isHead: Bool
        var closes: Bool
        /// The number of bytes of the body that have not arrived; `nil` if the header does not give the length.
        var bytesLeft: Int?
        /// True if the client waits for status 100, and has not got it, before it sends the body.
        var isAwaitingContinue: Bool
        var hasBegunAnswer = false
    }

    /// The bytes of a chunked body that is arriving. The decoder bounds trailers, as fields of the header, but not the
    /// extensions of chunks, which it drops.
    private struct Framing {
        /// The number of bytes that had arrived on the connection with the read that brought the header. What else that
        /// read brought is not counted.
        let start: Int
        /// The bytes of data, and the number of parts in which they were decoded, at least one for a chunk.
        var dataBytes = 0
        var parts = 0

        /// A chunk's size has at most eight digits, since bodies are shorter than 4 GiB, and four bytes end its lines.
        private static let maxBytesOfChunk = 12

        /// Returns the bytes that are neither data nor needed to divide it.
        func excess(of arrived: Int) -> Int { arrived - start - dataBytes - Self.maxBytesOfChunk * parts }
    }

    /// The answer to a request that is not valid HTTP.
    private struct Refusal {
        let status: HTTPResponseStatus
        let message: String
        /// True if the request is known to be a HEAD, whose response has no body.
        let isHead: Bool
    }

    /// The maximum number of bytes of an answered request that are discarded before the next one.
    static let drainBytes = 256 << 10
    /// The maximum number of bytes that are discarded before a connection is closed: clients may send a whole body before
    /// they read.
    static let lingerBytes = 256 << 20
    /// The time in which `lingerRate` bytes must arrive while bytes are discarded, and the number of such times.
    static let lingerTime = TimeAmount.seconds(2)
    static let lingerTurns = 15
    static let lingerRate = 64 << 10

    private let table: ConnectionTable
    private let arriving: ArrivingBytes
    private let maxFramingBytes: Int
    /// `nil` while no chunked body is arriving.
    private var framing: Framing?
    private var exchanges: [Exchange] = []
    /// The answer that follows those to `exchanges`.
    private var refusal: Refusal?
    /// True if the newest request has arrived completely.
    private var isWhole = true
    /// True if no further request is read from this connection.
    private var isEnding = false
    /// True if everything has been written and the sending side is closed.
    private var isOut = false
    /// True if the client has closed its sending side.
    private var isInputClosed = false
    /// The number of bytes of an answered request that were discarded.
    private var drained = 0
    /// Completes when the newest response has been written; `nil` before the first.
    private var written: EventLoopFuture<Void>?
    /// The number of responses that are complete here and not written yet, as their client has not read enough.
    private var unwritten = 0
    private var timer: Scheduled<Void>?

    init(_ table: ConnectionTable, _ arriving: ArrivingBytes, maxFramingBytes: Int) {
        self.table = table
        self.arriving = arriving
        self.maxFramingBytes = maxFramingBytes
    }

    func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { table.open(context.channel) }
    }

    func channelActive(context: ChannelHandlerContext) {
        table.open(context.channel)
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        table.close(context.channel)
        timer?.cancel()
        context.fireChannelInactive()
    }

    // MARK: - Requests

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if isEnding { return }
        switch unwrapInboundIn(data) {
        case .head(var head):
            if let problem = Self.problem(with: head) {
                return refuse(problem.status, problem.message, isHead: head.method == .HEAD, context)
            }
            let closes = Self.normalize(&head)
            let isChunked = head.headers.contains(name: "transfer-encoding")
            exchanges.append(
                Exchange(
                    isHTTP10: head.version == .http1_0, isHead: head.method == .HEAD, closes: closes,
                    bytesLeft: isChunked ? nil : head.headers["content-length"].first.flatMap(Int.init) ?? 0,
                    isAwaitingContinue: head.headers["expect"].contains(where: ContinueHandler.asksForContinue)))
            isWhole = false
            framing = isChunked ? Framing(start: arriving.count) : nil
            tell(context.channel)
            context.fireChannelRead(wrapInboundOut(.head(head)))
        case .body(let bytes):
            if let start = framing?.start, arriving.count > start {
                framing?.dataBytes += bytes.readableBytes
                framing?.parts += 1
            }
            if exchanges.isEmpty {
                drained += bytes.readableBytes
                if drained > Self.drainBytes { finish(context) }
            } else {
                exchanges[exchanges.count - 1].bytesLeft? -= bytes.readableBytes
                exchanges[exchanges.count - 1].isAwaitingContinue = false
                context.fireChannelRead(data)
            }
        case .end:
            isWhole = true
            framing = nil
            arriving.forgetStart()
            timer?.cancel()
            timer = nil
            tell(context.channel)
            context.fireChannelRead(data)
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        if let framing, framing.excess(of: arriving.count) > maxFramingBytes {
            refuseInvalid(
                .badRequest,
                "the chunks of the body have more than \(maxFramingBytes) bytes beside their data; send no extensions",
                context)
        }
        context.fireChannelReadComplete()
        // The layers above do not request reads of data that is discarded.
        if isEnding || !isWhole && exchanges.isEmpty { context.read() }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? HTTPParserError else { return context.fireErrorCaught(error) }
        if error == .headerOverflow {
            refuseInvalid(.requestHeaderFieldsTooLarge, "the request's header fields are too large", context)
        } else {
            refuseInvalid(.badRequest, "the request is no HTTP/1.1: \(error)", context)
        }
    }

    /// Refuses what is arriving, unless it has an answer or needs none.
    private func refuseInvalid(_ status: HTTPResponseStatus, _ message: String, _ context: ChannelHandlerContext) {
        guard !isEnding else { return }
        if isWhole ? exchanges.last?.closes == true : exchanges.last?.hasBegunAnswer != false {
            // What follows the last request of a connection is not looked at, and a request has one answer.
            if exchanges.isEmpty { finish(context) } else { stopReading() }
            return
        }
        refuse(status, message, isHead: isWhole && arriving.isHead, context)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .inputClosed = event as? ChannelEvent {
            isInputClosed = true
            if isOut { context.close(promise: nil) }
        }
        context.fireUserInboundEventTriggered(event)
    }

    // MARK: - Answers

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        // The request was already answered here, or there is none.
        guard !exchanges.isEmpty else {
            promise?.succeed()
            return
        }
        switch unwrapOutboundIn(data) {
        case .head(let head) where head.status.code < 200:
            exchanges[0].isAwaitingContinue = false
            context.write(data, promise: promise)
        case .head(var head):
            exchanges[0].hasBegunAnswer = true
            if exchanges[0].isHTTP10 { head.version = .http1_0 }
            let left = exchanges.count == 1 && !isWhole ? exchanges[0].bytesLeft ?? 0 : 0
            let isLast = isEnding && refusal == nil && exchanges.count == 1
            // A client that waited for status 100 may send the body or not, so that what follows cannot be told from it.
            let isAmbiguous = exchanges.count == 1 && !isWhole && exchanges[0].isAwaitingContinue
            if head.headers["connection"].contains("close") || left > Self.drainBytes || isLast || isAmbiguous {
                exchanges[0].closes = true
            }
            if exchanges[0].closes { head.headers.replaceOrAdd(name: "connection", value: "close") }
            context.write(wrapOutboundOut(.head(head)), promise: promise)
        case .body:
            if exchanges[0].isHead { promise?.succeed() } else { context.write(data, promise: promise) }
        case .end:
            let written = promise ?? context.eventLoop.makePromise()
            context.writeAndFlush(data, promise: written)
            let exchange = exchanges.removeFirst()
            wait(for: written.futureResult, context.channel)
            end(exchange, written.futureResult, context)
        }
    }

    /// Continues after a response: with the next request, with discarding the rest of this one, or with the end.
    private func end(_ exchange: Exchange, _ written: EventLoopFuture<Void>, _ context: ChannelHandlerContext) {
        if exchange.closes { return finish(context) }
        guard exchanges.isEmpty else { return }
        if let refusal { return send(refusal, context) }
        if isEnding { return finish(context) }
        guard !isWhole else { return }
        drained = 0
        let channel = context.channel
        // The time starts when the response has been written, however slowly its client reads.
        written.assumeIsolated().whenComplete { [self] _ in
            if !isWhole, !isEnding { linger(channel) }
        }
        context.read()
    }

    /// Counts a response that is complete here as being sent until it is `written`.
    private func wait(for written: EventLoopFuture<Void>, _ channel: any Channel) {
        self.written = written
        unwritten += 1
        tell(channel)
        written.assumeIsolated().whenComplete { [self] _ in
            unwritten -= 1
            if unwritten == 0 { tell(channel) }
        }
    }

    /// Tells the table the state of the connection. It is being answered until every response has been written: a client that
    /// reads slowly must not lose the rest of one for a new connection.
    private func tell(_ channel: any Channel) {
        // The newest request is not answered before it has arrived, unless it is the last one and refused.
        let isAnswering = unwritten > 0 || exchanges.count > (isWhole || isEnding ? 0 : 1)
        table.set(isAnswering ? .answering : isWhole ? .idle : .receiving, of: channel)
    }

    // MARK: - The end

    /// Sends an error response in place of the layers above, once earlier requests have theirs, and ends the connection.
    private func refuse(
        _ status: HTTPResponseStatus, _ message: String, isHead: Bool, _ context: ChannelHandlerContext
    ) {
        let refusal = Refusal(status: status, message: message, isHead: isHead)
        // What the layers above say to the request whose body is not valid is dropped.
        if !isWhole { exchanges.removeLast() }
        stopReading()
        if exchanges.isEmpty { send(refusal, context) } else { self.refusal = refusal }
    }

    private func send(_ refusal: Refusal, _ context: ChannelHandlerContext) {
        let error = RequestError(.invalid, refusal.message, code: "invalid_http")
        let body = ByteBuffer(bytes: error.json.pythonBytes)
        let headers: HTTPHeaders = [
            "content-type": "application/json", "content-length": String(body.readableBytes), "connection": "close",
        ]
        let head = HTTPResponseHead(version: .http1_1, status: refusal.status, headers: headers)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if !refusal.isHead { context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil) }
        let written = context.eventLoop.makePromise(of: Void.self)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: written)
        wait(for: written.futureResult, context.channel)
        finish(context)
    }

    private func stopReading() {
        isEnding = true
        arriving.discard()
    }

    /// Closes the sending side once the last response has been written, and the connection when its client has closed its own
    /// side, or sends too much or too little.
    private func finish(_ context: ChannelHandlerContext) {
        stopReading()
        exchanges = []
        tell(context.channel)
        let (channel, written) = (context.channel, written ?? context.eventLoop.makeSucceededVoidFuture())
        written.assumeIsolated().whenComplete { [self] _ in
            isOut = true
            if isInputClosed { return channel.close(promise: nil) }
            channel.close(mode: .output, promise: nil)
            linger(channel)
        }
        context.read()
    }

    /// Closes the connection if less than `lingerRate` arrives in `lingerTime`, and after so many turns.
    private func linger(_ channel: any Channel, turns: Int = lingerTurns) {
        let before = arriving.count
        timer?.cancel()
        timer = channel.eventLoop.assumeIsolated().scheduleTask(in: Self.lingerTime) { [self] in
            guard turns > 1, arriving.count - before >= Self.lingerRate else { return channel.close(promise: nil) }
            linger(channel, turns: turns - 1)
        }
    }
}
