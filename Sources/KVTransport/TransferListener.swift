package import Disaggregation
import NIOCore
import NIOPosix
import Synchronization

/// A transfer listener accepts connections of decode servers at a prefill server, and begins a session with each.
package final class TransferListener: Sendable {
    private let card: ServerCard
    private let secret: TransferSecret
    private let limits: TransferLimits
    private let hooks: Hooks
    private let ucx: UCXSettings
    private let state = Mutex(State())
    package let traffic = TransferTraffic()

    /// What a server does for its listener. The functions are called on the event loop, and do not wait.
    package struct Hooks: Sendable {
        /// Returns why no other session can begin now; `nil` if one can.
        let refusal: @Sendable () -> String?
        /// Begins a session, or throws why not.
        let begin: @Sendable (TransferOpening) throws(TransferFailure) -> Void
        let log: @Sendable (String) -> Void

        package init(
            refusal: @escaping @Sendable () -> String?,
            begin: @escaping @Sendable (TransferOpening) throws(TransferFailure) -> Void,
            log: @escaping @Sendable (String) -> Void
        ) {
            self.refusal = refusal
            self.begin = begin
            self.log = log
        }
    }

    private struct State {
        var server: (any Channel)?
        var unproven = 0
        /// Sessions whose connection for frames has not come yet.
        var awaited: [UInt64: Awaited] = [:]
        var lastLine = ""
        var refusals = LineLimit()
        /// The addresses of the decode servers, by their sessions.
        var peers: [UInt64: String] = [:]
        /// The number of sessions that ended, and of those that were refused.
        var failures: UInt64 = 0
    }

    private struct Awaited {
        let connection: RecordConnection
        let card: ServerCard
        let secret: TransferSecret
    }

    /// - Parameters:
    ///   - card: also says how frames are sent.
    ///   - ucx: what UCX may use if frames go over it.
    package init(
        _ card: ServerCard, _ secret: TransferSecret, _ hooks: Hooks, _ limits: TransferLimits = TransferLimits(),
        ucx: UCXSettings = UCXSettings()
    ) {
        self.card = card
        self.ucx = ucx
        self.secret = secret
        self.limits = limits
        self.hooks = hooks
    }

    /// Begins to listen.
    ///
    /// - Parameter port: 0 lets the system choose.
    /// - Returns: the port.
    /// - Throws: an error of the system. It must not be called on an event loop, because it waits.
    package func start(host: String, port: Int) throws -> Int {
        let server = try ServerBootstrap(group: TransferEventLoops.group)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { [weak self] channel in
                RecordConnection.prepare(channel).map { [weak self] connection in self?.accept(connection) }
            }
            .bind(host: host, port: port).wait()
        state.withLock { $0.server = server }
        return server.localAddress?.port ?? port
    }

    /// The addresses of the decode servers that have sessions, in the order of these addresses.
    package var peers: [String] { state.withLock { $0.peers.values.sorted() } }

    /// The number of sessions that have ended, and of those that were refused.
    package var failures: UInt64 { state.withLock { $0.failures } }

    /// Ends listening. Sessions go on until their links are closed.
    package func stop() {
        state.withLock { $0.server }?.close(promise: nil)
    }

    // MARK: - Connections

    private func accept(_ connection: RecordConnection) {
        let isAccepted = state.withLock { state in
            if state.unproven >= limits.maxUnproven { return false }
            state.unproven += 1
            return true
        }
        // The channel is still being set up, and can be closed after that.
        guard isAccepted else { return connection.channel.eventLoop.execute { connection.close() } }
        let handshake = TransferHandshake(listening: card) { [weak self, secret] purpose in
            guard case .frames(let session) = purpose else { return secret }
            // Where no such session is awaited, no proof is right.
            return self?.state.withLock { $0.awaited[session]?.secret } ?? .random()
        }
        HandshakeRun(
            handshake, on: connection, limits,
            settled: { [weak self] in self?.state.withLock { $0.unproven -= 1 } },
            completed: { [weak self] result in
                guard let self else { return connection.close() }
                switch result {
                case .failure(let failure): logRefusal("refused a connection from \(connection.peer): \(failure)")
                case .success(let outcome) where outcome.handshake.purpose == .messages:
                    prepare(outcome.handshake, connection)
                case .success(let outcome): begin(outcome, connection)
                }
            }
        ).start(isDialer: false)
    }

    /// Answers with this server's card or a refusal, and waits for the connection of the session's frames.
    private func prepare(_ handshake: TransferHandshake, _ connection: RecordConnection) {
        var handshake = handshake
        guard let card = handshake.peerCard else { return connection.close() }
        var problem: String?
        do throws(TransferFailure) {
            // The other server finds the same differences in this one's card.
            try TransferFailure.check(ServerCard.differences(prefill: self.card, decode: card))
            let awaited = state.withLock { $0.awaited.count }
            handshake.refusal =
                awaited < limits.maxUnproven ? hooks.refusal() : "sessions with \(awaited) others are about to begin"
            problem = handshake.refusal
        } catch {
            problem = error.description
        }
        let session = handshake.session
        if problem == nil {
            let awaited = Awaited(connection: connection, card: card, secret: handshake.sessionSecret)
            state.withLock { $0.awaited[session] = awaited }
            connection.channel.eventLoop.scheduleTask(in: limits.secondConnection) { [weak self] in
                self?.drop(session, "its connection for frames did not come in time")
            }
            connection.channel.closeFuture.whenComplete { [weak self] _ in
                self?.drop(session, "it has closed the connection")
            }
        }
        let sent = connection.send(handshake.sealedCard)
        guard let problem else { return }
        state.withLock { $0.failures += 1 }
        logRefusal("refused a session with \(connection.peer): \(problem)")
        sent.whenComplete { _ in connection.close() }
    }

    /// Gives up a session that has not begun.
    private func drop(_ session: UInt64, _ reason: String) {
        guard let awaited = state.withLock({ $0.awaited.removeValue(forKey: session) }) else { return }
        log("gave up a session with \(awaited.connection.peer): \(reason)")
        awaited.connection.close()
    }

    /// Prepares the frames of the session to which a connection belongs. The last record of the handshake tells the other
    /// server that there is such a session.
    private func begin(_ outcome: HandshakeRun.Outcome, _ connection: RecordConnection) {
        let session = outcome.handshake.session
        guard let awaited = state.withLock({ $0.awaited.removeValue(forKey: session) }) else {
            return connection.close()
        }
        if let reply = outcome.reply { connection.send(reply) }
        let settings = FrameChannelSettings(
            backend: card.backend, role: .prefill, secret: awaited.secret, ucx: ucx, limits: limits)
        settings.open(connection) { [weak self] result in
            guard let self else { return awaited.connection.close() }
            switch result {
            case .success(let frames): begin(session, awaited, frames)
            case .failure(let failure):
                log("gave up a session with \(connection.peer): \(failure)")
                state.withLock { $0.failures += 1 }
                awaited.connection.close()
            }
        }
    }

    private func begin(_ session: UInt64, _ awaited: Awaited, _ frames: any FrameChannel) {
        let link = SessionLink(awaited.connection, frames: frames, traffic)
        let peer = awaited.connection.peer
        link.closeFuture.whenComplete { [self] _ in
            log("the session with the decode server at \(peer) has ended: \(link.failure ?? "unknown")")
            state.withLock { state in
                state.failures += 1
                state.peers[session] = nil
            }
        }
        do throws(TransferFailure) {
            try hooks.begin(TransferOpening(number: session, card: awaited.card, link: link))
            // The link's end comes later on this event loop.
            state.withLock { $0.peers[session] = peer }
            log("a session with the decode server at \(peer) has begun")
        } catch {
            link.close(error.description)
        }
    }

    /// Logs a line that a stranger may have caused, unless there were many.
    private func logRefusal(_ line: String) {
        if let line = state.withLock({ $0.refusals.admit(line, at: .now()) }) { log(line) }
    }

    /// Logs a line, unless it is the same as the last one: a server that is refused tries again and again.
    private func log(_ line: String) {
        let isNew = state.withLock { state in
            defer { state.lastLine = line }
            return state.lastLine != line
        }
        if isNew { hooks.log(line) }
    }
}

extension RecordConnection {
    /// The other server's address, for messages.
    var peer: String { channel.remoteAddress.flatMap(\.ipAddress) ?? "an unknown address" }
}
