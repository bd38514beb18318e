import Disaggregation
import Glibc
import Inference
package import KVCache
import Modeling
package import Parallelism
import Tensors

/// A scheduler and its ranks, in lock step: as many steps as may be in flight are submitted, and the first of them is
/// waited for.
struct LockStepServer {
    var scheduler: Scheduler
    /// Which process keeps which keys, and the caches of all processes.
    let placement: CachePlacement
    let stores: [CacheStore]
    /// The number of chunks that used query-gather attention.
    private(set) var dcpChunks: UInt64 = 0
    /// The violated invariants found after any step.
    private(set) var problems: [String] = []
    private let pool: RankPool

    /// - Parameters:
    ///   - cachesPrefixes: True if the server has a prefix cache.
    ///   - processes: The processes the ranks are divided among; `nil` if all ranks run in this one.
    ///   - stages: The stages to record.
    init(
        _ model: any Model, _ candidate: VerificationCase, _ mix: Workload, cachesPrefixes: Bool,
        _ kernels: Kernels.Level?, processes: ServerProcesses?, recording stages: Set<Stage>
    ) {
        let conditions = candidate.conditions
        var configuration = EngineConfiguration()
        configuration.parallel = candidate.layout
        configuration.chunkedPrefillSize = conditions.chunk
        configuration.cacheType = conditions.cacheType
        configuration.prefixCache = cachesPrefixes
        configuration.drafts = conditions.drafts
        configuration.threadsPerRank = conditions.threads
        if conditions.blocks == .odd { configuration.tuning = .odd(kernels ?? Kernels.best.level) }
        // All work is divided among threads, even that of the tiny models of tests.
        configuration.tuning.minParallelWork = 1
        configuration.kernels = kernels
        configuration.profile = conditions.profile
        configuration.pageSize = conditions.pageSize
        configuration.maxTotalTokens = mix.totalTokens(pageSize: conditions.pageSize, conditions.prefix)
        configuration.processes = processes?.processes.count ?? 1
        pool = RankPool(model, configuration, processes: processes?.processes, recording: stages)
        scheduler = Scheduler(configuration: configuration.scheduler(for: model))
        stores = [pool.cache] + (processes?.otherCaches?() ?? [])
        placement = CachePlacement(
            pool.cache.format, candidate.layout, processes: configuration.processes,
            layers: model.parallelShape.layers, isSharded: pool.processSharding != nil)
    }

    var isStepInFlight: Bool { scheduler.isStepInFlight }

    mutating func submit(_ plan: StepPlan) {
        dcpChunks += UInt64(pool.rowAssignment(of: plan).dcpChunks.count)
        pool.submit(plan)
    }

    /// Returns of how many layers the first process has the keys of a step; see `ServerCaches.storedLayers`.
    func storedLayers(of step: Int, group: Int) -> Int { pool.caches.storedLayers(of: step, group: group) }

    /// Waits until the first process has the keys of some layers of the first step in flight, or that step has ended.
    func awaitLayers(_ count: Int) {
        let plan = scheduler.inFlight[0]
        while storedLayers(of: plan.number, group: plan.chunks[0].group) < count, !pool.hasResult, pool.failure == nil {
            sched_yield()
        }
    }

    /// Waits for the first step in flight, and adds its rows to `records`.
    ///
    /// - Returns: the events of the step.
    mutating func finishStep(_ records: inout StageRecords) throws(GroupFailure) -> [Scheduler.Event] {
        let plan = scheduler.inFlight[0]
        let outcome = try pool.awaitResult()
        records.merge(outcome.records)
        for (chunk, found) in zip(plan.chunks, outcome.result.chunks) where !chunk.drafts.isEmpty {
            // Rows after a rejected draft token are no part of the text.
            let end = chunk.start + chunk.tokens.count
            records.remove(end - chunk.sampledRows.count + found.sampled.count..<end, of: chunk.request)
        }
        let events = scheduler.finish(outcome.result)
        problems += scheduler.checkInvariants()
        return events
    }

    /// Checks that no page is left in use.
    mutating func checkBooks() {
        let status = scheduler.status
        if status.usedPages != 0 { problems.append("\(status.usedPages) pages are still in use") }
        _ = scheduler.flushCache()
        let free = scheduler.status.freePages
        if free != status.totalPages { problems.append("\(free) of \(status.totalPages) unused pages are free") }
    }

    /// Ends the ranks.
    func stop() { pool.stop() }
}

/// The processes that a server's ranks are divided among.
package struct ServerProcesses: Sendable {
    package let processes: Processes
    /// Returns the caches that the other processes have allocated for the newest ranks, in their order. It is `nil` where
    /// their memory cannot be reached, so that their keys cannot be sent to another server.
    package let otherCaches: (@Sendable () -> [CacheStore])?

    package init(_ processes: Processes, otherCaches: (@Sendable () -> [CacheStore])? = nil) {
        self.processes = processes
        self.otherCaches = otherCaches
    }
}

extension Tuning {
    /// Returns block sizes that all differ from those of a level.
    fileprivate static func odd(_ level: Kernels.Level) -> Tuning {
        var tuning = Tuning()
        for type in DType.allCases {
            tuning.gemvMaxRows[type] = 1
            // Keys are used as they are stored exactly at the levels that by default convert them.
            tuning.directKeyMaxHeads[type] = level >= .avx512 ? 1 : 1024
        }
        tuning.indexKeyTiles = 1
        tuning.indexRowTile = 3
        return tuning
    }
}
