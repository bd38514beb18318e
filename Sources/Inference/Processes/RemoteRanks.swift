import Foundation
import Parallelism
import Synchronization

/// Remote ranks represent the ranks of other processes in the first process: orders are sent to them, and their reports
/// are read.
final class RemoteRanks: Sendable {
    let world: ProcessWorld
    /// The ranks of this process.
    let ranksHere: Range<Int>
    /// The caches that the ranks of other processes have.
    let caches: RemoteCaches
    private let processes: Processes
    private let placement: Placement
    private let epoch: UInt64
    private let settings: RankSettings
    /// The clock offset of each process: the smallest difference seen between a report's arrival by this process's
    /// clock and its sending by the other's, in nanoseconds.
    private let clocks: Mutex<[Int64]>
    private let vocabularySize: Int
    private let expected = Mutex(ExpectedReports())

    /// The state that reports are checked against.
    private struct ExpectedReports {
        /// The steps in flight, by their number.
        var steps: [Int: RowAssignment] = [:]
        /// The lists of requests that the other processes know, which plans need not repeat.
        var known = KnownLists()
        /// The last step and collectives that each remote rank reported; the key is the rank.
        var last: [Int: (step: Int, operations: [Meter.CollectiveStatistics])] = [:]
    }

    init(_ settings: RankSettings, vocabularySize: Int, _ processes: Processes) {
        precondition(processes.process == 0, "the first process decides")
        self.processes = processes
        self.settings = settings
        placement = Placement(ranks: settings.parallel.world, processes: processes.count)
        epoch = processes.nextEpoch()
        let (placement, world) = (placement, ProcessWorld(processes, placement, epoch: epoch))
        self.world = world
        caches = RemoteCaches(processes, epoch: epoch) { process, reason in
            world.alarm.raise(GroupFailure(rank: placement.ranks(of: process).lowerBound, reason: reason))
        }
        ranksHere = placement.ranks(of: 0)
        clocks = Mutex(Array(repeating: .max, count: processes.count))
        self.vocabularySize = vocabularySize
    }

    /// Starts the ranks of the other processes.
    ///
    /// - Parameter deliver: Receives their reports.
    func start(_ deliver: @escaping @Sendable (StepReport) -> Void) {
        caches.start()
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

    /// Sends a step to the other processes. Only one thread may call this, so that updates are sent in order.
    func put(_ assignment: RowAssignment) {
        let update = expected.withLock { expected in
            expected.steps[assignment.plan.number] = assignment
            return expected.known.update(for: assignment.plan)
        }
        order(.step(update))
    }

    func stop() {
        caches.close()
        order(.stop)
    }

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

    /// Returns whether a report can be the next one of its rank, and remembers it if so.
    private func enter(_ report: StepReport) -> Bool {
        expected.withLock { expected in
            let before = expected.last[report.rank]
            guard let step = expected.steps[report.step], report.step > before?.step ?? .min,
                report.fits(step, vocabularySize: vocabularySize, operationsBefore: before?.operations ?? [])
            else { return false }
            expected.last[report.rank] = (report.step, report.operations)
            // A step is forgotten when all remote ranks have reported it; each rank reports steps in order.
            let others = settings.parallel.world - ranksHere.count
            if expected.last.count == others, let done = expected.last.values.map(\.step).min() {
                expected.steps = expected.steps.filter { $0.key > done }
            }
            return true
        }
    }

    /// Returns what a rank was doing at its process's last heartbeat.
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
    /// Converts times of another process's clock to this one's.
    fileprivate mutating func shift(by nanoseconds: Int64) {
        begin = begin &+ UInt64(bitPattern: nanoseconds)
        end = max(begin, end &+ UInt64(bitPattern: nanoseconds))
    }
}
