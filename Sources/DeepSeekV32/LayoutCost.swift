package import KVCache
package import Modeling
package import Parallelism
import Tensors

/// What a layout costs: every collective of a layer in the order in which it begins, and the bytes each rank gets from
/// others, as `Seat` counts them. Pure arithmetic on the edges that the layers cross; no tensors.
///
/// Bytes are exact for a known deal of rows, also where queries go to the keys: candidates have room for as many keys as a
/// row may select, whatever their scores. Only for rows that travel to their experts one by one they are what is expected
/// when the router prefers no expert.
package struct LayoutCost: Sendable {
    package let model: DeepSeekConfiguration
    package let parallel: ParallelConfiguration
    /// Of one token in one layer.
    package let cacheBytes: Int
    /// Bytes of a copy of them, and of where it belongs.
    private let copyBytes: Int
    /// Whether each process keeps only the keys that its ranks own.
    private let isDivided: Bool
    /// For each place along the experts the chance that one of them is chosen by a row.
    let dispatchProbabilities: [Double]

    package init(
        _ model: DeepSeekConfiguration, _ parallel: ParallelConfiguration, cacheType: CacheType, isDivided: Bool = false
    ) {
        self.model = model
        self.parallel = parallel
        self.isDivided = isDivided
        let format = model.cacheFormat(cacheType, pageSize: 1)
        cacheBytes = format.bytesPerToken(layer: 0)
        copyBytes = format.bytesPerCopy(layer: 0)
        let places = parallel.degree(.expert)
        let perPlace = model.experts.gate.experts / places
        dispatchProbabilities = (0..<places).map {
            model.experts.gate.chance(ofAny: $0 * perPlace..<($0 + 1) * perPlace)
        }
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
                ranks: parallel.degree(Sharding.keys.axes))
        ]
        if isDivided { all.append(gatheredKeys) }
        all.append(transfer(Sharding.query, columns: model.queryRank))
        if let indexer = model.indexer {
            all += dcpRows(indexer)
            all.append(
                transfer(Sharding.selection, columns: indexer.topK, condition: .positionsFrom(indexer.topK)))
        }
        all += dcpRows
        all.append(transfer(Sharding.attentionOutput, columns: model.hiddenSize))
        switch kind {
        case .dense: all += feedForward
        case .experts: all += there + (model.experts.shared > 0 ? feedForward : []) + back
        }
        return all.filter { $0.ranks > 1 }
    }

    /// What makes the owners of keys find the best of them for rows whose queries go there.
    private func dcpRows(_ indexer: DeepSeekConfiguration.IndexerConfiguration) -> [Transfer] {
        let condition = Transfer.Condition.dcpRowsFrom(indexer.topK)
        return [
            transfer(
                "index queries", .allGather, .indexQueries, columns: indexer.heads * (indexer.width + 1), condition),
            transfer(
                "candidates", .allToAll, .candidates, columns: Kernels.candidateColumns(indexer.topK),
                condition),
        ]
    }

    /// What brings keys to rows that read all of them.
    private var gatheredKeys: Transfer {
        Transfer(
            "visiting keys", .allGather, .gatheredKeys, along: Sharding.keys.axes, columns: model.keyWidth,
            bytesPerRow: copyBytes, ranks: parallel.degree(Sharding.keys.axes), condition: .gatheredKeys)
    }

    /// How many tokens' keys weigh as much as what such a row sends and gets, with every rank that takes part: a row's
    /// queries go to the other owners, those of its heads from each rank that has some, and keys to all of the data group.
    package var dcpBreakEvenKeys: Int {
        func bytes(_ transfers: [Transfer]) -> Int { transfers.reduce(0) { $0 + $1.bytesPerRow } }
        let once = bytes(model.indexer.map { dcpRows($0) } ?? []) + parallel.tensor * bytes(dcpRows)
        return max((parallel.kvSharding.ranks - 1) * once / (max(gatheredKeys.ranks - 1, 1) * copyBytes), 1)
    }

    /// What makes them attend for those rows.
    private var dcpRows: [Transfer] {
        let heads = model.heads / parallel.tensor
        return [
            transfer(
                "queries", .allGather, .queries(topK: model.indexer?.topK),
                columns: heads * (model.latentWidth + model.ropeWidth), .dcpRows),
            transfer(
                "partial attention", .allToAll, .partialAttention,
                columns: DecodeContextParallel.partialColumns(
                    heads: heads, latent: model.latentWidth, parallel.kvSharding),
                .dcpRows),
        ]
    }

    private func transfer(
        _ name: String, _ kind: Transfer.Kind, _ exchange: Transfer.DCPExchange, columns: Int,
        _ condition: Transfer.Condition
    ) -> Transfer {
        Transfer(
            name, kind, .dcpRows(exchange), along: .kvSharding, columns: columns, ranks: parallel.kvSharding.ranks,
            condition: condition)
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
        let columns = ExpertExchange.packedColumns(hidden: model.hiddenSize, perRow: gate.expertsPerToken)
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
                "expert widths", .allToAll, .expertTensorSums, along: .expertWidth, columns: model.hiddenSize,
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

// MARK: - Memory

extension LayoutCost {
    /// Bytes of a token that a rank keeps where each is kept by one of `owners` ranks: on average, in the longest stage.
    package func keyBytesPerToken(owners: Int) -> Double {
        let stages = (0..<parallel.pipeline).map { parallel.layers(ofStage: $0, total: model.layers).count }
        return Double(cacheBytes * stages.max()!) / Double(owners)
    }

    /// For how many tokens so many bytes of every rank's memory are enough then.
    package func capacity(bytesPerRank bytes: Int, owners: Int) -> Int {
        bytes / Int(keyBytesPerToken(owners: 1)) * owners
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
