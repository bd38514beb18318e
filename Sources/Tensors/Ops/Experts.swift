import CKernels

/// Describes how a router chooses experts (the gates of DeepSeek-V3 and V4; the formulas are in `experts.h`).
package struct GateRule: Sendable, Equatable {
    /// Says how a router's logits become scores.
    package enum Scoring: Sendable, Equatable {
        /// `1 / (1 + exp(-logit))`.
        case sigmoid
        /// `sqrt(log(1 + exp(logit)))`.
        case sqrtSoftplus

        fileprivate var kernelValue: braid_scoring {
            switch self {
            case .sigmoid: BRAID_SIGMOID
            case .sqrtSoftplus: BRAID_SQRT_SOFTPLUS
            }
        }
    }

    package var experts: Int
    package var expertsPerToken: Int
    package var groups: Int
    package var topGroups: Int
    package var normalize: Bool
    package var scaling: Float
    package var scoring: Scoring

    package init(
        experts: Int, expertsPerToken: Int, groups: Int, topGroups: Int, normalize: Bool, scaling: Float,
        scoring: Scoring = .sigmoid
    ) {
        self.experts = experts
        self.expertsPerToken = expertsPerToken
        self.groups = groups
        self.topGroups = topGroups
        self.normalize = normalize
        self.scaling = scaling
        self.scoring = scoring
    }
}

extension Kernels {
    /// Chooses each row's experts, ascending, with their weights.
    ///
    /// - Parameters:
    ///   - logits: `[rows, experts]`.
    ///   - bias: `[1, experts]`; it affects the choice, never the weights.
    ///   - chosen: `rows * expertsPerToken`.
    ///   - weights: `[rows, expertsPerToken]`, packed.
    package func gate(_ logits: View, bias: View?, _ rule: GateRule, chosen: ComputedIndices, weights: View) {
        let work = Gate(logits: logits, bias: bias, rule: rule, given: false, chosen: chosen, weights: weights)
        if share(work, rows: logits.rows, each: 8 * logits.columns) { return }
        var p = unsafe gateValue(work)
        run { unsafe table.gate(&p) }
    }

    /// Computes the weights of experts that are chosen already, for instance by token; groups play no part.
    ///
    /// - Parameters:
    ///   - logits: `[rows, experts]`.
    ///   - chosen: `rows * expertsPerToken` numbers of experts, less than `rule.experts`; a row's weights are summed in
    ///     their order.
    ///   - weights: `[rows, expertsPerToken]`, packed.
    package func gate(_ logits: View, ofExperts chosen: ComputedIndices, _ rule: GateRule, weights: View) {
        let work = Gate(logits: logits, bias: nil, rule: rule, given: true, chosen: chosen, weights: weights)
        if share(work, rows: logits.rows, each: 16 * rule.expertsPerToken) { return }
        var p = unsafe gateValue(work)
        run { unsafe table.gate(&p) }
    }

    private func gateValue(_ gate: Gate) -> braid_gate {
        let (logits, rule) = (gate.logits, gate.rule)
        precondition(logits.columns == rule.experts && gate.bias.map { $0.columns == rule.experts } ?? true)
        precondition(gate.chosen.count == logits.rows * rule.expertsPerToken, "room for the chosen experts")
        precondition(gate.weights.rows == logits.rows && gate.weights.columns == rule.expertsPerToken)
        precondition(gate.weights.isPacked, "weights that are not packed")
        return unsafe braid_gate(
            m: Int64(logits.rows), experts: Int64(rule.experts), k: Int64(rule.expertsPerToken),
            groups: Int64(rule.groups), top_groups: Int64(rule.topGroups), scoring: rule.scoring.kernelValue,
            given: gate.given, logits: logits.base, logits_stride: Int64(logits.stride), bias: gate.bias?.base,
            normalize: rule.normalize, scaling: rule.scaling, chosen: gate.chosen.base, weights: gate.weights.base)
    }

    /// Sorts rows by the experts they chose, as far as those are among `experts`. The result is scratch.
    ///
    /// - Parameters:
    ///   - chosen: `rows * perRow`; choices outside `experts` have no slot.
    ///   - weights: `[rows, perRow]`, packed.
    package func groupByExpert(
        _ chosen: ComputedIndices, _ weights: View, experts: Range<Int>, _ scratch: Scratch
    ) -> ExpertSlots {
        precondition(chosen.count == weights.rows * weights.columns && weights.isPacked, "weights of all choices")
        precondition(experts.count <= Int(BRAID_MAX_EXPERTS), "\(experts.count) experts")
        let slots = ExpertSlots(
            experts: experts, start: scratch.computed(experts.count + 1), rows: scratch.computed(chosen.count),
            weights: scratch.rows(1, chosen.count), slots: scratch.computed(chosen.count))
        var p = unsafe braid_group_by_expert(
            m: Int64(weights.rows), k: Int64(weights.columns), chosen: chosen.base, weights: weights.base,
            first: Int64(experts.lowerBound), experts: Int64(experts.count), start: slots.start.base,
            rows: slots.rows.base, slot_weights: slots.weights.base, slots: slots.slots.base)
        run { unsafe table.group_by_expert(&p) }
        return slots
    }

    /// Lists the rows to send to the ranks that hold their experts. The result is scratch.
    ///
    /// - Parameters:
    ///   - chosen: `rows * perRow`.
    ///   - bounds: place p holds experts `bounds[p] ..< bounds[p + 1]`.
    ///   - copies: the number of ranks of each place; each of them receives all rows of that place.
    package func dispatch(
        _ chosen: ComputedIndices, perRow: Int, bounds: Indices, copies: Int, _ scratch: Scratch
    ) -> Dispatch {
        precondition(chosen.count % perRow == 0 && bounds.count > 0, "\(chosen.count) choices, \(bounds.count) bounds")
        let (rows, places) = (chosen.count / perRow, bounds.count - 1)
        let dispatch = Dispatch(
            counts: scratch.computed(places), rows: scratch.computed(places * copies * rows),
            slots: scratch.computed(rows * places))
        var p = unsafe braid_dispatch(
            m: Int64(rows), k: Int64(perRow), places: Int64(places), copies: Int64(copies), chosen: chosen.base,
            bounds: bounds.base, counts: dispatch.counts.base, rows: dispatch.rows.base, slots: dispatch.slots.base)
        run { unsafe table.dispatch(&p) }
        return dispatch
    }

    /// Computes the hidden values of all slots, `(silu(gate x) * up x) * weight`, for some columns of the experts'
    /// width.
    ///
    /// - Parameters:
    ///   - x: the rows that chose, `[rows, hidden]`.
    ///   - limit: bounds both products first, as `swiglu` does.
    ///   - out: `[slots, columns]`.
    package func expertHidden(
        _ x: View, _ weights: ExpertWeights, _ slots: ExpertSlots, columns: Range<Int>, limit: Float = .infinity,
        into out: View, _ scratch: Scratch
    ) {
        precondition(x.columns == weights.hidden && columns.upperBound <= weights.width, "\(x.shape), \(columns)")
        precondition(slots.experts.upperBound <= weights.count, "experts \(slots.experts) of \(weights.count)")
        precondition(out.rows >= slots.capacity && out.columns == columns.count, "into \(out.shape)")
        if slots.capacity == 0 { return }
        let work = ExpertHidden(x: x, weights: weights, slots: slots, columns: columns, limit: limit, out: out)
        if share(work) { return }
        let mark = scratch.mark()
        defer { scratch.reset(to: mark) }
        let floats = Int(BRAID_MATMUL_SCRATCH) + slots.capacity * columns.count
        var p = unsafe braid_expert_hidden(
            experts: weights.table + slots.experts.lowerBound, count: Int64(slots.experts.count),
            profile: profile.kernelValue, first_column: Int64(columns.lowerBound), n: Int64(columns.count),
            k: Int64(x.columns), x: x.base, x_stride: Int64(x.stride), start: slots.start.base, rows: slots.rows.base,
            slot_weights: slots.weights.base,
            limit: limit, out: out.base, out_stride: Int64(out.stride), gemv_max_rows: tuning.gemvMaxRows.byType,
            scratch: scratch.take(Float.self, floats))
        run { unsafe table.expert_hidden(&p) }
    }

    /// Computes the sums of each row's experts, down projections included, in the canonical trees of `experts.h`.
    ///
    /// - Parameters:
    ///   - hidden: `[slots, columns]`, the result of `expertHidden`.
    ///   - slices: the number of K-slices that `columns` are cut into, a power of two.
    ///   - outputs: the outputs of the down projections; `nil` for all.
    ///   - out: `[trees * rows, outputs]`.
    package func expertSums(
        _ hidden: View, _ weights: ExpertWeights, _ slots: ExpertSlots, columns: Range<Int>, slices: Int,
        _ groups: ExpertGroups, outputs: Range<Int>? = nil, into out: View, _ scratch: Scratch
    ) {
        let outputs = outputs ?? 0..<weights.hidden
        precondition(hidden.columns == columns.count && columns.upperBound <= weights.width, "\(hidden.shape)")
        precondition(columns.count % slices == 0, "\(columns.count) columns in \(slices) slices")
        precondition(slots.experts.upperBound <= weights.count, "experts \(slots.experts) of \(weights.count)")
        precondition(hidden.rows >= slots.capacity && out.columns == outputs.count, "into \(out.shape)")
        precondition(out.rows % groups.trees == 0, "\(groups.trees) trees into \(out.shape)")
        let rows = out.rows / groups.trees
        if rows == 0 { return }
        let perRow = slots.capacity / rows
        precondition(perRow * rows == slots.capacity && perRow <= Int(BRAID_MAX_EXPERTS), "\(perRow) experts a row")
        let work = ExpertSums(
            hidden: hidden, weights: weights, slots: slots, columns: columns, slices: slices, groups: groups,
            outputs: outputs, out: out)
        let cost = min(slots.capacity, slots.experts.count) * columns.count * outputs.count
        if share(work, WorkSplit(units: outputs.count, step: 64, least: 256), cost: cost) { return }
        let mark = scratch.mark()
        defer { scratch.reset(to: mark) }
        let floats = Int(braid_expert_scratch(Int64(rows), Int64(perRow), Int64(slices)))
        var p = unsafe braid_expert_sums(
            experts: weights.table + slots.experts.lowerBound, count: Int64(slots.experts.count),
            first_expert: Int64(slots.experts.lowerBound), profile: profile.kernelValue,
            experts_per_group: Int64(groups.expertsPerGroup),
            first_group: Int64(groups.range.lowerBound), groups: Int64(groups.range.count),
            trees: Int64(groups.trees), first_output: Int64(outputs.lowerBound), n: Int64(outputs.count),
            first_column: Int64(columns.lowerBound), width: Int64(columns.count), slices: Int64(slices),
            m: Int64(rows), k: Int64(perRow), hidden: hidden.base, hidden_stride: Int64(hidden.stride),
            start: slots.start.base, slots: slots.slots.base, out: out.base, out_stride: Int64(out.stride),
            gemv_max_rows: tuning.gemvMaxRows.byType, scratch: scratch.take(Float.self, floats))
        run { unsafe table.expert_sums(&p) }
    }

    /// Adds the partial results of each row's experts from all ranks, as a balanced tree over the parts.
    ///
    /// - Parameters:
    ///   - y: `[*, columns]`.
    ///   - slots: `rows * parts`, the row of `y` that holds each part; negative if no rank computed it.
    package func combineExperts(_ y: View, slots: ComputedIndices, into out: View) {
        precondition(y.columns == out.columns, "\(y.shape) into \(out.shape)")
        if out.rows == 0 { return }
        let parts = slots.count / out.rows
        precondition(parts * out.rows == slots.count, "\(slots.count) parts of \(out.rows) rows")
        let work = Combination(y: y, slots: slots, out: out)
        if share(work, WorkSplit(units: out.columns, step: 64, least: 256), cost: slots.count * out.columns) { return }
        var p = unsafe braid_combine(
            m: Int64(out.rows), n: Int64(out.columns), parts: Int64(parts), y: y.base, y_stride: Int64(y.stride),
            slots: slots.base, out: out.base, out_stride: Int64(out.stride))
        run { unsafe table.combine_experts(&p) }
    }
}

/// Lists the rows to send to the ranks that hold their experts.
package struct Dispatch {
    /// The number of rows that each rank of a place receives, by place.
    package let counts: ComputedIndices
    /// The rows that each rank receives, rank by rank.
    package let rows: ComputedIndices
    /// `[rows, places]`: the row's index among all rows sent, place by place; negative if it is not sent there.
    package let slots: ComputedIndices
}

/// Assigns rows to experts, as slots sorted by expert. Only kernels write and read it.
package struct ExpertSlots {
    /// The experts that have slots, in the router's numbering.
    package let experts: Range<Int>
    /// Expert `experts.lowerBound + e` has slots `start[e] ..< start[e + 1]`.
    fileprivate let start: ComputedIndices
    /// The row of each slot.
    fileprivate let rows: ComputedIndices
    /// The router's weight of each slot.
    fileprivate let weights: View
    /// The slot of each choice, in the router's order; negative if the expert is not among `experts`.
    fileprivate let slots: ComputedIndices

    /// The largest possible number of slots: one for each choice.
    package var capacity: Int { slots.count }

    /// Returns the slots of some of the experts, counted from the first of these.
    func experts(_ range: Range<Int>) -> ExpertSlots {
        let first = experts.lowerBound
        return ExpertSlots(
            experts: first + range.lowerBound..<first + range.upperBound,
            start: start[range.lowerBound..<range.upperBound + 1], rows: rows, weights: weights, slots: slots)
    }
}

/// Describes the groups of consecutive experts whose sums are leaves of the canonical tree.
package struct ExpertGroups {
    package let expertsPerGroup: Int
    /// The groups that are summed; their number is a power of two times `trees`.
    package let range: Range<Int>
    /// The number of balanced trees, each over an equal part of the groups.
    package let trees: Int

    package init(of expertsPerGroup: Int, _ range: Range<Int>, trees: Int = 1) {
        precondition(trees > 0 && range.count % trees == 0, "\(range.count) groups in \(trees) trees")
        let each = range.count / trees
        precondition(each > 0 && each & (each - 1) == 0, "a tree over \(each) groups is not balanced")
        self.expertsPerGroup = expertsPerGroup
        self.range = range
        self.trees = trees
    }
}
