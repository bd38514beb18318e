package import Inference
import Modeling
import Parallelism
import Tensors

/// What came of serving a mix once: every answer, and every row that was recorded.
struct Transcript {
    /// By request.
    var answers: [UInt64: Answer] = [:]
    var records = StageRecords()

    /// What came of one request.
    struct Answer {
        var scores: [TokenLogProbs] = []
        var tokens: [TokenLogProbs] = []
        /// Why it failed.
        var failure: String?

        mutating func add(_ event: GenerationEvent) {
            switch event {
            case .promptLogProbs(let scored): scores += scored
            case .token(let token): tokens.append(token)
            case .finished: break
            case .failed(let reason): failure = reason
            }
        }
    }
}

/// What has happened while cases were served: an axis that nothing came of has not been verified.
package struct RunCoverage: Sendable, Equatable {
    /// Requests that gave their pages back and were computed again.
    package var preemptions: UInt64 = 0
    /// Prompt tokens whose keys were found in the prefix cache.
    package var cachedTokens: UInt64 = 0
    /// Chunks whose queries went to the keys.
    package var dcpChunks: UInt64 = 0
    package var speculation = SpeculationCount()

    mutating func add(_ other: RunCoverage) {
        preemptions += other.preemptions
        cachedTokens += other.cachedTokens
        dcpChunks += other.dcpChunks
        speculation += other.speculation
    }
}

/// Serves a case's mix in lock step: plans as many steps as may be in flight, waits for the first, goes on.
struct MixRun {
    /// What came of the mix each time it was served.
    private(set) var runs: [Transcript] = []
    /// What was wrong with the books meanwhile.
    private(set) var problems: [String] = []
    private(set) var coverage = RunCoverage()
    private let pool: RankPool
    private var scheduler: Scheduler

    /// - Parameters:
    ///   - processes: where ranks live, if not all in this one.
    ///   - stages: what to record.
    init(
        _ model: any Model, _ candidate: VerificationCase, _ mix: Workload, _ kernels: Kernels.Level?,
        processes: Processes?, recording stages: Set<Stage>
    ) throws(GroupFailure) {
        let conditions = candidate.conditions
        var configuration = EngineConfiguration()
        configuration.parallel = candidate.layout
        configuration.chunkedPrefillSize = conditions.chunk
        configuration.cacheType = conditions.cacheType
        configuration.prefixCache = conditions.prefix != .cold
        configuration.drafts = conditions.drafts
        configuration.threadsPerRank = conditions.threads
        if conditions.blocks == .odd { configuration.tuning = .odd(kernels ?? Kernels.best.level) }
        // Whatever can be shared is: models for tests have little else.
        configuration.tuning.minParallelWork = 1
        configuration.kernels = kernels
        configuration.pageSize = conditions.pageSize
        configuration.maxTotalTokens = mix.totalTokens(pageSize: conditions.pageSize, conditions.prefix)
        configuration.processes = processes?.count ?? 1
        let pool = RankPool(model, configuration, processes: processes, recording: stages)
        defer { pool.stop() }
        self.pool = pool
        scheduler = Scheduler(configuration: configuration.scheduler(for: model))
        try serve(mix.requests, behind: conditions.prefix == .shared ? mix.warmupRequests : [])
        if conditions.prefix == .warm { try serve(mix.requests) }
        closeBooks()
    }

    /// - Parameter warmupRequests: begun a little before.
    private mutating func serve(
        _ requests: [GenerationRequest], behind warmupRequests: [GenerationRequest] = []
    ) throws(GroupFailure) {
        var transcript = Transcript()
        submit(warmupRequests, from: UInt64(requests.count + 1))
        // So that some have computed their prompts, and all run on.
        for _ in 0..<2 where !scheduler.isIdle { try step(&transcript) }
        submit(requests, from: 1)
        while !scheduler.isIdle { try step(&transcript) }
        runs.append(transcript)
    }

    private mutating func submit(_ requests: [GenerationRequest], from first: UInt64) {
        for (index, request) in requests.enumerated() {
            do {
                try scheduler.submit(first + UInt64(index), request)
            } catch {
                preconditionFailure("a mix has a request that cannot be served: \(error)")
            }
        }
    }

    private mutating func step(_ transcript: inout Transcript) throws(GroupFailure) {
        while let plan = scheduler.nextStep() {
            coverage.dcpChunks += UInt64(pool.rowAssignment(of: plan).dcpRows.count)
            pool.submit(plan)
        }
        let plan = scheduler.inFlight[0]
        let outcome = try pool.awaitResult()
        transcript.records.merge(outcome.records)
        for (chunk, found) in zip(plan.chunks, outcome.result.chunks) where !chunk.drafts.isEmpty {
            // Rows behind a wrong guess are no part of the text.
            let end = chunk.start + chunk.tokens.count
            transcript.records.remove(
                end - chunk.sampledRows.count + found.sampled.count..<end, of: chunk.request)
        }
        for event in scheduler.finish(outcome.result) {
            transcript.answers[event.request, default: Transcript.Answer()].add(event.event)
        }
        problems += scheduler.checkInvariants()
    }

    private mutating func closeBooks() {
        let status = scheduler.status
        coverage.preemptions = status.preemptions
        coverage.cachedTokens = status.cacheHitTokens
        coverage.speculation = status.speculation
        if status.usedPages != 0 { problems.append("\(status.usedPages) pages are still in use") }
        _ = scheduler.flushCache()
        let free = scheduler.status.freePages
        if free != status.totalPages { problems.append("\(free) of \(status.totalPages) unused pages are free") }
    }
}

extension Tuning {
    /// Sizes of blocks that are unlike those of a level.
    fileprivate static func odd(_ level: Kernels.Level) -> Tuning {
        var tuning = Tuning()
        for type in DType.allCases {
            tuning.gemvMaxRows[type] = 1
            // As they are stored where they are not otherwise.
            tuning.directKeyMaxHeads[type] = level == .avx512 ? 1 : 1024
        }
        tuning.indexKeyTiles = 1
        tuning.indexRowTile = 3
        return tuning
    }
}
