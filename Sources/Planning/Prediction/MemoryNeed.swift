import KVCache
import Modeling
import Parallelism
import Tensors

/// What one rank keeps, in bytes, in the stage that keeps most.
package struct MemoryNeed: Sendable, Equatable {
    /// Weights it reads. Where ranks share a host's memory: its part of what the host's process maps once.
    package let weights: Double
    /// One token's keys.
    package let keysPerToken: Double
    /// Keys of windows: those of requests that run, of prefixes that later ones find, and of the rows of a step. Where ranks
    /// share a host's memory: its part of what the host's process keeps once.
    package let windows: Double
    /// Intermediate results of the largest step.
    package let scratch: Double
    /// Rows that arrive from other ranks and leave for them.
    package let transport: Double
    /// What a rank has for all of these.
    package let available: Double
    /// Groups of requests, each of which keeps keys of its own.
    private let groups: Int

    /// The part of a device's memory that may be used, and what a runtime takes of it (aisimulate: h200_sxm.yaml).
    private static let usable = (fraction: 0.95, runtime: 3.5e9)

    /// Index scores are computed in tiles of rows, so that they take no more than this.
    private static let maxScores = 1e9

    package init(_ time: LayoutTime, _ traffic: PlannedTraffic) {
        let (model, parallel, rules) = (time.model, time.parallel, time.rules)
        let hardware = time.cluster.hardware
        let isShared = hardware.kind == .processor
        let stages = (0..<parallel.pipeline).map { stage in
            Self.weights(model, parallel, rules, stage: stage, isShared: isShared ? hardware.devicesPerHost : nil)
        }
        weights = stages.max()!
        let layers = (0..<parallel.pipeline).map {
            model.counts(parallel.layers(ofStage: $0, total: model.description.layers.count))
        }
        keysPerToken =
            layers.map { counts in
                zip(counts, model.layers).reduce(0) { sum, entry in
                    sum + Double(entry.0) * Self.keys(entry.1, parallel, rules, hardware)
                }
            }.max()!
        windows = layers.map { Self.windows(model, $0, parallel, traffic, hardware) }.max()!
        let rows = Double(min(traffic.chunk, traffic.input))
        let attended = (rows / Double(parallel.context)).rounded(.up)
        let hidden = Double(model.description.hiddenSize) * rules.activationBytes
        let queries = model.layers.map { layer in
            layer.attention.map { Double($0.heads * ($0.latentWidth + $0.ropeWidth)) } ?? 0
        }.max()!
        // Scores of a tile of rows; engines bound what they keep of them.
        let scores = min(4 * attended * Double(traffic.input), Self.maxScores)
        scratch = attended * queries / Double(parallel.tensor) * rules.activationBytes + 4 * attended * hidden + scores
        transport = parallel.stageRanks > 1 ? 2 * rows * Double(parallel.data) * hidden : 0
        let whole = hardware.memoryBytes * Self.usable.fraction
        available = isShared ? whole : whole - Self.usable.runtime
        groups = parallel.data
    }

    /// Bytes for keys.
    package var room: Double { max(available - used, 0) }

    private var used: Double { weights + windows + scratch + transport }

    /// Tokens whose keys fit, all requests together.
    package var capacity: Int { keysPerToken == 0 ? .max : Int(room / keysPerToken) * groups }

    package var fits: Bool { used < available }

    /// Every process keeps all windows of its stage, whoever owns the other keys.
    private static func windows(
        _ model: PlannedModel, _ layers: [Int], _ parallel: ParallelConfiguration, _ traffic: PlannedTraffic,
        _ hardware: Hardware
    ) -> Double {
        let (window, pageSize) = (model.format.window, model.format.pageSize)
        guard window > 0 else { return 0 }
        let least = CacheFormat.minWindowPages(
            of: window, requests: traffic.concurrency, drafts: traffic.drafts, pageSize: pageSize)
        let perToken = zip(layers, model.layers).reduce(0) { $0 + Double($1.0) * $1.1.windowBytes }
        // Engines for accelerators write over what has left a window.
        guard hardware.kind == .processor else { return Double(least * pageSize) * perToken }
        let pages = CacheFormat.windowPages(
            atLeast: least, rows: parallel.pipeline * traffic.chunk, pageSize: pageSize)
        return Double(pages * pageSize) * perToken / Double(min(parallel.stageRanks, hardware.devicesPerHost))
    }

    private static func keys(
        _ layer: LayerWork, _ parallel: ParallelConfiguration, _ rules: EngineRules, _ hardware: Hardware
    ) -> Double {
        let owners = Double(parallel.kvSharding.ranks)
        if hardware.kind == .processor {
            // A host's process keeps each key once; its ranks have a part each.
            let sharing = Double(min(parallel.context * parallel.tensor, hardware.devicesPerHost))
            return layer.keyBytes / max(sharing, owners)
        }
        return layer.attentionBytes / owners + (rules.repeatsIndexKeys ? layer.indexBytes : layer.indexBytes / owners)
    }

    /// - Parameter isShared: ranks of a host that map weights together; `nil` where each has its own.
    private static func weights(
        _ model: PlannedModel, _ parallel: ParallelConfiguration, _ rules: EngineRules, stage: Int,
        isShared hostRanks: Int?
    ) -> Double {
        let ranks = Double(parallel.stageRanks)
        let experts = parallel.replicatesExperts ? 1 : ranks
        let counts = model.counts(parallel.layers(ofStage: stage, total: model.description.layers.count))
        let formats = model.formats
        var (split, all) = (0.0, 0.0)
        for (count, layer) in zip(counts, model.layers) {
            let width = formats.products.bytesPerElement
            let routed =
                layer.expertElements * Double(layer.experts?.gate.experts ?? 0) * formats.experts.bytesPerElement
            let common = layer.whole * width + layer.plain * formats.plain.bytesPerElement + 4 * layer.vectors
            split +=
                Double(count)
                * (common + routed / experts + width
                    * (layer.heads / Double(parallel.tensor) + layer.dense / Double(parallel.denseTensor)))
            all += Double(count) * (common + routed + width * (layer.heads + layer.dense))
        }
        let description = model.description
        let embedding = stage == 0 ? Double(formats.bytes(of: description.embedding)) : 0
        let head = stage == parallel.pipeline - 1 ? Double(formats.bytes(of: description.head)) : 0
        if let hostRanks {
            let sharing = Double(min(parallel.stageRanks, hostRanks))
            // The ranks of one host read all of it between them, or their part where there are more hosts.
            return max((all + embedding + head) / ranks, min(split * sharing, all) / sharing)
        }
        return split + embedding / (rules.dividesEmbedding ? ranks : 1) + head / ranks
    }
}
