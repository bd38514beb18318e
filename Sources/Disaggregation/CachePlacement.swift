package import Inference
package import KVCache
package import Modeling
package import Parallelism

/// A cache placement tells which process of a server keeps which entries of a request's keys.
///
/// A process keeps entries of the layers of those pipeline stages, and of the requests of those data groups, of which
/// it runs a rank. Where processes divide the keys (`KVShard`), it keeps those of its ranks, except that of key sets with
/// a window every process keeps the entries that its rows see and those before the last page border.
package struct CachePlacement: Sendable, Equatable {
    package let format: CacheFormat
    package let parallel: ParallelConfiguration
    package let processes: Int
    /// The pipeline stage of each layer of the format.
    package let stages: [Int]
    /// The number of owners among which entries are divided, and of consecutive entries of one owner; 1 and 1 if every
    /// process keeps all entries.
    package let owners: Int
    package let run: Int

    /// - Parameters:
    ///   - stages: the pipeline stage of each layer of the format.
    ///   - isSharded: true if each process keeps only the entries that its ranks own.
    package init(
        _ format: CacheFormat, _ parallel: ParallelConfiguration, processes: Int, stages: [Int], isSharded: Bool
    ) {
        precondition(
            stages.count == format.layers.count && stages.allSatisfy((0..<parallel.pipeline).contains),
            "\(stages) are no stages of \(format.layers.count) layers")
        self.format = format
        self.parallel = parallel
        self.processes = processes
        self.stages = stages
        (owners, run) = isSharded ? (parallel.kvSharding.ranks, parallel.kvSharding.unit) : (1, 1)
    }

    /// Creates the placement of a server whose pipeline stages divide the layers of a model.
    ///
    /// - Parameters:
    ///   - layers: the number of the model's layers. Further layers of the format belong to the next-token block, which
    ///     is in the last stage.
    ///   - isSharded: true if each process keeps only the entries that its ranks own.
    package init(
        _ format: CacheFormat, _ parallel: ParallelConfiguration, processes: Int, layers: Int, isSharded: Bool
    ) {
        // One process keeps the entries of all stages.
        let parallelStages = processes == 1 ? 1 : parallel.pipeline
        let stages = format.layers.indices.map { layer in
            (0..<parallelStages).first {
                parallelStages == 1 || parallel.layers(ofStage: $0, total: layers).contains(layer)
            } ?? parallelStages - 1
        }
        self.init(format, parallel, processes: processes, stages: stages, isSharded: isSharded)
    }

    /// Creates the placement of a server.
    ///
    /// - Parameter configuration: that of the server, with the number of its processes.
    package init(_ model: any Model, _ configuration: EngineConfiguration) {
        self.init(
            model.cacheFormat(configuration.cacheType, pageSize: configuration.pageSize), configuration.parallel,
            processes: configuration.processes, layers: model.parallelShape.layers,
            isSharded: configuration.processSharding(for: model) != nil)
    }

    /// Returns the processes that keep a request's entries in the layers of a stage, for each owner of entries: entry e
    /// belongs to owner `(e / run) mod owners`.
    ///
    /// - Parameter isWindow: true for key sets with a window, which have one owner.
    package func holders(stage: Int, group: Int, isWindow: Bool) -> [[Int]] {
        let placement = Placement(ranks: parallel.world, processes: processes)
        let size = parallel.context * parallel.tensor
        let first = stage * parallel.stageRanks + group * size
        let owners = isWindow ? 1 : owners
        return (0..<owners).map { owner in
            let ranks = (first..<first + size).filter { $0 % owners == owner }
            return Set(ranks.map { placement.process(of: $0) }).sorted()
        }
    }

    /// Returns true if the servers' caches store equal bytes for equal keys of some layers, so that one can send them to
    /// the other. Page sizes may differ.
    package func isCompatible(with other: CachePlacement, layers: Range<Int>) -> Bool {
        layers.upperBound <= format.layers.count && layers.upperBound <= other.format.layers.count
            && format.layers[layers] == other.format.layers[layers]
    }
}
