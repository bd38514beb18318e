import Disaggregation
import NIOCore
import Synchronization

/// The exchange by which the UCX workers of two servers find each other. The decode server sends its worker's address; the
/// prefill server connects to it and answers with its own, to which the decode server connects. So both know at once if
/// something goes wrong with the other. Who cannot go on says why.
///
/// All calls are made on the connection's event loop.
final class UCXOpening: Sendable {
    private let connection: RecordConnection
    private let role: TransferHandshake.Role
    private let completed: @Sendable (Result<Void, TransferFailure>) -> Void
    private let state = Mutex(State())

    /// A record is an address or a reason, behind its kind.
    private enum Kind: UInt8 { case address, failure }

    private struct State {
        var worker: UCXWorker?
        var timer: Scheduled<Void>?
        var ownAddress: [UInt8]?
        var otherAddress: [UInt8]?
        var isConnecting = false
        var isConnected = false
        var hasSentAddress = false
        var isOver = false
    }

    /// What is to be done next.
    private enum Step {
        case send([UInt8])
        case connect(UCXWorker, [UInt8])
        case complete
    }

    /// The longest record.
    static let maxRecord = 64 << 10
    private static let maxReason = 1024

    /// - Parameter completed: is called once.
    init(
        _ connection: RecordConnection, _ role: TransferHandshake.Role,
        completed: @escaping @Sendable (Result<Void, TransferFailure>) -> Void
    ) {
        self.connection = connection
        self.role = role
        self.completed = completed
    }

    func begin(_ worker: UCXWorker, within limit: TimeAmount) {
        let timer = connection.eventLoop.scheduleTask(in: limit) { [self] in
            fail(
                "the servers did not reach each other over UCX within \(limit.nanoseconds / 1_000_000) ms; can each one "
                    + "connect to any port of the other?")
        }
        state.withLock { ($0.worker, $0.timer) = (worker, timer) }
    }

    func take(_ event: UCXWorker.Event) {
        switch event {
        case .address(let address): go { $0.ownAddress = address }
        case .connected: go { $0.isConnected = true }
        case .ended(let reason):
            fail("\(reason); the transports and devices of UCX are those of UCX_TLS and UCX_NET_DEVICES")
        case .came, .announced, .fetched, .sent: fail("frames before the session")
        }
    }

    func take(_ event: RecordConnection.Event) {
        switch event {
        case .ended(let reason): fail(reason, tells: false)
        case .record(let bytes):
            let body = Array(bytes.dropFirst())
            switch bytes.first.flatMap(Kind.init) {
            case .address where !body.isEmpty && state.withLock({ $0.otherAddress == nil }):
                go { $0.otherAddress = body }
            case .failure:
                let reason = String(decoding: body.prefix(Self.maxReason), as: UTF8.self)
                fail("the other server says: \(reason)", tells: false)
            case .address, nil: fail("it sends no address of a UCX worker")
            }
        }
    }

    /// Notes what has happened, and does what is possible now.
    private func go(_ note: (inout State) -> Void) {
        state.withLock { note(&$0) }
        while let step = state.withLock({ Self.next(&$0, role) }) {
            switch step {
            case .send(let address): connection.send([Kind.address.rawValue] + address)
            case .connect(let worker, let address): worker.perform(.connect(address))
            case .complete: complete(.success(()))
            }
        }
    }

    private static func next(_ state: inout State, _ role: TransferHandshake.Role) -> Step? {
        guard !state.isOver, let own = state.ownAddress, let worker = state.worker else { return nil }
        if !state.hasSentAddress, role == .decode || state.isConnected {
            state.hasSentAddress = true
            return .send(own)
        }
        if !state.isConnecting, let other = state.otherAddress {
            state.isConnecting = true
            return .connect(worker, other)
        }
        return state.isConnected ? .complete : nil
    }

    private func fail(_ reason: String, tells: Bool = true) {
        if tells { connection.send([Kind.failure.rawValue] + reason.utf8.prefix(Self.maxReason)) }
        // What is sent is written later on the event loop, and this closes the connection.
        connection.eventLoop.execute { [self] in complete(.failure(TransferFailure(reason))) }
    }

    private func complete(_ result: Result<Void, TransferFailure>) {
        let isFirst = state.withLock { state in
            defer { (state.isOver, state.worker) = (true, nil) }
            state.timer?.cancel()
            return !state.isOver
        }
        if isFirst { completed(result) }
    }
}
