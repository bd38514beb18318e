import Models
import Parallelism

/// What came of serving a mix: every answer, and every row that was recorded.
struct Transcript {
    /// By request.
    var answers: [UInt64: Answer] = [:]
    var records = StageRecords()
    /// What was wrong with the books while it was served.
    var problems: [String] = []
    /// Preempted requests.
    var preemptions: UInt64 = 0

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

    /// Serves a mix in lock step: plans as many steps as may be in flight, waits for the first, goes on.
    ///
    /// - Parameter stages: what to record.
    init(
        _ model: any Model, _ layout: ParallelConfiguration, chunk: Int?, _ mix: BatchMix,
        _ settings: Verification.Settings, recording stages: Set<Stage>
    ) throws(GroupFailure) {
        var configuration = EngineConfiguration()
        configuration.parallel = layout
        configuration.chunkedPrefillSize = chunk ?? -1
        configuration.cacheType = settings.cacheType
        configuration.kernels = settings.kernels
        configuration.pageSize = mix.pageSize
        configuration.maxTotalTokens = mix.totalTokens
        let pool = RankPool(model, configuration, recording: stages)
        defer { pool.stop() }
        var scheduler = Scheduler(configuration: configuration.scheduler(for: model))
        for (index, request) in mix.requests.enumerated() {
            do {
                try scheduler.submit(UInt64(index + 1), request)
            } catch {
                preconditionFailure("a mix has a request that cannot be served: \(error)")
            }
        }
        while !scheduler.isIdle {
            while let plan = scheduler.nextStep() { pool.submit(plan) }
            let outcome = try pool.awaitResult()
            records.merge(outcome.records)
            for event in scheduler.finish(outcome.result) { answers[event.request, default: Answer()].add(event.event) }
            problems += scheduler.checkInvariants()
        }
        let status = scheduler.status
        preemptions = status.preemptions
        if status.usedPages != 0 || status.freePages + status.cachedPages != status.totalPages {
            problems.append("\(status.usedPages) of \(status.totalPages) pages are still in use")
        }
    }
}
