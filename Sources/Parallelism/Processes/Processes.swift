import Foundation
import Synchronization

/// Represents the processes of a job as one of them sees the others: routes messages, and detects lost processes.
///
/// A lost process ends the job: `failure` names it, every alarm of this process is raised in its name, and `onFailure`
/// is called.
package final class Processes: Sendable {
    package let process: Int
    package let count: Int
    private let transport: any MessageTransport
    private let cores: Int
    private let state: Mutex<State>
    /// True if this process has said farewell, after which it sends only heartbeats.
    private let hasLeft = Mutex(false)
    /// The semaphore that every other process's farewell signals.
    private let farewells = DispatchSemaphore(value: 0)

    private struct State {
        var registries: [UInt64: MailboxRegistry] = [:]
        /// Earlier epochs are over; messages that still arrive for them are dropped.
        var firstEpoch: UInt64 = 0
        var lastEpoch: UInt64 = 0
        var placement: Placement?
        var readers: [Message.Kind: @Sendable (Message, Int) -> Void] = [:]
        /// Messages that arrived before a reader was set.
        var unread: [(message: Message, process: Int)] = []
        var peers: [Peer]
        var failure: GroupFailure?
        var hasLostFirst = false
        /// Until this time, a silent process is assumed to be the reason why the job is being ended.
        var suspicionEnds: UInt64 = 0
        var onFailure: (@Sendable (GroupFailure) -> Void)?
        /// Returns the contents of this process's next heartbeat.
        var heartbeat: (@Sendable () -> [UInt8])?
        /// A process that is silent for this many nanoseconds is lost.
        let patience: UInt64
        var lastBeat: UInt64 = 0
        var lastLook: UInt64 = 0
    }

    private struct Peer {
        var name: String
        var heard = Meter.now()
        var heartbeat: [UInt8] = []
        /// The process id, if the process runs on this host.
        var pid: Int32?
        /// True if the process has said farewell.
        var hasLeft = false
    }

    /// Begins to send and receive.
    ///
    /// - Parameters:
    ///   - patience: seconds after which a silent process is lost.
    ///   - cores: the number of cores; if ranks outnumber them, waiting ranks sleep at once.
    package init(
        _ transport: any MessageTransport, patience: Double = 30,
        cores: Int = ProcessInfo.processInfo.activeProcessorCount
    ) {
        self.transport = transport
        process = transport.process
        count = transport.processes
        self.cores = cores
        state = Mutex(
            State(
                peers: (0..<transport.processes).map { Peer(name: "process \($0)") }, patience: UInt64(patience * 1e9)))
        transport.start(
            receive: { [weak self] in self?.receive($0, from: $1) }, look: { [weak self] in self?.look() },
            lose: { [weak self] reason in
                guard let self else { return }
                lose(GroupFailure(rank: firstRank(of: process), reason: "process \(process): \(reason)"))
            })
    }

    /// The number of the job's processes on this host, including this one.
    package var processesHere: Int { transport.processesHere }

    private var others: [Int] { (0..<count).filter { $0 != process } }

    // MARK: - Messages

    /// Sends a message of a kind that has a reader.
    package func send(_ message: Message, to process: Int) {
        // No process reads what follows a farewell, and MPI could not finish while such a message is in progress.
        hasLeft.withLock { if !$0 { transport.send(message, to: process) } }
    }

    package func sendToAll(_ message: Message) { for other in others { send(message, to: other) } }

    /// Sets the reader of a kind of message. It first gets the messages that have already arrived. It is called on the
    /// transport's thread, and must not wait.
    package func read(_ kind: Message.Kind, _ reader: @escaping @Sendable (Message, Int) -> Void) {
        while true {
            // The reader may send, and so take other locks; it is therefore called under no lock. Until it has read the
            // earlier messages, new ones join the unread.
            let unread = state.withLock { state in
                let unread = state.unread.filter { $0.message.kind == kind }
                state.unread.removeAll { $0.message.kind == kind }
                if unread.isEmpty { state.readers[kind] = reader }
                return unread
            }
            if unread.isEmpty { return }
            for (message, process) in unread { reader(message, process) }
        }
    }

    func beginWait() { transport.beginWait() }
    func endWait() { transport.endWait() }

    /// Returns the mailboxes for the ranks of an epoch, and ends all earlier epochs.
    func open(_ epoch: UInt64, _ placement: Placement) -> MailboxRegistry {
        let (mailboxes, failure) = state.withLock { state -> (MailboxRegistry, GroupFailure?) in
            precondition(epoch >= state.firstEpoch, "epoch \(epoch) is over")
            state.firstEpoch = epoch
            state.placement = placement
            state.registries = state.registries.filter { $0.key >= epoch }
            return (takeExchange(epoch, &state), state.failure)
        }
        if let failure { mailboxes.alarm.raise(failure) }
        transport.setPolls(hasSpareCores(placement, threads: 1))
        return mailboxes
    }

    /// Returns true if all ranks of this host's processes, and `threads` more threads in each, have a core each.
    func hasSpareCores(_ placement: Placement, threads: Int = 0) -> Bool {
        transport.processesHere * (placement.ranks(of: process).count + threads) <= cores
    }

    /// Returns a new epoch. Only the process that announces epochs to the others calls it.
    package func nextEpoch() -> UInt64 {
        state.withLock { state in
            state.lastEpoch += 1
            return state.lastEpoch
        }
    }

    private func takeExchange(_ epoch: UInt64, _ state: inout State) -> MailboxRegistry {
        if let mailboxes = state.registries[epoch] { return mailboxes }
        let mailboxes = MailboxRegistry(epoch: epoch) { [weak self] failure in
            self?.sendToAll(Self.alarm(failure, epoch: epoch))
        }
        state.registries[epoch] = mailboxes
        return mailboxes
    }

    private func receive(_ message: Message, from process: Int) {
        let reader = state.withLock { state -> (@Sendable (Message, Int) -> Void)? in
            state.peers[process].heard = Meter.now()
            switch message.kind {
            case .heartbeat: state.peers[process].heartbeat = message.bodyCopy
            case .farewell where !state.peers[process].hasLeft:
                state.peers[process].hasLeft = true
                farewells.signal()
            case .rows, .alarm, .farewell: break
            default:
                if let reader = state.readers[message.kind] { return reader }
                state.unread.append((message, process))
            }
            return nil
        }
        reader?(message, process)
        guard message.kind == .rows || message.kind == .alarm else { return }
        let mailboxes = state.withLock { state -> MailboxRegistry? in
            message.epoch < state.firstEpoch ? nil : takeExchange(message.epoch, &state)
        }
        guard let mailboxes else { return }
        if message.kind == .alarm {
            mailboxes.alarm.raise(Self.failure(of: message), isNews: false)
        } else if !mailboxes.mailbox(message.channel, from: process).put(message) {
            mailboxes.alarm.raise(
                GroupFailure(rank: firstRank(of: process), reason: "process \(process) sent rows out of order"))
        }
    }

    private static func alarm(_ failure: GroupFailure, epoch: UInt64) -> Message {
        let rank = UInt64(failure.rank)
        let bytes = (0..<8).map { UInt8(truncatingIfNeeded: rank >> (8 * UInt64($0))) }
        return Message(.alarm, epoch: epoch, body: bytes + Array(failure.reason.utf8))
    }

    private static func failure(of message: Message) -> GroupFailure {
        let body = message.bodyCopy
        let rank = body.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        let reason = String(decoding: body.dropFirst(8).prefix(10_000), as: UTF8.self)
        return GroupFailure(rank: Int(truncatingIfNeeded: rank), reason: reason)
    }

    // MARK: - Liveness

    /// Sets the names and pids of the processes, once they have exchanged them.
    ///
    /// - Parameters:
    ///   - names: names such as `process 2 on host b`, for messages.
    ///   - pids: the process ids of processes on this host; `nil` for others.
    package func know(names: [String], pids: [Int32?]) {
        state.withLock { state in
            for index in state.peers.indices {
                state.peers[index].name = names[index]
                state.peers[index].pid = pids[index]
            }
        }
    }

    /// Notes that the job is being ended from outside, perhaps because a process on another host was lost: one that is
    /// silent now is the cause. Processes of this host are checked by their pid.
    package func suspect() { state.withLock { $0.suspicionEnds = Meter.now() + Self.timeToEnd } }

    /// At most this many nanoseconds lie between two heartbeats.
    private static let beat: UInt64 = 200_000_000
    /// mpirun leaves this much time to processes that it ends; the patience is shorter by the time of an answer.
    private static let timeToEnd: UInt64 = 1_000_000_000
    private static let patienceAtTheEnd: UInt64 = 800_000_000

    /// Sets a function that returns the contents of heartbeats. The transport's thread calls it often.
    package func setHeartbeat(_ heartbeat: (@Sendable () -> [UInt8])?) { state.withLock { $0.heartbeat = heartbeat } }

    /// Returns the contents of a process's last heartbeat.
    package func heartbeat(of process: Int) -> [UInt8] { state.withLock { $0.peers[process].heartbeat } }

    /// The loss of a process, or of the connection to it, that ended the job.
    package var failure: GroupFailure? { state.withLock { $0.failure } }

    /// True if the first process was lost.
    package var hasLostFirst: Bool { state.withLock { $0.hasLostFirst } }

    /// Sets the function that is called once, with the loss that ends the job; it replaces an earlier function.
    package func onFailure(_ body: @escaping @Sendable (GroupFailure) -> Void) {
        let failure = state.withLock { state in
            state.onFailure = body
            return state.failure
        }
        if let failure { body(failure) }
    }

    private func firstRank(of process: Int) -> Int {
        let placement = state.withLock { $0.placement }
        return placement.map { min($0.ranks(of: process).lowerBound, $0.ranks - 1) } ?? process
    }

    private func look() {
        let now = Meter.now()
        let (isDue, heartbeat, lost) = state.withLock { state -> (Bool, (@Sendable () -> [UInt8])?, (Int, String)?) in
            guard now >= state.lastLook + 50_000_000 else { return (false, nil, nil) }
            // If this process itself was suspended meanwhile, its silence says nothing about the others.
            let pause = state.lastLook == 0 ? 0 : now - state.lastLook
            if pause > state.patience / 4 { for index in state.peers.indices { state.peers[index].heard += pause } }
            state.lastLook = now
            let isDue = now >= state.lastBeat + min(Self.beat, state.patience / 5)
            if isDue { state.lastBeat = now }
            return (isDue, state.heartbeat, state.failure == nil ? silent(at: now, state) : nil)
        }
        if isDue { beat(heartbeat?() ?? []) }
        guard let (peer, reason) = lost else { return }
        if peer == 0 { state.withLock { $0.hasLostFirst = true } }
        lose(GroupFailure(rank: firstRank(of: peer), reason: reason))
    }

    /// Sends heartbeats. Two processes exchange them until both have said farewell; then either may be gone.
    private func beat(_ heartbeat: [UInt8]) {
        let message = Message(.heartbeat, body: heartbeat)
        let isLeaving = hasLeft.withLock { $0 }
        let listening = state.withLock { state in others.filter { !isLeaving || !state.peers[$0].hasLeft } }
        for other in listening { transport.send(message, to: other) }
    }

    /// Returns a process that has ended or has been silent for too long, with a description.
    private func silent(at now: UInt64, _ state: State) -> (Int, String)? {
        for other in others where !state.peers[other].hasLeft {
            let peer = state.peers[other]
            let isSuspect = now < state.suspicionEnds && peer.pid == nil
            let patience = isSuspect ? min(state.patience, Self.patienceAtTheEnd) : state.patience
            if let pid = peer.pid, kill(pid, 0) != 0, errno == ESRCH {
                return (other, "\(peer.name) has ended (it was pid \(pid))")
            }
            if now > peer.heard + patience {
                let seconds = String(format: "%g", Double(patience) * 1e-9)
                let why = isSuspect ? "while the job is being ended" : "(--watchdog-timeout)"
                return (other, "\(peer.name) has not been heard from for \(seconds) s \(why)")
            }
        }
        return nil
    }

    private func lose(_ failure: GroupFailure) {
        let (registries, onFailure) = state.withLock { state in
            let isFirst = state.failure == nil
            state.failure = state.failure ?? failure
            return (Array(state.registries.values), isFirst ? state.onFailure : nil)
        }
        for mailboxes in registries { mailboxes.alarm.raise(failure) }
        onFailure?(failure)
    }

    // MARK: - Leaving

    /// Leaves the job; all processes must call it. Later messages of this process are not sent, and all messages that
    /// others sent before their call have arrived when this returns.
    package func leave() {
        hasLeft.withLock { hasLeft in
            hasLeft = true
            for other in others { transport.send(Message(.farewell, body: []), to: other) }
        }
        for _ in others { farewells.wait() }
        transport.leave()
    }

    /// Ends all processes of the job.
    package func endJob(status: Int32) { transport.endJob(status: status) }
}
