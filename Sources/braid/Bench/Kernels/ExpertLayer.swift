import DeepSeekV32
import Modeling
import Tensors

/// The routed experts of one rank over some rows, as `MoE` computes them: each visited expert's gate, up and down
/// projections over its own rows, then the sums of each row.
struct ExpertLayer {
    private let shapes: KernelShapes
    private let type: DType
    private let bed: KernelBed
    private let rows: Int
    /// Rows of each expert that has any.
    private let isDispatched: [Range<Int>]
    private let chosen: Indices
    private let slots: Indices
    private let x: View, gate: View, up: View, partial: View, sums: View
    private let dispatched: Indices

    private var hidden: Int { shapes.model.hiddenSize }
    private var width: Int { shapes.model.experts.width }
    private var slices: Int { Kernels.slices(of: width) }

    /// - Parameter rows: of all ranks together; this one gets its share of their choices.
    init(_ shapes: KernelShapes, rows: Int, _ type: DType, _ bed: KernelBed) {
        (self.shapes, self.type, self.bed, self.rows) = (shapes, type, bed, rows)
        let perRow = max(
            shapes.model.experts.gate.expertsPerToken * shapes.experts / shapes.model.experts.gate.experts, 1)
        let count = rows * perRow
        let visited = min(shapes.experts, count)
        isDispatched = (0..<visited).map { count * $0 / visited..<count * ($0 + 1) / visited }
        let dispatched = bed.scratch.indices(count)
        (chosen, slots) = (bed.scratch.indices(count), bed.scratch.indices(count))
        for slot in 0..<count {
            dispatched[slot] = Int32(slot % rows)
            // Slot s is choice s / rows of row s mod rows: choices ascend with slots, as experts do.
            let expert = isDispatched.firstIndex { $0.contains(slot) }!
            chosen[slot % rows * perRow + slot / rows] = Int32(expert)
            slots[slot % rows * perRow + slot / rows] = Int32(slot)
        }
        self.dispatched = dispatched
        x = bed.activations(rows, shapes.model.hiddenSize)
        let width = shapes.model.experts.width
        (gate, up) = (bed.scratch.rows(count, width), bed.scratch.rows(count, width))
        partial = bed.scratch.rows(Kernels.slices(of: width) * count, shapes.model.hiddenSize)
        sums = bed.scratch.rows(rows, shapes.model.hiddenSize)
    }

    var measured: KernelCase {
        let elements = 3 * width * hidden
        return KernelCase(
            operation: "experts", shape: "\(isDispatched.count) × \(width) × \(hidden)", type: type, rows: rows,
            operations: 2 * Double(dispatched.count * elements),
            bytes: Double(isDispatched.count * elements * type.bytes), run: run)
    }

    private func run() {
        let kernels = bed.kernels
        for slots in isDispatched {
            let down = bed.cold.weight(type, hidden, width)
            let (gate, up) = (gate.rows(slots), up.rows(slots))
            kernels.matmul(
                x, bed.cold.weight(type, width, hidden), xRows: dispatched[slots], into: gate, bed.scratch)
            kernels.matmul(x, bed.cold.weight(type, width, hidden), xRows: dispatched[slots], into: up, bed.scratch)
            kernels.swiglu(gate, up, into: gate)
            for slice in 0..<slices {
                let inner = width / slices * slice..<width / slices * (slice + 1)
                let offset = slice * dispatched.count
                kernels.matmul(
                    gate.columns(inner), down.columns(inner),
                    into: partial.rows(offset + slots.lowerBound..<offset + slots.upperBound), bed.scratch)
            }
        }
        kernels.combineExperts(
            partial, slots: dispatched.count, slices: slices, chosen: chosen, slot: slots,
            expertsPerGroup: (shapes.experts + 7) / 8, groups: 0..<8, into: sums)
    }
}
