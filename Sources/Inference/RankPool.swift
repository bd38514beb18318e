package import Foundation
package import KVCache
package import Models
package import Parallelism
import Synchronization
import Tensors

/// The ranks of this process: a thread each, which runs the steps it is given, in order.
///
/// They share the weights and one cache: each rank writes the entries of its own rows, so the memory does not grow with
/// the number of ranks.
package final class RankPool: Sendable {
    let configuration: ParallelConfiguration
    let world: ThreadWorld
    /// What the ranks have stored of their rows.
    package let cache: CacheStore
    /// What each rank does right now.
    let pulses: [Pulse]
    /// A rank that makes no progress for so many nanoseconds is given up.
    let patience: UInt64
    private let isTrapped = Atomic(false)
    private let trace: TraceWriter?
    private let inboxes: [Inbox]
    private let threads = DispatchGroup()
    let state: Mutex<State>
    /// Raised when a step is complete or a rank has failed; shared with whoever waits for other things too.
    let progress: DispatchSemaphore

    struct State {
        /// Steps on their way, in the order in which they were given.
        var pending: [Pending] = []
        var ledger: RankLedger
        /// When the watchdog looked last, in the meter's nanoseconds.
        var lastWatch: UInt64 = 0
    }

    struct Pending {
        let plan: StepPlan
        /// When it was handed out, by `Meter.now`.
        let began = Meter.now()
        var reports: [StepReport] = []
        /// By rank.
        var spent: [RankLedger.Spent]
    }

    /// Starts the ranks.
    ///
    /// - Parameters:
    ///   - configuration: must be valid; see `EngineConfiguration.validate`.
    ///   - trace: where everything the ranks do is written.
    ///   - recording: stages whose values are kept, for parity tests; none in service.
    ///   - cache: one that other ranks have filled, for benchmarks; a new one when `nil`.
    ///   - progress: raised when a step is complete or a rank has failed.
    package init(
        _ model: any Model, _ configuration: EngineConfiguration, trace: TraceWriter? = nil,
        recording stages: Set<Stage> = [], cache: CacheStore? = nil,
        progress: DispatchSemaphore = DispatchSemaphore(value: 0)
    ) {
        let parallel = configuration.parallel
        let world = ThreadWorld(ranks: parallel.world)
        let cache =
            cache
            ?? CacheStore(
                format: model.cacheFormat(configuration.cacheType, pageSize: configuration.pageSize),
                pages: configuration.scheduler(for: model).totalPages)
        self.configuration = parallel
        self.world = world
        self.cache = cache
        pulses = (0..<parallel.world).map { _ in Pulse() }
        patience = UInt64(configuration.watchdogTimeout) * 1_000_000_000
        self.progress = progress
        self.trace = trace
        inboxes = (0..<parallel.world).map { _ in Inbox() }
        state = Mutex(State(ledger: RankLedger(parallel)))
        let kernels = configuration.kernels.flatMap { Kernels($0) } ?? .best
        for rank in 0..<parallel.world {
            threads.enter()
            let thread = Thread { [self] in
                ThreadName.current = "braid rank \(rank)"
                Traps.shared.watch(onTrap: { self.giveUp(rank, trap: $0) }) {
                    let seat = Seat(parallel, rank: rank, world: world, kernels: kernels, pulse: pulses[rank])
                    run(
                        RankWorker(
                            model, cache, seat, recorder: stages.isEmpty ? nil : StageRecorder(only: stages),
                            trace: trace == nil ? nil : TraceBuffer()))
                }
                threads.leave()
            }
            thread.stackSize = 16 << 20
            thread.start()
        }
    }

    /// Hands a step to all ranks. Results come in the same order.
    package func submit(_ plan: StepPlan) {
        let deal = Deal(plan, configuration)
        state.withLock {
            $0.pending.append(Pending(plan: plan, spent: Array(repeating: [:], count: configuration.world)))
        }
        for inbox in inboxes { inbox.put(deal) }
    }

    /// What came of a step.
    package struct Outcome: Sendable {
        package let result: StepResult
        /// What the ranks recorded, when they were asked to.
        package let records: StageRecords
        /// The longest any rank of the first stage took.
        package let seconds: Double
    }

    /// What came of the first step on its way, if all ranks are done with it.
    package func nextResult() -> Outcome? {
        let done: Pending? = state.withLock { state in
            guard let first = state.pending.first, first.reports.count == configuration.world else { return nil }
            return state.pending.removeFirst()
        }
        guard let done else { return nil }
        var records = StageRecords()
        for report in done.reports { trace?.write(report) }
        for report in done.reports { if let other = report.records { records.merge(other) } }
        let first = done.reports.filter { $0.rank < configuration.stageRanks }
        return Outcome(
            result: StepResult(done.plan, done.reports), records: records, seconds: first.map(\.seconds).max()!)
    }

    /// The first failure of a rank: the pool does nothing any more.
    package var failure: GroupFailure? { world.alarm.failure }

    /// How the ranks share the work, in words.
    package var layout: String { configuration.description }

    /// What each rank did since the start.
    package var status: [RankStatus] { state.withLock { $0.ledger.status } }

    /// Whether a rank's thread trapped: memory may be damaged, so that only a new process will do.
    package var hasTrapped: Bool { isTrapped.load(ordering: .acquiring) }

    /// Lets the ranks finish what they were given, and returns when their threads have ended.
    ///
    /// After a failure that is soon, but the rank at fault may never come back: it is waited for a moment only. A thread
    /// that is left behind touches nothing but this pool's cache, and ends if it ever meets the others again.
    package func stop() {
        for inbox in inboxes { inbox.put(nil) }
        while failure == nil, threads.wait(timeout: .now() + 0.1) == .timedOut { watch() }
        _ = threads.wait(timeout: .now() + Self.secondsToStop)
    }

    private static let secondsToStop = 2.0

    /// Called when a rank's thread has trapped, and with it whatever it held.
    private func giveUp(_ rank: Int, trap signal: String) {
        isTrapped.store(true, ordering: .releasing)
        world.alarm.raise(
            GroupFailure(rank: rank, reason: "its thread trapped (\(signal)) \(pulses[rank].moment.description)"))
        progress.signal()
    }

    /// A rank's loop.
    private func run(_ worker: RankWorker) {
        while let deal = inboxes[worker.seat.rank].take() {
            do {
                let report = try worker.run(deal)
                if deposit(report, of: deal.plan) { progress.signal() }
            } catch {
                world.alarm.raise(error)
                progress.signal()
                return
            }
        }
    }

    /// - Returns: whether this was the last report of its step.
    private func deposit(_ report: StepReport, of plan: StepPlan) -> Bool {
        state.withLock { state in
            let spent = state.ledger.enter(report)
            // Ranks are at most a few steps apart; one that is ahead finds its step further back.
            guard let index = state.pending.firstIndex(where: { $0.plan.number == plan.number }) else { return false }
            state.pending[index].reports.append(report)
            state.pending[index].spent[report.rank] = spent
            guard state.pending[index].reports.count == configuration.world else { return false }
            state.ledger.close(state.pending[index].spent)
            return true
        }
    }
}

extension RankPool {
    /// Runs one step and waits for it. For benchmarks and tests, which have no engine; nothing else may be on its way.
    package func run(_ plan: StepPlan) throws(GroupFailure) -> Outcome {
        submit(plan)
        return try awaitResult()
    }

    /// Waits for the first step on its way; there must be one.
    package func awaitResult() throws(GroupFailure) -> Outcome {
        while true {
            if let done = nextResult() { return done }
            try world.alarm.check()
            waitForProgress()
        }
    }
}

/// Steps on their way to a rank.
private final class Inbox: Sendable {
    private let queue = Mutex<[Deal?]>([])
    private let filled = DispatchSemaphore(value: 0)

    /// `nil` ends the rank.
    func put(_ deal: Deal?) {
        queue.withLock { $0.append(deal) }
        filled.signal()
    }

    func take() -> Deal? {
        filled.wait()
        return queue.withLock { $0.removeFirst() }
    }
}
