import CUCX
import Disaggregation
import Dispatch
import Foundation
import Inference
import NIOCore
import Synchronization

/// A UCX worker sends frames to that of another server, or receives them. It has a thread, on which alone UCX is called, from
/// its creation until `finish`; then the thread ends and what UCX had is freed.
final class UCXWorker: Sendable {
    private let eventLoop: any EventLoop
    private let receive: @Sendable (Event) -> Void
    private let state = Mutex(State())
    /// The number of events that the event loop has not taken yet.
    private let waiting = Atomic(0)
    /// Is signalled when the event loop takes events again, or the worker is to end.
    private let bell = DispatchSemaphore(value: 0)

    enum Event: Sendable {
        /// The worker is there, and this is its address for the other one.
        case address([UInt8])
        /// The other worker can be reached.
        case connected
        case came([UInt8])
        /// A long record waits at the other server until it is fetched.
        case announced(record: UInt64, bytes: UInt64)
        case fetched(record: UInt64, [UInt8])
        case sent(UInt64)
        /// Nothing follows.
        case ended(String)
    }

    enum Command: Sendable {
        /// Connects to the worker with this address, once.
        case connect([UInt8])
        /// Sends a record, which the number means in the event.
        case send(UInt64, [UInt8])
        /// Fetches an announced record.
        case fetch(UInt64)
    }

    private struct State {
        var commands: [Command] = []
        /// The address of the shim's worker while it exists; otherwise 0.
        var worker: UInt = 0
        var isFinished = false

        /// Wakes the thread.
        func wake() {
            if let worker = unsafe OpaquePointer(bitPattern: worker) { unsafe braid_ucx_wake(worker) }
        }
    }

    /// While as many events wait, the thread makes no progress, so that they take a bounded amount of memory.
    private static let maxWaiting = 256
    /// The events between two looks at the commands.
    private static let eventsAtATime = 32

    /// - Parameters:
    ///   - pass: a value that only the two servers know. Records that come without it are ignored.
    ///   - receive: takes the events in order, on the event loop.
    init(
        _ settings: UCXSettings, pass: [UInt8], on eventLoop: any EventLoop,
        receive: @escaping @Sendable (Event) -> Void
    ) {
        precondition(pass.count == Int(BRAID_UCX_PASS), "a pass of \(pass.count) bytes")
        self.eventLoop = eventLoop
        self.receive = receive
        let thread = Thread { [self] in run(settings, pass) }
        thread.stackSize = 1 << 20
        thread.start()
    }

    func perform(_ command: Command) {
        state.withLock { state in
            if state.isFinished { return }
            state.commands.append(command)
            state.wake()
        }
    }

    /// Ends the worker, without waiting for its thread.
    func finish() {
        state.withLock { state in
            (state.isFinished, state.commands) = (true, [])
            state.wake()
        }
        bell.signal()
    }

    // MARK: - The thread

    private func emit(_ event: Event) {
        waiting.add(1, ordering: .acquiringAndReleasing)
        eventLoop.execute { [self] in
            receive(event)
            if waiting.subtract(1, ordering: .acquiringAndReleasing).oldValue == Self.maxWaiting { bell.signal() }
        }
    }

    private func run(_ settings: UCXSettings, _ pass: [UInt8]) {
        ThreadName.current = "braid ucx"
        var problem = [CChar](repeating: 0, count: Int(BRAID_UCX_TEXT))
        guard let worker = unsafe Self.start(settings, pass, &problem) else {
            return emit(.ended("UCX cannot begin: \(UCXLibrary.string(problem))"))
        }
        let calls = unsafe UCXCalls(worker)
        state.withLock { $0.worker = calls.bitPattern }
        emit(.address(calls.address()))
        while let commands = nextCommands() {
            for command in commands { calls.carryOut(command) }
            progress(calls)
        }
        // From here on nothing wakes the shim's worker.
        state.withLock { $0.worker = 0 }
        calls.finish()
    }

    private static func start(_ settings: UCXSettings, _ pass: [UInt8], _ problem: inout [CChar]) -> OpaquePointer? {
        // `nil` is passed as a null pointer.
        switch (settings.devices, settings.transports) {
        case (let devices?, let transports?): unsafe braid_ucx_start(devices, transports, pass, &problem)
        case (let devices?, nil): unsafe braid_ucx_start(devices, nil, pass, &problem)
        case (nil, let transports?): unsafe braid_ucx_start(nil, transports, pass, &problem)
        case (nil, nil): unsafe braid_ucx_start(nil, nil, pass, &problem)
        }
    }

    /// Returns what is to be done; `nil` if the worker is to end.
    private func nextCommands() -> [Command]? {
        state.withLock { state in
            defer { state.commands = [] }
            return state.isFinished ? nil : state.commands
        }
    }

    /// Passes on some events, or waits for one.
    private func progress(_ calls: UCXCalls) {
        for _ in 0..<Self.eventsAtATime {
            if waiting.load(ordering: .acquiring) >= Self.maxWaiting {
                _ = bell.wait(timeout: .now() + .milliseconds(100))
                return
            }
            guard let event = calls.next() else { return calls.wait() }
            emit(event)
        }
    }
}

/// The calls of a worker's thread.
@safe private final class UCXCalls {
    private let worker: OpaquePointer
    private var records: [UInt64: OpaquePointer] = unsafe [:]
    private var announced: UInt64 = 0

    /// A wait ends after this time, so that nothing hangs if UCX has missed something.
    private static let waitMilliseconds: Int32 = 1000

    @unsafe init(_ worker: OpaquePointer) { unsafe self.worker = worker }

    var bitPattern: UInt { unsafe UInt(bitPattern: worker) }

    func address() -> [UInt8] {
        var count: UInt64 = 0
        return unsafe Self.taken(braid_ucx_address(worker, &count), count)
    }

    /// Returns bytes of the shim, which are freed.
    private static func taken(_ bytes: UnsafeMutableRawPointer?, _ count: UInt64) -> [UInt8] {
        guard let bytes = unsafe bytes else { return [] }
        defer { unsafe free(bytes) }
        return unsafe Array(UnsafeRawBufferPointer(start: bytes, count: Int(count)))
    }

    func carryOut(_ command: UCXWorker.Command) {
        switch command {
        case .connect(let address): unsafe braid_ucx_connect(worker, address)
        case .send(let number, let record):
            guard let copy = unsafe malloc(max(1, record.count)) else { preconditionFailure("no memory for a frame") }
            unsafe record.withUnsafeBytes { bytes in
                if let start = bytes.baseAddress { unsafe copy.copyMemory(from: start, byteCount: bytes.count) }
            }
            unsafe braid_ucx_send(worker, number, copy, UInt64(record.count))
        case .fetch(let number):
            if let record = unsafe records.removeValue(forKey: number) { unsafe braid_ucx_fetch(record, number) }
        }
    }

    /// Makes progress, and returns the next event; `nil` if there is none now.
    func next() -> UCXWorker.Event? {
        var event = unsafe braid_ucx_event()
        guard unsafe braid_ucx_next(worker, &event) else { return nil }
        switch unsafe event.kind {
        case BRAID_UCX_CONNECTED: return .connected
        case BRAID_UCX_CAME: return unsafe .came(Self.taken(event.bytes, event.count))
        case BRAID_UCX_FETCHED: return unsafe .fetched(record: event.token, Self.taken(event.bytes, event.count))
        case BRAID_UCX_SENT: return unsafe .sent(event.token)
        case BRAID_UCX_ANNOUNCED:
            announced += 1
            unsafe records[announced] = event.record
            return unsafe .announced(record: announced, bytes: event.count)
        default:
            let text = unsafe withUnsafeBytes(of: event.text) { unsafe Array($0.prefix { $0 != 0 }) }
            return .ended("UCX: " + String(decoding: text, as: UTF8.self))
        }
    }

    func wait() { unsafe braid_ucx_wait(worker, Self.waitMilliseconds) }

    func finish() { unsafe braid_ucx_finish(worker) }
}
