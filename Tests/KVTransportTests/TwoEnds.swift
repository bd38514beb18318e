import Disaggregation
import KVTransport
import NIOCore
import Synchronization
import TestSupport
import Testing

/// What one end of a link has received.
final class Inbox: Sendable {
    private let state = Mutex([TransferLinkEvent]())

    func take(_ event: TransferLinkEvent) { state.withLock { $0.append(event) } }

    var events: [TransferLinkEvent] { state.withLock { $0 } }
    var messages: [[UInt8]] { events.compactMap { if case .message(let bytes) = $0 { bytes } else { nil } } }
    var frames: [[UInt8]] { events.compactMap { if case .frame(let bytes) = $0 { bytes } else { nil } } }
    var ends: [String] { events.compactMap { if case .closed(let reason) = $0 { reason } else { nil } } }
}

/// A listener and dialers, whose sessions are links that nobody uses yet.
final class TwoEnds: Sendable {
    let listener: TransferListener
    let port: Int
    private let way: Way
    private let seen = Mutex((listening: [TransferOpening](), dialing: [TransferOpening](), lines: [String]()))
    private let refusal = Mutex<String?>(nil)

    final class Box: Sendable {
        let ends = Mutex<TwoEnds?>(nil)
        func withEnds(_ body: (TwoEnds) -> Void) { if let ends = ends.withLock({ $0 }) { body(ends) } }
    }

    static let secret = TransferSecret(Array("a secret of the two servers".utf8))

    /// Limits of time that only end what hangs; tests of a limit set it.
    static var patient: TransferLimits {
        var limits = TransferLimits()
        limits.handshake = .minutes(8)
        limits.secondConnection = .minutes(8)
        return limits
    }

    init(_ way: Way = .tcp, _ limits: TransferLimits = patient) throws {
        self.way = way
        let box = Box()
        listener = TransferListener(
            way.prefill, Self.secret,
            TransferListener.Hooks(
                refusal: { box.ends.withLock { $0 }?.refusal.withLock { $0 } },
                begin: { opening throws(TransferFailure) in
                    box.withEnds { ends in ends.seen.withLock { $0.listening.append(opening) } }
                },
                log: { line in box.withEnds { ends in ends.seen.withLock { $0.lines.append(line) } } }), limits,
            ucx: way.settings)
        port = try listener.start(host: "127.0.0.1", port: 0)
        box.ends.withLock { $0 = self }
    }

    func refuse(_ reason: String?) { refusal.withLock { $0 = reason } }

    func dialer(
        _ secret: TransferSecret = secret, card: ServerCard? = nil, ucx: UCXSettings? = nil, port: Int? = nil
    ) -> TransferDialer {
        var limits = Self.patient
        limits.lastRetry = .milliseconds(200)
        let dialer = TransferDialer(
            TransferDialer.Target(host: "127.0.0.1", port: port ?? self.port), card ?? way.decode, secret, limits,
            ucx: ucx ?? way.settings,
            begin: { opening throws(TransferFailure) in self.seen.withLock { $0.dialing.append(opening) } },
            log: { line in self.seen.withLock { $0.lines.append(line) } })
        dialer.start()
        return dialer
    }

    var listening: [TransferOpening] { seen.withLock { $0.listening } }
    var dialing: [TransferOpening] { seen.withLock { $0.dialing } }
    var lines: [String] { seen.withLock { $0.lines } }

    /// Waits for the next session, and opens both ends of its link.
    func open(
        _ index: Int = 0, prefill: @escaping @Sendable (TransferLinkEvent) -> Void,
        decode: @escaping @Sendable (TransferLinkEvent) -> Void
    ) async throws -> (prefill: SessionLink, decode: SessionLink) {
        #expect(await eventually { self.listening.count > index && self.dialing.count > index }, "\(lines)")
        let first = try #require(listening.dropFirst(index).first)
        let second = try #require(dialing.dropFirst(index).first)
        #expect(first.number == second.number && first.card == way.decode && second.card == way.prefill)
        first.link.open(prefill)
        second.link.open(decode)
        return (first.link, second.link)
    }
}
