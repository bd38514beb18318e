import KVCache
package import Modeling
package import Parallelism
import Tensors

/// How long steps take in one layout on one cluster. Pure arithmetic; collectives and computation come one after the
/// other.
package struct LayoutTime: Sendable {
    package let model: PlannedModel
    package let parallel: ParallelConfiguration
    package let cluster: Cluster
    package let rules: EngineRules
    let efficiencies: Efficiencies
    /// Of each kind of layer the collectives with any members.
    private let transfers: [[EvenTransfer]]
    private let stageTransfers: [EvenTransfer]
    /// Layers of each kind in each stage.
    private let layers: [[Int]]

    /// - Parameter dispatch: the probability that a row chooses some expert of one place; only for all-to-all.
    package init(
        _ model: PlannedModel, _ parallel: ParallelConfiguration, _ cluster: Cluster, _ efficiencies: Efficiencies,
        dispatch: Double? = nil
    ) {
        self.model = model
        self.parallel = parallel
        self.cluster = cluster
        self.efficiencies = efficiencies
        let rules = EngineRules.of(cluster.hardware)
        self.rules = rules
        let chances = dispatch ?? Self.dispatchProbability(model.description, parallel)
        let cost = LayoutCost(model.description, parallel, format: model.format, dispatchProbabilities: [chances])
        func even(_ transfer: Transfer) -> EvenTransfer {
            EvenTransfer(
                transfer, cost, rules, dispatch: chances, devicesPerHost: cluster.hardware.devicesPerHost)
        }
        transfers = cost.layerKinds.map { kind in cost.transfers(of: kind).map(even) }
        stageTransfers = cost.transfersOfStages.filter { $0.kind == .send }.map(even)
        layers = (0..<parallel.pipeline).map {
            model.counts(parallel.layers(ofStage: $0, total: model.description.layers.count))
        }
    }

    /// The probability that a row chooses some expert of a rank, averaged over ranks; 1 where all rows go everywhere.
    package static func dispatchProbability(_ model: ModelDescription, _ parallel: ParallelConfiguration) -> Double {
        guard parallel.exchange == .allToAll, let gate = model.experts?.gate else { return 1 }
        let chances = gate.dispatchProbabilities(places: parallel.degree(.expert))
        return chances.reduce(0, +) / Double(chances.count)
    }

    private var hardware: Hardware { cluster.hardware }
    private var bandwidth: Double { hardware.bandwidth * efficiencies.memory }
    /// Rates of products, index scores and attention. Those of F32 weights are in F32; others take FP8 index keys where
    /// weights are FP8, and else BF16.
    private func matrixRate(_ type: Hardware.ElementType) -> Double { hardware.rate(type) * efficiencies.matrix }
    private var attentionRate: Double {
        hardware.rate(model.weights == .f32 ? .f32 : .bf16, of: \.attention) * efficiencies.attention
    }
    private var indexRate: Double {
        let type = [.f32, .fp8].contains(model.weights) ? model.weights : .bf16
        return hardware.rate(type, of: \.index) * efficiencies.index
    }

    // MARK: - Steps

    /// Rows of one rank in a step, by what they are rows of.
    struct Rows {
        /// All of a stage's ranks together.
        var stage: Double
        /// Rows for whose heads a rank computes attention.
        var attended: Double
        /// Rows a rank owns.
        var own: Double
        /// Rows of which it computes what is not per head.
        var shared: Double
    }

    /// One chunk of one prompt in every data group, in one stage.
    package func prefill(_ positions: Range<Int>, stage: Int) -> StepTime {
        let count = Double(positions.count)
        let attended = (count / Double(parallel.context)).rounded(.up)
        let own = (attended / Double(parallel.tensor)).rounded(.up)
        let rows = Rows(
            stage: count * Double(parallel.data), attended: attended, own: own,
            shared: rules.repeatsSharedWork ? attended : own)
        let windows = receivedWindows(positions)
        var time = StepTime()
        for (kind, layers) in layers[stage].enumerated() where layers > 0 {
            var layer = matrices(model.layers[kind], rows)
            addPromptAttention(positions, model.layers[kind], rows, to: &layer)
            for transfer in transfers[kind] where happens(transfer, from: positions.upperBound - 1, dcp: false) {
                layer[.collectives] += seconds(transfer, received: received(transfer, own: own, windows))
            }
            time += Double(layers) * layer
        }
        for transfer in stageTransfers where stage > 0 {
            time[.collectives] += seconds(transfer, received: received(transfer, own: own))
        }
        if stage == parallel.pipeline - 1 { addHead(outputs: Double(parallel.data), to: &time) }
        let launches = efficiencies.launch * Double(layers[stage].reduce(0, +))
        time[.launches] = max(launches - time.total, 0)
        return time
    }

    /// One token, and drafts behind it, of `requests` of every data group, each with `context` keys; in one stage.
    package func decode(requests: Int, rowsPerRequest: Int = 1, context: Int, stage: Int) -> StepTime {
        let count = Double(requests * rowsPerRequest)
        let contexts = Double(parallel.context)
        let attended = rules.repeatsDecodeRows ? count : (count / contexts).rounded(.up)
        let own = (count / contexts / Double(parallel.tensor)).rounded(.up)
        let rows = Rows(
            stage: count * Double(parallel.data), attended: attended, own: own,
            shared: rules.repeatsSharedWork ? attended : own)
        let isDCP = parallel.kvSharding.ranks > 1 && context >= parallel.kvSharding.minKeys
        var time = StepTime()
        for (kind, layers) in layers[stage].enumerated() where layers > 0 {
            var layer = matrices(model.layers[kind], rows)
            addDecodeAttention(
                model.layers[kind], rows, perRequest: Double(rowsPerRequest), keys: context, isDCP: isDCP, to: &layer)
            for transfer in transfers[kind] where happens(transfer, from: context - 1, dcp: isDCP) {
                layer[.collectives] += seconds(
                    transfer, received: received(transfer, own: count / contexts / Double(parallel.tensor)))
            }
            layer[.launches] += efficiencies.layer
            time += Double(layers) * layer
        }
        for transfer in stageTransfers where stage > 0 {
            time[.collectives] += seconds(transfer, received: received(transfer, own: own))
        }
        if stage == parallel.pipeline - 1 { addHead(outputs: rows.stage, to: &time) }
        return time
    }

    /// The next-token block's work for one draft of each request, in the last stage.
    package func draft(requests: Int, context: Int) -> StepTime {
        guard let layer = model.draftLayer else { return StepTime() }
        let count = Double(requests)
        let own = (count / Double(parallel.context * parallel.tensor)).rounded(.up)
        let attended = (count / Double(parallel.context)).rounded(.up)
        let rows = Rows(stage: count * Double(parallel.data), attended: attended, own: own, shared: own)
        var time = matrices(layer, rows)
        addDecodeAttention(layer, rows, perRequest: 1, keys: context, isDCP: false, to: &time)
        for transfer in transfers.last! where happens(transfer, from: context - 1, dcp: false) {
            time[.collectives] += seconds(transfer, received: received(transfer, own: own))
        }
        time[.launches] += efficiencies.layer
        addHead(outputs: rows.stage, to: &time)
        return time
    }

    // MARK: - Products

    private func matrices(_ layer: LayerWork, _ rows: Rows) -> StepTime {
        var time = StepTime()
        func add(_ elements: Double, rows: Double, _ format: WeightFormat? = nil) {
            addProduct(elements, format ?? model.formats.products, rows: rows, to: &time)
        }
        add(layer.whole, rows: rows.shared)
        add(layer.plain, rows: rows.shared, model.formats.plain)
        add(layer.heads / Double(parallel.tensor), rows: rows.attended)
        if parallel.denseTensor > 1 {
            add(layer.dense / Double(parallel.denseTensor), rows: rows.attended)
        } else {
            add(layer.dense, rows: rows.own)
        }
        addExperts(layer, rows, to: &time)
        return time
    }

    /// - Parameters:
    ///   - type: the type in which it is multiplied; that of its weights when `nil`.
    ///   - tile: which number of rows is multiplied at a time.
    private func addProduct(
        _ elements: Double, _ format: WeightFormat, rows: Double, as type: Hardware.ElementType? = nil,
        tile: KeyPath<KernelRates, Double> = \.rowTile, to time: inout StepTime
    ) {
        let type = type ?? Hardware.ElementType(format.dtype)
        let rows = hardware.kernels(for: type).multiplied(rows, by: tile)
        time.add(
            operations: 2 * elements * rows, at: matrixRate(type), bytes: elements * format.bytesPerElement,
            at: bandwidth)
    }

    /// Routed experts, each as likely as the others.
    private func addExperts(_ layer: LayerWork, _ rows: Rows, to time: inout StepTime) {
        guard let gate = layer.experts?.gate else { return }
        let (experts, chosen) = (Double(gate.experts), Double(gate.expertsPerToken))
        let all = parallel.replicatesExperts ? rows.own : rows.stage
        let active = experts * (1 - Self.power(1 - chosen / experts, all))
        let ranks = parallel.replicatesExperts ? 1 : Double(parallel.stageRanks)
        addProduct(
            layer.expertElements * active / ranks, model.formats.experts, rows: all * chosen / max(active, 1),
            tile: \.expertTile, to: &time)
    }

    /// `base` to the power of a count that may be large; 0 < base < 1.
    private static func power(_ base: Double, _ exponent: Double) -> Double {
        var (result, square, rest) = (1.0, base, Int(exponent.rounded(.up)))
        while rest > 0 {
            if rest & 1 == 1 { result *= square }
            square *= square
            rest >>= 1
        }
        return result
    }

    private func addHead(outputs: Double, to time: inout StepTime) {
        let elements = Double(model.description.head.elements) / Double(parallel.stageRanks)
        addProduct(
            elements, model.formats.plain, rows: outputs, as: rules.multipliesHeadInF32 ? .f32 : .bf16, to: &time)
    }

    // MARK: - Attention

    private func addPromptAttention(
        _ positions: Range<Int>, _ layer: LayerWork, _ rows: Rows, to time: inout StepTime
    ) {
        // A row at position p sees p + 1 keys. The slowest rank decides: the last where each has a run of rows.
        var (first, last) = (positions.lowerBound + 1, positions.upperBound)
        var ranks = Double(positions.count) / rows.attended
        if parallel.strategy == .contiguous && parallel.context > 1 {
            first = max(last - Int(rows.attended) + 1, first)
            ranks = 1
        }
        let tensor = Double(parallel.tensor)
        let attended = layer.attention.map { FloatingPointOperations.attendedKeys(first, last, $0) } ?? 0
        let expands = rules.expandsKeys && layer.attention?.topK == nil
        time[.attention] += max(
            (expands ? layer.expandedPerKey : layer.attentionPerKey) * attended / ranks / tensor / attentionRate,
            Double(positions.upperBound) * layer.attentionBytes / bandwidth)
        // Keys of earlier chunks are expanded again; those of this one are among the products.
        if expands {
            time[.products] += layer.expansion * Double(positions.lowerBound) / tensor / matrixRate(model.weights)
        }
        guard let selection = layer.selection else { return }
        let scored = FloatingPointOperations.scoredKeys(first, last, selection)
        let here = scored / ranks / (rules.repeatsSharedWork ? 1 : tensor)
        // Scores are written once and read once.
        time[.index] += max(layer.indexPerKey * here / indexRate, 8 * here / bandwidth)
    }

    private func addDecodeAttention(
        _ layer: LayerWork, _ rows: Rows, perRequest: Double, keys: Int, isDCP: Bool, to time: inout StepTime
    ) {
        let owners = isDCP ? Double(parallel.kvSharding.ranks) : 1
        let tensor = Double(parallel.tensor)
        let seen = layer.attention.map { FloatingPointOperations.attendedKeys(keys, keys, $0) } ?? 0
        let bytes = rows.attended / perRequest * layer.attendedBytes(keys, keys) / min(owners, tensor)
        time[.attention] += max(
            rows.attended * seen * layer.attentionPerKey / tensor / attentionRate, bytes / bandwidth)
        guard let selection = layer.selection, keys > selection.firstPosition else { return }
        let scored = rules.repeatsIndexKeys ? rows.shared : rows.own
        let pairs = scored * FloatingPointOperations.scoredKeys(keys, keys, selection)
        // Owners of keys score theirs for each other's rows: as many pairs, and as many bytes, in all.
        time[.index] += max(
            pairs * layer.indexPerKey / indexRate,
            scored / perRequest * Double(keys) * layer.indexBytes / bandwidth + 8 * pairs / bandwidth)
    }

    // MARK: - Collectives

    private func happens(_ transfer: EvenTransfer, from position: Int, dcp: Bool) -> Bool {
        switch transfer.condition {
        case .always, .chosenExperts, .outputs: true
        case .positionsFrom(let least): position >= least
        case .dcpRows: dcp
        case .dcpRowsFrom(let least): dcp && position >= least
        case .gatheredKeys: false
        }
    }

    /// Bytes that one rank of a stage gets from others for a chunk of a prompt.
    package func receivedBytes(_ positions: Range<Int>, stage: Int) -> Double {
        let ranks = Double(parallel.context * parallel.tensor)
        let own = (Double(positions.count) / ranks).rounded(.up)
        let windows = receivedWindows(positions)
        return layers[stage].enumerated().reduce(0) { sum, entry in
            let layer = transfers[entry.offset].reduce(0.0) { bytes, transfer in
                let isUsed = happens(transfer, from: positions.upperBound - 1, dcp: false)
                return bytes + (isUsed ? received(transfer, own: own, windows) * transfer.bytesPerRow : 0)
            }
            return sum + Double(entry.element) * layer
        }
    }

    /// Returns the number of rows that a rank gets from others in a collective.
    ///
    /// - Parameters:
    ///   - own: the number of rows that a rank owns.
    ///   - windows: the numbers of window entries, where they are known.
    private func received(
        _ transfer: EvenTransfer, own: Double, _ windows: [WindowReach: Double] = [:]
    ) -> Double {
        transfer.reach.flatMap { windows[$0] } ?? transfer.rowsPerOwnRow * own
    }

    /// Returns the number of window entries of each reach that a rank gets from others for a chunk of a prompt, on average
    /// over ranks; empty where ranks get those of all rows.
    private func receivedWindows(_ positions: Range<Int>) -> [WindowReach: Double] {
        let format = model.format
        if rules.gathersWholeWindows || format.reaches.isEmpty { return [:] }
        let partition = TokenPartition(
            parallel.strategy, [positions], ranks: parallel.context, unit: format.positionAlignment)
        let runs = partition.units(dividedBy: parallel.tensor).map { units in
            units.map { unit in
                let first = positions.lowerBound + unit.lowerBound
                return WindowExchange.Run(chunk: 0, first..<first + unit.count)
            }
        }
        return format.reaches.reduce(into: [:]) { counts, reach in
            let exchange = WindowExchange(reach, format, runs: runs, tensor: parallel.tensor) { _ in
                positions.upperBound
            }
            counts[reach] = Double(exchange.receivedCounts.reduce(0, +)) / Double(runs.count)
        }
    }

    private func seconds(_ transfer: EvenTransfer, received rows: Double) -> Double {
        let bytes = transfer.bytesPerRow * rows
        let near = bytes * (1 - transfer.foreignHosts) / (hardware.linkBandwidth * efficiencies.link)
        let far = bytes * transfer.foreignHosts / (hardware.hostLinkBandwidth * efficiencies.link)
        return max(near, far) + efficiencies.collective * (transfer.foreignHosts > 0 ? 2 : 1)
    }
}
