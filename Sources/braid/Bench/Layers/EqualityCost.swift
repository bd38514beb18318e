import Modeling
import Tensors

/// Measures what it costs that ranks may share a layer's sums without changing a bit: sums are cut into the same 8 parts on any
/// number of ranks (K-slices, residue classes of keys, groups of experts), which are added as a tree.
///
/// The cost is that of a kernel with these parts over that of the same kernel with one part. Keys are of one residue
/// class where attention has one part.
struct EqualityCost {
    /// One operation of a layer, in both orders.
    private struct Pair {
        let canonical: () -> Void
        let free: () -> Void
        /// The number of runs that make up the operation.
        var count = 1.0
    }

    private let layer: LayerDescription
    private let formats: WeightFormats
    private let lane: DType
    private let bed: KernelBed

    /// - Parameters:
    ///   - lane: The type in which the cache keeps keys.
    ///   - bed: Its cold memory holds the largest of the layer's matrices, and the keys of a context.
    init(_ layer: LayerDescription, _ formats: WeightFormats, lane: DType, _ bed: KernelBed) {
        (self.layer, self.formats, self.lane, self.bed) = (layer, formats, lane, bed)
    }

    /// Returns the processor seconds that the parts cost a step of `rows` rows behind `context` tokens.
    func seconds(rows: Int, context: Int, repetitions: Int) -> Double {
        let mark = bed.scratch.mark()
        defer { bed.scratch.reset(to: mark) }
        return pairs(rows: rows, context: context).reduce(0) { sum, pair in
            // Both alternately, so that other load of the machine affects them alike.
            let differences = (0..<repetitions + 1).map { _ in
                processorSeconds(pair.canonical) - processorSeconds(pair.free)
            }
            return sum + Measurements(differences.dropFirst()).median! * pair.count
        }
    }

    private func pairs(rows: Int, context: Int) -> [Pair] {
        layer.operations.flatMap { operation -> [Pair] in
            switch operation {
            case .product(let product) where product.weights.split == .heads && product.name.hasPrefix("output"):
                // Of V4's two output projections the second is a sum over ranks.
                product.name == "output down" ? [] : [sliced(rows, product.outputs, product.inputs, product.weights)]
            case .feedForward(let block): [sliced(rows, block.hidden, block.width, block.weights)]
            case .experts(let experts): [sums(rows, experts)]
            case .attend(let attention): [attend(rows, context, attention)]
            case .vectors, .product, .publish, .cross, .select, .reuseSelection, .dispatch: []
            }
        }
    }

    private func sliced(_ rows: Int, _ outputs: Int, _ inputs: Int, _ weights: LayerDescription.Weights) -> Pair {
        let (x, out) = (bed.activations(rows, inputs), bed.scratch.rows(rows, outputs))
        let dtype = formats.format(of: weights).dtype
        func run(_ slices: Int) -> () -> Void {
            {
                bed.kernels.slicedMatmul(
                    x, bed.cold.weight(dtype, outputs, inputs), slices: slices, into: out, bed.scratch)
            }
        }
        return Pair(canonical: run(Kernels.slices(of: inputs)), free: run(1))
    }

    private func sums(_ rows: Int, _ experts: LayerDescription.Experts) -> Pair {
        let all = experts.gate.experts
        // Many rows take long: a sixteenth of the experts then gets as many rows each as all would.
        let some = rows > 64 && all % 16 == 0 ? all / 16 : all
        let shared = some == all ? rows : max(rows * experts.gate.expertsPerToken * some / all, 1)
        func run(_ parts: Int) -> () -> Void {
            ExpertLayer(experts, experts: some, rows: shared, formats.experts.dtype, bed, parts: parts).sumsAlone()
        }
        return Pair(canonical: run(8), free: run(1), count: Double(all) / Double(some))
    }

    private func attend(_ rows: Int, _ context: Int, _ attention: LayerDescription.Attention) -> Pair {
        // More rows take as many times as long.
        let measured = min(rows, 8)
        let visible = attention.tokensPerEntry == 0 ? 0 : context / attention.tokensPerEntry
        let all = max(min(visible, attention.topK ?? visible) + min(attention.window, context), 1)
        // Few enough that keys of eight times as many positions fit into the memory that is measured with.
        let keys = min(all, 16_384)
        // Enough positions that there are as many keys of one class.
        let positions = (8 * keys + 63) / 64 * 64
        func run(_ selection: Selection) -> () -> Void {
            attention.run(rows: measured, selection, of: positions, lane, bed)
        }
        return Pair(
            canonical: run(bed.selection(of: keys, among: positions, rows: measured)),
            free: run(bed.selection(of: keys, among: positions, rows: measured, class: 0)),
            count: Double(rows) / Double(measured) * Double(all) / Double(keys))
    }
}
