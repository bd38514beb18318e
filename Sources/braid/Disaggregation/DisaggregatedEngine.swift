import Disaggregation
import Foundation
import Inference
import KVTransport
import Serving
import Synchronization

/// A disaggregated engine exchanges keys with those of other servers: it has an endpoint, and a listener or dialers that
/// begin its sessions.
struct DisaggregatedEngine: Sendable {
    private let plan: DisaggregationOptions.Plan
    private let side: Side

    private enum Side: Sendable {
        case prefill(PrefillEndpoint, TransferListener, TransferOrigin)
        case decode(DecodeEndpoint, [TransferDialer])
    }

    /// Connects an engine that has no partner yet.
    ///
    /// - Throws: `CommandError` if the server cannot listen.
    init(_ plan: DisaggregationOptions.Plan, _ card: ServerCard, _ engine: Engine) throws {
        self.plan = plan
        var card = card
        card.backend = plan.backend
        let secret = TransferSecret(plan.secret)
        switch plan.role {
        case .prefill(let host, let port):
            let endpoint = PrefillEndpoint(card)
            engine.attach(endpoint)
            let hooks = TransferListener.Hooks(
                refusal: { endpoint.refusal },
                begin: { opening throws(TransferFailure) in
                    try endpoint.begin(opening.number, to: opening.card, over: opening.link, for: engine)
                }, log: note)
            let listener = TransferListener(card, secret, hooks)
            let listening = try Self.listen(listener, host, port)
            note(
                "a decode server can connect to \(TransferDialer.Target(host: host, port: listening)); keys go over "
                    + "\(plan.backend)")
            side = .prefill(endpoint, listener, TransferOrigin(engine: card.engine, host: host, port: listening))
        case .decode(let targets, let localPrefillTokens):
            var policy = PrefillPolicy()
            policy.localPrefillTokens = localPrefillTokens ?? policy.localPrefillTokens
            let endpoint = DecodeEndpoint(card, policy, servers: targets.count)
            engine.attach(endpoint)
            let dialers = targets.enumerated().map { server, target in
                TransferDialer(
                    target, card, secret,
                    begin: { opening throws(TransferFailure) in
                        try endpoint.begin(
                            opening.number, from: opening.card, server: server, over: opening.link, for: engine)
                    }, log: note)
            }
            for dialer in dialers { dialer.start() }
            side = .decode(endpoint, dialers)
        }
    }

    private static func listen(_ listener: TransferListener, _ host: String, _ port: Int) throws -> Int {
        try listeningAddress(host, port).explaining { try listener.start(host: host, port: port) }
    }

    /// Returns the address on which a prefill server waits for decode servers.
    static func listeningAddress(_ host: String, _ port: Int) -> ListeningAddress {
        ListeningAddress(
            host: host, port: port, hostOption: "--disaggregation-host", portOption: "--disaggregation-bootstrap-port")
    }

    /// The part that the server's routes use.
    var service: TransferService {
        switch side {
        case .prefill(let endpoint, _, let origin):
            return TransferService(
                .prefill(
                    generation: {
                        endpoint.rooms.generation(for: $0, promptTokens: $1, askedWithin: Self.roomTimeout)
                    }, origin: origin), status: status)
        case .decode(let endpoint, let dialers):
            let server: @Sendable (Int) -> TransferService.PrefillServer = { index in
                .init(index: index, problem: dialers[index].problem ?? endpoint.failure(of: index))
            }
            return TransferService(
                .decode(
                    server: { host, port in
                        let target = TransferDialer.Target(host: host, port: port ?? DisaggregationOptions.usualPort)
                        return dialers.firstIndex { $0.target.isNamed(by: target) }.map(server)
                    }, engine: { endpoint.server(ofEngine: $0).map(server) }), status: status)
        }
    }

    /// The time that a router's post to a prefill server waits for the decode server to ask for the prompt. Both are posted at
    /// the same time.
    private static let roomTimeout = Duration.seconds(10)

    func status() -> TransferStatus {
        switch side {
        case .prefill(let endpoint, let listener, _):
            var status = TransferStatus(
                mode: "prefill", backend: "\(plan.backend)", peers: listener.peers.map { .init(address: $0) })
            status.transfers = endpoint.transferCount
            status.failures = listener.failures
            status.add(listener.traffic)
            return status
        case .decode(let endpoint, let dialers):
            var status = TransferStatus(mode: "decode", backend: "\(plan.backend)")
            status.transfers = endpoint.transferCount
            for (server, dialer) in dialers.enumerated() {
                let problem = dialer.problem ?? endpoint.failure(of: server)
                status.peers.append(.init(address: "\(dialer.target)", problem: problem))
                status.failures += dialer.failures
                status.add(dialer.traffic)
            }
            return status
        }
    }
}

extension TransferStatus {
    fileprivate mutating func add(_ traffic: TransferTraffic) {
        sentBytes += traffic.sent.load(ordering: .relaxed)
        receivedBytes += traffic.received.load(ordering: .relaxed)
    }
}

extension TransferDialer.Target {
    /// Returns true if another spelling means this address: names have no case, and an IPv6 address may have brackets.
    fileprivate func isNamed(by other: Self) -> Bool {
        let host =
            other.host.hasPrefix("[") && other.host.hasSuffix("]") ? other.host.dropFirst().dropLast() : other.host[...]
        return port == other.port && self.host.lowercased() == host.lowercased()
    }
}
