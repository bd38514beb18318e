package import Tensors

/// Holds the state that a group's members in this process share, if other members live in other processes.
///
/// Members here put their rows into send buffers as threads do. The last of them to arrive sends one message to each
/// other process, which contains all rows from here that members there need, once. Every member waits for one message
/// from each other process, and reads rows from send buffers and messages. A collective costs one message each way
/// between any two processes.
final class SpanningHub: @unchecked Sendable {
    let size: Int
    let alarm: Alarm
    /// The members' numbers in the whole job, by place.
    let ranks: [Int]
    /// The location of each member's rows, by place.
    let sources: [Source]
    /// The places of the members in this process.
    let here: [Int]
    /// For each member, the place of the first member in the same process.
    let leaders: [Int]
    let peers: [Peer]
    let sendBuffers: [[SendBuffer]]
    /// The numbers of arrivals of the members here at all collectives so far, and of ends of storing.
    let arrivals: AbortableCounter
    let stored: AbortableCounter
    /// The channel from each place to the next; `nil` if both are in other processes.
    let channels: [(any PointToPoint)?]
    let processes: Processes
    let spins: Int
    /// The messages to each peer. Only the last member here that arrives at a collective uses them.
    private var messages: [MessageRing]

    enum Source {
        case here
        /// The member is in a peer process; the numbers are the indices of the peer and of the member there.
        case peer(Int, Int)
    }

    /// Another process with members of the group.
    struct Peer {
        let process: Int
        /// The places of its members, ascending.
        let places: [Int]
        let mailbox: Mailbox
    }

    /// Creates the shared state.
    ///
    /// - Parameter owners: the process of each member, by place.
    init(
        _ ranks: [Int], owners: [Int], _ channel: Channel, _ processes: Processes, _ mailboxes: MailboxRegistry,
        spins: Int
    ) {
        size = owners.count
        self.ranks = ranks
        alarm = mailboxes.alarm
        self.processes = processes
        self.spins = spins
        let own = processes.process
        here = owners.indices.filter { owners[$0] == own }
        leaders = owners.map { owners.firstIndex(of: $0)! }
        let peers = Set(owners).subtracting([own]).sorted().map { process in
            Peer(
                process: process, places: owners.indices.filter { owners[$0] == process },
                mailbox: mailboxes.mailbox(channel.number, from: process))
        }
        self.peers = peers
        messages = peers.map { _ in MessageRing(.rows, epoch: mailboxes.epoch, channel: channel.number) }
        sources = owners.enumerated().map { place, process in
            guard let peer = peers.firstIndex(where: { $0.process == process }) else { return .here }
            return .peer(peer, peers[peer].places.firstIndex(of: place)!)
        }
        sendBuffers = zip(owners, ranks).map { process, rank in
            process == own ? (0..<2).map { _ in SendBuffer(of: rank, destinations: owners.count) } : []
        }
        arrivals = AbortableCounter(period: here.count, spins: spins, alarm: mailboxes.alarm)
        stored = AbortableCounter(period: here.count, spins: spins, alarm: mailboxes.alarm)
        channels = owners.indices.dropLast().map { place in
            let (from, to) = (owners[place], owners[place + 1])
            if from == own, to == own { return ThreadChannel(from: ranks[place], spins: spins, alarm: mailboxes.alarm) }
            guard from == own || to == own else { return nil }
            return ProcessLink(
                to: from == own ? to : from, rank: ranks[from == own ? place + 1 : place],
                channel.pointToPoint(from: place, isBack: false), back: channel.pointToPoint(from: place, isBack: true),
                processes,
                mailboxes, spins: spins)
        }
    }

    /// Sends the contributions of the members here to a collective. The last of them calls it, before it continues.
    ///
    /// - Throws: `GroupFailure` if there is no memory for a message.
    func dispatch(_ collective: Collective, round: Int) throws(GroupFailure) {
        for (index, peer) in peers.enumerated() {
            // Every member that arrives here has finished the previous round.
            if round > 0 { peer.mailbox.drop(round - 1) }
            let (blocks, columns) = (blockCount(collective, for: peer), columns(round))
            let message = try Bundle.message(
                blocks, columns: columns, number: round, from: ranks[here[0]], &messages[index]
            ) { block(collective, $0, for: peer, round: round) }
            processes.send(message, to: peer.process)
        }
    }

    /// Returns the number of blocks of rows that a process receives from here: one for each member here or, in
    /// all-to-all, one for each pair of a member here and a member there.
    private func blockCount(_ collective: Collective, for peer: Peer) -> Int {
        switch collective {
        case .barrier: 0
        case .allGather, .share, .deliver: here.count
        case .allToAll: here.count * peer.places.count
        }
    }

    private func block(_ collective: Collective, _ index: Int, for peer: Peer, round: Int) -> View {
        switch collective {
        case .barrier, .allGather, .share: return sendBuffers[here[index]][round & 1].rows
        case .deliver: return sendBuffers[here[index]][round & 1].block(for: peer.places[0])
        case .allToAll:
            let (member, place) = (here[index / peer.places.count], peer.places[index % peer.places.count])
            return sendBuffers[member][round & 1].block(for: place)
        }
    }

    /// Returns the width of the rows. It looks for a member with rows, because others may not know the width.
    private func columns(_ round: Int) -> Int {
        for member in here where sendBuffers[member][round & 1].rows.rows > 0 {
            return sendBuffers[member][round & 1].rows.columns
        }
        return 0
    }
}

/// A list of blocks of equally wide rows, as a message carries them: their counts, then the rows, one after the
/// other.
enum Bundle {
    /// Creates a message with blocks of rows.
    ///
    /// - Parameters:
    ///   - blocks: the number of blocks.
    ///   - rank: the sender.
    ///   - ring: provides the message's memory.
    ///   - block: returns the rows of each block.
    static func message(
        _ blocks: Int, columns: Int, number: Int, from rank: Int, _ ring: inout MessageRing, block: (Int) -> View
    ) throws(GroupFailure) -> Message {
        var rows = 0
        for index in 0..<blocks { rows += block(index).rows }
        let words = 2 + blocks + rows * columns
        let message = try ring.message(number, bodyBytes: 4 * words, from: rank)
        let head = unsafe Indices(message.body.assumingMemoryBound(to: Int32.self), count: 2 + blocks)
        head[0] = Int32(blocks)
        head[1] = Int32(columns)
        let start = unsafe (message.body + 4 * (2 + blocks)).assumingMemoryBound(to: Float.self)
        let packed = unsafe View(start, rows: rows, columns: columns)
        var next = 0
        for index in 0..<blocks {
            let rows = block(index)
            head[2 + index] = Int32(rows.rows)
            if rows.rows > 0 { packed.rows(next..<next + rows.rows).transfer(from: rows) }
            next += rows.rows
        }
        return message
    }
}

/// A received bundle. Its contents have been checked, because they come from another process.
struct ArrivedBundle {
    let counts: Indices
    let columns: Int
    private let rows: HostRows
    private let message: Message

    /// Checks a message.
    ///
    /// - Returns: `nil` if the message does not hold what its head claims, or another number of blocks.
    init?(_ message: Message, blocks: Int) {
        let words = message.bodyBytes / 4
        guard words >= 2 + blocks else { return nil }
        let integers = unsafe Indices(message.body.assumingMemoryBound(to: Int32.self), count: words)
        let counts = integers[2..<2 + blocks]
        guard integers[0] == Int32(blocks), integers[1] >= 0, (0..<blocks).allSatisfy({ counts[$0] >= 0 }) else {
            return nil
        }
        let total = (0..<blocks).reduce(0) { $0 + Int(counts[$1]) }
        columns = Int(integers[1])
        guard total.multipliedReportingOverflow(by: columns) == (words - 2 - blocks, false) else { return nil }
        self.counts = counts
        self.message = message
        let start = unsafe (message.body + 4 * (2 + blocks)).assumingMemoryBound(to: Float.self)
        rows = unsafe HostRows(start, rows: total, columns: columns)
    }

    var all: View { rows.view }

    /// All rows, readable by the host.
    var allHostRows: HostRows { rows }

    func block(_ index: Int) -> View {
        let first = (0..<index).reduce(0) { $0 + Int(counts[$1]) }
        return all.rows(first..<first + Int(counts[index]))
    }
}

/// One rank's membership in a group whose members live in several processes.
package final class SpanningGroup: ProcessGroup {
    package let place: Int
    private let hub: SpanningHub
    /// The number of collectives that this member has finished, and of those among them that stored rows.
    private var round = 0
    private var shares = 0
    private var pending: Collective?
    private var sent = 0
    private var received = 0
    /// The bundles received in the current collective, one for each peer. Its memory is reused.
    private var bundles: [ArrivedBundle] = []

    init(_ hub: SpanningHub, place: Int) {
        self.hub = hub
        self.place = place
    }

    package var size: Int { hub.size }
    package var spansProcesses: Bool { true }
    package var leaders: [Int] { hub.leaders }
    package var sendBufferBytes: Int { hub.sendBuffers[place].reduce(0) { $0 + $1.bytes } }

    private func sendBuffer(of member: Int) -> SendBuffer { hub.sendBuffers[member][round & 1] }

    package func start(_ collective: Collective) throws(GroupFailure) {
        try hub.alarm.check()
        precondition(pending == nil, "a collective of this group is in flight")
        collective.check(place: place, size: size)
        try sendBuffer(of: place).pack(collective)
        pending = collective
        if hub.arrivals.advance() % hub.here.count == 0 { try hub.dispatch(collective, round: round) }
    }

    package func finish() throws(GroupFailure) {
        guard let collective = pending else { preconditionFailure("no collective of this group is in flight") }
        try hub.arrivals.wait(for: (round + 1) * hub.here.count)
        try receive(collective)
        switch collective {
        case .barrier: break
        case .allGather(_, let counts, let whole): try gather(counts, into: whole)
        case .allToAll(_, _, let rows, let counts): try collect(into: rows, counts)
        case .share(_, let counts, let store):
            storeOwnPart(store)
            try storeArrived(counts, store)
        case .deliver(_, _, let arriving, let store): try storeArrived(arriving, store)
        }
        bundles.removeAll(keepingCapacity: true)
        pending = nil
        round += 1
    }

    /// Waits for this round's message from each other process.
    private func receive(_ collective: Collective) throws(GroupFailure) {
        let isWaiting = hub.peers.contains { !$0.mailbox.has(round) }
        if isWaiting { hub.processes.beginWait() }
        defer { if isWaiting { hub.processes.endWait() } }
        for peer in hub.peers {
            let message = try peer.mailbox.message(round, spins: hub.spins)
            let blocks =
                switch collective {
                case .barrier: 0
                case .allGather, .share, .deliver: peer.places.count
                case .allToAll: peer.places.count * hub.here.count
                }
            guard let bundle = ArrivedBundle(message, blocks: blocks) else { throw unexpected(peer) }
            bundles.append(bundle)
        }
    }

    private func unexpected(_ peer: SpanningHub.Peer) -> GroupFailure {
        GroupFailure(
            rank: hub.ranks[peer.places[0]],
            reason: "process \(peer.process) sent rows of another number or shape than announced")
    }

    private func gather(_ counts: Indices, into whole: View) throws(GroupFailure) {
        var next = 0
        for (member, source) in hub.sources.enumerated() {
            let (part, peer): (View, SpanningHub.Peer?) =
                switch source {
                case .here: (sendBuffer(of: member).rows, nil)
                case .peer(let peer, let index): (bundles[peer].block(index), hub.peers[peer])
                }
            let isRight = part.rows == counts[member] && (part.rows == 0 || part.columns == whole.columns)
            if let peer, !isRight { throw unexpected(peer) }
            precondition(isRight, "member \(member) has \(part.rows) rows, not \(counts[member])")
            if part.rows > 0 { whole.rows(next..<next + part.rows).transfer(from: part) }
            next += part.rows
        }
        precondition(next == whole.rows, "\(next) rows came for \(whole.rows)")
    }

    private func collect(into rows: View, _ counts: Indices) throws(GroupFailure) {
        let own = hub.here.firstIndex(of: place)!
        var next = 0
        for (member, source) in hub.sources.enumerated() {
            let (block, peer): (View, SpanningHub.Peer) =
                switch source {
                // If the blocks here do not fit, another process sent too many rows.
                case .here: (sendBuffer(of: member).block(for: place), hub.peers[0])
                case .peer(let peer, let index):
                    (bundles[peer].block(index * hub.here.count + own), hub.peers[peer])
                }
            let isRight = next + block.rows <= rows.rows && (block.rows == 0 || block.columns == rows.columns)
            if !isRight { throw unexpected(peer) }
            if block.rows > 0 { rows.rows(next..<next + block.rows).transfer(from: block) }
            counts[member] = Int32(block.rows)
            next += block.rows
        }
    }

    /// Returns this member's part of rows that the members here store together.
    private func part(of rows: HostRows) -> HostRows {
        let (own, count) = (hub.here.firstIndex(of: place)!, hub.here.count)
        return rows.rows(rows.rows * own / count..<rows.rows * (own + 1) / count)
    }

    private func storeOwnPart(_ store: (HostRows) -> Bool) {
        for member in hub.here {
            let rows = part(of: sendBuffer(of: member).hostRows)
            precondition(rows.rows == 0 || store(rows), "rows of this process that it cannot store")
        }
    }

    /// Stores a part of the rows of other processes: no member continues before all of them are stored.
    ///
    /// - Parameter counts: the number of rows of each member.
    private func storeArrived(_ counts: Indices, _ store: (HostRows) -> Bool) throws(GroupFailure) {
        for (peer, bundle) in zip(hub.peers, bundles) {
            let rows = part(of: bundle.allHostRows)
            let isWhole = peer.places.indices.allSatisfy { bundle.counts[$0] == counts[peer.places[$0]] }
            guard isWhole, rows.rows == 0 || store(rows) else { throw unexpected(peer) }
        }
        hub.stored.advance()
        shares += 1
        try hub.stored.wait(for: shares * hub.here.count)
    }

    package func send(_ rows: View) throws(GroupFailure) {
        try hub.channels[place]!.send(rows, number: sent)
        sent += 1
    }

    package func receive(into rows: View) throws(GroupFailure) {
        try hub.channels[place - 1]!.receive(into: rows, number: received)
        received += 1
    }
}
