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

    /// Inserts a `ProtocolHandler` into the pipeline right after the decoder of HTTP.
    final class Installer: ChannelInboundHandler, RemovableChannelHandler {
        typealias InboundIn = NIOAny

        private let table: ConnectionTable

        init(_ table: ConnectionTable) { self.table = table }

        func handlerAdded(context: ChannelHandlerContext) {
            let pipeline = context.pipeline.syncOperations
            do {
                let codec = try pipeline.handler(type: HTTP1ToHTTPServerCodec.self)
                let arriving = ArrivingBytes(discardsAtMost: ProtocolHandler.lingerBytes)
                try pipeline.addHandler(arriving, position: .first)
                try pipeline.addHandler(ProtocolHandler(table, arriving), position: .before(codec))
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
        var hasBegunAnswer = false
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
    private var timer: Scheduled<Void>?

    init(_ table: ConnectionTable, _ arriving: ArrivingBytes) {
        self.table = table
        self.arriving = arriving
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
                    bytesLeft: isChunked ? nil : head.headers["content-length"].first.flatMap(Int.init) ?? 0))
            isWhole = false
            table.set(.receiving, of: context.channel)
            context.fireChannelRead(wrapInboundOut(.head(head)))
        case .body(let bytes):
            if exchanges.isEmpty {
                drained += bytes.readableBytes
                if drained > Self.drainBytes { finish(context) }
            } else {
                exchanges[exchanges.count - 1].bytesLeft? -= bytes.readableBytes
                context.fireChannelRead(data)
            }
        case .end:
            isWhole = true
            arriving.forgetStart()
            timer?.cancel()
            timer = nil
            table.set(exchanges.isEmpty ? .idle : .answering, of: context.channel)
            context.fireChannelRead(data)
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        context.fireChannelReadComplete()
        // The layers above do not request reads of data that is discarded.
        if isEnding || !isWhole && exchanges.isEmpty { context.read() }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? HTTPParserError else { return context.fireErrorCaught(error) }
        guard !isEnding else { return }
        if isWhole ? exchanges.last?.closes == true : exchanges.last?.hasBegunAnswer != false {
            // What follows the last request of a connection is not looked at, and a request has one answer.
            if exchanges.isEmpty { finish(context) } else { stopReading() }
            return
        }
        let isHead = isWhole && arriving.isHead
        if error == .headerOverflow {
            refuse(
                .requestHeaderFieldsTooLarge, "the request's header fields are too large", isHead: isHead, context)
        } else {
            refuse(.badRequest, "the request is no HTTP/1.1: \(error)", isHead: isHead, context)
        }
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
        case .head(let head) where head.status.code < 200: context.write(data, promise: promise)
        case .head(var head):
            exchanges[0].hasBegunAnswer = true
            if exchanges[0].isHTTP10 { head.version = .http1_0 }
            let left = exchanges.count == 1 && !isWhole ? exchanges[0].bytesLeft ?? 0 : 0
            let isLast = isEnding && refusal == nil && exchanges.count == 1
            if head.headers["connection"].contains("close") || left > Self.drainBytes || isLast {
                exchanges[0].closes = true
            }
            if exchanges[0].closes { head.headers.replaceOrAdd(name: "connection", value: "close") }
            context.write(wrapOutboundOut(.head(head)), promise: promise)
        case .body:
            if exchanges[0].isHead { promise?.succeed() } else { context.write(data, promise: promise) }
        case .end:
            let written = promise ?? context.eventLoop.makePromise()
            context.writeAndFlush(data, promise: written)
            self.written = written.futureResult
            end(exchanges.removeFirst(), written.futureResult, context)
        }
    }

    /// Continues after a response: with the next request, with discarding the rest of this one, or with the end.
    private func end(_ exchange: Exchange, _ written: EventLoopFuture<Void>, _ context: ChannelHandlerContext) {
        if exchange.closes { return finish(context) }
        guard exchanges.isEmpty else { return }
        table.set(isWhole ? .idle : .receiving, of: context.channel)
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
        self.written = written.futureResult
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
        table.set(isWhole ? .idle : .receiving, of: context.channel)
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
