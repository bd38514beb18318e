import Modeling
import Tensors

/// This benchmark case computes the routed experts of one rank over some rows, as `MoE` does.
struct ExpertLayer {
    private let shapes: KernelShapes
    private let type: DType
    private let bed: KernelBed
    private let rows: Int
    /// The number of experts that have rows.
    private let usedExperts: Int
    private let chosen: Indices
    private let x: View, weights: View, sums: View

    private var hidden: Int { shapes.model.hiddenSize }
    private var width: Int { shapes.routed.width }

    /// - Parameter rows: The rows of all ranks together; this rank computes its share of their experts.
    init(_ shapes: KernelShapes, rows: Int, _ type: DType, _ bed: KernelBed) {
        (self.shapes, self.type, self.bed, self.rows) = (shapes, type, bed, rows)
        let perRow = max(
            shapes.routed.gate.expertsPerToken * shapes.experts / shapes.routed.gate.experts, 1)
        let count = rows * perRow
        usedExperts = min(shapes.experts, count)
        chosen = bed.scratch.indices(count)
        weights = bed.activations(rows, perRow)
        // Choice c of row r has number c * rows + r of all. Equal runs of numbers go to each expert, so the experts of
        // a row ascend.
        for number in 0..<count {
            chosen[number % rows * perRow + number / rows] = Int32(number * usedExperts / count)
        }
        x = bed.activations(rows, shapes.model.hiddenSize)
        sums = bed.scratch.rows(rows, shapes.model.hiddenSize)
    }

    var measured: KernelCase {
        let elements = 3 * width * hidden
        return KernelCase(
            operation: "experts", shape: "\(usedExperts) × \(width) × \(hidden)", type: type, rows: rows,
            operations: 2 * Double(chosen.count * elements),
            bytes: Double(type.bytes(of: usedExperts * elements)), run: run)
    }

    private func run() {
        let mark = bed.scratch.mark()
        defer { bed.scratch.reset(to: mark) }
        let experts = ExpertWeights(
            (0..<usedExperts).map { _ in
                (
                    bed.cold.weight(type, width, hidden), bed.cold.weight(type, width, hidden),
                    bed.cold.weight(type, hidden, width)
                )
            })
        let slots = bed.kernels.groupByExpert(ComputedIndices(chosen), weights, experts: 0..<usedExperts, bed.scratch)
        let inner = bed.scratch.rows(slots.capacity, width)
        bed.kernels.expertHidden(x, experts, slots, columns: 0..<width, into: inner, bed.scratch)
        let groups = ExpertGroups(of: (shapes.experts + 7) / 8, 0..<8)
        bed.kernels.expertSums(
            inner, experts, slots, columns: 0..<width, slices: Kernels.slices(of: width), groups, into: sums,
            bed.scratch)
    }
}
