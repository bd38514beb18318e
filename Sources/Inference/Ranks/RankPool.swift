package import Dispatch
package import Grammar
package import KVCache
package import Modeling
package import Parallelism
import Synchronization
import Tensors

/// The rank pool runs steps on all ranks of a job, in this process and in others, and combines the reports of the ranks
/// into results.
package final class RankPool: Sendable {
    package let configuration: ParallelConfiguration
    let threadsPerRank: Int
    let profile: NumericsProfile
    let kernels: Kernels.Level
    /// The settings in force, for the engine's status.
    let engineSettings: EngineSettings
    /// The number of consecutive positions that stay together on one rank; see `Model.positionAlignment`.
    package let positionAlignment: Int
    package let world: any RankWorld
    /// The KV cache of this process, which its ranks share.
    package let cache: CacheStore
    /// The KV caches of all processes.
    package var caches: ServerCaches { ServerCaches(cache, elsewhere?.caches, world.alarm, stored) }
    /// The layers whose keys the ranks of this process have stored in the step that they run.
    let stored: StoredLayers
    /// The division of the KV cache between processes; `nil` where each keeps all keys.
    package let processSharding: ProcessKVSharding?
    let here: RankThreads
    /// Sends steps to the ranks of other processes; `nil` where there are none.
    let elsewhere: RemoteRanks?
    /// A rank that makes no progress for this many nanoseconds has failed.
    let patience: UInt64
    /// The watchdog checks the ranks every `watchInterval` nanoseconds.
    let watchInterval: UInt64
    private let trace: TraceWriter?
    private let grammars: RequestGrammars
    let state: Mutex<State>
    /// The semaphore that is signalled when a step is complete or a rank has failed. The pool's owner may signal it
    /// too, and wait for both at once.
    let progress: DispatchSemaphore

    struct State {
        /// Steps in flight, in the order of their submission.
        var pending: [Pending] = []
        var statistics: RankStatistics
        /// The time of the watchdog's last check, in nanoseconds of `Meter.now`.
        var lastWatch: UInt64 = 0
        var clock: WatchClock
    }

    struct Pending {
        let plan: StepPlan
        /// The time of submission, in nanoseconds of `Meter.now`.
        let began = Meter.now()
        var reports: [StepReport] = []
        /// The time each rank spent in this step's collectives; the index is the rank.
        var spent: [RankStatistics.Spent]
    }

    /// Starts the ranks.
    ///
    /// - Parameters:
    ///   - configuration: A valid configuration; see `EngineConfiguration.validate`.
    ///   - processes: The processes of the job, of which this is the first and the others run a `RankFollower`; `nil`
    ///     for one process.
    ///   - grammars: The grammar cache of the model's vocabulary; without it no request may follow a grammar.
    ///   - trace: The trace that receives everything the ranks do.
    ///   - recording: The stages whose values are recorded for parity tests; none in service.
    ///   - cache: A cache that other ranks have filled, for benchmarks; `nil` allocates a new one.
    ///   - progress: Is signalled when a step is complete or a rank has failed.
    package init(
        _ model: any Model, _ configuration: EngineConfiguration, processes: Processes? = nil,
        grammars: GrammarCache? = nil, trace: TraceWriter? = nil, recording stages: Set<Stage> = [],
        cache: CacheStore? = nil,
        progress: DispatchSemaphore = DispatchSemaphore(value: 0)
    ) {
        let settings = RankSettings(configuration, for: model, recording: stages)
        let parallel = settings.parallel
        let elsewhere = processes.map { RemoteRanks(settings, vocabularySize: model.vocabularySize, $0) }
        let world: any RankWorld = elsewhere?.world ?? ThreadWorld(threads: parallel.world * settings.threadsPerRank)
        self.configuration = parallel
        threadsPerRank = settings.threadsPerRank
        profile = settings.profile
        kernels = configuration.kernels ?? Kernels.best.level
        engineSettings = EngineSettings(configuration, configuration.scheduler(for: model))
        positionAlignment = model.positionAlignment
        self.world = world
        self.elsewhere = elsewhere
        let ranksHere = elsewhere?.ranksHere ?? 0..<parallel.world
        let cache = cache ?? CacheStore(settings, for: model, ranks: ranksHere)
        self.cache = cache
        stored = StoredLayers(ranks: ranksHere, parallel, layers: model.parallelShape.layers, cache.format, progress)
        here = RankThreads(ranksHere, alarm: world.alarm, watermarks: stored.watermarks)
        processSharding = settings.processSharding
        patience = UInt64(configuration.watchdogTimeout) * 1_000_000_000
        self.progress = progress
        self.trace = trace
        watchInterval = min(1_000_000_000, patience / 4)
        let grammars = RequestGrammars(grammars)
        self.grammars = grammars
        state = Mutex(State(statistics: RankStatistics(parallel), clock: WatchClock(interval: watchInterval)))
        world.alarm.observe { progress.signal() }
        elsewhere?.start { [weak self] in self?.deposit($0) }
        here.start(model, cache, settings, grammars: grammars, in: world) { [self] in deposit($0) }
    }

    /// Submits a step to all ranks. Results are returned in the order of submission.
    package func submit(_ plan: StepPlan) {
        var traced = plan
        traced.isTraced = plan.isTraced || trace != nil
        let assignment = rowAssignment(of: traced)
        state.withLock {
            $0.pending.append(Pending(plan: plan, spent: Array(repeating: [:], count: configuration.world)))
        }
        grammars.prepare(for: plan)
        elsewhere?.put(assignment)
        here.put(assignment)
    }

    /// Returns which rank computes which row of a step.
    package func rowAssignment(of plan: StepPlan) -> RowAssignment {
        RowAssignment(plan, configuration, processSharding: processSharding, alignment: positionAlignment)
    }

    /// The outcome of a step combines what all ranks reported.
    package struct Outcome: Sendable {
        package let result: StepResult
        /// The values that the ranks recorded, where the pool records any.
        package let records: StageRecords
        /// The time of the slowest rank of the first pipeline stage.
        package let seconds: Double
        /// The spans of the step, where its plan asks for them.
        let timeline: StepTimeline?
    }

    /// Returns the outcome of the first step in flight once all ranks have reported, and `nil` before.
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
            result: StepResult(done.plan, done.reports), records: records, seconds: first.map(\.seconds).max()!,
            timeline: done.plan.isTraced ? StepTimeline(done.plan, done.reports) : nil)
    }

    /// True if `nextResult` would return an outcome.
    package var hasResult: Bool { state.withLock { $0.pending.first?.reports.count == configuration.world } }

    /// The first failure of a rank, after which the pool runs no step; `nil` while all ranks work.
    package var failure: GroupFailure? { world.alarm.failure }

    /// The parallel configuration in words.
    package var layout: String { configuration.description }

    /// The statistics of each rank since the start.
    package var status: [RankStatus] { state.withLock { $0.statistics.status } }

    /// True if a rank's thread trapped. Memory may then be damaged, so that only a new process can go on.
    package var hasTrapped: Bool { here.hasTrapped }

    /// Lets the ranks finish the submitted steps, and returns when those of this process have ended; see
    /// `RankThreads.stop`.
    package func stop() {
        elsewhere?.stop()
        here.stop { watch() }
    }

    /// Adds a rank's report to its step, and signals `progress` when the step is complete.
    private func deposit(_ report: StepReport) {
        let isLast = state.withLock { state in
            let spent = state.statistics.enter(report)
            // Ranks are at most a few steps apart, so the step is found near the front.
            guard let index = state.pending.firstIndex(where: { $0.plan.number == report.step }) else { return false }
            state.pending[index].reports.append(report)
            state.pending[index].spent[report.rank] = spent
            guard state.pending[index].reports.count == configuration.world else { return false }
            state.statistics.close(state.pending[index].spent)
            return true
        }
        if isLast { progress.signal() }
    }

    /// Returns what a rank was doing when it last made progress, as far as this process knows.
    func snapshot(of rank: Int) -> RankProgress.Snapshot {
        if here.ranks.contains(rank) { return here.progresses[rank - here.ranks.lowerBound].snapshot }
        return elsewhere!.snapshot(of: rank)
    }
}

extension RankPool {
    /// Runs one step and returns its outcome. It is for benchmarks and tests, which have no engine; no other step may
    /// be in flight.
    package func run(_ plan: StepPlan) throws(GroupFailure) -> Outcome {
        submit(plan)
        return try awaitResult()
    }

    /// Waits for the first step in flight and returns its outcome. There must be one.
    package func awaitResult() throws(GroupFailure) -> Outcome {
        while true {
            if let done = nextResult() { return done }
            try world.alarm.check()
            waitForProgress()
        }
    }
}
