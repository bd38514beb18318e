package import KVCache
package import Parallelism
import Tensors

/// What a layout costs: every collective of a layer in the order in which it begins, and the bytes each rank gets from
/// others, as `Seat` counts them. Pure arithmetic on the edges that the layers cross; no tensors.
///
/// Bytes are exact for a known deal of rows, but for the rows that travel to their experts one by one: those are what
/// is expected when the router prefers no expert.
package struct LayoutCost: Sendable {
    package let model: DeepSeekConfiguration
    package let parallel: ParallelConfiguration
    /// Of one token in one layer.
    package let cacheBytes: Int
    /// For each place along the experts the chance that one of them is chosen by a row.
    private let visitChances: [Double]

    package init(_ model: DeepSeekConfiguration, _ parallel: ParallelConfiguration, cacheType: CacheType) {
        self.model = model
        self.parallel = parallel
        cacheBytes = model.cacheFormat(cacheType, pageSize: 1).bytesPerToken(layer: 0)
        let places = parallel.degree(.expert)
        let perPlace = model.experts.gate.experts / places
        visitChances = (0..<places).map { model.experts.gate.chance(ofAny: $0 * perPlace..<($0 + 1) * perPlace) }
    }

    /// The two kinds of layers.
    package enum LayerKind: String, Sendable, CaseIterable {
        case dense
        case experts
    }

    package func layers(_ kind: LayerKind, ofStage stage: Int) -> Range<Int> {
        let layers = parallel.layers(ofStage: stage, total: model.layers)
        let boundary = min(max(model.denseLayers, layers.lowerBound), layers.upperBound)
        return kind == .dense ? layers.lowerBound..<boundary : boundary..<layers.upperBound
    }

    /// The collectives of a layer, in the order in which they begin; none where ranks are alone.
    package func transfers(of kind: LayerKind) -> [Transfer] {
        let feedForward = [
            transfer(Sharding.feedForwardInput, columns: model.hiddenSize),
            transfer(Sharding.feedForwardOutput, columns: model.hiddenSize),
        ]
        var all = [
            Transfer(
                Sharding.keys, .sharedMemory, columns: model.keyWidth, bytesPerRow: cacheBytes,
                ranks: parallel.degree(Sharding.keys.axes)), transfer(Sharding.query, columns: model.queryRank),
        ]
        if let indexer = model.indexer {
            all.append(
                transfer(Sharding.selection, columns: indexer.topK, condition: .positionsFrom(indexer.topK)))
        }
        all.append(transfer(Sharding.attentionOutput, columns: model.hiddenSize))
        switch kind {
        case .dense: all += feedForward
        case .experts: all += there + (model.experts.shared > 0 ? feedForward : []) + back
        }
        return all.filter { $0.ranks > 1 }
    }

    /// What a step costs beside its layers: rows from the stage before, and in the last stage what logits need.
    package var transfersOfStages: [Transfer] {
        let (ranks, hidden) = (parallel.stageRanks, model.hiddenSize)
        return [
            Transfer("stage", .send, .stageInput, along: .pipeline, columns: hidden, ranks: parallel.pipeline),
            Transfer(
                "outputs", .allGather, .outputs, along: .stage, columns: hidden, ranks: ranks, condition: .outputs),
            Transfer(
                "logits", .allToAll, .logits, along: .stage, columns: (model.vocabularySize + ranks - 1) / ranks,
                ranks: ranks, condition: .outputs),
        ].filter { $0.ranks > 1 }
    }

    private var there: [Transfer] {
        let gate = model.experts.gate
        let columns = ExpertExchange.parcelColumns(hidden: model.hiddenSize, perRow: gate.expertsPerToken)
        guard movesToExperts else { return [] }
        return switch parallel.exchange {
        case .gathered: [transfer(Sharding.dispatch, columns: columns)]
        case .allToAll:
            [
                Transfer(
                    "dispatch", .allToAll, .dispatch, along: .stage, columns: columns, ranks: parallel.stageRanks,
                    condition: .chosenExperts)
            ]
        }
    }

    private var back: [Transfer] {
        let condition: Transfer.Condition = parallel.exchange == .allToAll ? .chosenExperts : .always
        guard movesToExperts else { return [] }
        return [
            Transfer(
                "expert widths", .allToAll, .expertWidths, along: .expertWidth, columns: model.hiddenSize,
                ranks: parallel.degree(.expertWidth), condition: condition),
            Transfer(
                "combine", .allToAll, .combine, along: .stage, columns: model.hiddenSize, ranks: parallel.stageRanks,
                condition: condition),
        ]
    }

    private var movesToExperts: Bool { parallel.degree([.expert, .expertWidth]) > 1 }

    private func transfer(_ edge: Edge, columns: Int, condition: Transfer.Condition = .always) -> Transfer {
        let kind: Transfer.Kind
        if case .reduceScatter = edge.move { kind = .reduceScatter } else { kind = .allGather }
        return Transfer(edge, kind, columns: columns, ranks: parallel.degree(edge.axes), condition: condition)
    }
}

/// A collective of a layout: who takes part, and what a row of it is.
package struct Transfer: Sendable {
    package enum Kind: String, Sendable {
        case allGather = "all-gather"
        /// Addends travel to the rows' owners, who add them.
        case reduceScatter = "reduce-scatter"
        case allToAll = "all-to-all"
        /// Written by one rank and read by others; only a barrier travels.
        case sharedMemory = "shared memory"
        case send = "send"
    }

    /// What must be so for it to cost anything.
    package enum Condition: Sendable, Equatable {
        case always
        /// Some row stands at this position or behind it.
        case positionsFrom(Int)
        /// Rows travel only to the experts they chose.
        case chosenExperts
        /// Rows whose logits are needed.
        case outputs
    }

    /// Which rows a rank gets.
    fileprivate enum Flow: Sendable {
        case edge(Edge)
        case dispatch, expertWidths, combine
        case stageInput, outputs, logits
    }

    /// As meters, traces and reports call it.
    package let name: String
    package let kind: Kind
    /// The members of a group differ along these.
    package let axes: Axes
    /// The size of a group.
    package let ranks: Int
    /// Elements of a row.
    package let columns: Int
    package let bytesPerRow: Int
    package let condition: Condition
    fileprivate let flow: Flow

    fileprivate init(
        _ edge: Edge, _ kind: Kind, columns: Int, bytesPerRow: Int? = nil, ranks: Int, condition: Condition = .always
    ) {
        self.init(
            "\(edge.name)", kind, .edge(edge), along: edge.axes, columns: columns, bytesPerRow: bytesPerRow,
            ranks: ranks, condition: condition)
    }

    fileprivate init(
        _ name: String, _ kind: Kind, _ flow: Flow, along axes: Axes, columns: Int, bytesPerRow: Int? = nil,
        ranks: Int, condition: Condition = .always
    ) {
        self.name = name
        self.kind = kind
        self.flow = flow
        self.axes = axes
        self.columns = columns
        // Activations travel as they are computed, in F32.
        self.bytesPerRow = bytesPerRow ?? columns * DType.f32.bytes
        self.ranks = ranks
        self.condition = condition
    }

    /// Whether its bytes are what is expected, and not what must be.
    package var isExpected: Bool { condition == .chosenExperts }
}

/// The rows of a step, as far as they decide what moves between ranks.
package struct StepRows: Sendable, Equatable {
    /// For each rank of a stage how many rows it owns.
    package var owned: [Int]
    /// Those of them whose logits are needed.
    package var outputs: [Int]
    /// The largest position of its own rows; -1 where it has none.
    package var furthest: [Int]

    package init(owned: [Int], outputs: [Int], furthest: [Int]) {
        precondition(owned.count == outputs.count && owned.count == furthest.count, "as many ranks everywhere")
        self.owned = owned
        self.outputs = outputs
        self.furthest = furthest
    }
}

// MARK: - Bytes

extension LayoutCost {
    /// How many rows of a rank of the stage go to a place along the experts.
    package typealias Visits = (_ source: Int, _ place: Int) -> Int

    /// What one rank gets from others in a step, all its layers together, by operation in the order of first use.
    ///
    /// - Parameter rank: its number in the whole job.
    package func bytes(ofRank rank: Int, _ rows: StepRows) -> [(transfer: Transfer, bytes: Double)] {
        let (stage, stageRank) = rank.quotientAndRemainder(dividingBy: parallel.stageRanks)
        var totals: [(transfer: Transfer, bytes: Double)] = []
        func add(_ transfer: Transfer, times: Int) {
            let bytes = Double(times) * bytes(transfer, stageRank: stageRank, rows)
            if let index = totals.firstIndex(where: { $0.transfer.name == transfer.name }) {
                totals[index].bytes += bytes
            } else {
                totals.append((transfer, bytes))
            }
        }
        for transfer in transfersOfStages where takesPart(transfer, stage: stage) && transfer.name == "stage" {
            add(transfer, times: 1)
        }
        for kind in LayerKind.allCases where !layers(kind, ofStage: stage).isEmpty {
            for transfer in transfers(of: kind) { add(transfer, times: layers(kind, ofStage: stage).count) }
        }
        for transfer in transfersOfStages where takesPart(transfer, stage: stage) && transfer.name != "stage" {
            add(transfer, times: 1)
        }
        return totals
    }

    private func takesPart(_ transfer: Transfer, stage: Int) -> Bool {
        transfer.kind == .send ? stage > 0 : stage == parallel.pipeline - 1
    }

    /// What a rank of a stage gets from others in one such collective.
    ///
    /// - Parameter visits: which rows travel to their experts, where that is known; otherwise what is expected.
    package func bytes(
        _ transfer: Transfer, stageRank rank: Int, _ rows: StepRows, visits: Visits? = nil
    ) -> Double {
        if case .positionsFrom(let position) = transfer.condition {
            let together = parallel.ranks(around: rank, along: .tensor)
            if !together.contains(where: { rows.furthest[$0] >= position }) { return 0 }
        }
        let visitors = Visitors(cost: self, owned: rows.owned, known: visits)
        let foreign: Double
        switch transfer.flow {
        case .edge(let edge): foreign = Double(foreignRows(edge, rank, rows.owned))
        case .dispatch: foreign = visitors.arriving(at: rank)
        case .expertWidths:
            let blocks = ExpertExchange.blocks(of: model.experts.gate.experts, parallel)
            foreign = Double((transfer.ranks - 1) * blocks) * visitors.completed(by: rank)
        case .combine: foreign = visitors.returning(to: rank)
        case .stageInput: foreign = Double(rows.owned[rank])
        case .outputs: foreign = Double(rows.outputs.reduce(0, +) - rows.outputs[rank])
        case .logits:
            let wanted = rows.outputs.reduce(0, +)
            foreign = Double(
                (transfer.ranks - 1) * stride(from: rank, to: wanted, by: transfer.ranks).underestimatedCount)
        }
        return foreign * Double(transfer.bytesPerRow)
    }

    private func foreignRows(_ edge: Edge, _ rank: Int, _ owned: [Int]) -> Int {
        func held(_ layout: Layout) -> Int {
            parallel.ranks(around: rank, along: Axes.stage.subtracting(parallel.onMesh(layout.rows)))
                .reduce(0) { $0 + owned[$1] }
        }
        return switch edge.move {
        case .nothing: 0
        case .allGather: held(edge.to) - held(edge.from)
        case .reduceScatter: (parallel.degree(edge.axes) - 1) * held(edge.to)
        }
    }

    /// Rows at the ranks of their experts.
    private struct Visitors {
        let cost: LayoutCost
        let owned: [Int]
        let known: Visits?

        private var parallel: ParallelConfiguration { cost.parallel }
        private var widths: Int { parallel.degree(.expertWidth) }

        private func place(_ rank: Int) -> Int { parallel.place(of: rank, along: .expert) }
        private func widthPlace(_ rank: Int) -> Int { parallel.place(of: rank, along: .expertWidth) }

        private func rows(of source: Int, at place: Int) -> Double {
            if let known { return Double(known(source, place)) }
            return Double(owned[source]) * (parallel.exchange == .gathered ? 1 : cost.visitChances[place])
        }

        /// What one of the ranks that share widths completes of so many rows: whole ones where the number is known.
        private func share(_ rows: Double, at place: Int) -> Double {
            guard known != nil || parallel.exchange == .gathered else { return rows / Double(widths) }
            let rows = Int(rows)
            return Double(rows * (place + 1) / widths - rows * place / widths)
        }

        func arriving(at rank: Int) -> Double {
            owned.indices.reduce(0) { $1 == rank ? $0 : $0 + rows(of: $1, at: place(rank)) }
        }

        func completed(by rank: Int) -> Double {
            owned.indices.reduce(0) { $0 + share(rows(of: $1, at: place(rank)), at: widthPlace(rank)) }
        }

        func returning(to rank: Int) -> Double {
            owned.indices.reduce(0) {
                $1 == rank ? $0 : $0 + share(rows(of: rank, at: place($1)), at: widthPlace($1))
            }
        }
    }
}

extension DeepSeekConfiguration {
    /// What decides which layouts are legal.
    package var parallelShape: ModelShape {
        ModelShape(
            layers: layers, heads: heads, valueWidth: valueWidth, experts: experts.gate.experts,
            expertWidth: experts.width, denseWidth: denseWidth, sharedWidth: experts.shared * experts.width)
    }

    /// What the cache keeps of a token in a layer, in elements.
    package var keyWidth: Int { latentWidth + ropeWidth + (indexer?.width ?? 0) }
}

extension GateRule {
    /// The chance that a row chooses one of these experts when the gate prefers none: first `topGroups` of the groups,
    /// then `expertsPerToken` of the experts in those.
    func chance(ofAny some: Range<Int>) -> Double {
        let size = experts / groups
        // For each number of groups looked at and each number of `some` in them, in how many ways they are kept.
        var ways = [[0: 1.0]] + Array(repeating: [:], count: topGroups)
        for group in 0..<groups {
            let inside = some.clamped(to: group * size..<(group + 1) * size).count
            for kept in stride(from: topGroups, to: 0, by: -1) {
                for (count, number) in ways[kept - 1] { ways[kept][count + inside, default: 0] += number }
            }
        }
        let pool = topGroups * size
        var (missed, all) = (0.0, 0.0)
        for (count, number) in ways[topGroups] {
            // None of `count` among the experts chosen from the pool, one after the other.
            let miss = (0..<expertsPerToken).reduce(1.0) {
                $0 * Double(max(pool - count - $1, 0)) / Double(pool - $1)
            }
            missed += number * miss
            all += number
        }
        return 1 - missed / all
    }
}
