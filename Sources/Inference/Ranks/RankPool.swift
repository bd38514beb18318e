package import Dispatch
package import Grammar
package import KVCache
package import Modeling
package import Parallelism
import Synchronization

/// All ranks of a job, those of this process and, where there are others, theirs: hands out steps, and puts together
/// what the ranks report.
package final class RankPool: Sendable {
    package let configuration: ParallelConfiguration
    let threadsPerRank: Int
    /// Positions that stay with one rank.
    package let positionAlignment: Int
    package let world: any RankWorld
    /// What the ranks of this process have stored of their rows.
    package let cache: CacheStore
    /// Set where processes divide the keys among them.
    package let processSharding: ProcessKVSharding?
    let here: RankThreads
    /// The ranks of other processes.
    let elsewhere: RemoteRanks?
    /// A rank that makes no progress for so many nanoseconds is given up.
    let patience: UInt64
    /// Nanoseconds between two looks of the watchdog.
    let watchInterval: UInt64
    private let trace: TraceWriter?
    private let grammars: RequestGrammars
    let state: Mutex<State>
    /// Raised when a step is complete or a rank has failed; shared with whoever waits for other things too.
    let progress: DispatchSemaphore

    struct State {
        /// Steps on their way, in the order in which they were given.
        var pending: [Pending] = []
        var ledger: RankStatistics
        /// When the watchdog looked at the ranks last, in the meter's nanoseconds.
        var lastWatch: UInt64 = 0
        var clock: WatchClock
    }

    struct Pending {
        let plan: StepPlan
        /// When it was handed out, by `Meter.now`.
        let began = Meter.now()
        var reports: [StepReport] = []
        /// By rank.
        var spent: [RankStatistics.Spent]
    }

    /// Starts the ranks.
    ///
    /// - Parameters:
    ///   - configuration: must be valid; see `EngineConfiguration.validate`.
    ///   - processes: this one is the first of them, and the others follow it (`RankFollower`); `nil` for none.
    ///   - grammars: of the model's vocabulary; without it no request may follow a grammar.
    ///   - trace: where everything the ranks do is written.
    ///   - recording: stages whose values are kept, for parity tests; none in service.
    ///   - cache: one that other ranks have filled, for benchmarks; a new one when `nil`.
    ///   - progress: raised when a step is complete or a rank has failed.
    package init(
        _ model: any Model, _ configuration: EngineConfiguration, processes: Processes? = nil,
        grammars: GrammarCache? = nil, trace: TraceWriter? = nil, recording stages: Set<Stage> = [],
        cache: CacheStore? = nil,
        progress: DispatchSemaphore = DispatchSemaphore(value: 0)
    ) {
        let settings = RankSettings(configuration, for: model, recording: stages, isTraced: trace != nil)
        let parallel = settings.parallel
        let elsewhere = processes.map { RemoteRanks(settings, vocabularySize: model.vocabularySize, $0) }
        let world: any RankWorld = elsewhere?.world ?? ThreadWorld(threads: parallel.world * settings.threadsPerRank)
        self.configuration = parallel
        threadsPerRank = settings.threadsPerRank
        positionAlignment = model.positionAlignment
        self.world = world
        self.elsewhere = elsewhere
        here = RankThreads(elsewhere?.ranksHere ?? 0..<parallel.world, alarm: world.alarm)
        let cache = cache ?? CacheStore(settings, for: model, ranks: here.ranks)
        self.cache = cache
        processSharding = settings.processSharding
        patience = UInt64(configuration.watchdogTimeout) * 1_000_000_000
        self.progress = progress
        self.trace = trace
        watchInterval = min(1_000_000_000, patience / 4)
        let grammars = RequestGrammars(grammars)
        self.grammars = grammars
        state = Mutex(State(ledger: RankStatistics(parallel), clock: WatchClock(interval: watchInterval)))
        world.alarm.observe { progress.signal() }
        elsewhere?.start { [weak self] in self?.deposit($0) }
        here.start(model, cache, settings, grammars: grammars, in: world) { [self] in deposit($0) }
    }

    /// Hands a step to all ranks. Results come in the same order.
    package func submit(_ plan: StepPlan) {
        let assignment = rowAssignment(of: plan)
        state.withLock {
            $0.pending.append(Pending(plan: plan, spent: Array(repeating: [:], count: configuration.world)))
        }
        grammars.prepare(for: plan)
        elsewhere?.put(assignment)
        here.put(assignment)
    }

    /// Which rank computes which row of a step.
    package func rowAssignment(of plan: StepPlan) -> RowAssignment {
        RowAssignment(plan, configuration, processSharding: processSharding, alignment: positionAlignment)
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
    package var hasTrapped: Bool { here.hasTrapped }

    /// Lets the ranks finish what they were given, and returns when those of this process have ended; see
    /// `RankThreads.stop`.
    package func stop() {
        elsewhere?.stop()
        here.stop { watch() }
    }

    /// Enters what a rank found in a step.
    private func deposit(_ report: StepReport) {
        let isLast = state.withLock { state in
            let spent = state.ledger.enter(report)
            // Ranks are at most a few steps apart; one that is ahead finds its step further back.
            guard let index = state.pending.firstIndex(where: { $0.plan.number == report.step }) else { return false }
            state.pending[index].reports.append(report)
            state.pending[index].spent[report.rank] = spent
            guard state.pending[index].reports.count == configuration.world else { return false }
            state.ledger.close(state.pending[index].spent)
            return true
        }
        if isLast { progress.signal() }
    }

    /// What a rank did when that was last known.
    func snapshot(of rank: Int) -> RankProgress.Snapshot {
        if here.ranks.contains(rank) { return here.progresses[rank - here.ranks.lowerBound].snapshot }
        return elsewhere!.snapshot(of: rank)
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
