import Inference
import Parallelism
import TestSupport

/// The scheduler's tests with random operations draw their cases here: caches so small that requests are preempted.
extension SplitMix64 {
    /// Returns `true` in one of `count` cases.
    mutating func oneIn(_ count: Int) -> Bool { below(count) == 0 }

    /// - Parameter tokens: The smallest number of tokens of the whole cache; the largest is about twice that.
    mutating func schedulerConfiguration(tokens: Int) -> SchedulerConfiguration {
        let pageSize = 1 << below(4)
        var configuration = SchedulerConfiguration(
            totalPages: (tokens + below(2 * tokens)) / pageSize, contextLength: 40, vocabularySize: 30)
        configuration.pageSize = pageSize
        configuration.maxRunningRequests = 1 + below(8)
        configuration.maxQueuedRequests = 1 + below(12)
        configuration.chunkedPrefillSize = [nil, 1, 3, 8][below(4)]
        configuration.drafts = [0, 0, 1, 3][below(4)]
        configuration.maxRowsPerStep = configuration.maxRunningRequests * (1 + configuration.drafts) + below(24)
        configuration.maxStepsInFlight = 1 + below(4)
        configuration.dataGroups = 1 + below(4)
        // Now and then with just enough window pages.
        configuration.window = [0, 0, 1, 4, 11][below(5)]
        configuration.windowPages = configuration.minWindowPages + (configuration.window == 0 ? 0 : below(6))
        if oneIn(2) {
            let parallel = ParallelConfiguration(
                data: configuration.dataGroups, context: 1 + below(4), tensor: 1 + below(2),
                strategy: PartitionStrategy.allCases[below(3)])
            configuration.dividedGroups = .init(parallel, alignment: min(1 << below(3), pageSize))
            configuration.groupsShareKeys = false
        }
        return configuration
    }

    mutating func tokens(_ count: Int) -> [Int32] { (0..<count).map { _ in Int32(below(30)) } }

    /// Returns a request with this prompt and random other fields.
    mutating func request(_ prompt: [Int32]) -> GenerationRequest {
        var request = GenerationRequest(prompt: prompt)
        request.sampling.maxNewTokens = oneIn(4) ? nil : below(30)
        request.sampling.minNewTokens = oneIn(4) ? below(6) : 0
        request.sampling.stopTokens = oneIn(3) ? [Int32(below(30)), Int32(below(30))] : []
        request.priority = oneIn(4) ? below(3) - 1 : 0
        if oneIn(3) { request.logProbs = LogProbOptions(topCount: below(3), promptStart: oneIn(2) ? below(12) : nil) }
        return request
    }
}

extension Rig {
    /// Returns the events of a request that runs alone. Without a number of new tokens the context or the whole cache
    /// limits it.
    func soloRunInCache(_ request: GenerationRequest) -> Transcript {
        let slots = scheduler.configuration.totalPages * scheduler.configuration.pageSize
        let room = min(scheduler.limits.contextLength, slots + 1) - request.prompt.count
        return HashModel(vocabularySize: scheduler.limits.vocabularySize)
            .soloRun(request, limit: request.sampling.maxNewTokens ?? room)
    }
}
