import Checkpoints
import Parallelism
import Tensors

/// A mixture of experts: a router, routed experts, and shared experts that every row visits.
struct MoE {
    private let router: Weight
    private let bias: Vector
    private let experts: [FeedForward]
    private let shared: FeedForward?
    private let rule: GateRule
    private let width: Int

    /// Partial expert outputs kept at once, in elements: bounds memory without a bearing on the result.
    private static let outputBudget = 1 << 22

    init(_ configuration: DeepSeekConfiguration, _ source: WeightSource, layer: Int) throws(CheckpointError) {
        let hidden = configuration.hiddenSize
        rule = configuration.experts.gate
        width = configuration.experts.width
        router = try source.matrix(WeightNames.feedForward(layer, "gate.weight"), rule.experts, hidden)
        bias = try source.vector(
            WeightNames.feedForward(layer, "gate.e_score_correction_bias"), rule.experts, dummy: 0)
        var experts: [FeedForward] = []
        for expert in 0..<rule.experts {
            experts.append(
                try FeedForward(source, WeightNames.expert(layer, expert), hidden: hidden, width: width))
        }
        self.experts = experts
        let sharedWidth = configuration.experts.shared * width
        shared =
            sharedWidth == 0
            ? nil
            : try FeedForward(
                source, WeightNames.feedForward(layer, "shared_experts."), hidden: hidden, width: sharedWidth)
    }

    func forward(_ x: View, layer: Int, _ step: Step, _ seat: Seat, into out: View) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let (chosen, weights) = route(x, seat)
        step.recorder?.record(.gateWeights, layer: layer, weights)
        if let recorder = step.recorder {
            for row in 0..<x.rows {
                let range = row * rule.expertsPerToken..<(row + 1) * rule.expertsPerToken
                recorder.record(.gateExperts, layer: layer, chosen[range].elements)
            }
        }
        let assignment = ExpertExchange.dispatch(chosen: chosen, weights: weights, experts: rule.experts, seat)
        let hidden = seat.scratch.rows(assignment.count, width)
        for (number, expert) in experts.enumerated() {
            let slots = assignment.range(of: number)
            if slots.isEmpty { continue }
            expert.activate(
                x, rows: assignment.rows[slots], weights: assignment.weights.columns(slots), seat,
                into: hidden.rows(slots))
        }
        combine(hidden, chosen, assignment, seat, into: out)
        guard let shared else { return }
        let sharedOutput = seat.scratch.rows(out.rows, out.columns)
        shared.forward(x, seat, into: sharedOutput)
        seat.kernels.add(out, sharedOutput, into: out)
    }

    /// Each row's experts, ascending, and their weights.
    private func route(_ x: View, _ seat: Seat) -> (chosen: Indices, weights: View) {
        let chosen = seat.scratch.indices(x.rows * rule.expertsPerToken)
        let weights = seat.scratch.rows(x.rows, rule.expertsPerToken)
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let logits = seat.scratch.rows(x.rows, rule.experts)
        seat.kernels.matmul(x, router, into: logits, seat.scratch)
        seat.kernels.gate(logits, bias: bias.view, rule, chosen: chosen, weights: weights)
        return (chosen, weights)
    }

    /// The down projections, by K-slice and slot, added up in the canonical trees, some output columns at a time.
    private func combine(
        _ hidden: View, _ chosen: Indices, _ assignment: ExpertAssignment, _ seat: Seat, into out: View
    ) {
        let slices = Kernels.slices(of: width)
        let groups = Kernels.slices(of: rule.experts)
        let block = min(out.columns, max(Self.outputBudget / max(slices * assignment.count, 1) / 64 * 64, 64))
        var first = 0
        while first < out.columns {
            let columns = first..<min(first + block, out.columns)
            let mark = seat.scratch.mark()
            defer { seat.scratch.reset(to: mark) }
            let partial = seat.scratch.rows(slices * assignment.count, columns.count)
            for slice in 0..<slices {
                let inner = width / slices * slice..<width / slices * (slice + 1)
                for (number, expert) in experts.enumerated() {
                    let slots = assignment.range(of: number)
                    if slots.isEmpty { continue }
                    let offset = slice * assignment.count
                    seat.kernels.matmul(
                        hidden.rows(slots).columns(inner), expert.down.rows(columns).columns(inner),
                        into: partial.rows(offset + slots.lowerBound..<offset + slots.upperBound), seat.scratch)
                }
            }
            seat.kernels.combineExperts(
                partial, slots: assignment.count, slices: slices, chosen: chosen, slot: assignment.slots,
                expertsPerGroup: rule.experts / groups, groups: 0..<groups, into: out.columns(columns))
            first = columns.upperBound
        }
    }
}
