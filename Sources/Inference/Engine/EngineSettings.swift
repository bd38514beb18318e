import KVCache
package import Parallelism

/// Engine settings are the values in force that decide what a server holds and how fast it is, for `/server_info`: with
/// them `braid plan --compare` predicts the same engine. They never change while the engine runs.
package struct EngineSettings: Sendable, Equatable {
    package var parallel = ParallelConfiguration()
    /// The maximum number of prompt tokens of one request in a step.
    package var chunkedPrefillSize = 1
    /// The maximum number of prompt tokens of all requests in a step, while as many requests decode as may run.
    package var maxPrefillTokens = 1
    package var kvCacheDtype = "float32"
    /// True if index keys are kept in FP4.
    package var hasFP4Index = false
    package var prefixCache = true
    /// The number of processes among which the ranks are divided.
    package var processes = 1

    package init() {}

    init(_ configuration: EngineConfiguration, _ scheduler: SchedulerConfiguration) {
        parallel = configuration.parallel
        chunkedPrefillSize = scheduler.prefillChunk
        maxPrefillTokens = scheduler.maxRowsPerStep - scheduler.maxRunningRequests * (1 + scheduler.drafts)
        kvCacheDtype = configuration.cacheType.keys.rawValue
        hasFP4Index = configuration.cacheType.hasFP4Index
        prefixCache = configuration.prefixCache
        processes = configuration.processes
    }
}

/// The parallel configuration under the names of SGLang's server arguments.
extension EngineSettings {
    /// The parallel configuration in the notation from which it can be restored.
    package var notation: String { parallel.notation }
    /// The ranks of one stage.
    package var tpSize: Int { parallel.stageRanks }
    /// In attention: groups of ranks with different requests, ranks that share rows, ranks that share heads.
    package var attnDPSize: Int { parallel.data }
    package var attnCPSize: Int { parallel.context }
    package var attnTPSize: Int { parallel.tensor }
    package var ppSize: Int { parallel.pipeline }
    /// The number of layers of each stage; `nil` where they are as even as possible.
    package var ppLayerPartition: [Int]? { parallel.stageLayers }
    /// For experts: ranks with different experts, ranks that share the width of each; 1 and 1 where every rank of a
    /// stage has all experts.
    package var epSize: Int { parallel.expert }
    package var moeTPSize: Int { parallel.expertTensor }
    package var moeDenseTPSize: Int { parallel.denseTensor }
    package var moeA2ABackend: String { parallel.exchange.rawValue }
    package var cpStrategy: String { parallel.strategy.rawValue }
    package var dcpSize: Int { parallel.kvSharding.ranks }
    package var dcpInterleave: Int { parallel.kvSharding.unit }
    package var dcpMinKeys: Int { parallel.kvSharding.minKeys }
}
