package import KVCache
package import Modeling
package import Parallelism
import Tensors

/// The cost of a parallel configuration: every collective of a layer in the order in which it begins, and the bytes
/// each rank receives from others, as `Seat` counts them. It is pure arithmetic on the edges of the layers, without
/// tensors.
///
/// Bytes are exact for a known assignment of rows, also for query-gather attention: candidates always have room for as
/// many keys as a row may select. Only rows dispatched to their experts one by one are counted as an expectation over a
/// router that prefers no expert.
package struct LayoutCost: Sendable {
    package let model: ModelDescription
    package let parallel: ParallelConfiguration
    package let format: CacheFormat
    /// True if each process stores only the keys that its ranks own.
    private let isDivided: Bool
    /// The probability, for each place along the expert axis, that a row chooses one of the experts there. Empty where rows
    /// are not sent to the experts they chose.
    let dispatchProbabilities: [Double]

    /// - Parameters:
    ///   - format: The format of the KV cache, with any page size.
    ///   - known: The probabilities, where they were computed before.
    package init(
        _ model: ModelDescription, _ parallel: ParallelConfiguration, format: CacheFormat, isDivided: Bool = false,
        dispatchProbabilities known: [Double]? = nil
    ) {
        self.model = model
        self.parallel = parallel
        self.format = format
        self.isDivided = isDivided
        dispatchProbabilities =
            known
            ?? (parallel.exchange == .allToAll
                ? model.experts?.gate.dispatchProbabilities(places: parallel.degree(.expert)) ?? [] : [])
    }

    /// A layer kind groups layers that have the same operations and shapes.
    package struct LayerKind: Sendable {
        /// The kind's name, from `LayerDescription.kind`.
        package let name: String
        /// The numbers of the layers, in ascending order.
        package let layers: [Int]
    }

    /// The kinds of layers in the order in which they first occur.
    package var layerKinds: [LayerKind] {
        model.layerKinds.map { first in
            LayerKind(name: first.kind, layers: model.layers.indices.filter { model.layers[$0].kind == first.kind })
        }
    }

    /// Returns the collectives of a kind of layer, in the order in which they begin; none if a rank is alone in its
    /// group.
    package func transfers(of kind: LayerKind) -> [Transfer] { steps(of: kind).flatMap(\.transfers) }

    /// Returns the operations of a kind of layer in order, each with the collectives that it needs on these ranks.
    package func steps(
        of kind: LayerKind
    ) -> [(operation: LayerDescription.Operation, transfers: [Transfer])] {
        let layer = kind.layers[0]
        return model.layers[layer].operations.map { operation in
            (operation, transfers(of: operation, layer: layer).filter { $0.ranks > 1 })
        }
    }

    private func transfers(of operation: LayerDescription.Operation, layer: Int) -> [Transfer] {
        switch operation {
        case .publish(let edge, let columns, let index):
            let set = format[KeySetID(layer: layer, index)]
            let flow: Transfer.Flow =
                set.reach.map { .window(edge, $0) } ?? .published(edge, tokensPerEntry: set.tokensPerEntry)
            let keys = Transfer(
                "\(edge.name)", .sharedMemory, flow, along: edge.axes, columns: columns, bytesPerRow: set.bytesPerEntry,
                ranks: parallel.degree(edge.axes))
            // Window entries that a rank needs were sent to its process when they were stored.
            let isGathered = isDivided && set.window == nil
            return [keys] + (isGathered ? [gatheredKeys(edge, columns: columns, layer: layer)] : [])
        case .cross(let edge, let columns): return [transfer(edge, columns: columns)]
        case .select(let selection):
            return dcpTransfers(of: selection)
                + [gatheredSelection(topK: selection.topK, from: selection.firstPosition)]
        case .reuseSelection(let topK): return [gatheredSelection(topK: topK, from: topK)]
        case .attend(let attention): return attention.tokensPerEntry > 0 ? dcpTransfers(of: attention) : []
        case .dispatch(let experts): return dispatch(experts)
        case .experts(let experts): return combine(experts)
        case .vectors, .product, .feedForward: return []
        }
    }

    /// Returns the collective that gathers the selections of own rows for the attended rows.
    ///
    /// - Parameter first: the first position whose row selects.
    private func gatheredSelection(topK: Int, from first: Int) -> Transfer {
        transfer(Sharding.selection, columns: topK, condition: .positionsFrom(first))
    }

    /// Returns the bytes of one token's keys in a layer, as the cache stores them.
    package func cacheBytes(ofLayer layer: Int) -> Int { format.bytesPerToken(layer: layer) }

    /// Returns the bytes of one token's keys in some layers.
    package func cacheBytes(ofLayers layers: Range<Int>) -> Int {
        layers.reduce(0) { $0 + cacheBytes(ofLayer: $1) }
    }

    /// Returns the collectives with which the owners of keys select the best keys for DCP rows.
    private func dcpTransfers(of selection: LayerDescription.Selection) -> [Transfer] {
        let condition = Transfer.Condition.dcpRowsFrom(selection.firstPosition)
        return [
            transfer(
                "index queries", .allGather, .indexQueries, columns: selection.heads * (selection.width + 1), condition),
            transfer(
                "candidates", .allToAll, .candidates, columns: Kernels.candidateColumns(selection.topK),
                condition),
        ]
    }

    /// Returns the collective that gathers the keys of earlier steps for rows that read all of them (gather-KV).
    private func gatheredKeys(_ edge: Edge, columns: Int, layer: Int) -> Transfer {
        Transfer(
            "gathered keys", .allGather, .gatheredKeys, along: edge.axes, columns: columns,
            bytesPerRow: format.bytesPerCopy(layer: layer), ranks: parallel.degree(edge.axes),
            condition: .gatheredKeys)
    }

    /// The number of tokens at which one row of query-gather attention (gather-Q) costs as many bytes as gathering the
    /// keys (gather-KV), summed over all participating ranks: a row's queries are sent to the other owners of keys, by
    /// each rank that has some of its heads, while keys are sent to all ranks of the data group.
    package var dcpBreakEvenKeys: Int {
        func bytes(_ transfers: [Transfer]) -> Int { transfers.reduce(0) { $0 + $1.bytesPerRow } }
        var (row, keys) = (0, 0)
        for (number, layer) in model.layers.enumerated() {
            // Keys of windows are with every process, so that nothing is sent of them.
            guard let attention = layer.attention, format.bytesPerCopy(layer: number) > 0 else { continue }
            row +=
                bytes(layer.selection.map(dcpTransfers) ?? [])
                + parallel.tensor * bytes(dcpTransfers(of: attention))
            keys += format.bytesPerCopy(layer: number)
        }
        if keys == 0 { return 1 }
        let receivers = max(parallel.degree(Sharding.keys.axes) - 1, 1)
        return max((parallel.kvSharding.ranks - 1) * row / (receivers * keys), 1)
    }

    private func dcpTransfers(of attention: LayerDescription.Attention) -> [Transfer] {
        let heads = attention.heads / parallel.tensor
        return [
            transfer(
                "queries", .allGather,
                .queries(topK: attention.topK, from: attention.topK.map { ($0 + 1) * attention.tokensPerEntry - 1 }),
                columns: heads * (attention.latentWidth + attention.ropeWidth), .dcpRows),
            transfer(
                "partial attention", .allToAll, .partialAttention,
                columns: DecodeContextParallel.partialColumns(
                    heads: heads, value: attention.valueWidth, parallel.kvSharding),
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

    /// The collectives of a step outside its layers: rows from the previous stage, and in the last stage those for
    /// logits.
    package var transfersOfStages: [Transfer] {
        let ranks = parallel.stageRanks
        return [
            Transfer(
                "stage", .send, .stageInput, along: .pipeline, columns: model.stateWidth + model.reusedSelection,
                ranks: parallel.pipeline),
            Transfer(
                "outputs", .allGather, .outputs, along: .stage, columns: model.stateWidth, ranks: ranks,
                condition: .outputs),
            Transfer(
                "logits", .allToAll, .logits, along: .stage, columns: (model.vocabularySize + ranks - 1) / ranks,
                ranks: ranks, condition: .outputs),
        ].filter { $0.ranks > 1 }
    }

    private func dispatch(_ experts: LayerDescription.Experts) -> [Transfer] {
        let columns = ExpertExchange.packedColumns(hidden: experts.hidden, perRow: experts.gate.expertsPerToken)
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

    private func combine(_ experts: LayerDescription.Experts) -> [Transfer] {
        let condition: Transfer.Condition = parallel.exchange == .allToAll ? .chosenExperts : .always
        guard movesToExperts else { return [] }
        return [
            Transfer(
                "expert tensor", .allToAll, .expertTensorSums, along: .expertTensor, columns: experts.hidden,
                ranks: parallel.degree(.expertTensor), condition: condition),
            Transfer(
                "combine", .allToAll, .combine, along: .stage, columns: experts.hidden, ranks: parallel.stageRanks,
                condition: condition),
        ]
    }

    private var movesToExperts: Bool { parallel.degree([.expert, .expertTensor]) > 1 }

    private func transfer(_ edge: Edge, columns: Int, condition: Transfer.Condition = .always) -> Transfer {
        let kind: Transfer.Kind
        if case .reduceScatter = edge.move { kind = .reduceScatter } else { kind = .allGather }
        return Transfer(edge, kind, columns: columns, ranks: parallel.degree(edge.axes), condition: condition)
    }
}

// MARK: - Memory

extension LayoutCost {
    /// Returns the bytes that a rank stores per token if each token is stored by one of `owners` ranks: the average
    /// over tokens, in the pipeline stage that stores most.
    package func keyBytesPerToken(owners: Int) -> Double {
        let stages = (0..<parallel.pipeline).map {
            cacheBytes(ofLayers: parallel.layers(ofStage: $0, total: model.layers.count))
        }
        return Double(stages.max()!) / Double(owners)
    }

    /// Returns the number of tokens whose keys fit into `bytes` on each of `owners` ranks; the largest number if only
    /// windows keep keys.
    package func capacity(bytesPerRank bytes: Int, owners: Int) -> Int {
        let bytesPerToken = Int(keyBytesPerToken(owners: 1))
        return bytesPerToken == 0 ? .max : bytes / bytesPerToken * owners
    }
}

extension GateRule {
    /// Returns the probability, for each of so many places with equal shares of the experts, that a row chooses one of the
    /// experts there.
    func dispatchProbabilities(places: Int) -> [Double] {
        let perPlace = experts / places
        return (0..<places).map { chance(ofAny: $0 * perPlace..<($0 + 1) * perPlace) }
    }

    /// Returns the probability that a row chooses one of these experts if the gate prefers none: it first chooses
    /// `topGroups` of the groups, then `expertsPerToken` of the experts in those.
    func chance(ofAny some: Range<Int>) -> Double {
        let size = experts / groups
        // `ways[kept][count]` is the number of ways to keep `kept` groups that contain `count` of the experts `some`.
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
            // The probability that none of the `count` experts is among those chosen from the pool, one after the
            // other.
            let miss = (0..<expertsPerToken).reduce(1.0) {
                $0 * Double(max(pool - count - $1, 0)) / Double(pool - $1)
            }
            missed += number * miss
            all += number
        }
        return 1 - missed / all
    }
}
