import KVCache
package import Parallelism

/// Engine settings are the values in force that decide what a server holds and how fast it is, for `/server_info`: with
/// them `braid plan --compare` predicts the same engine. They never change while the engine runs.
package struct EngineSettings: Sendable, Equatable {
    /// The parallel configuration in the notation from which it can be restored.
    package var notation = "one"
    /// The ranks of one stage.
    package var tpSize = 1
    /// In attention: groups of ranks with different requests, ranks that share rows, ranks that share heads.
    package var attnDPSize = 1
    package var attnCPSize = 1
    package var attnTPSize = 1
    package var ppSize = 1
    /// The number of layers of each stage; `nil` where they are as even as possible.
    package var ppLayerPartition: [Int]?
    /// For experts: ranks with different experts, ranks that share the width of each; 1 and 1 where every rank of a
    /// stage has all experts.
    package var epSize = 1
    package var moeTPSize = 1
    package var moeDenseTPSize = 1
    package var moeA2ABackend = "none"
    package var cpStrategy = "interleave"
    package var dcpSize = 1
    package var dcpInterleave = 1
    package var dcpMinKeys = 0
    /// The maximum number of prompt tokens of one request in a step.
    package var chunkedPrefillSize = 1
    /// The maximum number of prompt tokens of all requests in a step, while as many requests decode as may run.
    package var maxPrefillTokens = 1
    package var kvCacheDtype = "float32"
    package var prefixCache = true
    /// The number of processes among which the ranks are divided.
    package var processes = 1

    package init() {}

    init(_ configuration: EngineConfiguration, _ scheduler: SchedulerConfiguration) {
        take(configuration.parallel)
        chunkedPrefillSize = scheduler.prefillChunk
        maxPrefillTokens = scheduler.maxRowsPerStep - scheduler.maxRunningRequests * (1 + scheduler.drafts)
        kvCacheDtype = configuration.cacheType.rawValue
        prefixCache = configuration.prefixCache
        processes = configuration.processes
    }

    /// Takes the degrees of a parallel configuration.
    package mutating func take(_ parallel: ParallelConfiguration) {
        notation = parallel.notation
        tpSize = parallel.stageRanks
        (attnDPSize, attnCPSize, attnTPSize) = (parallel.data, parallel.context, parallel.tensor)
        (ppSize, ppLayerPartition) = (parallel.pipeline, parallel.stageLayers)
        (epSize, moeTPSize, moeDenseTPSize) = (parallel.expert, parallel.expertTensor, parallel.denseTensor)
        moeA2ABackend = parallel.exchange.rawValue
        cpStrategy = parallel.strategy.rawValue
        let sharding = parallel.kvSharding
        (dcpSize, dcpInterleave, dcpMinKeys) = (sharding.ranks, sharding.unit, sharding.minKeys)
    }
}
