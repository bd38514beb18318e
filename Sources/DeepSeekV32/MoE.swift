import Checkpoints
import Modeling
import Parallelism
import Tensors

/// A mixture of experts: a router, routed experts, and shared experts that compute every row.
struct MoE {
    private let router: Weight
    private let bias: Vector
    private let experts: ExpertWeights
    private let shared: FeedForward?
    private let rule: GateRule
    private let width: Int

    init(_ configuration: DeepSeekConfiguration, _ source: WeightSource, layer: Int) throws(CheckpointError) {
        let hidden = configuration.hiddenSize
        rule = configuration.experts.gate
        width = configuration.experts.width
        router = try source.matrix(WeightNames.feedForward(layer, "gate.weight"), rule.experts, hidden)
        bias = try source.vector(
            WeightNames.feedForward(layer, "gate.e_score_correction_bias"), rule.experts, dummy: 0)
        var experts: [(gate: Weight, up: Weight, down: Weight)] = []
        for number in 0..<rule.experts {
            let expert = try FeedForward(source, WeightNames.expert(layer, number), hidden: hidden, width: width)
            experts.append((expert.gate, expert.up, expert.down))
        }
        self.experts = ExpertWeights(experts)
        let sharedWidth = configuration.experts.shared * width
        shared =
            sharedWidth == 0
            ? nil
            : try FeedForward(
                source, WeightNames.feedForward(layer, "shared_experts."), hidden: hidden, width: sharedWidth)
    }

    /// Computes the experts of own rows.
    ///
    /// - Parameter x: own rows, normed, `[own rows, hidden]`.
    /// - Returns: `[own rows, hidden]`.
    func forward(_ x: View, layer: Int, _ step: Step, _ seat: Seat) throws(GroupFailure) -> View {
        let (chosen, weights) = route(x, seat)
        record(chosen, weights, layer: layer, step, seat)
        let exchange = ExpertExchange(experts: rule.experts, perRow: rule.expertsPerToken, seat)
        let pendingDispatch = try exchange.send(x, chosen: chosen, weights: weights)
        // The shared experts need no rows of other ranks, so they compute while rows are dispatched.
        let sharedOutput = try shared.map { (shared) throws(GroupFailure) in try shared.forward(x, seat) }
        let dispatched = try exchange.receive(pendingDispatch)
        let out = try exchange.combine(sums(of: dispatched, exchange, seat), of: dispatched, pendingDispatch)
        if let sharedOutput { seat.kernels.add(out, sharedOutput, into: out) }
        return out
    }

    private func record(_ chosen: ComputedIndices, _ weights: View, layer: Int, _ step: Step, _ seat: Seat) {
        guard let recorder = step.recorder else { return }
        recorder.record(.gateWeights, layer: layer, weights, of: step.own, seat)
        let numbers = seat.kernels.synchronize(chosen)
        for row in 0..<weights.rows {
            let experts = numbers[row * rule.expertsPerToken..<(row + 1) * rule.expertsPerToken].elements
            recorder.record(.gateExperts, layer: layer, experts.map { Float($0) }, of: step.own, row: row)
        }
    }

    /// Routes own rows: returns each row's experts, ascending, and their weights.
    private func route(_ x: View, _ seat: Seat) -> (chosen: ComputedIndices, weights: View) {
        let chosen = seat.scratch.computed(x.rows * rule.expertsPerToken)
        let weights = seat.scratch.rows(x.rows, rule.expertsPerToken)
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let logits = seat.scratch.rows(x.rows, rule.experts)
        seat.kernels.matmul(x, router, into: logits, seat.scratch)
        seat.kernels.gate(logits, bias: bias.view, rule, chosen: chosen, weights: weights)
        return (chosen, weights)
    }

    /// Returns the sums of this rank's experts for the dispatched rows: `[dispatched rows, hidden]`, one such block
    /// after the other for each of `exchange.blocks`.
    private func sums(of dispatched: ExpertExchange.DispatchedRows, _ exchange: ExpertExchange, _ seat: Seat) -> View {
        let sums = seat.scratch.rows(exchange.blocks * dispatched.rows.rows, dispatched.rows.columns)
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let columns = seat.part(of: width, along: .expertTensor)
        let slots = seat.kernels.groupByExpert(
            dispatched.chosen, dispatched.weights, experts: exchange.localExperts, seat.scratch)
        let hidden = seat.scratch.rows(slots.capacity, columns.count)
        seat.kernels.expertHidden(dispatched.rows, experts, slots, columns: columns, into: hidden, seat.scratch)
        let groups = ExpertGroups(
            of: rule.experts / Kernels.slices(of: rule.experts), exchange.groups, trees: exchange.blocks)
        seat.kernels.expertSums(
            hidden, experts, slots, columns: columns, slices: seat.slices(of: width, along: .expertTensor), groups,
            into: sums, seat.scratch)
        return sums
    }
}
