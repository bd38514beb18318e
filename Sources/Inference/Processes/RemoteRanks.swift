import Foundation
import Parallelism
import Synchronization

/// The ranks of other processes, as the first process sees them: tells the others what to do, and reads what they
/// report.
final class RemoteRanks: Sendable {
    let world: ProcessWorld
    /// The ranks of this process.
    let ranksHere: Range<Int>
    private let processes: Processes
    private let placement: Placement
    private let epoch: UInt64
    private let settings: RankSettings
    /// By process, how much this one's clock is ahead, in nanoseconds; with the shortest time a report took.
    private let clocks: Mutex<[Int64]>
    private let vocabularySize: Int
    private let entries = Mutex(Books())

    /// What reports are compared with.
    private struct Books {
        /// Steps on their way, by their number.
        var steps: [Int: RowAssignment] = [:]
        /// What the other processes know of the requests' pages.
        var pages = PageLists()
        /// By rank, what those elsewhere reported last.
        var last: [Int: (step: Int, operations: [Meter.CollectiveStatistics])] = [:]
    }

    init(_ settings: RankSettings, vocabularySize: Int, _ processes: Processes) {
        precondition(processes.process == 0, "the first process decides")
        self.processes = processes
        self.settings = settings
        placement = Placement(ranks: settings.parallel.world, processes: processes.count)
        epoch = processes.nextEpoch()
        world = ProcessWorld(processes, placement, epoch: epoch)
        ranksHere = placement.ranks(of: 0)
        clocks = Mutex(Array(repeating: .max, count: processes.count))
        self.vocabularySize = vocabularySize
    }

    /// Starts the ranks elsewhere.
    ///
    /// - Parameter deliver: called with what they find.
    func start(_ deliver: @escaping @Sendable (StepReport) -> Void) {
        processes.read(.report) { [weak self] message, process in
            guard let self, message.epoch == epoch else { return }
            do {
                deliver(try report(in: message, from: process))
            } catch {
                let ranks = placement.ranks(of: process)
                world.alarm.raise(
                    GroupFailure(rank: ranks.lowerBound, reason: "process \(process) sent a report with \(error)"))
            }
        }
        order(.start(settings))
    }

    /// Hands a step to the other processes. Called by one thread, so that updates leave in order.
    func put(_ assignment: RowAssignment) {
        let update = entries.withLock { entries in
            entries.steps[assignment.plan.number] = assignment
            return entries.pages.update(for: assignment.plan)
        }
        order(.step(update))
    }

    func stop() { order(.stop) }

    private func order(_ order: Order) { processes.sendToAll(Message(.order, epoch: epoch, body: order.bytes)) }

    private func report(in message: Message, from process: Int) throws(Wire.Failure) -> StepReport {
        let arrived = Meter.now()
        var sent = try Wire.value(SentReport.self, in: message.bodyCopy)
        guard placement.ranks(of: process).contains(sent.report.rank), enter(sent.report) else {
            throw Wire.Failure(description: "what its ranks were not asked for")
        }
        let ahead = clocks.withLock { clocks in
            clocks[process] = min(clocks[process], Int64(bitPattern: arrived &- sent.at))
            return clocks[process]
        }
        for index in sent.report.spans.indices { sent.report.spans[index].shift(by: ahead) }
        return sent.report
    }

    /// Whether a report can be the next one of its rank.
    private func enter(_ report: StepReport) -> Bool {
        entries.withLock { entries in
            let before = entries.last[report.rank]
            guard let step = entries.steps[report.step], report.step > before?.step ?? .min,
                report.fits(step, vocabularySize: vocabularySize, operationsBefore: before?.operations ?? [])
            else { return false }
            entries.last[report.rank] = (report.step, report.operations)
            // Forgotten when all ranks elsewhere have done it, each in its order.
            let others = settings.parallel.world - ranksHere.count
            if entries.last.count == others, let done = entries.last.values.map(\.step).min() {
                entries.steps = entries.steps.filter { $0.key > done }
            }
            return true
        }
    }

    /// What a rank did when its process last said so.
    func snapshot(of rank: Int) -> RankProgress.Snapshot {
        let process = placement.process(of: rank)
        let unknown = RankProgress.Snapshot(since: 0, isWaiting: false, description: "in process \(process)")
        guard let heartbeat = try? Wire.value(HeartbeatPayload.self, in: processes.heartbeat(of: process)),
            heartbeat.epoch == epoch
        else {
            return unknown
        }
        let index = rank - placement.ranks(of: process).lowerBound
        guard heartbeat.ranks.indices.contains(index) else { return unknown }
        let (rankHeartbeat, now) = (heartbeat.ranks[index], Meter.now())
        return RankProgress.Snapshot(
            since: now - min(rankHeartbeat.age, now), isWaiting: rankHeartbeat.isWaiting,
            description: "\(rankHeartbeat.description) (process \(process))")
    }
}

extension TraceSpan {
    /// Brings times of another process's clock to this one's.
    fileprivate mutating func shift(by nanoseconds: Int64) {
        begin = begin &+ UInt64(bitPattern: nanoseconds)
        end = max(begin, end &+ UInt64(bitPattern: nanoseconds))
    }
}
