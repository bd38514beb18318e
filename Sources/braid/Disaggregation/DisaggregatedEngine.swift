import Disaggregation
import Foundation
import Inference
import KVTransport
import NIOCore
import Serving
import Synchronization

/// A disaggregated engine exchanges keys with that of another server: it has an endpoint, and a listener or a dialer that
/// begins its sessions.
struct DisaggregatedEngine: Sendable {
    private let plan: DisaggregationOptions.Plan
    private let side: Side

    private enum Side: Sendable {
        case prefill(PrefillEndpoint, TransferListener)
        case decode(DecodeEndpoint, TransferDialer)
    }

    /// Connects an engine that has no partner yet.
    ///
    /// - Throws: `CommandError` if the server cannot listen.
    init(_ plan: DisaggregationOptions.Plan, _ card: ServerCard, _ engine: Engine) throws {
        self.plan = plan
        let secret = TransferSecret(plan.secret)
        switch plan.role {
        case .prefill(let host, let port):
            let endpoint = PrefillEndpoint(card)
            engine.attach(endpoint)
            let hooks = TransferListener.Hooks(
                refusal: { endpoint.failure == nil ? "it computes prompts for another decode server" : nil },
                begin: { opening throws(TransferFailure) in
                    try endpoint.begin(opening.number, to: opening.card, over: opening.link, for: engine)
                }, log: note)
            let listener = TransferListener(card, secret, hooks)
            let listening = try Self.listen(listener, host, port)
            note("a decode server can connect to \(TransferDialer.Target(host: host, port: listening))")
            side = .prefill(endpoint, listener)
        case .decode(let target, let localPrefillTokens):
            var policy = PrefillPolicy()
            policy.localPrefillTokens = localPrefillTokens ?? policy.localPrefillTokens
            let endpoint = DecodeEndpoint(card, policy)
            engine.attach(endpoint)
            let dialer = TransferDialer(
                target, card, secret,
                begin: { opening throws(TransferFailure) in
                    try endpoint.begin(opening.number, from: opening.card, over: opening.link, for: engine)
                }, log: note)
            dialer.start()
            side = .decode(endpoint, dialer)
        }
    }

    private static func listen(_ listener: TransferListener, _ host: String, _ port: Int) throws -> Int {
        do {
            return try listener.start(host: host, port: port)
        } catch let error as IOError where error.errnoCode == EADDRINUSE {
            throw CommandError(
                "--disaggregation-bootstrap-port: \(host):\(port) is taken by another program; choose another port")
        } catch {
            throw CommandError("--disaggregation-host: cannot listen on \(host):\(port): \(error.reason)")
        }
    }

    /// The mode of requests for which a client gives none.
    var requestMode: DisaggregationMode {
        if case .decode = side { .decode } else { .none }
    }

    func status() -> TransferStatus {
        switch side {
        case .prefill(let endpoint, let listener):
            var status = TransferStatus(mode: "prefill", problem: endpoint.failure)
            status.peer = endpoint.failure == nil ? listener.peer : nil
            status.transfers = endpoint.transferCount
            status.failures = listener.failures
            status.count(listener.traffic)
            return status
        case .decode(let endpoint, let dialer):
            var status = TransferStatus(mode: "decode", problem: dialer.problem ?? endpoint.failure)
            status.peer = "\(dialer.target)"
            status.transfers = endpoint.transferCount
            status.failures = dialer.failures
            status.count(dialer.traffic)
            return status
        }
    }
}

extension TransferStatus {
    fileprivate mutating func count(_ traffic: TransferTraffic) {
        sentBytes = traffic.sent.load(ordering: .relaxed)
        receivedBytes = traffic.received.load(ordering: .relaxed)
    }
}
