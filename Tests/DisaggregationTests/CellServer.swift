import Disaggregation
import Inference
import KVCache
import Parallelism
import Tensors
import TestSupport

/// A server without arithmetic: a scheduler, and caches whose entries say which text they belong to. Every step checks
/// all entries that its rows see, in every process that keeps them, so an entry of another request, of another position
/// or layer, or one that never arrived is found when it is read.
struct CellServer {
    var scheduler: Scheduler
    let placement: CachePlacement
    let stores: [CacheStore]
    /// The layer of the next-token block, whose entries depend on the following token.
    let draftLayer: Int
    /// What was found wrong in entries.
    private(set) var problems: [String] = []
    private(set) var flights: [Flight] = []
    /// The requests whose steps fail. Their entries are wrong, so nobody may read one of them.
    private var failing: Set<UInt64> = []

    /// A step in flight.
    struct Flight {
        let plan: StepPlan
        /// The number of layers that are computed.
        var layers = 0
        /// The result, once all layers are computed.
        var result: StepResult?
    }

    private let model: HashModel
    private let drafts: Bool

    init(_ configuration: SchedulerConfiguration, _ placement: CachePlacement) {
        scheduler = Scheduler(configuration: configuration)
        self.placement = placement
        let ranks = Placement(ranks: placement.parallel.world, processes: placement.processes)
        stores = (0..<placement.processes).map { process in
            let kept = Set(ranks.ranks(of: process).map { $0 % placement.owners })
            return CacheStore(
                format: placement.format, pages: configuration.totalPages, windowPages: configuration.windowPages,
                owners: placement.owners == 1
                    ? nil : KVShard.Owners(run: placement.run, count: placement.owners, kept: kept))
        }
        draftLayer = placement.format.layers.count - 1
        drafts = configuration.drafts > 0
        model = HashModel(vocabularySize: configuration.vocabularySize)
    }

    // MARK: - Steps

    mutating func submit(_ plan: StepPlan) { flights.append(Flight(plan: plan)) }

    /// Computes the next layer of the first step in flight that is not computed.
    ///
    /// - Parameter fails: true to let the step's first request fail, if this is the first layer.
    /// - Returns: true if the step's first request was made to fail.
    mutating func compute(fails: Bool) -> Bool {
        guard let index = flights.firstIndex(where: { $0.result == nil }) else { return false }
        let (plan, layer) = (flights[index].plan, flights[index].layers)
        let failsNow = fails && layer == 0
        if failsNow { failing.insert(plan.chunks[0].request) }
        let results = plan.chunks.map { run($0, layer) }
        flights[index].layers += 1
        if layer == draftLayer { flights[index].result = StepResult(chunks: results) }
        return failsNow
    }

    /// Returns of how many layers the keys of a step are stored; `Int.max` if it is over.
    func storedLayers(of step: Int) -> Int { flights.first { $0.plan.number == step }?.layers ?? .max }

    /// Returns the result of the first step in flight, which must be computed.
    mutating func takeResult() -> StepResult? {
        guard let result = flights.first?.result else { return nil }
        flights.removeFirst()
        return result
    }

    /// Computes one layer of a chunk, and returns the result that the chunk has in the end.
    private mutating func run(_ chunk: StepPlan.Chunk, _ layer: Int) -> StepResult.ChunkResult {
        let end = chunk.start + chunk.tokens.count
        let text = (0..<chunk.start).map { token(at: $0, chunk) } + chunk.tokens
        let chosen = chunk.sampledRows.enumerated().map { index, row in
            let sample = chunk.sample(at: index)
            return model.choose(
                after: text.prefix(sample.position), forbidden: sample.forbidden, topCount: chunk.topLogProbs)
        }
        let sampled = Array(chosen.prefix(chunk.acceptedCount(chosen.map(\.token))))
        // The token after each row, where it is known.
        var following = (1...end).map { $0 < end ? text[$0] : chunk.speculation?.next ?? -1 }
        for (index, row) in chunk.sampledRows.enumerated() { following[chunk.start + row] = chosen[index].token }
        visit(chunk, text, following, layer)
        if failing.contains(chunk.request) {
            return StepResult.ChunkResult(request: chunk.request, failure: "NaN")
        }
        var result = StepResult.ChunkResult(request: chunk.request, sampled: sampled)
        result.scored = chunk.score.map {
            model.score($0.target, after: text.prefix(chunk.start + $0.row + 1), topCount: chunk.topLogProbs)
        }
        if let ahead = chunk.speculation?.ahead, ahead > 0, !sampled.isEmpty {
            let before = text.dropLast(chunk.drafts.count) + sampled.map(\.token)
            let pageSize = placement.format.pageSize
            let pages =
                placement.format.window == 0
                ? chunk.pages.count : min(chunk.pages.count, chunk.firstWindowPage + chunk.windowPages.count)
            result.drafts = model.drafts(behind: before) { drafts in
                drafts.count >= ahead || before.count + drafts.count - 2 >= pages * pageSize
            }
        }
        return result
    }

    // MARK: - Entries

    /// Checks the entries of a layer that a chunk's rows see, and writes those of its rows.
    private mutating func visit(_ chunk: StepPlan.Chunk, _ text: [Int32], _ following: [Int32], _ layer: Int) {
        let isFailing = failing.contains(chunk.request)
        var hashes: [UInt32] = [2_166_136_261]
        for token in text { hashes.append((hashes.last! ^ UInt32(bitPattern: token)) &* 16_777_619) }
        for set in placement.format.sets where set.layer == layer && (drafts || layer != draftLayer) {
            let format = placement.format[set]
            let tokens = format.tokensPerEntry
            let seen = format.window.map { max(0, chunk.start - $0 + 1) } ?? 0
            for entry in seen / tokens..<text.count / tokens {
                let last = (entry + 1) * tokens - 1
                var hash = hashes[last + 1] &+ UInt32(set.layer * 8 + set.index) &* 0x9E37_79B9
                if set.layer == draftLayer { hash = (hash ^ UInt32(bitPattern: following[last])) &* 16_777_619 }
                let cell = [UInt32(bitPattern: text[last]), isFailing ? ~hash : hash]
                for process in holders(of: entry, set, chunk.group) {
                    if last >= chunk.start {
                        write(cell, entry, set, chunk, process)
                    } else if !isFailing, read(entry, set, chunk, process) != cell {
                        problems.append(
                            "request \(chunk.request) reads another entry \(entry) of \(set) in process \(process)")
                    }
                }
            }
        }
    }

    private func token(at position: Int, _ chunk: StepPlan.Chunk) -> Int32 {
        let set = KeySetID(layer: 0)
        return Int32(bitPattern: read(position, set, chunk, holders(of: position, set, chunk.group)[0])[0])
    }

    private func holders(of entry: Int, _ set: KeySetID, _ group: Int) -> [Int] {
        let isWindow = placement.format[set].window != nil
        let owners = placement.holders(stage: placement.stages[set.layer], group: group, isWindow: isWindow)
        return owners[entry / placement.run % owners.count]
    }

    private func slot(_ entry: Int, _ set: KeySetID, _ chunk: StepPlan.Chunk, _ process: Int) -> Int {
        let group = placement.format.group(of: set)
        let perPage = placement.format.groups[group].entriesPerPage
        let isWindow = placement.format.groups[group].isWindow
        let page =
            isWindow ? chunk.windowPages[entry / perPage - chunk.firstWindowPage] : chunk.pages[entry / perPage]
        return stores[process].shard(ofGroup: group).entry(of: Int(page) * perPage + entry % perPage)!
    }

    private func read(_ entry: Int, _ set: KeySetID, _ chunk: StepPlan.Chunk, _ process: Int) -> [UInt32] {
        let place = slot(entry, set, chunk, process)
        return stores[process].lanes(of: set).map { lane in
            lane.bytes(ofEntry: place).reversed().reduce(0) { $0 << 8 | UInt32($1) }
        }
    }

    private func write(_ cell: [UInt32], _ entry: Int, _ set: KeySetID, _ chunk: StepPlan.Chunk, _ process: Int) {
        let place = slot(entry, set, chunk, process)
        for (lane, word) in zip(stores[process].lanes(of: set), cell) {
            lane.overwrite(place, with: (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) })
        }
    }
}

// MARK: - Placements

extension CellServer {
    /// A division of a server's work among processes.
    struct Division {
        var parallel: ParallelConfiguration
        var processes: Int
        var isSharded = false

        static let all: [Division] = [
            Division(parallel: ParallelConfiguration(), processes: 1),
            Division(parallel: ParallelConfiguration(pipeline: 2), processes: 2),
            Division(parallel: ParallelConfiguration(tensor: 2), processes: 2),
            Division(
                parallel: ParallelConfiguration(context: 4, kvSharding: KVSharding(ranks: 4)), processes: 4,
                isSharded: true),
            Division(
                parallel: ParallelConfiguration(context: 4, kvSharding: KVSharding(ranks: 2, unit: 2)), processes: 4,
                isSharded: true),
            Division(parallel: ParallelConfiguration(data: 2), processes: 2),
            Division(
                parallel: ParallelConfiguration(context: 2, pipeline: 2, kvSharding: KVSharding(ranks: 2)),
                processes: 4, isSharded: true),
            Division(parallel: ParallelConfiguration(data: 2, pipeline: 2), processes: 1),
        ]
    }

    /// Entries of two words: the token, and a hash of the text, layer and set.
    private static let lanes = [KeySet.Lane(.f32, width: 1), KeySet.Lane(.f32, width: 1)]

    /// Returns a format of three layers, the last one that of the next-token block.
    ///
    /// - Parameter window: the tokens of the longest window; 0 for one token per entry and no windows.
    static func format(window: Int, pageSize: Int) -> CacheFormat {
        let keys = KeySet("keys", lanes)
        if window == 0 { return CacheFormat(layers: [[keys], [keys], [keys]], pageSize: pageSize) }
        let recent = KeySet("recent", lanes, lifetime: .window(tokens: window))
        let shorter = KeySet("state", lanes, lifetime: .window(tokens: max(1, window / 2)))
        let pairs = KeySet("pairs", lanes, tokensPerEntry: 2)
        return CacheFormat(
            layers: [[keys, recent], [recent, shorter, pairs], [keys]], pageSize: pageSize)
    }

    /// Returns a placement of that format: the last two layers are in the last stage.
    static func placement(_ division: Division, window: Int, pageSize: Int) -> CachePlacement {
        let last = division.parallel.pipeline - 1
        return CachePlacement(
            format(window: window, pageSize: pageSize), division.parallel, processes: division.processes,
            stages: [0, last, last], isSharded: division.isSharded)
    }
}
