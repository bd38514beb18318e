import Checkpoints
package import Modeling
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

    /// - Parameter x: own rows, normed.
    /// - Returns: own rows.
    func forward(_ x: View, layer: Int, _ step: Step, _ seat: Seat) throws(GroupFailure) -> View {
        let (chosen, weights) = route(x, seat)
        record(chosen, weights, layer: layer, step)
        let exchange = ExpertExchange(experts: rule.experts, perRow: rule.expertsPerToken, seat)
        let pendingDispatch = try exchange.send(x, chosen: chosen, weights: weights)
        // The shared experts do not wait for anybody's rows.
        let sharedOutput = try shared.map { (shared) throws(GroupFailure) in try shared.forward(x, seat) }
        let dispatched = try exchange.receive(pendingDispatch)
        let out = try exchange.combine(sums(of: dispatched, exchange, seat), of: dispatched, pendingDispatch)
        if let sharedOutput { seat.kernels.add(out, sharedOutput, into: out) }
        return out
    }

    private func record(_ chosen: Indices, _ weights: View, layer: Int, _ step: Step) {
        guard let recorder = step.recorder else { return }
        recorder.record(.gateWeights, layer: layer, weights, of: step.own)
        for row in 0..<weights.rows {
            let experts = chosen[row * rule.expertsPerToken..<(row + 1) * rule.expertsPerToken].elements
            recorder.record(.gateExperts, layer: layer, experts.map { Float($0) }, of: step.own, row: row)
        }
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

    /// What the experts here add to each visitor: `[visitors, hidden]`, or such a block of rows for each of `exchange.blocks`.
    private func sums(of dispatched: ExpertExchange.DispatchedRows, _ exchange: ExpertExchange, _ seat: Seat) -> View {
        let sums = seat.scratch.rows(exchange.blocks * dispatched.rows.rows, dispatched.rows.columns)
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let assignment = ExpertAssignment(
            chosen: dispatched.chosen, weights: dispatched.weights, experts: exchange.localExperts, of: rule.experts,
            seat)
        let columns = seat.part(of: width, along: .expertWidth)
        let hidden = seat.scratch.rows(assignment.count, columns.count)
        for number in exchange.localExperts {
            let slots = assignment.range(of: number)
            if slots.isEmpty { continue }
            experts[number].activate(
                dispatched.rows, rows: assignment.rows[slots], columns: columns,
                weights: assignment.weights.columns(slots), seat, into: hidden.rows(slots))
        }
        combine(hidden, dispatched.chosen, assignment, exchange, seat, into: sums)
        return sums
    }

    /// The down projections, by K-slice and slot, added up in the canonical trees, some output columns at a time.
    private func combine(
        _ hidden: View, _ chosen: Indices, _ assignment: ExpertAssignment, _ exchange: ExpertExchange, _ seat: Seat,
        into sums: View
    ) {
        let columns = seat.part(of: width, along: .expertWidth)
        let slices = seat.slices(of: width, along: .expertWidth)
        let block = min(sums.columns, max(Self.outputBudget / max(slices * assignment.count, 1) / 64 * 64, 64))
        var first = 0
        while first < sums.columns {
            let outputs = first..<min(first + block, sums.columns)
            let mark = seat.scratch.mark()
            defer { seat.scratch.reset(to: mark) }
            let partial = seat.scratch.rows(slices * assignment.count, outputs.count)
            for slice in 0..<slices {
                let inner = hidden.columns / slices * slice..<hidden.columns / slices * (slice + 1)
                for number in exchange.localExperts {
                    let slots = assignment.range(of: number)
                    if slots.isEmpty { continue }
                    let down = experts[number].down.rows(outputs).columns(columns).columns(inner)
                    let offset = slice * assignment.count
                    seat.kernels.matmul(
                        hidden.rows(slots).columns(inner), down,
                        into: partial.rows(offset + slots.lowerBound..<offset + slots.upperBound), seat.scratch)
                }
            }
            let rows = sums.rows / exchange.blocks
            for block in 0..<exchange.blocks {
                seat.kernels.combineExperts(
                    partial, slots: assignment.count, slices: slices, chosen: chosen, slot: assignment.slots,
                    expertsPerGroup: rule.experts / Kernels.slices(of: rule.experts),
                    groups: exchange.groups(of: block),
                    into: sums.rows(block * rows..<(block + 1) * rows).columns(outputs))
            }
            first = outputs.upperBound
        }
    }
}
