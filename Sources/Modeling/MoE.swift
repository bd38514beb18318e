package import Parallelism
package import Tensors

/// A mixture of experts: a router, routed experts, and shared experts that compute every row.
package struct MoE {
    private let router: Weight
    private let choice: Choice
    private let experts: ExpertWeights
    private let shared: FeedForward?
    private let rule: GateRule
    private let width: Int
    private let limit: Float

    /// The way in which the experts of a row are chosen. Their weights always follow from the router's scores.
    package enum Choice {
        /// By the router's scores, to which a bias is added.
        case scores(bias: Vector)
        /// By the row's token: a table has the experts of each token of the vocabulary.
        case tokens(TokenExperts)
    }

    /// Creates a mixture of experts from loaded weights.
    ///
    /// - Parameters:
    ///   - router: `[experts, hidden]`.
    ///   - experts: the routed experts, in the router's order; all have the same limit.
    ///   - shared: the shared experts as one feed-forward; `nil` if there are none.
    package init(router: Weight, _ choice: Choice, _ rule: GateRule, experts: [FeedForward], shared: FeedForward?) {
        precondition(experts.count == rule.experts, "\(experts.count) experts for a router of \(rule.experts)")
        self.router = router
        self.choice = choice
        self.rule = rule
        self.experts = ExpertWeights(experts.map { ($0.gate, $0.up, $0.down) })
        self.shared = shared
        width = experts[0].down.columns
        limit = experts[0].limit
    }

    /// Computes the experts of own rows.
    ///
    /// - Parameter x: own rows, normed, `[own rows, hidden]`.
    /// - Returns: `[own rows, hidden]`.
    package func forward(_ x: View, layer: Int, _ step: Step, _ seat: Seat) throws(GroupFailure) -> View {
        let (chosen, weights) = route(x, step, seat)
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
    private func route(_ x: View, _ step: Step, _ seat: Seat) -> (chosen: ComputedIndices, weights: View) {
        let chosen = seat.scratch.computed(x.rows * rule.expertsPerToken)
        let weights = seat.scratch.rows(x.rows, rule.expertsPerToken)
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let logits = seat.scratch.rows(x.rows, rule.experts)
        seat.kernels.inF32.matmul(x, router, into: logits, seat.scratch)
        switch choice {
        case .scores(let bias): seat.kernels.gate(logits, bias: bias.view, rule, chosen: chosen, weights: weights)
        case .tokens(let table):
            table.experts(of: step.tokens, seat, into: chosen)
            seat.kernels.gate(logits, ofExperts: chosen, rule, weights: weights)
        }
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
        seat.kernels.expertHidden(
            dispatched.rows, experts, slots, columns: columns, limit: limit, into: hidden, seat.scratch)
        let groups = ExpertGroups(
            of: rule.experts / Kernels.slices(of: rule.experts), exchange.groups, trees: exchange.blocks)
        seat.kernels.expertSums(
            hidden, experts, slots, columns: columns, slices: seat.slices(of: width, along: .expertTensor), groups,
            into: sums, seat.scratch)
        return sums
    }
}
