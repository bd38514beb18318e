import CMPI
import Dispatch
import Foundation
import Synchronization

/// Transports messages over MPI.
///
/// Only one thread calls MPI, and it never blocks inside: it sends the messages that others queue, looks for arrived
/// ones, and sleeps briefly when there is nothing to do. So messages move while ranks compute, a waiting process leaves
/// its cores to busy ones, and a peer that hangs does not stop this thread. MPI by itself would poll.
package final class MPITransport: MessageTransport {
    package let process: Int
    package let processes: Int
    package let processesHere: Int
    private let outgoing = Mutex<[(message: Message, process: Int)]>([])
    private let wake = DispatchSemaphore(value: 0)
    private let waiting = Atomic(0)
    private let handlers = Mutex<Handlers?>(nil)
    private let isLeaving = Atomic(false)
    private let hasLeft = DispatchSemaphore(value: 0)
    /// The exit status of the job; -1 while it runs.
    private let endStatus = Atomic<Int32>(-1)
    private let polls = Atomic(false)

    private struct Handlers {
        let receive: @Sendable (Message, Int) -> Void
        let look: @Sendable () -> Void
        let lose: @Sendable (String) -> Void
    }

    /// Says why MPI is not available.
    package struct Problem: Error, CustomStringConvertible {
        package let description: String
    }

    /// True if this program was built with MPI.
    package static var isBuilt: Bool { braid_mpi_is_built() }

    /// Joins the job for which `mpirun` started this process.
    package static func join() throws(Problem) -> MPITransport {
        guard isBuilt else {
            throw Problem(
                description: "this braid was built without MPI, as pkg-config found no ompi-c; install libopenmpi-dev "
                    + "(make setup does) and build again")
        }
        let joining = Joining()
        let thread = Thread {
            var place = braid_mpi_place()
            let isJoined = unsafe braid_mpi_start(&place) == 0
            joining.place.withLock { $0 = isJoined ? place : nil }
            joining.hasJoined.signal()
            joining.hasTransport.wait()
            joining.transport.withLock { $0 }?.run()
        }
        thread.name = "braid mpi"
        thread.stackSize = 1 << 20
        thread.start()
        joining.hasJoined.wait()
        defer { joining.hasTransport.signal() }
        guard let place = joining.place.withLock({ $0 }) else {
            throw Problem(description: "MPI did not start; what it said is above")
        }
        let transport = MPITransport(place)
        joining.transport.withLock { $0 = transport }
        return transport
    }

    /// Synchronizes the thread that calls MPI with the one that starts it.
    private final class Joining: Sendable {
        let place = Mutex<braid_mpi_place?>(nil)
        let hasJoined = DispatchSemaphore(value: 0)
        let transport = Mutex<MPITransport?>(nil)
        let hasTransport = DispatchSemaphore(value: 0)
    }

    private init(_ place: braid_mpi_place) {
        process = Int(place.process)
        processes = Int(place.processes)
        processesHere = Int(place.processes_here)
    }

    package func start(
        receive: @escaping @Sendable (Message, Int) -> Void, look: @escaping @Sendable () -> Void,
        lose: @escaping @Sendable (String) -> Void
    ) {
        handlers.withLock { $0 = Handlers(receive: receive, look: look, lose: lose) }
        wake.signal()
    }

    package func send(_ message: Message, to process: Int) {
        precondition(process != self.process && (0..<processes).contains(process), "a message to process \(process)")
        let isFirst = outgoing.withLock { outgoing in
            outgoing.append((message, process))
            return outgoing.count == 1
        }
        if isFirst { wake.signal() }
    }

    package func setPolls(_ polls: Bool) { self.polls.store(polls, ordering: .relaxed) }

    package func beginWait() {
        // The thread may be in a long sleep.
        if waiting.add(1, ordering: .acquiringAndReleasing).newValue == 1 { wake.signal() }
    }

    package func endWait() { waiting.subtract(1, ordering: .acquiringAndReleasing) }

    package func leave() {
        isLeaving.store(true, ordering: .releasing)
        wake.signal()
        hasLeft.wait()
    }

    package func endJob(status: Int32) {
        endStatus.store(status, ordering: .releasing)
        wake.signal()
    }

    // MARK: - The thread

    private func run() {
        while handlers.withLock({ $0 == nil }) {
            wake.wait()
            if endStatus.load(ordering: .acquiring) >= 0 { break }
        }
        let handlers = self.handlers.withLock { $0 }
        let traffic = Traffic(processes: processes)
        var rest = Rest()
        var problem: String?
        while true {
            let status = endStatus.load(ordering: .acquiring)
            if status >= 0 { braid_mpi_abort(status) }
            var moved = false
            if problem == nil {
                do throws(Problem) {
                    for (message, process) in outgoing.withLock({ Self.take(&$0) }) {
                        try traffic.send(message, to: process)
                        moved = true
                    }
                    moved = try traffic.progress { handlers?.receive($0, $1) } || moved
                } catch {
                    problem = error.description
                    handlers?.lose(error.description)
                }
            }
            handlers?.look()
            if isLeaving.load(ordering: .acquiring), traffic.hasSent, outgoing.withLock({ $0.isEmpty }) { break }
            let isExpecting = waiting.load(ordering: .relaxed) > 0 || traffic.isMoving
            if let nanoseconds = rest.next(
                moved: moved, isExpecting: isExpecting, polls: polls.load(ordering: .relaxed))
            {
                _ = wake.wait(timeout: .now() + .nanoseconds(nanoseconds))
            }
        }
        braid_mpi_finish()
        hasLeft.signal()
    }

    private static func take(_ outgoing: inout [(message: Message, process: Int)]) -> [(Message, Int)] {
        defer { outgoing = [] }
        return outgoing
    }
}

/// Decides how long to sleep between looks: not at all if there are cores for it, briefly while a thread waits for a
/// message, longer when nothing happens.
private struct Rest {
    private var idle = 0
    private var since = DispatchTime.now().uptimeNanoseconds
    /// This many looks precede the first pause.
    private static let looks = 2000

    /// Returns the nanoseconds to sleep; `nil` to look again at once.
    mutating func next(moved: Bool, isExpecting: Bool, polls: Bool) -> Int? {
        if moved {
            idle = 0
            since = DispatchTime.now().uptimeNanoseconds
            return nil
        }
        idle += 1
        if isExpecting { return polls && idle < Self.looks ? nil : 40_000 }
        let quiet = DispatchTime.now().uptimeNanoseconds - since
        return quiet < 20_000_000 ? 200_000 : 1_000_000
    }
}

/// Holds the messages that MPI is sending or receiving. Only one thread may use it.
private final class Traffic {
    private var sends: [Sending] = []
    /// The arrivals from each process in the order of delivery.
    private var receives: [[Arrival]]

    @safe private struct Sending {
        let request: OpaquePointer
        let message: Message
    }

    @safe private struct Arrival {
        let memory: UnsafeMutableRawPointer
        let bytes: Int
        /// `nil` once all bytes have arrived.
        var request: OpaquePointer?
    }

    init(processes: Int) { receives = Array(repeating: [], count: processes) }

    /// True if every message has been sent.
    var hasSent: Bool { sends.isEmpty }
    var isMoving: Bool { !sends.isEmpty || receives.contains { !$0.isEmpty } }

    func send(_ message: Message, to process: Int) throws(MPITransport.Problem) {
        guard let request = unsafe braid_mpi_send(message.start, Int64(message.bytes), Int32(process)) else {
            throw MPITransport.Problem(description: "MPI could not send \(message.bytes) bytes to process \(process)")
        }
        unsafe sends.append(Sending(request: request, message: message))
    }

    /// Continues all sends and receives, and delivers complete messages.
    ///
    /// - Returns: whether anything moved.
    func progress(_ receive: (Message, Int) -> Void) throws(MPITransport.Problem) -> Bool {
        var moved = try probe()
        for index in sends.indices.reversed() where try unsafe isDone(sends[index].request) {
            sends.remove(at: index)
            moved = true
        }
        for process in receives.indices {
            for index in receives[process].indices {
                guard let request = unsafe receives[process][index].request, try unsafe isDone(request) else {
                    continue
                }
                unsafe receives[process][index].request = nil
                moved = true
            }
            while let first = receives[process].first, unsafe first.request == nil {
                receives[process].removeFirst()
                guard let message = unsafe Message(arrived: first.memory, bytes: first.bytes) else {
                    throw MPITransport.Problem(
                        description: "process \(process) sent \(first.bytes) bytes that are no message of this "
                            + "version; start the same build everywhere")
                }
                receive(message, process)
            }
        }
        return moved
    }

    /// Begins to receive every message that has arrived.
    private func probe() throws(MPITransport.Problem) -> Bool {
        var moved = false
        while true {
            var arrival = unsafe braid_mpi_arrival()
            let found = unsafe braid_mpi_probe(&arrival)
            if found == 0 { return moved }
            guard found > 0 else { throw MPITransport.Problem(description: "MPI could not look for messages") }
            let (process, bytes) = unsafe (Int(arrival.process), Int(arrival.bytes))
            guard let memory = unsafe Message.allocate(max(bytes, 1)) else {
                throw MPITransport.Problem(description: "no memory for \(bytes) bytes that process \(process) sends")
            }
            guard let request = unsafe braid_mpi_receive(memory, &arrival) else {
                throw MPITransport.Problem(description: "MPI could not receive \(bytes) bytes from process \(process)")
            }
            unsafe receives[process].append(Arrival(memory: memory, bytes: bytes, request: request))
            moved = true
        }
    }

    @unsafe private func isDone(_ request: OpaquePointer) throws(MPITransport.Problem) -> Bool {
        let done = unsafe braid_mpi_test(request)
        if done < 0 { throw MPITransport.Problem(description: "MPI lost a message: a process or its network is gone") }
        return done == 1
    }
}
