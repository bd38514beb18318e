import Foundation
import KVCache
import Modeling
import Parallelism
import Synchronization
import Tensors

/// The ranks of this process run on these threads: one per rank, which runs the rank's steps in order, and the threads
/// that help it.
///
/// The ranks share the weights and one cache: each rank writes the entries of its own rows, so memory does not grow
/// with the number of ranks.
final class RankThreads: Sendable {
    let ranks: Range<Int>
    /// The current progress of each rank, in the order of `ranks`.
    let progresses: [RankProgress]
    /// The watermark of each rank, in the order of `ranks`; empty where nobody reads them.
    private let watermarks: [KeyWatermark]
    private let alarm: Alarm
    private let inboxes: [Inbox]
    private let threads = DispatchGroup()
    private let isTrapped = Atomic(false)

    init(_ ranks: Range<Int>, alarm: Alarm, watermarks: [KeyWatermark] = []) {
        self.ranks = ranks
        self.watermarks = watermarks
        self.alarm = alarm
        progresses = ranks.map { _ in RankProgress() }
        inboxes = ranks.map { _ in Inbox() }
    }

    /// Starts the ranks.
    ///
    /// - Parameters:
    ///   - cache: The KV cache of this process.
    ///   - grammars: The grammars of the requests. Every plan must be prepared there before it is submitted here.
    ///   - world: The transport between all ranks. Its alarm is raised when a rank fails.
    ///   - deliver: Receives each rank's report of each step, on the rank's thread.
    func start(
        _ model: any Model, _ cache: CacheStore, _ settings: RankSettings, grammars: RequestGrammars,
        in world: any RankWorld,
        deliver: @escaping @Sendable (StepReport) -> Void
    ) {
        let kernels = (settings.kernels.flatMap { Kernels($0) } ?? .best).tuned(settings.tuning)
            .computing(in: settings.profile)
        let buffers = settings.processSharding?.buffers(cache.format, for: ranks, settings.parallel)
        let memory = StepMemory(settings, stateWidth: model.stateWidth, ranks: ranks.count)
        let cores = settings.numa.shares(ranks: ranks.count, threads: settings.threadsPerRank)
        for (index, rank) in ranks.enumerated() {
            let team: Team?
            do throws(MemoryError) {
                team = settings.threadsPerRank == 1 ? nil : try self.team(kernels, settings, memory)
            } catch {
                startThread("braid rank \(rank)", of: rank) { [self] in
                    alarm.raise(GroupFailure(rank: rank, reason: memory.problem(error)))
                }
                continue
            }
            for helper in 1..<settings.threadsPerRank {
                startThread("braid rank \(rank).\(helper)", of: rank) {
                    cores.bindThread(of: index)
                    team?.help()
                }
            }
            startThread("braid rank \(rank)", of: rank) { [self] in
                defer { team?.dismiss() }
                cores.bindThread(of: index)  // before the first touch of its memory
                let scratch: Scratch
                do throws(MemoryError) {
                    scratch = try Scratch(reserving: memory.rankBytes)
                } catch {
                    return alarm.raise(GroupFailure(rank: rank, reason: memory.problem(error)))
                }
                let watermark = watermarks.isEmpty ? nil : watermarks[index]
                let seat = Seat(
                    settings.parallel, rank: rank, world: world, kernels: team.map(kernels.shared) ?? kernels,
                    progress: progresses[index], watermark: watermark, scratch: scratch)
                let recorder = settings.stages.isEmpty ? nil : StageRecorder(only: settings.stages)
                let worker = RankWorker(
                    model, cache, buffers?[index], seat, grammars: grammars, recorder: recorder)
                run(worker, inboxes[index], watermark, deliver)
            }
        }
    }

    private func team(
        _ kernels: Kernels, _ settings: RankSettings, _ memory: StepMemory
    ) throws(MemoryError) -> Team {
        let cores = ProcessInfo.processInfo.activeProcessorCount
        return try Team(
            kernels, threads: settings.threadsPerRank, spins: ranks.count * settings.threadsPerRank <= cores,
            scratchBytes: memory.helperBytes)
    }

    /// Starts one of a rank's threads. If the thread traps, the rank has failed.
    private func startThread(_ name: String, of rank: Int, _ body: @escaping @Sendable () -> Void) {
        threads.enter()
        let thread = Thread { [self] in
            ThreadName.current = name
            Traps.shared.watch(onTrap: { self.giveUp(rank, trap: $0) }, while: body)
            threads.leave()
        }
        thread.stackSize = 16 << 20
        thread.start()
    }

    /// Submits a step to the ranks of this process.
    func put(_ assignment: RowAssignment) {
        for inbox in inboxes { inbox.put(assignment) }
    }

    /// True if a rank's thread trapped. Memory may then be damaged, so that only a new process can go on.
    var hasTrapped: Bool { isTrapped.load(ordering: .acquiring) }

    /// Lets the ranks finish the submitted steps, and returns when their threads have ended.
    ///
    /// After a failure the threads end soon, except perhaps that of the failed rank, so the wait is limited to two
    /// seconds. A thread that is left behind touches nothing but its cache, and ends at its next collective.
    ///
    /// - Parameter watch: Is called several times a second while ranks run.
    func stop(_ watch: () -> Void) {
        for inbox in inboxes { inbox.put(nil) }
        while alarm.failure == nil, threads.wait(timeout: .now() + 0.1) == .timedOut { watch() }
        _ = threads.wait(timeout: .now() + Self.secondsToStop)
    }

    private static let secondsToStop = 2.0

    /// Raises the alarm in the name of a rank whose thread trapped.
    private func giveUp(_ rank: Int, trap signal: String) {
        isTrapped.store(true, ordering: .releasing)
        let snapshot = progresses[rank - ranks.lowerBound].snapshot
        alarm.raise(GroupFailure(rank: rank, reason: "its thread trapped (\(signal)) \(snapshot.description)"))
    }

    /// Runs a rank's loop: take a step, run it, deliver the report.
    private func run(
        _ worker: RankWorker, _ inbox: Inbox, _ watermark: KeyWatermark?, _ deliver: (StepReport) -> Void
    ) {
        while let assignment = inbox.take() {
            watermark?.begin(step: assignment.plan.number)
            do {
                deliver(try worker.run(assignment))
            } catch {
                return alarm.raise(error)
            }
        }
    }
}

/// An inbox queues the steps of one rank.
private final class Inbox: Sendable {
    private let queue = Mutex<[RowAssignment?]>([])
    private let filled = DispatchSemaphore(value: 0)

    /// Appends a step; `nil` ends the rank.
    func put(_ assignment: RowAssignment?) {
        queue.withLock { $0.append(assignment) }
        filled.signal()
    }

    func take() -> RowAssignment? {
        filled.wait()
        return queue.withLock { $0.removeFirst() }
    }
}
