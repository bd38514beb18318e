import CKernels

/// How a router chooses experts (DeepSeek-V3's gate; the formulas are in `experts.h`).
package struct GateRule: Sendable, Equatable {
    package var experts: Int
    package var expertsPerToken: Int
    package var groups: Int
    package var topGroups: Int
    package var normalize: Bool
    package var scaling: Float
    package init(experts: Int, expertsPerToken: Int, groups: Int, topGroups: Int, normalize: Bool, scaling: Float) {
        self.experts = experts
        self.expertsPerToken = expertsPerToken
        self.groups = groups
        self.topGroups = topGroups
        self.normalize = normalize
        self.scaling = scaling
    }
}

extension Kernels {
    /// Chooses each row's experts, ascending, with their weights.
    ///
    /// - Parameters:
    ///   - logits: `[rows, experts]`.
    ///   - bias: `[1, experts]`, used to choose and never to weigh.
    ///   - chosen: `rows * expertsPerToken`.
    ///   - weights: `[rows, expertsPerToken]`, packed.
    package func gate(_ logits: View, bias: View?, _ rule: GateRule, chosen: Indices, weights: View) {
        precondition(logits.columns == rule.experts && bias.map { $0.columns == rule.experts } ?? true)
        precondition(chosen.count == logits.rows * rule.expertsPerToken, "room for the chosen experts")
        precondition(weights.rows == logits.rows && weights.columns == rule.expertsPerToken)
        let work = Gate(logits: logits, bias: bias, rule: rule, chosen: chosen, weights: weights)
        if share(work, rows: logits.rows, each: 8 * logits.columns) { return }
        var p = unsafe braid_gate(
            m: Int64(logits.rows), experts: Int64(rule.experts), k: Int64(rule.expertsPerToken),
            groups: Int64(rule.groups), top_groups: Int64(rule.topGroups), logits: logits.base,
            logits_stride: Int64(logits.stride), bias: bias?.base, normalize: rule.normalize, scaling: rule.scaling,
            chosen: chosen.base, weights: weights.base)
        unsafe table.gate(&p)
    }

    /// Adds up each row's expert outputs in the canonical trees of `experts.h`.
    ///
    /// - Parameters:
    ///   - y: `[slices * slots, columns]`: for each K-slice the partial output of every slot.
    ///   - chosen: the rows' experts, ascending, `rows * k`; `slot` says where each one's output is, negative: not here.
    ///   - groups: the groups of `expertsPerGroup` experts to add, a power of two of them.
    package func combineExperts(
        _ y: View, slots: Int, slices: Int, chosen: Indices, slot: Indices, expertsPerGroup: Int, groups: Range<Int>,
        into out: View
    ) {
        precondition(y.rows == slices * slots && y.columns == out.columns, "expert outputs \(y.shape)")
        precondition(chosen.count == slot.count && (out.rows == 0 || chosen.count % out.rows == 0))
        if out.rows == 0 { return }
        let work = Combination(
            y: y, slots: slots, slices: slices, chosen: chosen, slot: slot, expertsPerGroup: expertsPerGroup,
            groups: groups, out: out)
        let cost = chosen.count * slices * out.columns
        if share(work, WorkSplit(units: out.columns, step: 64, least: 256), cost: cost) { return }
        var p = unsafe braid_combine(
            m: Int64(out.rows), n: Int64(out.columns), k: Int64(chosen.count / out.rows), y: y.base,
            y_stride: Int64(y.stride), slots: Int64(slots), slices: Int64(slices), chosen: chosen.base, slot: slot.base,
            experts_per_group: Int64(expertsPerGroup), first_group: Int64(groups.lowerBound),
            groups: Int64(groups.count), out: out.base, out_stride: Int64(out.stride))
        unsafe table.combine_experts(&p)
    }
}
