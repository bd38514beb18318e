package import Disaggregation
package import NIOCore
import NIOPosix
import Synchronization

/// Runs a handshake on a connection, within limits of time. It keeps itself alive until it is done.
final class HandshakeRun: Sendable {
    private let connection: RecordConnection
    private let state: Mutex<State>
    private let limits: TransferLimits
    private let settled: @Sendable () -> Void
    private let completed: @Sendable (Result<Outcome, TransferFailure>) -> Void

    private struct State {
        var handshake: TransferHandshake
        var timer: Scheduled<Void>?
        var isOver = false
    }

    /// The handshake at its end, and its last record, which is not sent yet.
    struct Outcome: Sendable {
        var handshake: TransferHandshake
        var reply: [UInt8]?
    }

    /// - Parameters:
    ///   - settled: is called once, when the other server has proven that it has the secret, or it is too late for that.
    ///   - completed: is called once. After a failure the connection is closed.
    init(
        _ handshake: TransferHandshake, on connection: RecordConnection, _ limits: TransferLimits,
        settled: @escaping @Sendable () -> Void = {},
        completed: @escaping @Sendable (Result<Outcome, TransferFailure>) -> Void
    ) {
        self.connection = connection
        self.limits = limits
        self.settled = settled
        self.completed = completed
        state = Mutex(State(handshake: handshake))
    }

    /// - Parameter isDialer: true for the server that sends the first record.
    func start(isDialer: Bool) {
        if isDialer { connection.send(state.withLock { $0.handshake.greeting }) }
        limitTime("it did not prove who it is within \(limits.handshake.nanoseconds / 1_000_000) ms")
        connection.deliver { [self] event in
            switch event {
            case .record(let bytes): take(bytes)
            case .ended(let reason):
                let isProven = state.withLock { $0.handshake.isProven }
                let advice = isProven ? "" : "; do both servers have the same secret (--disaggregation-secret-file)?"
                complete(.failure(TransferFailure("during the handshake, " + reason + (isDialer ? advice : ""))))
            }
        }
    }

    private func limitTime(_ reason: String) {
        let timer = connection.channel.eventLoop.scheduleTask(in: limits.handshake) { [self] in
            complete(.failure(TransferFailure(reason)))
        }
        state.withLock { state in
            state.timer?.cancel()
            state.timer = timer
        }
    }

    private func take(_ record: [UInt8]) {
        let result: Result<(wasProven: Bool, Outcome), TransferFailure> = state.withLock { state in
            let wasProven = state.handshake.isProven
            do throws(TransferFailure) {
                let reply = try state.handshake.take(record)
                return .success((wasProven, Outcome(handshake: state.handshake, reply: reply)))
            } catch {
                return .failure(error)
            }
        }
        switch result {
        case .failure(let failure): complete(.failure(failure))
        case .success(let (wasProven, outcome)):
            if !wasProven, outcome.handshake.isProven {
                connection.bounds = RecordConnection.Bounds(record: Self.maxCard)
                limitTime("its card did not come in time")
                settled()
            }
            if outcome.handshake.isDone { return complete(.success(outcome)) }
            if let reply = outcome.reply { connection.send(reply) }
        }
    }

    /// The longest card, which describes each layer of a model.
    private static let maxCard = 1 << 20

    private func complete(_ result: Result<Outcome, TransferFailure>) {
        let (isFirst, isProven) = state.withLock { state in
            defer { state.isOver = true }
            state.timer?.cancel()
            state.timer = nil
            return (!state.isOver, state.handshake.isProven)
        }
        guard isFirst else { return }
        if !isProven { settled() }
        connection.deliver(to: nil)
        if case .failure = result { connection.close() }
        completed(result)
    }
}

/// The limits of connections before a session begins.
package struct TransferLimits: Sendable {
    /// The time for a proof, and then for a card.
    package var handshake = TimeAmount.seconds(5)
    /// The time for the connection that carries the session's frames.
    package var secondConnection = TimeAmount.seconds(5)
    /// The number of connections at a time that have proven nothing.
    package var maxUnproven = 16
    /// The times between two attempts to dial: the first, and the longest.
    package var firstRetry = TimeAmount.milliseconds(100)
    package var lastRetry = TimeAmount.seconds(5)

    package init() {}
}

/// A session that the handshake has prepared: the endpoint is to begin it.
package struct TransferOpening: Sendable {
    /// The number of the session, the same at both servers.
    package let number: UInt64
    /// The other server's card.
    package let card: ServerCard
    package let link: SessionLink
}

/// The event loops of all links of this process, which serve nothing else. There is one: a link's events come one after
/// the other, and a server has few links.
enum TransferEventLoops {
    static let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
}
