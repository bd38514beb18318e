package import KVCache
package import Models
package import Parallelism
package import Tensors

/// What every process has to know to run its ranks.
package struct RankSettings: Sendable, Equatable {
    package var parallel = ParallelConfiguration()
    package var cacheType = CacheType.float32
    package var pageSize = 1
    /// Of the cache; decided by the first process, whatever memory the others have.
    package var pages = 0
    /// Set where processes divide the keys among them.
    package var division: CacheDivision?
    /// Instruction-set level; `nil` for the best there is.
    package var kernels: Kernels.Level?
    /// Threads that share the work inside each rank.
    package var threadsPerRank = 1
    package var tuning = Tuning()
    /// What ranks record.
    package var stages: Set<Stage> = []
    /// Whether they write down what they do when.
    package var isTraced = false

    package init() {}

    init(_ configuration: EngineConfiguration, for model: any Model, recording stages: Set<Stage>, isTraced: Bool) {
        parallel = configuration.parallel
        cacheType = configuration.cacheType
        pageSize = configuration.pageSize
        pages = configuration.scheduler(for: model).totalPages
        division = configuration.division(for: model)
        kernels = configuration.kernels
        threadsPerRank = configuration.threadsPerRank
        tuning = configuration.tuning
        self.stages = stages
        self.isTraced = isTraced
    }
}

extension RankSettings: Wired {
    package static var blank: RankSettings { RankSettings() }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&parallel)
        try wire.pass(&cacheType)
        try wire.pass(&pageSize)
        try wire.pass(&pages)
        var (isDivided, division) = (self.division != nil, self.division ?? CacheDivision())
        try wire.pass(&isDivided)
        try wire.pass(&division.keysPerRow)
        try wire.pass(&division.pageSize)
        try wire.pass(&division.visitingPages)
        try wire.pass(&division.rows)
        self.division = isDivided ? division : nil
        var (level, names) = (kernels?.rawValue ?? "", stages.map(\.rawValue).sorted())
        try wire.pass(&level)
        try wire.pass(&threadsPerRank)
        for setting in Tuning.settings {
            try wire.pass(&tuning[keyPath: setting.path])
            guard setting.legal.contains(tuning[keyPath: setting.path]) else {
                throw Wire.Failure(description: "\(setting.name) of \(tuning[keyPath: setting.path])")
            }
        }
        try wire.pass(&names)
        try wire.pass(&isTraced)
        kernels = Kernels.Level(rawValue: level)
        stages = Set(names.compactMap { Stage(rawValue: $0) })
        guard (1...65_536).contains(threadsPerRank) else {
            throw Wire.Failure(description: "\(threadsPerRank) threads in a rank")
        }
        guard (1...65_536).contains(pageSize), pageSize & (pageSize - 1) == 0,
            (1...Int(Int32.max) / pageSize).contains(pages)
        else {
            throw Wire.Failure(description: "a cache of \(pages) pages of \(pageSize) tokens")
        }
        let legal = 1...Int(Int32.max)
        guard [division.keysPerRow, division.rows].allSatisfy(legal.contains),
            (1...Int(Int32.max) / pageSize).contains(division.visitingPages),
            !isDivided || division.pageSize == pageSize
        else {
            throw Wire.Failure(description: "room for \(division.visitingPages) pages and \(division.rows) rows")
        }
    }
}

extension ParallelConfiguration: Wired {
    package static var blank: ParallelConfiguration { ParallelConfiguration() }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&data)
        try wire.pass(&context)
        try wire.pass(&tensor)
        try wire.pass(&expert)
        try wire.pass(&expertTensor)
        try wire.pass(&pipeline)
        // No stages are given as none.
        var layers = stageLayers ?? []
        try wire.pass(&layers)
        stageLayers = layers.isEmpty ? nil : layers
        try wire.pass(&denseTensor)
        try wire.pass(&strategy)
        try wire.pass(&exchange)
        var (ranks, unit, leastKeys) = (ownership.ranks, ownership.unit, ownership.leastKeys)
        try wire.pass(&ranks)
        try wire.pass(&unit)
        try wire.pass(&leastKeys)
        let degrees = [data, context, tensor, expert, expertTensor, pipeline, denseTensor, ranks]
        guard (degrees + [unit]).allSatisfy({ (1...65_536).contains($0) }), leastKeys >= 0 else {
            throw Wire.Failure(description: "degrees of \(degrees)")
        }
        ownership = PageOwnership(ranks: ranks, unit: unit, leastKeys: leastKeys)
    }
}

extension CacheStore {
    /// A process's cache: with the same pages as any other's, of which it keeps what its ranks own.
    convenience init(_ settings: RankSettings, for model: any Model, ranks: Range<Int>) {
        let ownership = settings.parallel.ownership
        // Owners are consecutive ranks.
        let share = settings.division.map { division in
            CacheShare(
                pageSize: division.pageSize, run: ownership.unit, owners: ownership.ranks,
                kept: Set(ranks.map { $0 % ownership.ranks }))
        }
        self.init(
            format: model.cacheFormat(settings.cacheType, pageSize: settings.pageSize), pages: settings.pages,
            share: share)
    }
}
