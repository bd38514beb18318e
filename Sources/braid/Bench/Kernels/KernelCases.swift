import KVCache
import Modeling
import Planning
import Tensors

/// This extension lists the operations of a layer at a model's sizes.
extension KernelShapes {
    package func cases(_ bed: KernelBed) -> [KernelCase] {
        matmuls(bed) + expertLayers(bed) + indexing(bed) + attention(bed) + rowByRow(bed)
    }

    private func matmuls(_ bed: KernelBed) -> [KernelCase] {
        products.flatMap { product in
            DType.allCases.flatMap { type in
                [1, 8, 64, 512].map { rows in
                    let x = bed.activations(rows, product.inputs)
                    let out = bed.scratch.rows(rows, product.outputs)
                    let elements = product.outputs * product.inputs
                    return KernelCase(
                        operation: "matmul", shape: "\(product.name) \(product.outputs) × \(product.inputs)",
                        type: type, rows: rows, product: product, operations: 2 * Double(rows * elements),
                        bytes: Double(type.bytes(of: elements))
                    ) {
                        let weight = bed.cold.weight(type, product.outputs, product.inputs)
                        bed.kernels.matmul(x, weight, into: out, bed.scratch)
                    }
                }
            }
        }
    }

    /// Returns the cases of one rank's routed experts: rows are distributed evenly, and each expert that has rows is
    /// read once.
    private func expertLayers(_ bed: KernelBed) -> [KernelCase] {
        let types = [DType.bf16, .fp8] + (bed.kernels.profile.isForIntegers ? [.int8] : [])
        return types.flatMap { type in
            [1, 8, 64, 512].map { rows in ExpertLayer(routed, experts: experts, rows: rows, type, bed).measured }
        }
    }

    private func indexing(_ bed: KernelBed) -> [KernelCase] {
        guard let indexer = selection else { return [] }
        let positions = 64 * 1024
        let scored = [DType.f32, .bf16, .fp8, .fp4].flatMap { type in
            [1, 8, 64].map { rows in
                let entry = Self.indexLane(type, width: indexer.width).bytesPerEntry
                return KernelCase(
                    operation: "index scores", shape: "\(indexer.heads) heads × \(indexer.width), 64K keys", type: type,
                    rows: rows, operations: 2 * Double(rows * positions * indexer.heads * indexer.width),
                    bytes: Double(positions * entry),
                    run: indexScores(indexer, rows: rows, of: positions, type, bed.kernels, bed))
            }
        }
        return scored + [topK(indexer.topK, of: positions, bed)]
    }

    /// Returns a run that scores keys in main memory for some rows.
    func indexScores(
        _ indexer: LayerDescription.Selection, rows: Int, of positions: Int, _ type: DType,
        _ kernels: Kernels,
        _ bed: KernelBed
    ) -> () -> Void {
        let queries = bed.activations(rows, indexer.heads * indexer.width)
        let weights = bed.activations(rows, indexer.heads)
        let scores = bed.scratch.rows(rows, positions)
        let pages = bed.pages(positions: positions)
        return {
            let keys = bed.cold.lane(Self.indexLane(type, width: indexer.width), entries: positions)
            kernels.indexScores(queries, weights: weights, keys: keys, pages, into: scores, bed.scratch)
        }
    }

    private static func indexLane(_ type: DType, width: Int) -> KeySet.Lane {
        KeySet.Lane(indexAs: type.cacheType, width: width)
    }

    private func topK(_ k: Int, of positions: Int, _ bed: KernelBed) -> KernelCase {
        let rows = 8
        let scores = bed.activations(rows, positions)
        let visible = bed.scratch.indices(rows)
        visible.fill(Int32(positions))
        let selection = Selection(
            positions: bed.scratch.computed(rows * k), stride: k, counts: bed.scratch.computed(rows))
        return KernelCase(
            operation: "top-k", shape: "\(k) of 64K", type: .f32, rows: rows, bytes: Double(rows * positions * 4)
        ) { bed.kernels.topK(scores, visible: visible, into: selection, bed.scratch) }
    }

    private func attention(_ bed: KernelBed) -> [KernelCase] {
        let (latent, rope, keys, positions, rows) = (attention.latentWidth, attention.ropeWidth, 2048, 32 * 1024, 8)
        return [heads, attention.heads].uniqued.flatMap { heads in
            [DType.f32, .bf16, .fp8].map { type in
                let entries = attention.lanes(type).reduce(0) { $0 + $1.bytesPerEntry }
                return KernelCase(
                    operation: "sparse attention", shape: "\(heads) heads, \(keys) of 32K keys", type: type, rows: rows,
                    operations: 2 * Double(rows * heads * keys * (2 * latent + rope)),
                    bytes: Double(rows * keys * entries),
                    run: attention(heads: heads, rows: rows, to: keys, of: positions, type, bed.kernels, bed))
            }
        }
    }

    /// Returns a run of attention of some rows to selected keys in main memory.
    func attention(
        heads: Int, rows: Int, to keys: Int, of positions: Int, _ type: DType, _ kernels: Kernels, _ bed: KernelBed
    ) -> () -> Void {
        attention.run(
            heads: heads, rows: rows, bed.selection(of: keys, among: positions, rows: rows), of: positions, type,
            kernels: kernels, bed)
    }

    /// Returns the operations between the products: little arithmetic on data that is already in a processor cache.
    private func rowByRow(_ bed: KernelBed) -> [KernelCase] {
        let (rows, hidden, rule) = (64, model.hiddenSize, routed.gate)
        let x = bed.activations(rows, hidden)
        let (out, weight) = (bed.scratch.rows(rows, hidden), bed.activations(1, hidden))
        let logits = bed.activations(rows, rule.experts)
        let (chosen, weights) = (
            bed.scratch.computed(rows * rule.expertsPerToken), bed.scratch.rows(rows, rule.expertsPerToken)
        )
        let queries = bed.activations(rows, heads * (nopeWidth + attention.ropeWidth))
        let rotated = queries.columns(nopeWidth..<queries.columns)
        let angles = RotaryAngles(
            cosine: bed.activations(rows, attention.ropeWidth / 2), sine: bed.activations(rows, attention.ropeWidth / 2)
        )
        let latents = bed.activations(rows, attention.latentWidth)
        let slots = bed.numbers(rows, step: 64)
        let (gate, up) = (bed.activations(rows, routed.width), bed.activations(rows, routed.width))
        func moved(_ operation: String, _ shape: String, _ floats: Int, _ run: @escaping () -> Void) -> KernelCase {
            KernelCase(
                operation: operation, shape: shape, type: .f32, rows: rows, bytes: Double(4 * rows * floats), run: run)
        }
        var cases = [
            moved("rms norm", "\(hidden)", 2 * hidden) {
                bed.kernels.rmsNorm(x, weight, epsilon: 1e-6, into: out)
            },
            moved("layer norm", "\(hidden)", 2 * hidden) {
                bed.kernels.layerNorm(x, weight, weight, epsilon: 1e-6, into: out)
            },
            moved("gate", "\(rule.expertsPerToken) of \(rule.experts) experts", rule.experts) {
                bed.kernels.gate(logits, bias: nil, rule, chosen: chosen, weights: weights)
            },
            moved("rope", "\(heads) heads × \(attention.ropeWidth)", 2 * heads * attention.ropeWidth) {
                bed.kernels.rope(
                    rotated, heads: heads, headStride: nopeWidth + attention.ropeWidth, interleaved: true, angles)
            },
            moved("swiglu", "\(routed.width)", 3 * routed.width) {
                bed.kernels.swiglu(gate, up, into: up)
            },
            moved("add", "\(hidden)", 3 * hidden) { bed.kernels.add(x, out, into: out) },
        ]
        for type in [DType.bf16, .fp8] {
            let format = attention.lanes(type)[0]
            let lane = bed.cold.lane(format, entries: 64 * rows)
            cases.append(
                KernelCase(
                    operation: "quantize", shape: "latent \(attention.latentWidth)", type: type, rows: rows,
                    bytes: Double(rows * (4 * attention.latentWidth + format.bytesPerEntry))
                ) { bed.kernels.store(latents, slots: slots, in: lane) })
        }
        return cases
    }
}

extension LayerDescription.Attention {
    /// Returns a run of attention of some rows to selected keys in main memory.
    ///
    /// - Parameters:
    ///   - heads: The number of heads of one rank; `nil` for all.
    ///   - type: The type in which the cache keeps latent keys.
    ///   - kernels: The kernels to run; `nil` for those of the bed.
    func run(
        heads: Int? = nil, rows: Int, _ selection: Selection, of positions: Int, _ type: DType,
        kernels: Kernels? = nil, _ bed: KernelBed
    ) -> () -> Void {
        let (heads, kernels) = (heads ?? self.heads, kernels ?? bed.kernels)
        let queries = bed.activations(rows, heads * (latentWidth + ropeWidth))
        let (out, logSumExp) = (bed.scratch.rows(rows, heads * valueWidth), bed.scratch.rows(rows, heads))
        let pages = bed.pages(positions: positions)
        let last = bed.numbers(rows, first: positions - 1, step: 0)
        return {
            let lanes = lanes(type).map { bed.cold.lane($0, entries: positions) }
            kernels.attention(
                queries, heads: heads, scale: 0.01, latent: lanes[0], rope: lanes[1],
                valuesIncludeRotary: valueWidth > latentWidth, pages, positions: last, selection: selection, into: out,
                logSumExp: logSumExp, bed.scratch)
        }
    }
}

extension LayerDescription.Attention {
    /// Returns the latent lane and the rotary lane of a cache that keeps latents in this type.
    fileprivate func lanes(_ type: DType) -> [KeySet.Lane] {
        [
            KeySet.Lane(as: type.cacheType, width: latentWidth, fp8: latentRounding),
            KeySet.Lane(as: type.cacheType, width: ropeWidth, fp8: .keepsBF16),
        ]
    }
}

extension DType {
    /// The type of a cache that keeps latents, or at least index keys, in this type.
    fileprivate var cacheType: CacheType {
        switch self {
        case .f32: .float32
        case .bf16: .bfloat16
        case .fp8: .fp8
        case .fp4: CacheType(.fp8, hasFP4Index: true)
        case .int8: preconditionFailure("no cache keeps keys in \(self)")
        }
    }
}

extension ColdMemory {
    fileprivate func lane(_ lane: KeySet.Lane, entries: Int) -> CacheLane {
        self.lane(
            lane.dtype, width: lane.width, group: lane.group, scaleType: lane.scaleType, entries: entries)
    }
}

extension Array where Element: Hashable {
    /// The elements without repetitions, in the order of first appearance.
    fileprivate var uniqued: [Element] {
        var seen: Set<Element> = []
        return filter { seen.insert($0).inserted }
    }
}
