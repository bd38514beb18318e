import Foundation
import Synchronization
package import Tensors

/// The set of a job's ranks if all are threads of this process.
package final class ThreadWorld: RankWorld {
    package let alarm: Alarm
    let spins: Int
    private let hubs = HubRegistry<ThreadHub>()

    /// Creates the ranks of a job.
    ///
    /// - Parameter threads: the threads of all ranks together; if they outnumber the cores, waiting ones sleep at once.
    package convenience init(threads: Int, cores: Int = ProcessInfo.processInfo.activeProcessorCount) {
        self.init(spins: threads <= cores, alarm: Alarm())
    }

    /// Creates the ranks of a job.
    ///
    /// - Parameters:
    ///   - spins: whether waiting ranks spin for a while before they sleep.
    ///   - alarm: is raised when a rank fails; that ends every wait.
    init(spins: Bool, alarm: Alarm) {
        self.alarm = alarm
        // Spinning takes about as long as falling asleep and being woken, so a thread that waits longer wastes at most
        // that much time of a processor that another rank may need.
        self.spins = spins ? 250 : 0
    }

    package func group(of rank: Int, among ranks: [Int], purpose: Int) -> any ProcessGroup {
        guard let place = ranks.firstIndex(of: rank) else { preconditionFailure("rank \(rank) is not in \(ranks)") }
        let hub = hubs.hub(purpose, ranks) { ThreadHub(ranks, spins: spins, alarm: alarm) }
        return ThreadGroup(hub, place: place)
    }

    /// The bytes that all ranks together have reserved for rows they send. Read it while no step runs.
    package var sendBytes: Int { hubs.all.reduce(0) { $0 + $1.sendBytes } }
}

/// Finds groups by name: all ranks that give the same ranks and the same purpose are in the same group.
final class HubRegistry<Hub: AnyObject & Sendable>: Sendable {
    private let hubs = Mutex<[Key: Hub]>([:])

    private struct Key: Hashable {
        let purpose: Int
        let ranks: [Int]
    }

    /// Returns the groups that exist.
    var all: [Hub] { hubs.withLock { Array($0.values) } }

    func hub(_ purpose: Int, _ ranks: [Int], make: () -> Hub) -> Hub {
        hubs.withLock { hubs in
            let key = Key(purpose: purpose, ranks: ranks)
            let hub = hubs[key] ?? make()
            hubs[key] = hub
            return hub
        }
    }
}

/// Holds the state that the members of a group share.
///
/// A member alone writes its send buffers, and the others read them after it has arrived. There are two, used
/// alternately: when a member writes one again, every member has arrived at the collective in between, and so has read
/// it.
final class ThreadHub: @unchecked Sendable {
    let size: Int
    let alarm: Alarm
    /// The number of arrivals of all members at all collectives so far.
    let arrivals: AbortableCounter
    let sendBuffers: [[SendBuffer]]
    /// The channel from each member to the next.
    let channels: [ThreadChannel]

    /// Creates the shared state.
    ///
    /// - Parameter ranks: the members' numbers in the whole job.
    init(_ ranks: [Int], spins: Int, alarm: Alarm) {
        let size = ranks.count
        self.size = size
        self.alarm = alarm
        arrivals = AbortableCounter(period: size, spins: spins, alarm: alarm)
        sendBuffers = ranks.map { rank in (0..<2).map { _ in SendBuffer(of: rank, destinations: size) } }
        channels = ranks.dropLast().map { ThreadChannel(from: $0, spins: spins, alarm: alarm) }
    }
}

extension ThreadHub {
    fileprivate var sendBytes: Int {
        sendBuffers.joined().reduce(0) { $0 + $1.bytes } + channels.reduce(0) { $0 + $1.sendBytes }
    }
}

/// Holds rows to send, in memory that grows to the largest contribution and shrinks some time after it.
final class SendBuffer {
    /// The sender's number in the whole job, for errors.
    private let rank: Int
    private static var none: HostRows { unsafe HostRows(UnsafeMutablePointer(bitPattern: 64)!, rows: 0, columns: 0) }
    private var memory = Buffer(bytes: 0)
    /// The number of times in succession that a quarter of the memory would have sufficed.
    private var timesTooLarge = 0
    /// The rows. The host may read them, because the memory is the transport's own.
    private(set) var hostRows = SendBuffer.none
    var rows: View { hostRows.view }
    /// The number of rows for each member; it is used in all-to-all and in deliveries.
    var counts: [Int]

    /// Memory shrinks only after it has been too large for this many collectives: those of a layer differ in size, and
    /// steps of the same kind follow each other.
    private static let patience = 256
    /// Smaller memory is never shrunk.
    private static let smallBytes = 1 << 20

    /// Creates an empty buffer.
    ///
    /// - Parameters:
    ///   - rank: the sender.
    ///   - destinations: the number of members in an all-to-all and in a delivery.
    init(of rank: Int, destinations: Int) {
        self.rank = rank
        counts = Array(repeating: 0, count: destinations)
    }

    /// The number of reserved bytes.
    var bytes: Int { memory.bytes }

    /// Copies a member's contribution to a collective.
    ///
    /// - Throws: `GroupFailure` if there is no memory for it.
    func pack(_ collective: Collective) throws(GroupFailure) {
        switch collective {
        case .barrier: break
        case .allGather(let part, _, _): try pack(part)
        case .allToAll(let parts, let counts, _, _):
            for member in 0..<counts.count { self.counts[member] = Int(counts[member]) }
            try pack(parts)
        case .share(let part, _, _): try pack(part)
        case .deliver(let parts, let counts, _, _):
            for member in 0..<counts.count { self.counts[member] = Int(counts[member]) }
            try pack(parts)
        }
    }

    /// Returns the rows for one member.
    func block(for member: Int) -> View {
        let first = counts[..<member].reduce(0, +)
        return rows.rows(first..<first + counts[member])
    }

    func pack(_ source: View) throws(GroupFailure) {
        try reserve(source.rows * source.columns * MemoryLayout<Float>.stride)
        hostRows = unsafe HostRows(
            memory.pointer.assumingMemoryBound(to: Float.self), rows: source.rows, columns: source.columns)
        rows.transfer(from: source)
    }

    private func reserve(_ bytes: Int) throws(GroupFailure) {
        var wanted: Int?
        if bytes > memory.bytes {
            wanted = max(bytes + bytes / 4, min(2 * memory.bytes, Self.smallBytes))
        } else if memory.bytes > Self.smallBytes, bytes < memory.bytes / 4 {
            timesTooLarge += 1
            if timesTooLarge == Self.patience { wanted = max(bytes, Self.smallBytes) }
        } else {
            timesTooLarge = 0
        }
        guard let wanted else { return }
        timesTooLarge = 0
        // The old memory is freed first, so that both never exist at once.
        hostRows = Self.none
        memory = Buffer(bytes: 0)
        do throws(MemoryError) {
            memory = try Buffer(reserving: wanted)
        } catch {
            throw GroupFailure(rank: rank, reason: "no memory for rows to send: \(error); lower --chunked-prefill-size")
        }
    }
}

/// Connects two members in one direction.
protocol PointToPoint: AnyObject {
    /// Sends rows.
    ///
    /// - Parameter number: the number of the transfer in this direction, from 0.
    func send(_ rows: View, number: Int) throws(GroupFailure)
    func receive(into rows: View, number: Int) throws(GroupFailure)
}

/// Connects two members in memory: a few buffers are filled and emptied in order.
final class ThreadChannel: PointToPoint {
    private static let depth = 4
    private let sendBuffers: [SendBuffer]
    private let filled: AbortableCounter
    private let emptied: AbortableCounter

    /// Creates a connection.
    ///
    /// - Parameter rank: the sender's number in the whole job.
    init(from rank: Int, spins: Int, alarm: Alarm) {
        sendBuffers = (0..<Self.depth).map { _ in SendBuffer(of: rank, destinations: 0) }
        filled = AbortableCounter(period: 1, spins: spins, alarm: alarm)
        emptied = AbortableCounter(period: 1, spins: spins, alarm: alarm)
    }

    fileprivate var sendBytes: Int { sendBuffers.reduce(0) { $0 + $1.bytes } }

    func send(_ rows: View, number: Int) throws(GroupFailure) {
        try emptied.wait(for: number + 1 - Self.depth)
        try sendBuffers[number % Self.depth].pack(rows)
        filled.advance()
    }

    func receive(into rows: View, number: Int) throws(GroupFailure) {
        try filled.wait(for: number + 1)
        rows.transfer(from: sendBuffers[number % Self.depth].rows)
        emptied.advance()
    }
}

/// One thread's membership in a group.
package final class ThreadGroup: ProcessGroup {
    package let place: Int
    private let hub: ThreadHub
    /// The number of collectives that this member has finished.
    private var round = 0
    private var pending: Collective?
    private var sent = 0
    private var received = 0

    fileprivate init(_ hub: ThreadHub, place: Int) {
        self.hub = hub
        self.place = place
    }

    package var size: Int { hub.size }
    package var spansProcesses: Bool { false }
    package var leaders: [Int] { Array(repeating: 0, count: size) }
    package var sendBufferBytes: Int { hub.sendBuffers[place].reduce(0) { $0 + $1.bytes } }

    private func sendBuffer(of member: Int) -> SendBuffer { hub.sendBuffers[member][round & 1] }

    package func start(_ collective: Collective) throws(GroupFailure) {
        // Checked first, because a collective that failed stays in flight.
        try hub.alarm.check()
        precondition(pending == nil, "a collective of this group is in flight")
        collective.check(place: place, size: size)
        // With shared memory, what was written is visible to all after the barrier, so nothing is copied.
        switch collective {
        case .share, .deliver: break
        case .barrier, .allGather, .allToAll: try sendBuffer(of: place).pack(collective)
        }
        pending = collective
        hub.arrivals.advance()
    }

    package func finish() throws(GroupFailure) {
        guard let collective = pending else { preconditionFailure("no collective of this group is in flight") }
        try hub.arrivals.wait(for: (round + 1) * size)
        switch collective {
        case .barrier, .share, .deliver: break
        case .allGather(_, let counts, let whole): gather(counts, into: whole)
        case .allToAll(_, _, let rows, let counts): collect(into: rows, counts)
        }
        pending = nil
        round += 1
    }

    private func gather(_ counts: Indices, into whole: View) {
        var next = 0
        for member in 0..<size {
            let part = sendBuffer(of: member).rows
            precondition(part.rows == counts[member], "member \(member) has \(part.rows) rows, not \(counts[member])")
            whole.rows(next..<next + part.rows).transfer(from: part)
            next += part.rows
        }
        precondition(next == whole.rows, "\(next) rows came for \(whole.rows)")
    }

    private func collect(into rows: View, _ counts: Indices) {
        var next = 0
        for member in 0..<size {
            let block = sendBuffer(of: member).block(for: place)
            rows.rows(next..<next + block.rows).transfer(from: block)
            counts[member] = Int32(block.rows)
            next += block.rows
        }
    }

    package func send(_ rows: View) throws(GroupFailure) {
        try hub.channels[place].send(rows, number: sent)
        sent += 1
    }

    package func receive(into rows: View) throws(GroupFailure) {
        try hub.channels[place - 1].receive(into: rows, number: received)
        received += 1
    }
}
