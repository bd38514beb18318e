package import Inference
import Modeling
import Parallelism
import Tensors

/// A transcript contains every answer and every recorded row of serving a workload once.
struct Transcript {
    /// The answers; the key is the request.
    var answers: [UInt64: Answer] = [:]
    var records = StageRecords()

    /// The answer to one request.
    struct Answer {
        var scores: [TokenLogProbs] = []
        var tokens: [TokenLogProbs] = []
        /// The reason why the request failed, if it did.
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

/// Run coverage counts what happened while cases were served: a feature that never came into play has not been
/// verified.
package struct RunCoverage: Sendable, Equatable {
    /// The number of requests that were preempted and computed again.
    package var preemptions: UInt64 = 0
    /// The number of prompt tokens whose keys were found in the prefix cache.
    package var cachedTokens: UInt64 = 0
    /// The number of chunks that used query-gather attention.
    package var dcpChunks: UInt64 = 0
    package var speculation = SpeculationCount()

    mutating func add(_ other: RunCoverage) {
        preemptions += other.preemptions
        cachedTokens += other.cachedTokens
        dcpChunks += other.dcpChunks
        speculation += other.speculation
    }
}

/// This type serves a case's workload in lock step: it plans as many steps as may be in flight, and waits for the first
/// of them.
struct MixRun {
    /// The transcript of each time the workload was served.
    private(set) var runs: [Transcript] = []
    /// The violated invariants found after any step.
    private(set) var problems: [String] = []
    private(set) var coverage = RunCoverage()
    private let pool: RankPool
    private var scheduler: Scheduler

    /// - Parameters:
    ///   - processes: The processes the ranks are divided among; `nil` if all ranks run in this one.
    ///   - stages: The stages to record.
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
        // All work is divided among threads, even that of the tiny models of tests.
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

    /// - Parameter warmupRequests: Requests that are submitted two steps earlier.
    private mutating func serve(
        _ requests: [GenerationRequest], behind warmupRequests: [GenerationRequest] = []
    ) throws(GroupFailure) {
        var transcript = Transcript()
        submit(warmupRequests, from: UInt64(requests.count + 1))
        // After two steps some have computed their prompts, and all still run.
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
            coverage.dcpChunks += UInt64(pool.rowAssignment(of: plan).dcpChunks.count)
            pool.submit(plan)
        }
        let plan = scheduler.inFlight[0]
        let outcome = try pool.awaitResult()
        transcript.records.merge(outcome.records)
        for (chunk, found) in zip(plan.chunks, outcome.result.chunks) where !chunk.drafts.isEmpty {
            // Rows after a rejected draft token are no part of the text.
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
    /// Returns block sizes that all differ from those of a level.
    fileprivate static func odd(_ level: Kernels.Level) -> Tuning {
        var tuning = Tuning()
        for type in DType.allCases {
            tuning.gemvMaxRows[type] = 1
            // Keys are used as they are stored exactly at the levels that by default convert them.
            tuning.directKeyMaxHeads[type] = level == .avx512 ? 1 : 1024
        }
        tuning.indexKeyTiles = 1
        tuning.indexRowTile = 3
        return tuning
    }
}
