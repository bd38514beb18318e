package import KVCache
package import Modeling
package import Parallelism
package import Tensors

/// Rank settings are what every process has to know to run its ranks.
package struct RankSettings: Sendable, Equatable {
    package var parallel = ParallelConfiguration()
    package var cacheType = CacheType.float32
    package var pageSize = 1
    /// The number of pages in the cache, which the first process decides, whatever memory the others have.
    package var pages = 0
    /// The number of pages of the key sets that have a window.
    package var windowPages = 0
    /// The division of the KV cache between processes; `nil` where each keeps all keys.
    package var processSharding: ProcessKVSharding?
    /// The maximum number of rows of a step, counted over all ranks.
    package var maxRows = 1
    /// The instruction-set level of the kernels; `nil` takes the best that the processor has.
    package var kernels: Kernels.Level?
    /// The numerics profile of all ranks.
    package var profile = NumericsProfile.f32
    /// The number of threads that share the work of each rank.
    package var threadsPerRank = 1
    /// Says whether ranks stay on the cores of one memory node each.
    package var numa = CorePolicy.auto
    package var tuning = Tuning()
    /// The stages whose values ranks record; none in service.
    package var stages: Set<Stage> = []

    package init() {}

    init(_ configuration: EngineConfiguration, for model: any Model, recording stages: Set<Stage>) {
        parallel = configuration.parallel
        cacheType = configuration.cacheType
        pageSize = configuration.pageSize
        let scheduler = configuration.scheduler(for: model)
        (pages, windowPages) = (scheduler.totalPages, scheduler.windowPages)
        maxRows = scheduler.maxRowsPerStep
        processSharding = configuration.processSharding(for: model)
        kernels = configuration.kernels
        profile = configuration.profile
        threadsPerRank = configuration.threadsPerRank
        numa = configuration.numa
        tuning = configuration.tuning
        self.stages = stages
    }
}

extension RankSettings: WireCodable {
    package static var empty: RankSettings { RankSettings() }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&parallel)
        try wire.pass(&cacheType)
        try wire.pass(&pageSize)
        try wire.pass(&pages)
        try wire.pass(&windowPages)
        var (isDivided, processSharding) = (self.processSharding != nil, self.processSharding ?? ProcessKVSharding())
        try wire.pass(&isDivided)
        try wire.pass(&processSharding.keysPerRow)
        try wire.pass(&processSharding.pageSize)
        try wire.pass(&processSharding.gatheredPages)
        try wire.pass(&processSharding.rows)
        self.processSharding = isDivided ? processSharding : nil
        try wire.pass(&maxRows)
        var (level, names) = (kernels?.rawValue ?? "", stages.map(\.rawValue).sorted())
        try wire.pass(&level)
        try wire.pass(&profile)
        try wire.pass(&threadsPerRank)
        var policy = numa.rawValue
        try wire.pass(&policy)
        guard let numa = CorePolicy(rawValue: policy) else { throw Wire.Failure(description: "--numa \(policy)") }
        self.numa = numa
        for setting in Tuning.settings {
            try wire.pass(&tuning[keyPath: setting.path])
            guard setting.legal.contains(tuning[keyPath: setting.path]) else {
                throw Wire.Failure(description: "\(setting.name) of \(tuning[keyPath: setting.path])")
            }
        }
        try wire.pass(&names)
        kernels = Kernels.Level(rawValue: level)
        stages = Set(names.compactMap { Stage(rawValue: $0) })
        guard (1...65_536).contains(threadsPerRank) else {
            throw Wire.Failure(description: "\(threadsPerRank) threads in a rank")
        }
        guard (1...65_536).contains(pageSize), pageSize & (pageSize - 1) == 0,
            (1...Int(Int32.max) / pageSize).contains(pages), (0...Int(Int32.max) / pageSize).contains(windowPages)
        else {
            throw Wire.Failure(description: "a cache of \(pages) pages of \(pageSize) tokens")
        }
        let legal = 1...Int(Int32.max)
        guard [processSharding.keysPerRow, processSharding.rows, maxRows].allSatisfy(legal.contains),
            (1...Int(Int32.max) / pageSize).contains(processSharding.gatheredPages),
            !isDivided || processSharding.pageSize == pageSize
        else {
            throw Wire.Failure(
                description: "room for \(processSharding.gatheredPages) pages and \(processSharding.rows) rows")
        }
    }
}

extension ParallelConfiguration: WireCodable {
    package static var empty: ParallelConfiguration { ParallelConfiguration() }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&data)
        try wire.pass(&context)
        try wire.pass(&tensor)
        try wire.pass(&expert)
        try wire.pass(&expertTensor)
        try wire.pass(&pipeline)
        // An empty list stands for `nil`.
        var layers = stageLayers ?? []
        try wire.pass(&layers)
        stageLayers = layers.isEmpty ? nil : layers
        try wire.pass(&denseTensor)
        try wire.pass(&strategy)
        try wire.pass(&exchange)
        var (ranks, unit, minKeys) = (kvSharding.ranks, kvSharding.unit, kvSharding.minKeys)
        try wire.pass(&ranks)
        try wire.pass(&unit)
        try wire.pass(&minKeys)
        let degrees = [data, context, tensor, expert, expertTensor, pipeline, denseTensor, ranks]
        guard checkedWorld != nil, [denseTensor, ranks].allSatisfy({ (1...Self.maxRanks).contains($0) }),
            (1...65_536).contains(unit), minKeys >= 0
        else {
            throw Wire.Failure(description: "degrees of \(degrees); \(Self.maxRanks) ranks are the most")
        }
        guard layers.isEmpty || layers.count == pipeline, layers.allSatisfy({ (1...65_536).contains($0) }) else {
            throw Wire.Failure(description: "\(layers.count) numbers of layers for \(pipeline) stages")
        }
        kvSharding = KVSharding(ranks: ranks, unit: unit, minKeys: minKeys)
    }
}

extension CacheStore {
    /// Creates the cache of a process: it has the same pages as that of any other process, and stores the part of them
    /// that its ranks own.
    convenience init(_ settings: RankSettings, for model: any Model, ranks: Range<Int>) {
        let kvSharding = settings.parallel.kvSharding
        // The owners of a request's keys are consecutive ranks.
        let owners = settings.processSharding.map { _ in
            KVShard.Owners(
                run: kvSharding.unit, count: kvSharding.ranks, kept: Set(ranks.map { $0 % kvSharding.ranks }))
        }
        self.init(
            format: model.cacheFormat(settings.cacheType, pageSize: settings.pageSize), pages: settings.pages,
            windowPages: settings.windowPages, owners: owners)
    }
}
