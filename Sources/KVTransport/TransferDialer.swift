import Connections
package import Disaggregation
import NIOCore
import NIOPosix
import Synchronization

/// A transfer dialer connects a decode server to a prefill server, and does so again whenever the session has ended.
package final class TransferDialer: Sendable {
    package let target: Target
    private let card: ServerCard
    private let secret: TransferSecret
    private let limits: TransferLimits
    /// Begins a session, or throws why not. It is called on the event loop, and does not wait.
    private let begin: @Sendable (TransferOpening) throws(TransferFailure) -> Void
    private let log: @Sendable (String) -> Void
    private let ucx: UCXSettings
    private let state: Mutex<State>
    package let traffic = TransferTraffic()

    /// The address of a prefill server.
    package struct Target: Sendable, Equatable, CustomStringConvertible {
        package let host: String
        package let port: Int

        package init(host: String, port: Int) {
            self.host = host
            self.port = port
        }

        package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
    }

    private struct State {
        var retry: TimeAmount
        /// Why the last attempt failed; `nil` while there is a session.
        var problem: String?
        /// The connection that messages use, or will use.
        var channel: (any Channel)?
        var isStopped = false
        /// The number of sessions and attempts that ended.
        var failures: UInt64 = 0
    }

    /// - Parameters:
    ///   - card: also says how frames are sent.
    ///   - ucx: what UCX may use if frames go over it.
    package init(
        _ target: Target, _ card: ServerCard, _ secret: TransferSecret, _ limits: TransferLimits = TransferLimits(),
        ucx: UCXSettings = UCXSettings(),
        begin: @escaping @Sendable (TransferOpening) throws(TransferFailure) -> Void,
        log: @escaping @Sendable (String) -> Void
    ) {
        self.target = target
        self.card = card
        self.secret = secret
        self.limits = limits
        self.ucx = ucx
        self.begin = begin
        self.log = log
        state = Mutex(State(retry: limits.firstRetry, problem: "has not answered yet"))
    }

    /// Why there is no session; `nil` while there is one.
    package var problem: String? { state.withLock { $0.problem } }

    /// The number of sessions, and of attempts to begin one, that have ended.
    package var failures: UInt64 { state.withLock { $0.failures } }

    /// Begins to dial.
    package func start() { dial() }

    /// Ends the session, and dials no more.
    package func stop() {
        let channel = state.withLock { state in
            state.isStopped = true
            return state.channel
        }
        channel?.close(promise: nil)
    }

    // MARK: - Connections

    private func bootstrap() -> ClientBootstrap {
        ClientBootstrap(group: TransferEventLoops.group)
            .connectTimeout(limits.handshake)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in RecordConnection.prepare(channel).map { _ in } }
    }

    private func dial() {
        if state.withLock({ $0.isStopped }) { return }
        bootstrap().connect(host: target.host, port: target.port)
            .flatMapThrowing { try RecordConnection.of($0) }
            .whenComplete { [self] result in
                switch result {
                case .failure(let error): failed("cannot be reached: \(error.connectionReason)")
                case .success(let connection): begin(on: connection)
                }
            }
    }

    private func begin(on connection: RecordConnection) {
        let isStopped = state.withLock { state in
            state.channel = connection.channel
            return state.isStopped
        }
        if isStopped { return connection.close() }
        let handshake = TransferHandshake(dialing: card, .messages, secret)
        HandshakeRun(handshake, on: connection, limits) { [self] result in
            switch result {
            case .failure(let failure): failed("\(failure)")
            case .success(let outcome): dialFrames(outcome.handshake, connection)
            }
        }.start(isDialer: true)
    }

    private func dialFrames(_ handshake: TransferHandshake, _ messages: RecordConnection) {
        do throws(TransferFailure) {
            guard let source = handshake.peerCard, let address = messages.channel.remoteAddress else {
                throw TransferFailure("the connection has ended")
            }
            try TransferFailure.check(ServerCard.differences(prefill: source, decode: card))
            bootstrap().connect(to: address)
                .flatMapThrowing { try RecordConnection.of($0) }
                .whenComplete { [self] result in
                    switch result {
                    case .failure(let error):
                        give(up: messages, "a second connection failed: \(error.connectionReason)")
                    case .success(let frames): join(frames, messages, handshake, source)
                    }
                }
        } catch {
            give(up: messages, error.description)
        }
    }

    private func join(
        _ frames: RecordConnection, _ messages: RecordConnection, _ handshake: TransferHandshake, _ source: ServerCard
    ) {
        let secret = handshake.sessionSecret
        let second = TransferHandshake(dialing: card, .frames(handshake.session), secret)
        let settings = FrameChannelSettings(
            backend: card.backend, role: .decode, secret: secret, ucx: ucx, limits: limits)
        HandshakeRun(second, on: frames, limits) { [self] result in
            switch result {
            case .failure(let failure): give(up: messages, failure.description)
            case .success:
                settings.open(frames) { [self] result in begin(result, messages, handshake.session, source) }
            }
        }.start(isDialer: true)
    }

    private func begin(
        _ frames: Result<any FrameChannel, TransferFailure>, _ messages: RecordConnection, _ number: UInt64,
        _ source: ServerCard
    ) {
        do throws(TransferFailure) {
            let link = SessionLink(messages, frames: try frames.get(), traffic)
            do throws(TransferFailure) {
                if state.withLock({ $0.isStopped }) { throw TransferFailure("this server has stopped") }
                try begin(TransferOpening(number: number, card: source, link: link))
            } catch {
                link.close(error.description)
                throw error
            }
            hasBegun(link)
        } catch {
            give(up: messages, error.description)
        }
    }

    private func hasBegun(_ link: SessionLink) {
        state.withLock { $0.problem = nil }
        log("a session with the prefill server at \(target) has begun")
        let began = NIODeadline.now()
        link.closeFuture.whenComplete { [self] _ in
            // A session that ends at once will do so again.
            if NIODeadline.now() - began > limits.lastRetry { state.withLock { $0.retry = limits.firstRetry } }
            failed("the session has ended: \(link.failure ?? "unknown")")
        }
    }

    private func give(up connection: RecordConnection, _ reason: String) {
        connection.close()
        failed(reason)
    }

    /// Dials again, after a time that doubles with every failure.
    private func failed(_ reason: String) {
        let (isNew, delay): (Bool, TimeAmount?) = state.withLock { state in
            defer {
                state.problem = reason
                state.channel = nil
                state.failures += 1
                state.retry = min(limits.lastRetry, state.retry * 2)
            }
            return (state.problem != reason, state.isStopped ? nil : state.retry)
        }
        if isNew { log("the prefill server at \(target): \(reason)") }
        guard let delay else { return }
        TransferEventLoops.group.next().scheduleTask(in: delay) { [weak self] in self?.dial() }
    }
}
