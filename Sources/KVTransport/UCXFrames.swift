import Disaggregation
import NIOCore
import Synchronization

/// Carries frames with UCX. The second TCP connection of the session, on which both servers have proven who they are, exchanges
/// the addresses of their UCX workers; after that it only tells that the other server is there.
///
/// UCX announces frames, and this end fetches them one after the other, when it reads: so a frame that is too long takes no
/// memory here, and what is not read takes memory only at its sender, which counts it.
final class UCXFrames: FrameChannel {
    let eventLoop: any EventLoop
    private let connection: RecordConnection
    private let state = Mutex(State())

    private struct State {
        var worker: UCXWorker?
        /// Takes the worker's first events; `nil` once frames can be exchanged.
        var opening: UCXOpening?
        var receive: (@Sendable (RecordConnection.Event) -> Void)?
        var arrivals: [Arrival] = []
        var reads = true
        /// The frames that UCX has not sent yet.
        var sends: [UInt64: EventLoopPromise<Void>] = [:]
        var nextSend: UInt64 = 0
        /// Why no frames come any more; `nil` while they may.
        var end: String?
    }

    /// A frame, in the order of announcements.
    private enum Arrival {
        case announced(UInt64)
        case fetching(UInt64)
        case here([UInt8])
    }

    /// The number of frames that are fetched at a time.
    private static let maxFetches = 2
    /// A sender that counts what it sends announces fewer.
    private static let maxArrivals = 1 << 14

    private init(_ connection: RecordConnection) {
        self.connection = connection
        eventLoop = connection.eventLoop
    }

    deinit { state.withLock { $0.worker }?.finish() }

    /// Begins to exchange the addresses of workers, over a connection that nothing else uses any more.
    ///
    /// - Parameters:
    ///   - secret: the secret of the session.
    ///   - completed: is called once, on the event loop. After a failure the connection is closed.
    static func open(
        _ connection: RecordConnection, _ role: TransferHandshake.Role, _ secret: TransferSecret,
        _ settings: UCXSettings, within limit: TimeAmount,
        completed: @escaping @Sendable (Result<any FrameChannel, TransferFailure>) -> Void
    ) {
        if let problem = UCXLibrary.problem() {
            connection.close()
            return completed(.failure(TransferFailure(problem)))
        }
        let frames = UCXFrames(connection)
        let opening = UCXOpening(connection, role) { result in
            switch result {
            case .success:
                frames.state.withLock { $0.opening = nil }
                completed(.success(frames))
            case .failure(let failure):
                frames.close()
                completed(.failure(failure))
            }
        }
        let pass = Array(secret.tag(of: Array("frames over UCX".utf8)).prefix(passBytes))
        let worker = UCXWorker(settings, pass: pass, on: frames.eventLoop) { [weak frames] in frames?.take($0) }
        frames.state.withLock { ($0.worker, $0.opening) = (worker, opening) }
        connection.bounds = RecordConnection.Bounds(record: UCXOpening.maxRecord)
        connection.deliver { [weak frames] event in frames?.take(event) }
        opening.begin(worker, within: limit)
    }

    private static let passBytes = 16

    // MARK: - Events

    private func take(_ event: RecordConnection.Event) {
        if let opening = state.withLock({ $0.opening }) { return opening.take(event) }
        switch event {
        case .ended(let reason): end(reason)
        case .record(let bytes): end("a record of \(bytes.count) bytes beside the frames")
        }
    }

    private func take(_ event: UCXWorker.Event) {
        switch event {
        case .address, .connected: state.withLock { $0.opening }?.take(event)
        case .ended(let reason):
            if let opening = state.withLock({ $0.opening }) { opening.take(event) } else { end(reason) }
        case .sent(let number): state.withLock { $0.sends.removeValue(forKey: number) }?.succeed()
        case .came(let frame): arrive(.here(frame), bytes: UInt64(frame.count))
        case .announced(let record, let bytes): arrive(.announced(record), bytes: bytes)
        case .fetched(let record, let frame):
            state.withLock { state in
                let place = state.arrivals.firstIndex { if case .fetching(record) = $0 { true } else { false } }
                if let place { state.arrivals[place] = .here(frame) }
            }
            deliverArrivals()
        }
    }

    private func arrive(_ arrival: Arrival, bytes: UInt64) {
        guard bytes > 0, bytes <= FrameLimit.bytes else { return end("it announces a frame of \(bytes) bytes") }
        let count = state.withLock { state in
            if state.end == nil { state.arrivals.append(arrival) }
            return state.arrivals.count
        }
        if count > Self.maxArrivals { return end("it announces more than \(Self.maxArrivals) frames") }
        deliverArrivals()
    }

    /// Delivers the frames that are here, and fetches the next ones, unless frames are not read now.
    private func deliverArrivals() {
        while let (frame, receive) = state.withLock({ Self.next(&$0) }) { receive(.record(frame)) }
    }

    private static func next(_ state: inout State) -> ([UInt8], @Sendable (RecordConnection.Event) -> Void)? {
        guard state.reads, state.end == nil, let receive = state.receive else { return nil }
        for place in state.arrivals.indices.prefix(maxFetches) {
            guard case .announced(let record) = state.arrivals[place] else { continue }
            state.arrivals[place] = .fetching(record)
            state.worker?.perform(.fetch(record))
        }
        guard case .here(let frame) = state.arrivals.first else { return nil }
        state.arrivals.removeFirst()
        return (frame, receive)
    }

    // MARK: - Frames

    func deliver(to receive: (@Sendable (RecordConnection.Event) -> Void)?) {
        state.withLock { $0.receive = receive }
        guard let receive else { return }
        eventLoop.execute { [self] in
            if let end = state.withLock({ $0.end }) { return receive(.ended(end)) }
            deliverArrivals()
        }
    }

    func send(_ frame: [UInt8]) -> EventLoopFuture<Void> {
        let promise = eventLoop.makePromise(of: Void.self)
        let isSent = state.withLock { state in
            guard state.end == nil, let worker = state.worker else { return false }
            state.nextSend += 1
            state.sends[state.nextSend] = promise
            worker.perform(.send(state.nextSend, frame))
            return true
        }
        if !isSent { eventLoop.execute { promise.fail(ChannelError.ioOnClosedChannel) } }
        return promise.futureResult
    }

    func setReads(_ reads: Bool) {
        // Queued, calls keep their order, and nothing is delivered on the caller's stack.
        eventLoop.execute { [self] in
            state.withLock { $0.reads = reads }
            deliverArrivals()
        }
    }

    func close() { end("this server has closed it", tells: false) }

    /// Ends the channel, and the thread of its worker.
    private func end(_ reason: String, tells: Bool = true) {
        guard let last = state.withLock({ Self.end(&$0, reason) }) else { return }
        last.worker?.finish()
        connection.deliver(to: nil)
        connection.close()
        eventLoop.execute { for promise in last.sends.values { promise.fail(ChannelError.ioOnClosedChannel) } }
        if tells { last.receive?(.ended(reason)) }
    }

    /// Ends a state. Returns the one before; `nil` if it had ended.
    private static func end(_ state: inout State, _ reason: String) -> State? {
        guard state.end == nil else { return nil }
        let last = state
        state = State()
        state.end = reason
        return last
    }
}
