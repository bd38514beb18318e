import NIOCore
import NIOPosix
import Routing
import Synchronization

/// A worker that answers with bytes that a test gives, and shows what was sent to it.
final class ToyWorker: Sendable {
    /// What the worker does after the bytes of an answer.
    enum End: Sendable { case closes, stays, breaksOff }

    struct Answer: Sendable {
        var bytes: String
        var end = End.closes
        /// The further pieces of 64 KiB, each of which is sent when the one before has left.
        var pieces = 0

        static func json(_ body: String, status: String = "200 OK", headers: String = "") -> Answer {
            Answer(
                bytes: "HTTP/1.1 \(status)\r\nContent-Type: application/json\r\n\(headers)"
                    + "Content-Length: \(body.utf8.count)\r\n\r\n\(body)")
        }

        /// The beginning of a stream whose connection stays open.
        static func stream(_ text: String, _ end: End = .stays) -> Answer {
            Answer(
                bytes: "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                    + chunk(text), end: end)
        }

        static func chunk(_ text: String) -> String { String(text.utf8.count, radix: 16) + "\r\n\(text)\r\n" }
        static let lastChunk = "0\r\n\r\n"
    }

    private struct State {
        var requests: [String] = []
        var open: [ObjectIdentifier: any Channel] = [:]
        var sentPieces = 0
        var ready = Answer.json(#"{"status":"ready"}"#)
        var loads = Answer.json(#"{"start_time":1}"#)
    }

    private let state = Mutex(State())
    private let channel = Mutex<(any Channel)?>(nil)
    static let pieceBytes = 64 << 10

    /// Starts a worker.
    ///
    /// - Parameter answer: Returns the answer to a request that is no check, of which it receives all bytes.
    init(_ answer: @escaping @Sendable (String) -> Answer) async throws {
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Handler(self, answer))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        self.channel.withLock { $0 = channel }
    }

    var address: ServerAddress {
        ServerAddress(host: "127.0.0.1", port: channel.withLock { $0!.localAddress!.port! })
    }

    /// The requests that were no checks, with all their bytes.
    var requests: [String] { state.withLock { $0.requests } }
    /// The connections of such requests that are open.
    var openCount: Int { state.withLock { $0.open.count } }
    /// The pieces of 64 KiB that have left the worker.
    var sentPieces: Int { state.withLock { $0.sentPieces } }

    func setReady(_ answer: Answer) { state.withLock { $0.ready = answer } }
    func setLoads(_ answer: Answer) { state.withLock { $0.loads = answer } }

    /// Sends bytes to all who wait for the rest of an answer.
    func send(_ bytes: String, thenCloses: Bool = false) {
        for channel in state.withLock({ Array($0.open.values) }) {
            let sent = channel.writeAndFlush(ByteBuffer(string: bytes))
            if thenCloses { sent.whenComplete { _ in channel.close(promise: nil) } }
        }
    }

    /// Ends all connections at once, as the system does when a process is killed.
    func kill() async throws {
        try await channel.withLock { $0 }?.close()
        for channel in state.withLock({ Array($0.open.values) }) { channel.close(promise: nil) }
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let worker: ToyWorker
        private let answer: @Sendable (String) -> Answer
        private var request = ""
        private var isAnswered = false

        init(_ worker: ToyWorker, _ answer: @escaping @Sendable (String) -> Answer) {
            (self.worker, self.answer) = (worker, answer)
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            request += String(buffer: unwrapInboundIn(data))
            guard !isAnswered, isWhole else { return }
            isAnswered = true
            if request.hasPrefix("GET /ready ") { return send(worker.state.withLock { $0.ready }, context.channel) }
            if request.hasPrefix("GET /v1/loads ") { return send(worker.state.withLock { $0.loads }, context.channel) }
            let channel = context.channel
            worker.state.withLock { state in
                state.requests.append(request)
                state.open[ObjectIdentifier(channel)] = channel
            }
            send(answer(request), channel)
        }

        private var isWhole: Bool {
            guard let end = request.firstRange(of: "\r\n\r\n") else { return false }
            let length = request[..<end.lowerBound].split(separator: "\r\n").lazy
                .first { $0.lowercased().hasPrefix("content-length:") }
                .flatMap { Int($0.split(separator: " ").last ?? "") }
            return request[end.upperBound...].utf8.count >= length ?? 0
        }

        private func send(_ answer: Answer, _ channel: any Channel) {
            if answer.end == .breaksOff, answer.bytes.isEmpty { return channel.close(promise: nil) }
            let sent = channel.writeAndFlush(ByteBuffer(string: answer.bytes))
            let worker = worker
            sent.whenComplete { _ in
                if answer.pieces > 0 { return Self.send(answer.pieces, channel, worker) }
                if answer.end != .stays { channel.close(promise: nil) }
            }
        }

        private static func send(_ pieces: Int, _ channel: any Channel, _ worker: ToyWorker) {
            let text = Answer.chunk(String(repeating: "x", count: ToyWorker.pieceBytes))
            let bytes = ByteBuffer(string: pieces == 1 ? text + Answer.lastChunk : text)
            channel.writeAndFlush(bytes).whenSuccess {
                worker.state.withLock { $0.sentPieces += 1 }
                if pieces > 1 { send(pieces - 1, channel, worker) } else { channel.close(promise: nil) }
            }
        }

        func channelInactive(context: ChannelHandlerContext) {
            let channel = context.channel
            worker.state.withLock { _ = $0.open.removeValue(forKey: ObjectIdentifier(channel)) }
            context.fireChannelInactive()
        }
    }
}
