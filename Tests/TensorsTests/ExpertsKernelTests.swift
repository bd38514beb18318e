import CKernels
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

struct ExpertsKernelTests {
    private struct Gate {
        var experts: Int, k: Int, groups = 1, topGroups = 1
        var logits: [Float], stride: Int, bias: [Float]?
        var normalize = true
        var scaling: Float = 1
        var scoring = BRAID_SIGMOID
        /// Experts that are chosen already, `k` of each row.
        var given: [Int32]?

        func route(_ level: KernelLevel) -> (chosen: [Int32], weights: [Float]) {
            let m = logits.isEmpty ? 0 : (logits.count - experts) / stride + 1
            let input = Guarded(logits)
            let biases = Guarded(bias ?? [])
            let chosen = Guarded(given ?? [Int32](repeating: -7, count: m * k))
            let weights = Guarded(repeating: untouched, count: m * k)
            let parameters = unsafe braid_gate(
                m: Int64(m), experts: Int64(experts), k: Int64(k), groups: Int64(groups),
                top_groups: Int64(topGroups), scoring: scoring, given: given != nil, logits: input.pointer,
                logits_stride: Int64(stride),
                bias: bias == nil ? nil : biases.pointer, normalize: normalize, scaling: scaling,
                chosen: chosen.pointer, weights: weights.pointer)
            unsafe call(level.table.gate, parameters, keeping: [input, biases, chosen, weights])
            return (chosen.values, weights.values)
        }
    }

    private func gate(_ dice: inout Dice, wild: Bool) -> Gate {
        let groups = 1 << dice.int(0...3)
        let size = dice.int(1...9)
        let m = dice.int(0...7)
        let topGroups = dice.int(1...groups)
        let experts = groups * size
        let stride = experts + dice.int(0...5)
        return Gate(
            experts: experts, k: dice.int(1...topGroups * size), groups: groups, topGroups: topGroups,
            logits: dice.rows(m, width: experts, stride: stride, wild: wild), stride: stride,
            bias: dice.flag() ? dice.rows(1, width: experts, stride: experts) : nil, normalize: dice.flag(),
            scaling: 2.5, scoring: dice.flag() ? BRAID_SIGMOID : BRAID_SQRT_SOFTPLUS)
    }

    @Test
    func `every level routes with the bits of the reference`() {
        var dice = Dice(seed: 41)
        for i in 0..<500 {
            let example = gate(&dice, wild: i % 3 == 0)
            let expected = example.route(.reference)
            for level in KernelLevel.fast {
                let found = example.route(level)
                #expect(found.chosen == expected.chosen, "\(level.name)")
                #expect(firstDifference(found.weights, expected.weights) == nil, "\(level.name)")
            }
        }
    }

    /// Computes the gate by its formula, with a sort.
    private func sortedRoute(_ gate: Gate, logits: ArraySlice<Float>) -> (chosen: [Int], weights: [Double]) {
        let scores = logits.map { logit in
            let z = Double(logit)
            return gate.scoring == BRAID_SIGMOID ? 1 / (1 + exp(-z)) : (z > 20 ? z : log1p(exp(z))).squareRoot()
        }
        let choice = scores.indices.map { scores[$0] + Double(gate.bias?[$0] ?? 0) }
        func best(_ count: Int, of candidates: [Int], by value: (Int) -> Double) -> [Int] {
            Array(candidates.sorted { (-value($0), $0) < (-value($1), $1) }.prefix(count))
        }
        let size = gate.experts / gate.groups
        let groups = best(gate.topGroups, of: Array(0..<gate.groups)) { g in
            choice[g * size..<(g + 1) * size].sorted(by: >).prefix(2).reduce(0, +)
        }
        let candidates = groups.sorted().flatMap { Array($0 * size..<($0 + 1) * size) }
        let chosen = best(gate.k, of: candidates) { choice[$0] }.sorted()
        let sum = gate.normalize ? chosen.reduce(1e-20) { $0 + scores[$1] } : 1
        return (chosen, chosen.map { scores[$0] / sum * Double(gate.scaling) })
    }

    @Test
    func `the gate is what its formula says`() {
        var dice = Dice(seed: 42)
        for _ in 0..<300 {
            var example = gate(&dice, wild: false)
            // Scores are far enough apart that rounding cannot change the choice, and all below 0: the scores of
            // opposite logits add up to 1, so that groups would be equal.
            let steps = Array(0..<example.logits.count).shuffled(using: &dice)
            for i in example.logits.indices { example.logits[i] = Float(steps[i]) / Float(steps.count) * 3 - 3.1 }
            example.bias = example.bias?.map { _ in Float(dice.int(-3...3)) * 4 }
            let found = example.route(.reference)
            for r in 0..<found.chosen.count / example.k {
                let logits = example.logits[r * example.stride..<r * example.stride + example.experts]
                let expected = sortedRoute(example, logits: logits)
                #expect(found.chosen[r * example.k..<(r + 1) * example.k].map(Int.init) == expected.chosen)
                for j in 0..<example.k {
                    let weight = Double(found.weights[r * example.k + j])
                    let tolerance = Double(example.k + 16) * rounding * abs(expected.weights[j])
                    #expect(abs(weight - expected.weights[j]) <= tolerance)
                }
            }
        }
    }

    @Test(arguments: KernelLevel.all)
    func `experts that are given have the weights of experts that are chosen`(level: KernelLevel) {
        var dice = Dice(seed: 47)
        for i in 0..<200 {
            var example = gate(&dice, wild: i % 3 == 0)
            let expected = example.route(level)
            example.given = expected.chosen
            let found = example.route(level)
            #expect(found.chosen == expected.chosen)
            #expect(firstDifference(found.weights, expected.weights) == nil, "\(level.name)")
        }
    }

    @Test(arguments: KernelLevel.all)
    func `given experts are weighed in their order, whatever their logits`(level: KernelLevel) {
        let gate = Gate(
            experts: 5, k: 2, logits: [0, -1, 2, 3, 4], stride: 5, bias: nil, normalize: false,
            scoring: BRAID_SQRT_SOFTPLUS, given: [4, 1])
        let expected = [4.0, -1.0].map { Float(log1p(exp($0)).squareRoot()) }
        let found = gate.route(level)
        #expect(found.chosen == [4, 1])
        #expect(zip(found.weights, expected).allSatisfy { abs($0 - $1) <= 2e-7 })
    }

    @Test(arguments: KernelLevel.all)
    func `a score of sqrt softplus is right for every size of logit`(level: KernelLevel) {
        let logits: [Float] = (-340...400).map { Float($0) / 4 } + [20, Float(20).nextUp, 1e30, .infinity]
        for logit in logits {
            let gate = Gate(
                experts: 1, k: 1, logits: [logit], stride: 1, bias: nil, normalize: false,
                scoring: BRAID_SQRT_SOFTPLUS)
            let z = Double(logit)
            let expected = (z > 20 ? z : log1p(exp(z))).squareRoot()
            let difference = abs(Double(gate.route(level).weights[0]) - expected)
            #expect(logit == .infinity ? expected == .infinity : difference <= 4 * rounding * expected, "\(logit)")
        }
        // Softplus is denormal there, and as exact as such a number is.
        for logit in (-1039 ... -874).map({ Float($0) / 10 }) {
            let gate = Gate(
                experts: 1, k: 1, logits: [logit], stride: 1, bias: nil, normalize: false,
                scoring: BRAID_SQRT_SOFTPLUS)
            let found = Double(gate.route(level).weights[0])
            let least = Double(Float.leastNonzeroMagnitude)
            let expected = exp(Double(logit))
            // Half of the least number for softplus, and a rounding to 24 bits for its root.
            #expect(found > 0 && abs(found * found - expected) <= 0.51 * least + 0x1p-22 * expected, "\(logit)")
        }
        for (logit, score) in [(-Float.infinity, Float(0)), (-104, 0), (-1e30, 0), (.infinity, .infinity)] {
            let gate = Gate(
                experts: 1, k: 1, logits: [logit], stride: 1, bias: nil, normalize: false,
                scoring: BRAID_SQRT_SOFTPLUS)
            #expect(gate.route(level).weights == [score])
        }
    }

    @Test
    func `equal experts and equal groups are chosen by the smaller index`() {
        for level in KernelLevel.all {
            let flat = Gate(experts: 6, k: 3, logits: [1, 2, 1, 1, 2, 1], stride: 6, bias: nil)
            #expect(flat.route(level).chosen == [0, 1, 4])
            let grouped = Gate(
                experts: 8, k: 3, groups: 4, topGroups: 2, logits: [0, 1, 1, 0, 0, 1, 1, 1], stride: 8, bias: nil)
            #expect(grouped.route(level).chosen == [1, 6, 7])  // groups 3 and then 0, and the better expert of group 0
            let single = Gate(
                experts: 4, k: 2, groups: 4, topGroups: 2, logits: [0, 3, 3, 3], stride: 4, bias: nil)
            #expect(single.route(level).chosen == [1, 2])
        }
    }

    @Test(arguments: KernelLevel.all)
    func `a NaN logit is chosen last and does not stop the others`(level: KernelLevel) {
        let most = Gate(experts: 4, k: 3, logits: [.nan, -.infinity, 2, .infinity], stride: 4, bias: nil)
        #expect(most.route(level).chosen == [1, 2, 3])
        let all = Gate(experts: 3, k: 3, logits: [1, .nan, 1], stride: 3, bias: nil, normalize: false)
        #expect(all.route(level).chosen == [0, 1, 2])
        let nothing = Gate(experts: 4, k: 2, logits: [.nan, .nan, .nan, .nan], stride: 4, bias: nil)
        #expect(nothing.route(level).chosen == [0, 1])
        let certain = Gate(experts: 2, k: 2, logits: [.infinity, -.infinity], stride: 2, bias: nil)
        #expect(certain.route(level).weights == [1, 0])
    }

    @Test(arguments: KernelLevel.all)
    func `a NaN logit makes every weight of its row NaN, also that of an expert which is not chosen`(
        level: KernelLevel
    ) {
        for scoring in [BRAID_SIGMOID, BRAID_SQRT_SOFTPLUS] {
            for normalize in [false, true] {
                for given: [Int32]? in [nil, [3, 1, 3, 1, 3, 1]] {
                    for broken in 0..<4 {
                        var logits: [Float] = [1, 4, 2, 3, 1, 4, 2, 3, 1, 4, 2, 3]
                        logits[4 + broken] = -.nan
                        let gate = Gate(
                            experts: 4, k: 2, groups: 2, topGroups: 2, logits: logits, stride: 4,
                            bias: [0, 1, 0, 1], normalize: normalize, scoring: scoring, given: given)
                        #expect(gate.route(level).weights.map(\.isNaN) == [false, false, true, true, false, false])
                    }
                }
            }
        }
    }

    @Test
    func `the bias chooses but does not weigh`() {
        for level in KernelLevel.all {
            let gate = Gate(
                experts: 3, k: 1, logits: [4, 0, 4], stride: 3, bias: [0, 9, 0], normalize: false, scaling: 3)
            let found = gate.route(level)
            #expect(found.chosen == [1])
            #expect(found.weights == [1.5])
        }
    }

    // MARK: - Assigning rows to experts

    @Test
    func `rows are sorted by local experts, whatever experts they chose`() {
        var dice = Dice(seed: 43)
        for _ in 0..<200 {
            let (m, k, first, experts) = (dice.int(0...20), dice.int(1...5), dice.int(0...4), dice.int(0...9))
            let strange: [Int32] = [-1, .min, .max, 1 << 30]
            let chosen = (0..<m * k).map { _ in
                dice.int(0...9) == 0 ? strange.randomElement(using: &dice)! : Int32(dice.int(0...16))
            }
            let weights = (0..<m * k).map { _ in dice.float() }
            let here = chosen.indices.filter { Int(chosen[$0]) >= first && Int(chosen[$0]) < first + experts }
            let sorted = here.sorted { (chosen[$0], $0) < (chosen[$1], $1) }
            for level in KernelLevel.all {
                let (numbers, factors) = (Guarded(chosen), Guarded(weights))
                let start = Guarded(repeating: Int32(-7), count: experts + 1)
                let (rows, slots) = (
                    Guarded(repeating: Int32(-7), count: m * k), Guarded(repeating: Int32(-7), count: m * k)
                )
                let slotWeights = Guarded(repeating: untouched, count: m * k)
                let parameters = unsafe braid_group_by_expert(
                    m: Int64(m), k: Int64(k), chosen: numbers.pointer, weights: factors.pointer, first: Int64(first),
                    experts: Int64(experts), start: start.pointer, rows: rows.pointer,
                    slot_weights: slotWeights.pointer, slots: slots.pointer)
                unsafe call(
                    level.table.group_by_expert, parameters,
                    keeping: [numbers, factors, start, rows, slots, slotWeights])
                #expect(
                    start.values == (0...experts).map { e in Int32(here.count { Int(chosen[$0]) < first + e }) })
                #expect(rows.values.prefix(here.count).elementsEqual(sorted.map { Int32($0 / k) }))
                #expect(slotWeights.values.prefix(here.count).elementsEqual(sorted.map { weights[$0] }))
                let expected = chosen.indices.map { pair in Int32(sorted.firstIndex(of: pair) ?? -1) }
                #expect(slots.values == expected, "\(level.name)")
            }
        }
    }

    @Test
    func `a row is sent once to each rank that holds one of its experts`() {
        var dice = Dice(seed: 46)
        for _ in 0..<200 {
            let (m, k, places, copies) = (dice.int(0...12), dice.int(1...5), dice.int(1...5), dice.int(1...3))
            let bounds = [0] + (0..<places).map { _ in Int32(dice.int(0...20)) }.sorted()
            let strange: [Int32] = [-1, .min, .max, 1 << 30]
            let chosen = (0..<m * k).map { _ in
                dice.int(0...9) == 0 ? strange.randomElement(using: &dice)! : Int32(dice.int(0...20))
            }
            let going = (0..<places).map { place in
                (0..<m).filter { row in
                    chosen[row * k..<(row + 1) * k].contains { $0 >= bounds[place] && $0 < bounds[place + 1] }
                }
            }
            let order = going.flatMap { Array(repeating: $0, count: copies).joined().map { Int32($0) } }
            let numbers = going.enumerated().flatMap { place, rows in rows.map { (place, $0) } }
            let slots = (0..<m * places).map { index in
                Int32(numbers.firstIndex { $0 == (index % places, index / places) } ?? -1)
            }
            for level in KernelLevel.all {
                let (experts, limits) = (Guarded(chosen), Guarded(bounds))
                let counts = Guarded(repeating: Int32(-7), count: places)
                let rows = Guarded(repeating: Int32(-7), count: places * copies * m)
                let found = Guarded(repeating: Int32(-7), count: m * places)
                let parameters = unsafe braid_dispatch(
                    m: Int64(m), k: Int64(k), places: Int64(places), copies: Int64(copies), chosen: experts.pointer,
                    bounds: limits.pointer, counts: counts.pointer, rows: rows.pointer, slots: found.pointer)
                unsafe call(level.table.dispatch, parameters, keeping: [experts, limits, counts, rows, found])
                #expect(counts.values == going.map { Int32($0.count) }, "\(level.name)")
                #expect(Array(rows.values.prefix(order.count)) == order, "\(level.name)")
                #expect(found.values == slots, "\(level.name)")
            }
        }
    }

    // MARK: - Sums of ranks

    private struct Combination {
        var m: Int, n: Int, parts: Int, stride: Int
        var y: [Float], slots: [Int32], outStride: Int

        func run(_ level: KernelLevel) -> [Float] {
            let (partial, places) = (Guarded(y), Guarded(slots))
            let out = output(m, width: n, stride: outStride)
            let parameters = unsafe braid_combine(
                m: Int64(m), n: Int64(n), parts: Int64(parts), y: partial.pointer, y_stride: Int64(stride),
                slots: places.pointer, out: out.pointer, out_stride: Int64(outStride))
            unsafe call(level.table.combine_experts, parameters, keeping: [partial, places, out])
            return out.values
        }
    }

    private func combination(_ dice: inout Dice, wild: Bool = false) -> Combination {
        let (m, parts) = (dice.int(0...7), dice.int(1...20))
        let n = dice.flag() ? dice.int(1...40) : dice.int(1...300)
        let stride = n + dice.int(0...9)
        return Combination(
            m: m, n: n, parts: parts, stride: stride, y: dice.rows(m * parts, width: n, stride: stride, wild: wild),
            slots: (0..<m * parts).shuffled(using: &dice).map { dice.int(0...3) == 0 ? -1 : Int32($0) },
            outStride: n + dice.int(0...9))
    }

    @Test
    func `every level sums parts with the bits of the reference`() {
        var dice = Dice(seed: 44)
        for i in 0..<300 {
            let example = combination(&dice, wild: i % 3 == 0)
            let expected = example.run(.reference)
            #expect(isUntouchedBetweenRows(expected, width: example.n, stride: example.outStride))
            for level in KernelLevel.fast {
                #expect(firstDifference(example.run(level), expected) == nil, "\(level.name)")
            }
        }
    }

    @Test
    func `parts are summed as a balanced tree`() {
        var dice = Dice(seed: 45)
        func tree(_ leaves: ArraySlice<Float>) -> Float {
            if leaves.count == 1 { return 0 + leaves.first! }
            let middle = leaves.startIndex + leaves.count / 2
            let (left, right) = (tree(leaves[..<middle]), tree(leaves[middle...]))
            return left + right
        }
        for _ in 0..<100 {
            let example = combination(&dice)
            let found = example.run(.reference)
            var leaves = 1
            while leaves < example.parts { leaves *= 2 }
            for r in 0..<example.m {
                for column in 0..<example.n {
                    let parts = (0..<leaves).map { part -> Float in
                        let slot = part < example.parts ? Int(example.slots[r * example.parts + part]) : -1
                        return slot < 0 ? 0 : example.y[slot * example.stride + column]
                    }
                    #expect(found[r * example.outStride + column].bitPattern == tree(parts[...]).bitPattern)
                }
            }
        }
    }

    @Test
    func `nothing and negative zeros sum to plus zero`() {
        for level in KernelLevel.all {
            var example = Combination(
                m: 1, n: 19, parts: 3, stride: 19, y: [Float](repeating: -0.0, count: 57), slots: [0, 1, 2],
                outStride: 19)
            #expect(example.run(level).allSatisfy { $0.bitPattern == 0 })
            example.slots = [-1, -1, -1]
            #expect(example.run(level).allSatisfy { $0.bitPattern == 0 })
        }
    }
}
