import Foundation
import Synchronization
package import Tensors

/// All ranks of a job as threads of this process. Groups are met here by name: whoever gives the same ranks and the
/// same purpose is in the same group.
package final class ThreadWorld: Sendable {
    /// Raised when a rank fails; ends every wait.
    package let alarm = Alarm()
    private let spins: Int
    private let hubs = Mutex<[Key: ThreadHub]>([:])

    private struct Key: Hashable {
        let purpose: Int
        let ranks: [Int]
    }

    /// - Parameter ranks: of all groups together; where they outnumber the cores, waiting ones sleep at once.
    package init(ranks: Int, cores: Int = ProcessInfo.processInfo.activeProcessorCount) {
        // About as long as it takes to fall asleep and to be woken: who waits longer wastes as much again at most, of a
        // processor that another rank may need.
        spins = ranks <= cores ? 250 : 0
    }

    /// This rank's membership. To be called, and used, by the rank's own thread.
    package func group(of rank: Int, among ranks: [Int], purpose: Int) -> ThreadGroup {
        guard let place = ranks.firstIndex(of: rank) else { preconditionFailure("rank \(rank) is not in \(ranks)") }
        let hub = hubs.withLock { hubs in
            let key = Key(purpose: purpose, ranks: ranks)
            let hub = hubs[key] ?? ThreadHub(size: ranks.count, spins: spins, alarm: alarm)
            hubs[key] = hub
            return hub
        }
        return ThreadGroup(hub, place: place)
    }
}

/// What the members of a group share.
///
/// A member's parcels are written by it alone and read by the others after it arrived. There are two, used in turn: when
/// a member writes one again, everybody has arrived at the collective between, and so has read it.
final class ThreadHub: @unchecked Sendable {
    let size: Int
    let alarm: Alarm
    /// Arrivals of all members at all collectives so far.
    let arrivals: Tally
    let parcels: [[Parcel]]
    /// From each member to the next.
    let links: [Link]

    init(size: Int, spins: Int, alarm: Alarm) {
        self.size = size
        self.alarm = alarm
        arrivals = Tally(period: size, spins: spins, alarm: alarm)
        parcels = (0..<size).map { _ in [Parcel(destinations: size), Parcel(destinations: size)] }
        links = (1..<max(size, 1)).map { _ in Link(spins: spins, alarm: alarm) }
    }
}

/// Rows on their way, in memory that grows to the largest ever sent.
final class Parcel {
    private var memory = Buffer(bytes: 0)
    private(set) var rows = View.none
    /// How many of the rows are for each member; only for all-to-all.
    var counts: [Int]

    init(destinations: Int) { counts = Array(repeating: 0, count: destinations) }

    func pack(_ source: View) {
        let bytes = source.rows * source.columns * MemoryLayout<Float>.stride
        if bytes > memory.bytes { memory = Buffer(bytes: max(bytes, 2 * memory.bytes)) }
        rows = unsafe View(
            memory.pointer.assumingMemoryBound(to: Float.self), rows: source.rows, columns: source.columns)
        rows.copy(source)
    }
}

/// A one-way street between two members: a few parcels, filled and emptied in turn.
final class Link {
    private static let depth = 4
    private let parcels = (0..<depth).map { _ in Parcel(destinations: 0) }
    private let filled: Tally
    private let emptied: Tally

    init(spins: Int, alarm: Alarm) {
        filled = Tally(period: 1, spins: spins, alarm: alarm)
        emptied = Tally(period: 1, spins: spins, alarm: alarm)
    }

    func send(_ rows: View, number: Int) throws(GroupFailure) {
        try emptied.wait(for: number + 1 - Self.depth)
        parcels[number % Self.depth].pack(rows)
        filled.advance()
    }

    func receive(into rows: View, number: Int) throws(GroupFailure) {
        try filled.wait(for: number + 1)
        rows.copy(parcels[number % Self.depth].rows)
        emptied.advance()
    }
}

/// One thread's membership in a group.
package final class ThreadGroup: ProcessGroup {
    package let place: Int
    private let hub: ThreadHub
    /// Collectives this member has finished.
    private var round = 0
    private var pending: Collective?
    private var sent = 0
    private var received = 0

    fileprivate init(_ hub: ThreadHub, place: Int) {
        self.hub = hub
        self.place = place
    }

    package var size: Int { hub.size }

    private func parcel(of member: Int) -> Parcel { hub.parcels[member][round & 1] }

    package func start(_ collective: Collective) throws(GroupFailure) {
        // First: a collective that failed stays in flight.
        try hub.alarm.check()
        precondition(pending == nil, "a collective of this group is in flight")
        let own = parcel(of: place)
        switch collective {
        case .barrier: break
        case .allGather(let part, let counts, _):
            precondition(
                counts.count == size && counts[place] == part.rows, "\(part.rows) rows were announced otherwise")
            own.pack(part)
        case .allToAll(let parts, let counts, _, let receivedCounts):
            precondition(counts.count == size && receivedCounts.count == size, "a count for each of \(size) members")
            for member in 0..<size { own.counts[member] = Int(counts[member]) }
            own.pack(parts)
        }
        pending = collective
        hub.arrivals.advance()
    }

    package func finish() throws(GroupFailure) {
        guard let collective = pending else { preconditionFailure("no collective of this group is in flight") }
        try hub.arrivals.wait(for: (round + 1) * size)
        switch collective {
        case .barrier: break
        case .allGather(_, let counts, let whole): gather(counts, into: whole)
        case .allToAll(_, _, let rows, let counts): collect(into: rows, counts)
        }
        pending = nil
        round += 1
    }

    private func gather(_ counts: Indices, into whole: View) {
        var next = 0
        for member in 0..<size {
            let part = parcel(of: member).rows
            precondition(part.rows == counts[member], "member \(member) has \(part.rows) rows, not \(counts[member])")
            whole.rows(next..<next + part.rows).copy(part)
            next += part.rows
        }
        precondition(next == whole.rows, "\(next) rows came for \(whole.rows)")
    }

    private func collect(into rows: View, _ counts: Indices) {
        var next = 0
        for member in 0..<size {
            let parcel = parcel(of: member)
            let first = parcel.counts[..<place].reduce(0, +)
            let count = parcel.counts[place]
            rows.rows(next..<next + count).copy(parcel.rows.rows(first..<first + count))
            counts[member] = Int32(count)
            next += count
        }
    }

    package func send(_ rows: View) throws(GroupFailure) {
        try hub.links[place].send(rows, number: sent)
        sent += 1
    }

    package func receive(into rows: View) throws(GroupFailure) {
        try hub.links[place - 1].receive(into: rows, number: received)
        received += 1
    }
}
