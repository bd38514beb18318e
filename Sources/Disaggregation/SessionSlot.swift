import Dispatch
import Inference
import Synchronization

/// The end of a session as an endpoint uses it: a state machine that bytes and times are given to.
protocol TransferSession: Sendable {
    /// Why the session has ended; `nil` while it is in use.
    var failure: String? { get }
    /// The number of transfers that have not ended.
    var transferCount: Int { get }
    /// Returns the messages to send since the last call, in order.
    mutating func takeMessages() -> [[UInt8]]
    /// Applies a message of the other server.
    mutating func receive(message: [UInt8], at now: UInt64, _ scheduler: inout Scheduler) -> [Scheduler.Event]
    /// Sends signs of life, and ends the session if the other server gives none.
    mutating func tick(at now: UInt64, _ scheduler: inout Scheduler) -> [Scheduler.Event]
    /// Ends the session and its transfers.
    mutating func close(_ reason: String, _ scheduler: inout Scheduler) -> [Scheduler.Event]
}

/// The session of an endpoint, with its link and the thread that gives signs of life. A new session ends the one before
/// it, whose late messages are ignored. An engine that fails or is stopped ends its session; a session that ends closes
/// its link and ends its thread.
final class SessionSlot<Session: TransferSession>: Sendable {
    private let state: Mutex<State>

    private struct State {
        var session: Session
        var number: UInt64?
        var link: (any TransferLink)?
        var pacer: Pacer?

        /// Sends what the session wants to send. A session that has ended ends its link.
        mutating func flush() {
            for message in session.takeMessages() { link?.send(message: message) }
            guard let failure = session.failure else { return }
            link?.close(failure)
            pacer?.wake()
            (link, pacer) = (nil, nil)
        }
    }

    /// - Parameter session: a session that has ended.
    init(_ session: Session) { state = Mutex(State(session: session)) }

    var transferCount: Int { state.withLock { $0.session.transferCount } }

    var failure: String? { state.withLock { $0.session.failure } }

    /// Returns the link of a session; `nil` once the session has ended.
    func link(of number: UInt64) -> (any TransferLink)? { state.withLock { $0.number == number ? $0.link : nil } }

    /// Wakes the session's thread.
    func wake() { state.withLock { $0.pacer?.wake() } }

    /// The parts of an endpoint that call its slot.
    struct Work: Sendable {
        /// The name of the session's thread.
        let threadName: String
        /// The longest time between two calls of `perform`, in milliseconds.
        let interval: UInt64
        /// Wakes the session's thread. Unlike `SessionSlot.wake` it takes no lock.
        var bell = DispatchSemaphore(value: 0)
        /// Does what is to be done, at intervals and when the thread is woken.
        let perform: @Sendable (UInt64, Engine) -> Void
        /// Takes an event of the link, other than its end, after the session has taken it if it is a message.
        let receive: @Sendable (TransferLinkEvent, UInt64, Engine) -> Void
    }

    /// Begins a session, and ends the one before.
    ///
    /// - Parameter make: returns the session, at a time. It is called under the engine's lock.
    /// - Throws: if the engine has failed or was stopped.
    func begin(
        _ number: UInt64, over link: any TransferLink, for engine: Engine, _ work: Work, _ make: (UInt64) -> Session
    ) throws(TransferFailure) {
        var problem: String? = "a thread of the engine trapped"
        engine.exchange { scheduler, _ in
            state.withLock { state in
                problem = scheduler.failure
                guard problem == nil else { return [] }
                let events = state.session.close("a new session begins", &scheduler)
                state.flush()
                (state.session, state.number, state.link) = (make(TransferTiming.now()), number, link)
                return events
            }
        }
        if let problem { throw TransferFailure("the engine takes no session: \(problem)") }
        let pacer = Pacer(work.threadName, every: work.interval, bell: work.bell) { [weak self, weak engine] in
            guard let self, let engine, self.link(of: number) != nil else { return false }
            work.perform(number, engine)
            return self.link(of: number) != nil
        }
        state.withLock { if $0.number == number, $0.link != nil { $0.pacer = pacer } }
        link.open { [weak self, weak engine] event in
            if let self, let engine { receive(event, number, engine, work) }
        }
    }

    private func receive(_ event: TransferLinkEvent, _ number: UInt64, _ engine: Engine, _ work: Work) {
        switch event {
        case .message(let bytes):
            exchange(number, engine) { session, scheduler, _ in
                session.receive(message: bytes, at: TransferTiming.now(), &scheduler)
            }
            work.receive(event, number, engine)
        case .closed(let reason): close(reason, number, engine)
        case .frame, .writable: work.receive(event, number, engine)
        }
    }

    /// Ends a session, if it is still the one with this number.
    func close(_ reason: String, _ number: UInt64, _ engine: Engine) {
        exchange(number, engine) { session, scheduler, _ in session.close(reason, &scheduler) }
    }

    /// Calls `body` with the session, if it is still the one with this number.
    func exchange(
        _ number: UInt64, _ engine: Engine,
        _ body: (inout Session, inout Scheduler, ServerCaches) -> [Scheduler.Event]
    ) {
        engine.exchange { scheduler, caches in
            state.withLock { state in
                guard state.number == number else { return [] }
                defer { state.flush() }
                return body(&state.session, &scheduler, caches)
            }
        }
    }

    /// Calls `body` with the session, which is to carry out the scheduler's actions, and ends the session if the engine
    /// has failed or was stopped. It must be called under the engine's lock.
    func carryOut(
        _ scheduler: inout Scheduler, _ body: (inout Session, inout Scheduler) -> [Scheduler.Event]
    ) -> [Scheduler.Event] {
        state.withLock { state in
            defer { state.flush() }
            let events = body(&state.session, &scheduler)
            guard let failure = scheduler.failure else { return events }
            return events + state.session.close(failure, &scheduler)
        }
    }
}

extension SessionSlot where Session == DecodeSession {
    /// Returns whether a transfer of this request has not ended.
    func hasTransfer(of request: UInt64) -> Bool { state.withLock { $0.session.hasTransfer(of: request) } }
}
