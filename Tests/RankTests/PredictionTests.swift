import DeepSeekV32
import Inference
import KVCache
import Modeling
import Models
import Parallelism
import Planning
import Tensors
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(15))) struct `Predicted bytes` {
    /// These configurations together have every axis, both exchanges, all strategies, and shared and whole
    /// feed-forwards.
    static let layouts: [ParallelConfiguration] = [
        .init(context: 4, expert: 4),
        .init(context: 4, expert: 4, strategy: .zigzag, exchange: .allToAll),
        .init(tensor: 2, expert: 2, denseTensor: 2),
        .init(tensor: 4, expertTensor: 4),
        .init(context: 2, tensor: 2, expert: 2, expertTensor: 2, denseTensor: 2, strategy: .contiguous),
        .init(context: 2, tensor: 2, expert: 2, expertTensor: 2, exchange: .allToAll),
        .init(data: 2, context: 2, expert: 4),
        .init(data: 2, tensor: 2, expert: 1, expertTensor: 4, exchange: .allToAll),
        .init(context: 3),
        .init(context: 2, expert: 2, pipeline: 2),
        .init(data: 2, expert: 2, pipeline: 2, exchange: .allToAll),
        .init(context: 8, expert: 8),
        .init(data: 2, context: 2, tensor: 2, expert: 4, expertTensor: 2, denseTensor: 2),
    ]

    /// These configurations use query-gather attention: the owners are all ranks of a data group or a part of them,
    /// share heads or do not, and runs are whole residue classes or parts of one.
    static let owned: [ParallelConfiguration] = [
        .init(context: 2, expert: 2, kvSharding: KVSharding(ranks: 2, minKeys: 1)),
        .init(context: 4, expert: 4, kvSharding: KVSharding(ranks: 4, unit: 2, minKeys: 1)),
        .init(context: 8, kvSharding: KVSharding(ranks: 8, minKeys: 1)),
        .init(context: 4, kvSharding: KVSharding(ranks: 2, unit: 4, minKeys: 1)),
        .init(context: 4, kvSharding: KVSharding(ranks: 4, unit: 16, minKeys: 1)),
        .init(context: 3, kvSharding: KVSharding(ranks: 3, minKeys: 1)),
        .init(context: 2, tensor: 2, expert: 4, denseTensor: 2, kvSharding: KVSharding(ranks: 4, minKeys: 1)),
        .init(context: 2, tensor: 2, expert: 4, kvSharding: KVSharding(ranks: 2, minKeys: 1)),
        .init(tensor: 4, expertTensor: 4, kvSharding: KVSharding(ranks: 2, minKeys: 1)),
        .init(data: 2, context: 2, expert: 2, pipeline: 2, kvSharding: KVSharding(ranks: 2, minKeys: 1)),
        .init(data: 2, context: 4, tensor: 2, expert: 16, kvSharding: KVSharding(ranks: 4, unit: 2, minKeys: 1)),
    ]

    @Test(arguments: Golden.cases, layouts + owned)
    func `are the measured ones, for every rank and operation`(name: String, parallel: ParallelConfiguration) throws {
        let golden = try Golden(name)
        let model = try golden.directory.load()
        let configuration = EngineConfiguration(
            smallCache: parallel, tokens: 4096, alignment: model.positionAlignment)
        let cost = LayoutCost(
            model.description, parallel, format: model.cacheFormat(.float32, pageSize: configuration.pageSize))
        let pool = RankPool(model, configuration, recording: Set(Stage.allCases))
        defer { pool.stop() }
        let seed = UInt64.random(in: 0...UInt64.max)
        // What must occur occurs in the batches of a fixed seed; others, of a random seed, follow.
        var batches = [0, seed].map { RandomBatches(seed: $0, groups: parallel.data, model) }
        var predicted = [[String: Double]](repeating: [:], count: parallel.world)
        var mostRows = 0
        for number in 0..<8 {
            // Every other step has DCP rows if keys have several owners.
            let batch = number / 4
            let plan = number % 4 < 2 ? batches[batch].next(number) : batches[batch].decode(number)
            let records = try pool.run(plan).records
            let assignment = RowAssignment(plan, parallel, alignment: model.positionAlignment)
            mostRows = max(mostRows, assignment.rows.map(\.count).max()!)
            for rank in 0..<parallel.world {
                for (name, bytes) in bytes(ofRank: rank, assignment, cost, records) {
                    predicted[rank][name, default: 0] += bytes
                }
            }
        }
        expect(predicted, of: pool, "\(parallel), seed \(seed)")
        #expect(predicted.joined().contains { $0.value > 0 })
        // Buffers that grow may be twice what they need.
        let reserved = try #require(pool.world as? ThreadWorld).sendBytes
        #expect(reserved > 0 && reserved <= 2 * parallel.world * cost.sendBytes(rows: mostRows), "\(parallel)")
        if parallel.kvSharding.ranks > 1 {
            let ofIndexer = model.description.selection == nil ? [] : ["index queries", "candidates"]
            for exchange in ofIndexer + ["queries", "partial attention"] {
                #expect(predicted.contains { $0[exchange] ?? 0 > 0 }, "\(exchange), \(parallel)")
            }
        }
    }

    /// If processes divide the keys, the prediction includes gathered keys.
    @Test(
        arguments: [
            ParallelConfiguration(context: 4, expert: 4, kvSharding: KVSharding(ranks: 4)),
            .init(context: 4, kvSharding: KVSharding(ranks: 2, unit: 2)),
            .init(data: 2, context: 2, expert: 2, pipeline: 2, kvSharding: KVSharding(ranks: 2)),
        ], CacheType.plain)
    func `are the measured ones where processes divide the keys`(
        parallel: ParallelConfiguration, cacheType: CacheType
    ) throws {
        let model = try Golden("v32").directory.load()
        let transports = InMemoryTransport.network(parallel.world)
        defer { for transport in transports { transport.leave() } }
        _ = try onEveryRank(of: parallel.world) { process in
            let processes = Processes(transports[process])
            guard process == 0 else { return try RankFollower(model, processes).run() }
            defer { RankFollower.dismiss(processes) }
            var configuration = EngineConfiguration(smallCache: parallel, tokens: 4096)
            configuration.cacheType = cacheType
            configuration.processes = processes.count
            let pool = RankPool(model, configuration, processes: processes, recording: Set(Stage.allCases))
            defer { pool.stop() }
            let cost = LayoutCost(
                model.description, parallel, format: model.cacheFormat(cacheType, pageSize: 128), isDivided: true)
            let seed = UInt64.random(in: 0...UInt64.max)
            // What must occur occurs in the batches of a fixed seed; others, of a random seed, follow.
            var batches = [0, seed].map { RandomBatches(seed: $0, groups: parallel.data, model) }
            var predicted = [[String: Double]](repeating: [:], count: parallel.world)
            for number in 0..<8 {
                let plan = batches[number / 4].next(number)
                let records = try pool.run(plan).records
                let assignment = RowAssignment(plan, parallel, processSharding: pool.processSharding!)
                for rank in 0..<parallel.world {
                    for (name, bytes) in bytes(ofRank: rank, assignment, cost, records) {
                        predicted[rank][name, default: 0] += bytes
                    }
                }
            }
            expect(predicted, of: pool, "\(parallel), \(cacheType), seed \(seed)")
            #expect(predicted.allSatisfy { $0["gathered keys"] ?? 0 > 0 })
        }
    }

    private func expect(_ predicted: [[String: Double]], of pool: RankPool, _ what: String) {
        for (rank, status) in pool.status.enumerated() {
            let measured = Dictionary(
                uniqueKeysWithValues: status.operations.map { ("\($0.name)", Double($0.bytes)) })
            for name in Set(measured.keys).union(predicted[rank].keys) {
                #expect(predicted[rank][name] ?? 0 == measured[name] ?? 0, "rank \(rank), \(name), \(what)")
            }
        }
    }

    /// Returns the bytes as `LayoutCost` adds them up if nothing depends on the router, and otherwise layer by layer
    /// with the router's choices.
    private func bytes(
        ofRank rank: Int, _ assignment: RowAssignment, _ cost: LayoutCost, _ records: StageRecords
    ) -> [(String, Double)] {
        let rows = StepRows(assignment, cost.format)
        var all = cost.bytes(ofRank: rank, rows).filter { !$0.transfer.isExpected }.map { ($0.transfer.name, $0.bytes) }
        let (stage, stageRank) = rank.quotientAndRemainder(dividingBy: cost.parallel.stageRanks)
        let here = cost.parallel.layers(ofStage: stage, total: cost.model.layers.count)
        for kind in cost.layerKinds {
            for layer in kind.layers where here.contains(layer) {
                for transfer in cost.transfers(of: kind) where transfer.isExpected {
                    let bytes = cost.bytes(transfer, stageRank: stageRank, rows) { source, place in
                        isDispatched(
                            of: assignment.rows[source], assignment.plan, layer: layer, at: place, cost, records)
                    }
                    all.append((transfer.name, bytes))
                }
            }
        }
        return all
    }

    private func isDispatched(
        of rows: [RowAssignment.Row], _ plan: StepPlan, layer: Int, at place: Int, _ cost: LayoutCost,
        _ records: StageRecords
    ) -> Int {
        let chosen = records.values.first { $0.key.layer == layer && $0.key.stage == .gateExperts }?.value ?? [:]
        let perPlace = cost.model.parallelShape.experts / cost.parallel.expert
        return rows.count { row in
            let chunk = plan.chunks[row.chunk]
            let experts = chosen.first {
                $0.key.request == chunk.request && $0.key.position == chunk.start + row.offset
            }
            return experts!.value.contains { Int($0) / perPlace == place }
        }
    }

    @Test(arguments: [(1, 8), (2, 4), (4, 4), (8, 2)])
    func `of rows that choose experts are expected from a gate without preferences`(groups: Int, places: Int) throws {
        var model = try #require(try Golden("v3").directory.configuration as? DeepSeekConfiguration)
        model.experts.gate = GateRule(
            experts: 16, expertsPerToken: 3, groups: groups, topGroups: (groups + 1) / 2, normalize: true, scaling: 1)
        let parallel = ParallelConfiguration(context: places, expert: places, exchange: .allToAll)
        let cost = LayoutCost(
            model.description, parallel, format: model.cacheFormat(.float32, pageSize: 128))
        let rows = StepRows(
            owned: (0..<places).map { $0 == 0 ? 1 : 0 }, outputs: Array(repeating: 0, count: places),
            maxPosition: Array(repeating: -1, count: places))
        let dispatch = try #require(cost.transfers(of: cost.layerKinds[1]).first { $0.name == "dispatch" })
        let gate = model.experts.gate
        // The expectation is counted over all choices of the gate.
        var (choices, isDispatched) = (0, Array(repeating: 0, count: places))
        for kept in Self.subsets(of: groups, gate.topGroups) {
            let pool = (0..<gate.experts).filter { kept.contains($0 / (gate.experts / groups)) }
            for places in Self.subsets(of: pool.count, gate.expertsPerToken) {
                choices += 1
                for place in Set(places.map { pool[$0] / (gate.experts / isDispatched.count) }) {
                    isDispatched[place] += 1
                }
            }
        }
        for rank in 1..<places {
            let expected = Double(isDispatched[rank]) / Double(choices) * Double(dispatch.bytesPerRow)
            #expect(abs(cost.bytes(dispatch, stageRank: rank, rows) - expected) < 1e-9 * expected)
        }
    }

    private static func subsets(of count: Int, _ size: Int) -> [[Int]] {
        if size == 0 { return [[]] }
        return (size - 1..<max(count, size - 1)).flatMap { last in subsets(of: last, size - 1).map { $0 + [last] } }
    }
}

/// These requests have random lengths and continue from step to step; some decode, some are scored, some have no
/// output.
private struct RandomBatches {
    private var draw: SplitMix64
    private let groups: Int
    private let vocabularySize: Int
    private let pageSize: Int
    private let hasWindows: Bool
    /// A position whose row sees more keys than it may select.
    private let firstSelecting: Int
    /// The positions of each request so far; those that the first steps do not compute count as cached.
    private var lengths: [Int]
    private static let maxPositions = 256

    init(seed: UInt64, groups: Int, _ model: any Model) {
        draw = SplitMix64(seed: seed)
        self.groups = groups
        vocabularySize = model.vocabularySize
        pageSize = max(4, model.positionAlignment)
        firstSelecting = max(40, model.description.selection?.firstPosition ?? 0)
        hasWindows = model.cacheFormat(.float32, pageSize: pageSize).window > 0
        lengths = []
        for _ in 0..<4 { lengths.append(draw.below(31)) }
    }

    private func pages(of request: Int, _ positions: Int) -> [Int32] {
        let first = request * Self.maxPositions / pageSize
        return (first..<first + (positions + pageSize - 1) / pageSize).map { Int32($0) }
    }

    mutating func next(_ number: Int) -> StepPlan {
        var chunks: [StepPlan.Chunk] = []
        for request in lengths.indices where draw.below(5) > 0 {
            let rows = draw.below(2) == 0 ? 1 : 1 + draw.below(40)
            let start = lengths[request]
            let tokens = (0..<rows).map { _ in Int32(draw.below(vocabularySize)) }
            let outputs = draw.below(3)
            let pages = pages(of: request, start + rows)
            chunks.append(
                StepPlan.Chunk(
                    request: UInt64(request), group: request % groups, tokens: tokens, start: start,
                    pages: pages, windowPages: hasWindows ? pages : [],
                    sample: outputs == 0 ? nil : .init(parameters: SamplingParameters(), position: start + rows),
                    score: outputs == 2 ? (0..<rows).map { .init(row: $0, target: 1) } : []))
            lengths[request] = start + rows
        }
        return StepPlan(number: number, chunks: chunks)
    }

    /// Returns a step in which one request of each group decodes, after more keys than it may select.
    mutating func decode(_ number: Int) -> StepPlan {
        let chunks = (0..<groups).map { request in
            lengths[request] = max(lengths[request], firstSelecting)
            defer { lengths[request] += 1 }
            let start = lengths[request]
            let pages = pages(of: request, start + 1)
            return StepPlan.Chunk(
                request: UInt64(request), group: request, tokens: [1], start: start,
                pages: pages, windowPages: hasWindows ? pages : [],
                sample: .init(parameters: SamplingParameters(), position: start + 1))
        }
        return StepPlan(number: number, chunks: chunks)
    }
}
