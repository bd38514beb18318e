import Tensors
import TestSupport

/// Runs operations on operands of random shapes, and collects all that they write.
enum SharedOperation: CaseIterable {
    case matmul, slicedMatmul, batchedMatmul, embedding, rmsNorm, layerNorm, rope, add, copyRows, swiglu, store
    case hadamard, gate, experts, combineExperts
    case indexScores, topK, attention, attentionOfFewRows, mergeAttention
    case streamMix, readStreams, writeStreams, compressEntries, applySink

    /// Returns the bits that the operation writes; the operands are the same for the same seed.
    func run(_ kernels: Kernels, seed: UInt64) -> [UInt32] {
        var bench = Bench(kernels, seed: seed)
        switch self {
        case .matmul: return bench.matmul()
        case .slicedMatmul: return bench.slicedMatmul()
        case .batchedMatmul: return bench.batchedMatmul()
        case .embedding: return bench.embedding()
        case .rmsNorm, .layerNorm, .add, .swiglu, .hadamard, .rope: return bench.rowOperation(self)
        case .store: return bench.store()
        case .gate: return bench.gate()
        case .copyRows: return bench.copyRows()
        case .experts: return bench.experts()
        case .combineExperts: return bench.combineExperts()
        case .indexScores: return bench.indexScores()
        case .topK: return bench.topK()
        case .attention: return bench.attention(rows: 3...24)
        case .attentionOfFewRows: return bench.attention(rows: 1...3)
        case .mergeAttention: return bench.mergeAttention()
        case .streamMix, .readStreams, .writeStreams: return bench.streams(self)
        case .compressEntries: return bench.compressEntries()
        case .applySink: return bench.applySink()
        }
    }
}

/// Creates operands of random shapes, most of them parts of something larger.
private struct Bench {
    private let kernels: Kernels
    private let scratch = Scratch(bytes: 1 << 32)
    private var dice: Dice

    init(_ kernels: Kernels, seed: UInt64) {
        self.kernels = kernels
        dice = Dice(seed: seed)
    }

    private mutating func view(_ rows: Int, _ columns: Int, packed: Bool = false) -> View {
        let before = packed ? 0 : dice.int(0...3)
        let wide = scratch.rows(rows, columns + 2 * before)
        wide.fill(untouched)
        let view = wide.columns(before..<before + columns)
        for row in 0..<rows {
            for column in 0..<columns { view[row, column] = dice.float() }
        }
        return view
    }

    private func room(_ rows: Int, _ columns: Int) -> View {
        let room = scratch.rows(rows, columns)
        room.fill(untouched)
        return room
    }

    private func indices(_ values: [Int]) -> Indices {
        let indices = scratch.indices(values.count)
        indices.copy(values.map { Int32($0) })
        return indices
    }

    private func computed(_ values: [Int]) -> ComputedIndices { ComputedIndices(indices(values)) }

    private mutating func weight(_ rows: Int, _ columns: Int) -> OwnedWeight {
        let types = DType.allCases.filter { $0 != .fp4 || columns % 2 == 0 }
        return OwnedWeight(&dice, rows: rows, columns: columns, dtype: types.randomElement(using: &dice)!, scratch)
    }

    mutating func matmul() -> [UInt32] {
        // Each has enough outputs to be cut by them, or enough rows.
        let (m, n) = dice.flag() ? (dice.int(1...30), dice.int(300...700)) : (dice.int(20...90), dice.int(1...60))
        let (k, transposed) = (dice.int(1...90), dice.int(0...2) == 0)
        let w = transposed ? weight(k, n) : weight(n, k)
        let x = view(m, k)
        let gathered = dice.flag() ? indices((0..<m).map { _ in dice.int(0...m - 1) }) : nil
        let scattered = dice.flag() ? indices((0..<m).shuffled(using: &dice)) : nil
        let out = view(m, n)
        withExtendedLifetime(w) {
            kernels.matmul(
                x, w.weight, transposed: transposed, accumulate: dice.flag(), xRows: gathered, outRows: scattered,
                into: out, scratch)
        }
        return bits(out.elements)
    }

    mutating func slicedMatmul() -> [UInt32] {
        let (m, n, k) = (dice.int(1...30), dice.int(300...700), dice.int(1...12) * 8)
        let (x, w, out) = (view(m, k), weight(n, k), room(m, n))
        withExtendedLifetime(w) { kernels.slicedMatmul(x, w.weight, slices: 8, into: out, scratch) }
        return bits(out.elements)
    }

    mutating func batchedMatmul() -> [UInt32] {
        let (m, count, transposed) = (dice.int(1...60), dice.int(1...9), dice.flag())
        let (wide, before, inner) = (dice.int(1...70), dice.int(0...9), dice.int(1...50))
        let (k, n) = transposed ? (inner, wide) : (wide, inner)
        let w = weight(count * (before + inner + dice.int(0...9)), wide)
        let x = view(m, count * (k + dice.int(0...5)))
        let out = room(m, count * (n + dice.int(0...5)))
        withExtendedLifetime(w) {
            kernels.batchedMatmul(
                x, w.weight, rows: before..<before + inner, transposed: transposed, count: count, into: out, scratch)
        }
        return bits(out.elements)
    }

    mutating func copyRows() -> [UInt32] {
        let (rows, pieces, width) = (dice.int(1...40), dice.int(1...5), dice.int(1...300))
        let (before, behind) = (dice.int(0...5), dice.int(0...5))
        let x = view(rows, pieces * (before + width + behind))
        let out = room(rows, pieces * (behind + width + before))
        let gathered = dice.flag() ? computed((0..<rows).map { _ in dice.int(0...rows - 1) }) : nil
        let scattered = dice.flag() ? computed((0..<rows).shuffled(using: &dice)) : nil
        kernels.copyRows(
            x, pieces: pieces, columns: before..<before + width, xRows: gathered, into: out, at: behind,
            outRows: scattered)
        return bits(out.elements)
    }

    mutating func embedding() -> [UInt32] {
        let (w, ids) = (weight(50, 70), indices((0..<dice.int(1...40)).map { _ in dice.int(0...49) }))
        let out = room(ids.count, 70)
        withExtendedLifetime(w) { kernels.embedding(w.weight, ids, into: out) }
        return bits(out.elements)
    }

    mutating func rowOperation(_ operation: SharedOperation) -> [UInt32] {
        let (rows, heads, width) = (dice.int(1...40), dice.int(1...4), 1 << dice.int(1...6))
        let columns = heads * width
        let (x, y, out) = (view(rows, columns), view(rows, columns), room(rows, columns))
        let (weight, bias) = (view(1, columns, packed: true), view(1, columns, packed: true))
        switch operation {
        case .rmsNorm: kernels.rmsNorm(x, weight, epsilon: 1e-5, into: out)
        case .layerNorm: kernels.layerNorm(x, weight, bias, epsilon: 1e-5, into: out)
        case .add: kernels.add(x, y, into: out)
        case .swiglu:
            kernels.swiglu(
                x, y, rowWeights: dice.flag() ? view(1, rows, packed: true) : nil, limit: dice.flag() ? 1 : .infinity,
                into: out)
        case .hadamard: kernels.hadamard(x, heads: heads)
        default:
            let angles = RotaryAngles(
                cosine: view(rows, width / 2, packed: true), sine: view(rows, width / 2, packed: true))
            kernels.rope(
                x, heads: heads, headStride: width, interleaved: dice.flag(),
                dice.flag() ? angles : angles.inverse)
        }
        return bits(x.elements + out.elements)
    }

    mutating func streams(_ operation: SharedOperation) -> [UInt32] {
        let (rows, hidden) = (dice.int(1...40), dice.int(1...60))
        let (count, readsOnly) = (dice.flag() ? 4 : dice.int(1...8), operation != .writeStreams && dice.flag())
        let mixes = view(rows, readsOnly ? count : (2 + count) * count)
        let (streams, x) = (view(rows, count * hidden), view(rows, hidden))
        switch operation {
        case .streamMix:
            kernels.streamMix(
                mixes, of: streams, scale: view(1, readsOnly ? 1 : 3, packed: true),
                base: view(1, mixes.columns, packed: true), count: count, rounds: 3, normEpsilon: 1e-6, epsilon: 1e-6)
        case .readStreams: kernels.readStreams(streams, mixes, count: count, into: x)
        default: kernels.writeStreams(x, mixes, count: count, into: streams)
        }
        return bits(mixes.elements + streams.elements + x.elements)
    }

    mutating func compressEntries() -> [UInt32] {
        let (entries, halves, width) = (dice.int(1...20), dice.int(1...2), dice.int(1...60))
        let slots = halves * dice.int(1...9)
        let out = room(entries, width)
        kernels.compressEntries(
            view(entries * slots, 2 * halves * width), slots: slots, halves: halves,
            ape: view(slots / halves, halves * width, packed: true), into: out)
        return bits(out.elements)
    }

    mutating func gate() -> [UInt32] {
        let (rows, size, groups) = (dice.int(1...40), dice.int(2...8), 1 << dice.int(0...3))
        let rule = GateRule(
            experts: groups * size, expertsPerToken: dice.int(1...size), groups: groups, topGroups: 1 + groups / 2,
            normalize: dice.flag(), scaling: 2.5, scoring: dice.flag() ? .sigmoid : .sqrtSoftplus)
        let chosen = computed(Array(repeating: -1, count: rows * rule.expertsPerToken))
        let weights = room(rows, rule.expertsPerToken)
        kernels.gate(
            view(rows, rule.experts), bias: dice.flag() ? view(1, rule.experts, packed: true) : nil, rule,
            chosen: chosen, weights: weights)
        let givenWeights = room(rows, rule.expertsPerToken)
        kernels.gate(view(rows, rule.experts), ofExperts: chosen, rule, weights: givenWeights)
        return chosen.elements.map { UInt32(bitPattern: $0) } + bits(weights.elements + givenWeights.elements)
    }

    mutating func experts() -> [UInt32] {
        let (rows, perRow, hidden) = (dice.int(1...20), dice.int(1...4), dice.int(600...900))
        let (width, slices) = (dice.flag() ? 128 : 32, 1 << dice.int(0...3))
        let owned = (0..<8).map { _ in (weight(width, hidden), weight(width, hidden), weight(hidden, width)) }
        let experts = ExpertWeights(owned.map { ($0.weight, $1.weight, $2.weight) })
        let chosen = computed(
            (0..<rows).flatMap { _ in (0..<8).shuffled(using: &dice).prefix(perRow).sorted() })
        let x = view(rows, hidden)
        let here = dice.flag() ? 0..<8 : 2..<7
        let trees = 1 << dice.int(0...2)
        let (values, sums) = (room(rows * perRow, width), room(trees * rows, hidden))
        withExtendedLifetime(owned) {
            let slots = kernels.groupByExpert(
                chosen, view(rows, perRow, packed: true), experts: here, scratch)
            kernels.expertHidden(x, experts, slots, columns: 0..<width, limit: 1, into: values, scratch)
            kernels.expertSums(
                values, experts, slots, columns: 0..<width, slices: slices, ExpertGroups(of: 2, 0..<4, trees: trees),
                into: sums, scratch)
        }
        return bits(values.elements + sums.elements)
    }

    mutating func combineExperts() -> [UInt32] {
        let (rows, parts, columns) = (dice.int(1...20), dice.int(1...9), 700)
        let slots = (0..<rows * parts).shuffled(using: &dice).map { dice.int(0...5) == 0 ? -1 : $0 }
        let out = room(rows, columns)
        kernels.combineExperts(view(rows * parts, columns), slots: computed(slots), into: out)
        return bits(out.elements)
    }

    // MARK: - Caches

    /// Creates a lane of `positions` random entries on shuffled pages of four.
    private mutating func lane(_ width: Int, positions: Int, _ pages: PageMap) -> (CacheLane, Guarded<UInt8>) {
        let (dtype, group) = ([DType.f32, .bf16, .fp8].randomElement(using: &dice)!, 16)
        let scaleType = ScaleType.allCases.randomElement(using: &dice)!
        let bytes = CacheLane.entryBytes(dtype, width: width, group: group, scaleType: scaleType)
        let memory = Guarded(repeating: UInt8(0xFF), count: pages.capacity * bytes)
        let lane = unsafe CacheLane(
            memory.pointer, dtype: dtype, width: width, group: group, scaleType: scaleType, entries: pages.capacity)
        let slots = indices((0..<positions).map { Int(pages.slot(of: $0)) })
        Kernels.best.store(view(positions, width), slots: slots, in: lane)
        return (lane, memory)
    }

    private mutating func pages(for positions: Int) -> PageMap {
        PageMap(pages: indices((0..<(positions + 3) / 4).shuffled(using: &dice)), shift: 2)
    }

    mutating func store() -> [UInt32] {
        let (rows, map) = (dice.int(1...40), pages(for: 40))
        let (lane, memory) = lane(32, positions: 40, map)
        let slots = (0..<40).shuffled(using: &dice).prefix(rows).map { dice.int(0...5) == 0 ? -1 : $0 }
        kernels.store(view(rows, 32), slots: indices(slots), in: lane)
        return memory.values.map { UInt32($0) }
    }

    mutating func indexScores() -> [UInt32] {
        let (rows, heads, width, positions) = (dice.int(1...9), dice.int(1...4), 16 * dice.int(1...3), 2000)
        let map = pages(for: positions)
        let (lane, memory) = lane(width, positions: positions, map)
        let owned = dice.flag() ? ShardPositions.all : ShardPositions(ranks: 2, unit: dice.int(1...3), rank: 1)
        let out = room(rows, dice.int(1...positions / owned.ranks - 4))
        withExtendedLifetime(memory) {
            kernels.indexScores(
                view(rows, heads * width, packed: true), weights: view(rows, heads, packed: true), keys: lane, map,
                owned: owned, into: out, scratch)
        }
        return bits(out.elements)
    }

    mutating func topK() -> [UInt32] {
        let (rows, columns, k) = (dice.int(1...20), dice.int(50...200), dice.int(1...40))
        let scores = view(rows, columns)
        let visible = indices((0..<rows).map { _ in dice.int(1...columns) })
        let positions = computed(Array(repeating: -1, count: rows * k))
        let selection = Selection(positions: positions, stride: k, counts: computed(Array(repeating: -1, count: rows)))
        kernels.topK(scores, visible: visible, into: selection, scratch)
        return (positions.elements + selection.counts.elements).map { UInt32(bitPattern: $0) }
    }

    mutating func attention(rows: ClosedRange<Int>) -> [UInt32] {
        let (rows, heads, positions) = (dice.int(rows), dice.int(1...30), 120)
        let (latentWidth, ropeWidth) = (dice.int(1...4) * 16, 16)
        let map = pages(for: positions)
        let (latent, latents) = lane(latentWidth, positions: positions, map)
        let (rope, ropes) = lane(ropeWidth, positions: positions, map)
        let seen = (0..<rows).map { _ in dice.int(40...positions - 1) }.sorted()
        var selection: Selection?
        if dice.flag() {
            let counts = (0..<rows).map { _ in dice.int(0...30) }
            let chosen = zip(seen, counts).flatMap { last, count in
                (0...last).shuffled(using: &dice).prefix(count).sorted() + Array(repeating: 0, count: 30 - count)
            }
            selection = Selection(positions: computed(chosen), stride: 30, counts: computed(counts))
        }
        let classes = 1 << dice.int(0...3)
        let whole = dice.flag()
        let (out, logSumExp) = (room(rows, heads * (latentWidth + (whole ? ropeWidth : 0))), room(rows, heads))
        withExtendedLifetime((latents, ropes)) {
            kernels.attention(
                view(rows, heads * (latentWidth + ropeWidth)), heads: heads, scale: 0.1, latent: latent, rope: rope,
                valuesIncludeRotary: whole, map, positions: indices(seen), selection: selection,
                classes: (classes, dice.int(0...classes - 1)), into: out, logSumExp: logSumExp, scratch)
        }
        return bits(out.elements + logSumExp.elements)
    }

    mutating func applySink() -> [UInt32] {
        let (rows, heads, width) = (dice.int(1...30), dice.int(1...5), dice.int(1...40))
        let values = view(rows, heads * width)
        kernels.applySink(values, view(rows, heads, packed: true), sinks: view(1, heads, packed: true))
        return bits(values.elements)
    }

    mutating func mergeAttention() -> [UInt32] {
        let (rows, heads, width) = (dice.int(1...30), dice.int(1...5), dice.int(1...40))
        let (a, sumA) = (view(rows, heads * width, packed: true), view(rows, heads, packed: true))
        let (b, sumB) = (view(rows, heads * width, packed: true), view(rows, heads, packed: true))
        kernels.mergeAttention(a, sumA, with: b, sumB)
        return bits(a.elements + sumA.elements)
    }
}
