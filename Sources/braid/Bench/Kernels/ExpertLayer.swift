import Modeling
import Tensors

/// This benchmark case computes the routed experts of one rank over some rows, as `MoE` does.
struct ExpertLayer {
    private let routed: LayerDescription.Experts
    /// The number of experts of the rank.
    private let experts: Int
    /// The number of parts into which a sum over experts and over a down projection's columns is cut.
    private let parts: Int
    private let type: DType
    private let bed: KernelBed
    private let rows: Int
    /// The number of experts that have rows.
    private let usedExperts: Int
    private let chosen: Indices
    private let x: View, weights: View, sums: View

    private var hidden: Int { routed.hidden }
    private var width: Int { routed.width }

    /// - Parameters:
    ///   - experts: The number of experts of this rank.
    ///   - rows: The rows of all ranks together; this rank computes its share of their experts.
    ///   - parts: 8, or 1 for the sums of an engine whose ranks cannot share them with the same bits.
    init(
        _ routed: LayerDescription.Experts, experts: Int, rows: Int, _ type: DType, _ bed: KernelBed, parts: Int = 8
    ) {
        (self.routed, self.experts, self.parts) = (routed, experts, parts)
        (self.type, self.bed, self.rows) = (type, bed, rows)
        let perRow = max(routed.gate.expertsPerToken * experts / routed.gate.experts, 1)
        let count = rows * perRow
        usedExperts = min(experts, count)
        chosen = bed.scratch.indices(count)
        weights = bed.activations(rows, perRow)
        // Choice c of row r has number c * rows + r of all. Equal runs of numbers go to each expert, so the experts of
        // a row ascend.
        for number in 0..<count {
            chosen[number % rows * perRow + number / rows] = Int32(number * usedExperts / count)
        }
        x = bed.activations(rows, routed.hidden)
        sums = bed.scratch.rows(rows, routed.hidden)
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
        let weights = coldWeights()
        let slots = self.slots()
        let inner = bed.scratch.rows(slots.capacity, width)
        bed.kernels.expertHidden(x, weights, slots, columns: 0..<width, into: inner, bed.scratch)
        addUp(inner, weights, slots)
    }

    /// Returns a run of the down projections and of the sums over experts alone.
    func sumsAlone() -> () -> Void {
        let slots = self.slots()
        let inner = bed.activations(slots.capacity, width)
        return { addUp(inner, coldWeights(), slots) }
    }

    private func coldWeights() -> ExpertWeights {
        ExpertWeights(
            (0..<usedExperts).map { _ in
                (
                    bed.cold.weight(type, width, hidden), bed.cold.weight(type, width, hidden),
                    bed.cold.weight(type, hidden, width)
                )
            })
    }

    private func slots() -> ExpertSlots {
        bed.kernels.groupByExpert(ComputedIndices(chosen), weights, experts: 0..<usedExperts, bed.scratch)
    }

    private func addUp(_ inner: View, _ weights: ExpertWeights, _ slots: ExpertSlots) {
        let groups = ExpertGroups(of: (experts + parts - 1) / parts, 0..<parts)
        bed.kernels.expertSums(
            inner, weights, slots, columns: 0..<width, slices: min(parts, Kernels.slices(of: width)), groups,
            into: sums, bed.scratch)
    }
}
