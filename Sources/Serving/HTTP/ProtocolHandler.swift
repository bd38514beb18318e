import Foundation
import JSON
import NIOCore
import NIOHTTP1
import NIOHTTPTypesHTTP1

/// Enforces those rules of HTTP/1 (RFC 9112) that the layers above do not see: versions, hosts, lengths and codings of
/// requests, responses without a body, and the end of connections.
///
/// Requests that are not valid HTTP are refused here, with a body that gives the reason. If a request's response is
/// complete before its body has arrived, the rest is read and discarded, up to `drainBytes` and `drainTime`; then the
/// connection ends.
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
                let start = RequestStart()
                try pipeline.addHandler(start, position: .first)
                try pipeline.addHandler(ProtocolHandler(table, start), position: .before(codec))
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

    /// The maximum number of bytes of an answered request that are discarded.
    static let drainBytes = 256 << 10
    /// The maximum time in which the rest of an answered request is discarded.
    static let drainTime = TimeAmount.seconds(2)

    private let table: ConnectionTable
    private let start: RequestStart
    private var exchanges: [Exchange] = []
    /// True if the newest request has arrived completely.
    private var isWhole = true
    /// True if no further request is read from this connection.
    private var isEnding = false
    /// True if everything has been written and the sending side is closed.
    private var isOut = false
    private var drained = 0
    private var timer: Scheduled<Void>?

    init(_ table: ConnectionTable, _ start: RequestStart) {
        self.table = table
        self.start = start
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
        if isEnding { return drain(unwrapInboundIn(data), context) }
        switch unwrapInboundIn(data) {
        case .head(var head):
            if let problem = Self.problem(with: head) {
                return refuse(problem.status, problem.message, isHead: head.method == .HEAD, context)
            }
            let closes = head.version == .http1_0 || Self.tokens(head.headers["connection"]).contains("close")
            // The layer above recognizes only this spelling.
            if closes { head.headers.replaceOrAdd(name: "connection", value: "close") }
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
                drain(.body(bytes), context)
            } else {
                exchanges[exchanges.count - 1].bytesLeft? -= bytes.readableBytes
                context.fireChannelRead(data)
            }
        case .end:
            isWhole = true
            start.reset()
            timer?.cancel()
            timer = nil
            table.set(exchanges.isEmpty ? .idle : .answering, of: context.channel)
            context.fireChannelRead(data)
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        context.fireChannelReadComplete()
        // The layers above do not request reads of data that is discarded.
        if !isWhole, exchanges.isEmpty || isEnding { context.read() }
    }

    /// Discards a part of a request that arrives after its response.
    private func drain(_ part: HTTPServerRequestPart, _ context: ChannelHandlerContext) {
        switch part {
        case .head: break
        case .body(let bytes):
            drained += bytes.readableBytes
            if drained > Self.drainBytes { context.close(promise: nil) }
        case .end: isWhole = true
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? HTTPParserError else { return context.fireErrorCaught(error) }
        guard !isEnding else { return }
        if exchanges.contains(where: \.hasBegunAnswer) { return context.close(promise: nil) }
        let isHead = isWhole && start.isHead
        if error == .headerOverflow {
            refuse(
                .requestHeaderFieldsTooLarge, "the request's header fields are too large", isHead: isHead, context)
        } else {
            refuse(.badRequest, "the request is no HTTP/1.1: \(error)", isHead: isHead, context)
        }
    }

    /// Sends an error response instead of the layers above, and closes the connection.
    ///
    /// - Parameter isHead: whether the request is known to be a HEAD, whose response has no body.
    private func refuse(
        _ status: HTTPResponseStatus, _ message: String, isHead: Bool, _ context: ChannelHandlerContext
    ) {
        isEnding = true
        let error = RequestError(.invalid, message, code: "invalid_http")
        let body = ByteBuffer(bytes: error.json.pythonBytes)
        let headers: HTTPHeaders = [
            "content-type": "application/json", "content-length": String(body.readableBytes), "connection": "close",
        ]
        context.write(
            wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: status, headers: headers))), promise: nil)
        if !isHead { context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil) }
        let written = context.eventLoop.makePromise(of: Void.self)
        let channel = context.channel
        written.futureResult.whenComplete { _ in channel.close(promise: nil) }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: written)
    }

    // MARK: - Answers

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        // The request was already answered here, or there is none.
        guard !isEnding, !exchanges.isEmpty else {
            promise?.succeed()
            return
        }
        switch unwrapOutboundIn(data) {
        case .head(let head) where head.status.code < 200: context.write(data, promise: promise)
        case .head(var head):
            exchanges[0].hasBegunAnswer = true
            if exchanges[0].isHTTP10 { head.version = .http1_0 }
            let left = exchanges.count == 1 && !isWhole ? exchanges[0].bytesLeft ?? 0 : 0
            if head.headers["connection"].contains("close") || left > Self.drainBytes { exchanges[0].closes = true }
            if exchanges[0].closes { head.headers.replaceOrAdd(name: "connection", value: "close") }
            context.write(wrapOutboundOut(.head(head)), promise: promise)
        case .body:
            if exchanges[0].isHead { promise?.succeed() } else { context.write(data, promise: promise) }
        case .end:
            let written = promise ?? context.eventLoop.makePromise()
            context.writeAndFlush(data, promise: written)
            end(exchanges.removeFirst(), written.futureResult, context)
        }
    }

    /// Continues after a response: with the next request, with discarding the rest of this one, or with the end.
    private func end(_ exchange: Exchange, _ written: EventLoopFuture<Void>, _ context: ChannelHandlerContext) {
        if exchanges.isEmpty { table.set(isWhole ? .idle : .receiving, of: context.channel) }
        if exchange.closes {
            isEnding = true
        } else if isWhole || !exchanges.isEmpty {
            return
        }
        drained = 0
        let channel = context.channel
        // The time starts when the response has been written, however slowly its client reads.
        written.assumeIsolated().whenComplete { [self] _ in
            if exchange.closes {
                isOut = true
                channel.close(mode: .output, promise: nil)
            }
            if exchange.closes || !isWhole { endLater(channel) }
        }
        context.read()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if isOut, case .inputClosed = event as? ChannelEvent { context.close(promise: nil) }
        context.fireUserInboundEventTriggered(event)
    }

    private func endLater(_ channel: any Channel) {
        timer?.cancel()
        timer = channel.eventLoop.scheduleTask(in: Self.drainTime) { channel.close(promise: nil) }
    }
}

/// Remembers the first bytes of a request, since a request whose header is not valid is never decoded, and the response
/// to a HEAD has no body.
final class RequestStart: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer

    private static let head = Array("HEAD ".utf8)
    private var bytes: [UInt8] = []

    /// True if the request that is arriving is known to be a HEAD. It is not known of requests that a client sends
    /// before it has the response to an earlier one.
    var isHead: Bool { bytes == Self.head }

    /// Forgets a request that has arrived completely.
    func reset() { bytes = [] }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if bytes.count < Self.head.count {
            bytes += unwrapInboundIn(data).readableBytesView.prefix(Self.head.count - bytes.count)
        }
        context.fireChannelRead(data)
    }
}

// MARK: - Rules

extension ProtocolHandler {
    /// Returns the reason to refuse a request by its header; `nil` if it is valid.
    static func problem(with head: HTTPRequestHead) -> (status: HTTPResponseStatus, message: String)? {
        let hosts = head.headers["host"]
        guard hosts.count == 1 || hosts.isEmpty && head.version == .http1_0 else {
            return (.badRequest, "a request has one Host field; this one has \(hosts.count)")
        }
        let codings = tokens(head.headers["transfer-encoding"])
        let lengths = tokens(head.headers["content-length"])
        if !codings.isEmpty {
            guard codings == ["chunked"], head.version != .http1_0 else {
                return (.badRequest, "Transfer-Encoding may only be 'chunked'; send the body as it is")
            }
            guard lengths.isEmpty else {
                return (.badRequest, "Transfer-Encoding and Content-Length exclude each other")
            }
        }
        guard let length = lengths.first else { return nil }
        guard Set(lengths).count == 1, length.utf8.allSatisfy({ (0x30...0x39).contains($0) }), Int(length) != nil else {
            return (.badRequest, "Content-Length is no length: '\(lengths.joined(separator: ", ").prefix(64))'")
        }
        return nil
    }

    /// Returns the elements of a list that may be spread over several fields, in lower case.
    private static func tokens(_ fields: [String]) -> [String] {
        fields.flatMap { $0.split(separator: ",", omittingEmptySubsequences: false) }
            .map { $0.trimmingCharacters(in: .whitespaces).lowercased() }
    }
}
