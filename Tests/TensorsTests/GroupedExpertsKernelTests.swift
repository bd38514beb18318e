import CKernels
import Testing

/// Tests the hidden values of grouped experts, and the sums of their outputs.
struct GroupedExpertsKernelTests {
    /// Holds a rank's experts, and rows that chose some of them and others.
    private struct Case {
        let m: Int, k: Int, hidden: Int, width: Int
        let expertsPerGroup: Int, firstGroup: Int, groups: Int
        var trees: Int
        let slices: Int
        /// The experts of this rank.
        let first: Int, count: Int
        /// The part of the width that is used.
        let columns: Range<Int>
        let gate: [StoredMatrix], up: [StoredMatrix], down: [StoredMatrix]
        let x: [Float], xStride: Int
        let start: [Int32], rows: [Int32], weights: [Float]
        var slots: [Int32]
        let gemvMaxRows: Int64
        let limit: Float
        var profile: braid_profile

        init(_ dice: inout Dice, dtype: braid_dtype, rows: ClosedRange<Int>, wild: Bool = false) {
            m = dice.int(rows)
            hidden = dice.flag() ? dice.int(1...5) * 16 : dice.int(1...150)
            slices = 1 << dice.int(0...3)
            let each = dice.flag() ? dice.int(1...40) : 64
            width = each * slices + dice.int(0...9)
            let firstColumn = dice.int(0...width - each * slices)
            columns = firstColumn..<firstColumn + each * slices
            expertsPerGroup = dice.int(1...4)
            groups = 1 << dice.int(0...3)
            firstGroup = dice.int(0...2)
            trees = 1 << dice.int(0...groups.trailingZeroBitCount)
            // Either whole groups, or a part of one or more groups.
            let all = firstGroup * expertsPerGroup..<(firstGroup + groups) * expertsPerGroup
            let isWhole = dice.flag()
            first = isWhole ? all.lowerBound : dice.int(all.lowerBound...all.upperBound - 1)
            count = isWhole ? all.count : dice.int(1...all.upperBound - first)
            let perRow = dice.int(1...min(6, all.upperBound))
            k = perRow
            func matrices(_ count: Int, _ rows: Int, _ columns: Int) -> [StoredMatrix] {
                (0..<count).map { _ in StoredMatrix(&dice, rows: rows, columns: columns, dtype: dtype, wild: wild) }
            }
            (gate, up) = (matrices(count, width, hidden), matrices(count, width, hidden))
            down = matrices(count, hidden, width)
            xStride = hidden + dice.int(0...4)
            x = dice.rows(m, width: hidden, stride: xStride, wild: wild)
            // Some experts get most of the rows, and others none.
            let popular = (0..<all.upperBound).shuffled(using: &dice)
            let chosen = (0..<m).map { _ in
                (dice.flag() ? popular.prefix(perRow + 1).shuffled(using: &dice) : popular.shuffled(using: &dice))
                    .prefix(perRow).sorted()
            }
            let here = first..<first + count
            let chosenHere = here.map { e in
                chosen.indices.filter { chosen[$0].contains(e) }
            }
            let starts = chosenHere.reduce(into: [Int32(0)]) { $0.append($0.last! + Int32($1.count)) }
            start = starts
            self.rows = chosenHere.joined().map { Int32($0) }
            slots = chosen.enumerated().flatMap { row, experts in
                experts.map { e -> Int32 in
                    guard here.contains(e) else { return -1 }
                    return starts[e - here.lowerBound]
                        + Int32(chosenHere[e - here.lowerBound].firstIndex(of: row)!)
                }
            }
            weights = dice.rows(1, width: Int(starts.last!), stride: max(Int(starts.last!), 1), wild: wild)
            gemvMaxRows = dice.flag() ? 0 : Int64(dice.int(1...40))
            limit = dice.flag() ? .infinity : Float(dice.int(0...8))
            profile = dice.profile()
        }

        var description: String {
            "\(m) rows, profile \(profile.rawValue), \(hidden) × \(width), columns \(columns) in \(slices), experts \(first)+\(count) of \(groups) × \(expertsPerGroup)"
        }

        private func table() -> Guarded<braid_expert> {
            unsafe Guarded(
                (0..<count).map {
                    unsafe braid_expert(gate: gate[$0].weight, up: up[$0].weight, down: down[$0].weight)
                })
        }

        private var few: (Int64, Int64, Int64, Int64, Int64) {
            (gemvMaxRows, gemvMaxRows, gemvMaxRows, gemvMaxRows, gemvMaxRows)
        }

        /// `[slots, columns]`, packed.
        func hiddenValues(_ level: KernelLevel) -> [Float] {
            let (experts, n) = unsafe (table(), columns.count)
            let (input, starts, list, factors) = (Guarded(x), Guarded(start), Guarded(rows), Guarded(weights))
            let fullest = zip(start, start.dropFirst()).map { Int($1 - $0) }.max()!
            let room = scratch(Int(BRAID_MATMUL_SCRATCH) + fullest * n)
            let out = output(rows.count, width: n, stride: n)
            let parameters = unsafe braid_expert_hidden(
                experts: experts.pointer, count: Int64(count), profile: profile,
                first_column: Int64(columns.lowerBound), n: Int64(n),
                k: Int64(hidden), x: input.pointer, x_stride: Int64(xStride), start: starts.pointer, rows: list.pointer,
                slot_weights: factors.pointer, limit: limit, out: out.pointer, out_stride: Int64(n),
                gemv_max_rows: few, scratch: room.pointer)
            unsafe call(
                level.table.expert_hidden, parameters,
                keeping: [experts, input, starts, list, factors, room, out] + gate + up)
            return out.values
        }

        /// `[trees * m, outputs]`, packed, of hidden values `[slots, columns]`.
        func sums(_ level: KernelLevel, _ values: [Float], outputs: Range<Int>? = nil) -> [Float] {
            let (experts, outputs) = unsafe (table(), outputs ?? 0..<hidden)
            let (inner, starts, places) = (Guarded(values), Guarded(start), Guarded(slots))
            let room = scratch(Int(braid_expert_scratch(Int64(m), Int64(k), Int64(slices))))
            let out = output(trees * m, width: outputs.count, stride: outputs.count)
            let parameters = unsafe braid_expert_sums(
                experts: experts.pointer, count: Int64(count), first_expert: Int64(first),
                profile: profile,
                experts_per_group: Int64(expertsPerGroup), first_group: Int64(firstGroup), groups: Int64(groups),
                trees: Int64(trees), first_output: Int64(outputs.lowerBound), n: Int64(outputs.count),
                first_column: Int64(columns.lowerBound), width: Int64(columns.count), slices: Int64(slices),
                m: Int64(m), k: Int64(k), hidden: inner.pointer, hidden_stride: Int64(columns.count),
                start: starts.pointer, slots: places.pointer, out: out.pointer, out_stride: Int64(outputs.count),
                gemv_max_rows: few, scratch: room.pointer)
            unsafe call(
                level.table.expert_sums, parameters, keeping: [experts, inner, starts, places, room, out] + down)
            return out.values
        }
    }

    @Test(arguments: braid_dtype.all)
    func `every level computes hidden values with the bits of the reference`(dtype: braid_dtype) {
        var dice = Dice(seed: 60 + UInt64(dtype.rawValue))
        for i in 0..<40 {
            let example = Case(&dice, dtype: dtype, rows: i % 4 == 0 ? 0...70 : 0...9, wild: i % 5 == 0)
            let expected = example.hiddenValues(.reference)
            for level in KernelLevel.fast {
                let found = example.hiddenValues(level)
                #expect(firstDifference(found, expected) == nil, "\(level.name), \(example.description)")
            }
        }
    }

    @Test(arguments: braid_dtype.all)
    func `every level sums experts with the bits of the reference`(dtype: braid_dtype) {
        var dice = Dice(seed: 70 + UInt64(dtype.rawValue))
        for i in 0..<40 {
            let example = Case(&dice, dtype: dtype, rows: i % 4 == 0 ? 0...70 : 0...9, wild: i % 5 == 0)
            let hidden = dice.rows(
                example.rows.count, width: example.columns.count, stride: example.columns.count, wild: i % 5 == 0)
            let expected = example.sums(.reference, hidden)
            for level in KernelLevel.fast {
                let found = example.sums(level, hidden)
                #expect(firstDifference(found, expected) == nil, "\(level.name), \(example.description)")
            }
        }
    }

    @Test
    func `many rows of few experts are summed block by block with the same bits`() {
        var dice = Dice(seed: 80)
        // There are more partial outputs than a block is meant for, so that blocks are as narrow as allowed.
        let example = Case(&dice, dtype: BRAID_BF16, rows: 700...700)
        let hidden = dice.rows(
            example.rows.count, width: example.columns.count, stride: example.columns.count)
        let expected = example.sums(.reference, hidden)
        for level in KernelLevel.fast {
            #expect(firstDifference(example.sums(level, hidden), expected) == nil, "\(level.name)")
        }
    }

    @Test
    func `the experts' sum is what its formula says`() {
        var dice = Dice(seed: 81)
        for _ in 0..<40 {
            var example = Case(&dice, dtype: BRAID_F32, rows: 1...7)
            example.profile = BRAID_PROFILE_F32
            let (n, perTree) = (example.columns.count, example.groups / example.trees)
            let hidden = dice.rows(example.rows.count, width: n, stride: n)
            let found = example.sums(.reference, hidden)
            for index in found.indices {
                let (row, output) = (index / example.hidden, index % example.hidden)
                let groups = example.firstGroup + row / example.m * perTree
                var (expected, magnitude) = (0.0, 0.0)
                for slot in example.slots[row % example.m * example.k..<(row % example.m + 1) * example.k]
                where slot >= 0 {
                    let e = example.start.lastIndex { $0 <= slot }!
                    let group = (example.first + e) / example.expertsPerGroup
                    guard (groups..<groups + perTree).contains(group) else { continue }
                    for column in 0..<n {
                        let weight = example.down[e].values[
                            output * example.width + example.columns.lowerBound + column]
                        let term = Double(hidden[Int(slot) * n + column]) * Double(weight)
                        expected += term
                        magnitude += abs(term)
                    }
                }
                #expect(abs(Double(found[index]) - expected) <= Double(n + 16) * rounding * magnitude)
            }
        }
    }

    @Test
    func `outputs that are computed apart have the bits of those computed together`() {
        var dice = Dice(seed: 82)
        for _ in 0..<20 {
            let example = Case(&dice, dtype: BRAID_FP8, rows: 1...40)
            let hidden = dice.rows(
                example.rows.count, width: example.columns.count, stride: example.columns.count)
            let middle = dice.int(0...example.hidden)
            for level in KernelLevel.all {
                let whole = example.sums(level, hidden)
                let left = example.sums(level, hidden, outputs: 0..<middle)
                let right = example.sums(level, hidden, outputs: middle..<example.hidden)
                let rest = example.hidden - middle
                let together = (0..<example.trees * example.m).flatMap { row -> [Float] in
                    Array(left[row * middle..<(row + 1) * middle]) + Array(right[row * rest..<(row + 1) * rest])
                }
                #expect(firstDifference(together, whole) == nil, "\(level.name), \(example.description)")
            }
        }
    }

    @Test
    func `the sums of trees over groups add up to the bits of one tree`() {
        var dice = Dice(seed: 83)
        for _ in 0..<40 {
            var example = Case(&dice, dtype: BRAID_BF16, rows: 1...9)
            let hidden = dice.rows(
                example.rows.count, width: example.columns.count, stride: example.columns.count)
            for level in KernelLevel.all {
                example.trees = 1
                let whole = example.sums(level, hidden)
                example.trees = example.groups
                var parts = example.sums(level, hidden)
                while parts.count > whole.count {
                    parts = (0..<parts.count / whole.count / 2).flatMap { pair in
                        (0..<whole.count).map {
                            parts[2 * pair * whole.count + $0] + parts[(2 * pair + 1) * whole.count + $0]
                        }
                    }
                }
                #expect(firstDifference(parts, whole) == nil, "\(level.name), \(example.description)")
            }
        }
    }

    @Test
    func `sums without a local expert are plus zero, and so are negative zeros`() {
        var dice = Dice(seed: 84)
        for level in KernelLevel.all {
            var example = Case(&dice, dtype: BRAID_F32, rows: 3...3)
            let zeros = [Float](repeating: -0.0, count: example.rows.count * example.columns.count)
            #expect(example.sums(level, zeros).allSatisfy { $0.bitPattern == 0 })
            example.slots = example.slots.map { _ in -1 }
            #expect(example.sums(level, zeros).allSatisfy { $0.bitPattern == 0 })
        }
    }
}
