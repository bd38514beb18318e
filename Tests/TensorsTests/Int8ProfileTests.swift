import CKernels
import Tensors
import TestSupport
import Testing

/// Tests what the INT8 profiles compute where weights are INT8, by the definition in `profile.h`, and that every level
/// computes it alike.
struct Int8ProfileTests {
    /// A product of packed rows with a part of an INT8 matrix.
    private struct Product {
        let m: Int, n: Int, k: Int
        let x: [Float]
        /// `[n, k]`.
        let weights: [Int8]
        /// Where the part begins in the whole matrix, and the binary logarithms of the rows and columns of its blocks.
        var row = 0, column = 0
        var shifts = (row: 0, column: Int(BRAID_WHOLE_SHIFT))
        let scales: [Float]
        var profile = BRAID_PROFILE_INT8
        /// What sums begin with, as `accumulate` does; `nil` for +0.
        var first: [Float]?
        var gemvMaxRows = 0
        /// How activations are rounded where that is fixed; `nil` if their own numbers decide.
        var rounding: Rounding?

        init(m: Int, n: Int, k: Int, x: [Float], weights: [Int8], scales: [Float]) {
            (self.m, self.n, self.k, self.x, self.weights, self.scales) = (m, n, k, x, weights, scales)
        }

        /// Draws a product whose weights have a scale per row, per block of 128 × 128, or per smaller block.
        init(_ dice: inout Dice, m: Int, n: Int, k: Int, _ numbers: BF16ProfileTests.Numbers) {
            (self.m, self.n, self.k) = (m, n, k)
            x = (0..<m * k).map { _ in numbers.draw(&dice) }
            weights = (0..<n * k).map { _ in Int8.random(in: -128...127, using: &dice) }
            let usual = [(0, Int(BRAID_WHOLE_SHIFT)), (7, 7)]
            shifts = (usual + [(dice.int(0...3), dice.int(0...6))]).randomElement(using: &dice)!
            (row, column) = dice.flag() ? (0, 0) : (dice.int(0...200), dice.int(0...200))
            let grid = ((row + n - 1) >> shifts.row + 1, (column + k - 1) >> shifts.column + 1)
            scales = (0..<grid.0 * grid.1).map { _ in dice.float() }
            profile = dice.flag() ? BRAID_PROFILE_INT8 : BRAID_PROFILE_INT8_F32
            if dice.flag() { first = (0..<m * n).map { _ in dice.float() } }
            gemvMaxRows = dice.flag() ? 0 : dice.int(1...40)
        }

        private var scaleStride: Int { (column + k - 1) >> shifts.column + 1 }

        func run(_ level: KernelLevel) -> [Float] {
            let stored = Guarded(weights.map { UInt8(bitPattern: $0) })
            let (input, scale, room) = (Guarded(x), Guarded(scales), scratch(Int(BRAID_MATMUL_SCRATCH)))
            let out = first.map { Guarded($0) } ?? output(m, width: n, stride: n)
            let corrections = Guarded((rounding?.biases ?? []).map { Int32(-$0) })
            var roundings: [braid_static_rounding] = unsafe []
            if let rounding {
                let value = unsafe braid_static_rounding(
                    scale: rounding.scale, offset: Int32(rounding.offset), corrections: corrections.pointer, parts: 1,
                    part_columns: Int64(k))
                unsafe roundings.append(value)
            }
            let fixed = unsafe Guarded(roundings)
            let weight = unsafe braid_weight(
                data: stored.pointer, dtype: BRAID_INT8, stride: Int64(k), scale: scale.pointer,
                scale_stride: Int64(scaleStride), row: Int64(row), column: Int64(column),
                row_shift: Int32(shifts.row), column_shift: Int32(shifts.column),
                rounding: rounding == nil ? nil : fixed.pointer)
            let parameters = unsafe braid_matmul(
                w: weight, profile: profile, transposed: false, accumulate: first != nil, m: Int64(m), n: Int64(n),
                k: Int64(k), x: input.pointer, x_stride: Int64(k), x_rows: nil, out: out.pointer,
                out_stride: Int64(n), out_rows: nil, gemv_max_rows: Int64(gemvMaxRows), scratch: room.pointer)
            unsafe call(level.table.matmul, parameters, keeping: [stored, input, scale, out, room, corrections, fixed])
            return out.values
        }

        /// Computes an output as the profile is defined, with integers of any size.
        func expected(_ r: Int, _ j: Int) -> Float {
            var (sum, from) = (first?[r * n + j] ?? 0, 0)
            while from < k {
                let end = min(k, segmentEnd(from))
                let terms = x[r * k + from..<r * k + end]
                let largest = terms.reduce(Float(0)) { $0.isNaN || $1.isNaN ? .nan : max($0, abs($1)) }
                var (step, integers) = (Float.nan, terms.map { _ in 0 })
                if largest.isFinite, let rounding {
                    step = rounding.scale
                    integers = terms.map { rounding.integer($0) - rounding.offset }
                } else if largest.isFinite {
                    step = largest < 0x1p-100 ? 0 : largest / 127
                    let inverse = 127 / largest
                    if step > 0 { integers = terms.map { Int(($0 * inverse).rounded(.toNearestOrEven)) } }
                }
                var total = zip(integers, weights[j * k + from..<j * k + end]).reduce(0) { $0 + $1.0 * Int($1.1) }
                if let rounding { total += rounding.bias(j, weights[j * k..<(j + 1) * k]) }
                let scale = scales[(row + j) >> shifts.row * scaleStride + (column + from) >> shifts.column]
                sum = sum.addingProduct(Float(total), step * scale)
                from = end
            }
            return sum
        }

        private func segmentEnd(_ from: Int) -> Int {
            let block = shifts.column < 16 ? 1 << shifts.column : 65_536
            return ((column + from) / block + 1) * block - column
        }
    }

    /// Rounding of activations that is the same for all rows.
    private struct Rounding {
        let scale: Float, offset: Int
        /// What is added to each sum of integers, as checkpoints store it: with what takes off the offset's part.
        let biases: [Int]

        func integer(_ x: Float) -> Int {
            Int(max(-128, min(127, x * (1 / scale) + Float(offset))).rounded(.toNearestOrEven))
        }

        /// Returns what is added to a row's sum of integers less their offset.
        func bias(_ row: Int, _ weights: ArraySlice<Int8>) -> Int {
            biases[row] + offset * weights.reduce(0) { $0 + Int($1) }
        }
    }

    /// Draws a product whose activations are rounded with one scale and offset.
    private func fixedProduct(_ dice: inout Dice, m: Int, n: Int, k: Int) -> Product {
        let weights = (0..<n * k).map { _ in Int8.random(in: -128...127, using: &dice) }
        let (scale, offset) = (Float(dice.int(1...40)) / 1000, dice.int(-128...127))
        var product = Product(
            m: m, n: n, k: k, x: (0..<m * k).map { _ in 4 * dice.float() }, weights: weights,
            scales: (0..<n).map { _ in abs(dice.float()) + 0.1 })
        product.rounding = Rounding(
            scale: scale, offset: offset,
            biases: (0..<n).map { row in
                let sum = weights[row * k..<(row + 1) * k].reduce(0) { $0 + Int($1) }
                return dice.int(-10...10) - offset * sum
            })
        if dice.flag() { product.first = (0..<m * n).map { _ in dice.float() } }
        product.gemvMaxRows = dice.flag() ? 0 : dice.int(1...40)
        return product
    }

    @Test(arguments: KernelLevel.all, [1, 2, 5, 17, 70])
    func `activations are rounded with the checkpoint's scale and offset`(level: KernelLevel, rows: Int) {
        var dice = Dice(seed: 93 + UInt64(rows))
        for k in [1, 30, 64, 97, 128, 640, 1000] {
            let product = fixedProduct(&dice, m: rows, n: dice.int(1...50), k: k)
            let expected = (0..<rows).flatMap { r in (0..<product.n).map { product.expected(r, $0) } }
            #expect(firstDifference(product.run(level), expected) == nil, "\(k) terms")
        }
    }

    @Test(arguments: KernelLevel.all)
    func `numbers beyond the scale become the largest integers, and rows of zeros the bias`(level: KernelLevel) {
        var product = Product(
            m: 3, n: 20, k: 64,
            x: .init(repeating: 1e30, count: 64) + .init(repeating: -1e30, count: 64)
                + .init(repeating: 0, count: 64), weights: .init(repeating: 2, count: 20 * 64),
            scales: .init(repeating: 0.5, count: 20))
        product.rounding = Rounding(scale: 0.25, offset: 100, biases: .init(repeating: 7 - 100 * 128, count: 20))
        let found = product.run(level)
        let integers: [Int] = [(127 - 100) * 128 + 7, (-128 - 100) * 128 + 7, 7]
        let expected = integers.map { Float($0) * 0.125 }
        #expect(found == expected.flatMap { [Float](repeating: $0, count: 20) })
    }

    @Test(arguments: Kernels.available.map(\.level), [1, 40])
    func `ranks add slices of rounded activations to the same bits`(level: Kernels.Level, rows: Int) {
        var dice = Dice(seed: 98)
        let (n, k) = (40, 8 * 64)
        var product = fixedProduct(&dice, m: rows, n: n, k: k)
        product.first = nil
        let (rounding, scratch) = (product.rounding!, Scratch(bytes: 64 << 20))
        let kernels = Kernels(level)!.computing(in: .int8)
        let (stored, scales) = (Guarded(product.weights.map { UInt8(bitPattern: $0) }), Guarded(product.scales))
        let fixed = unsafe product.weights.withUnsafeBufferPointer { weights in
            unsafe StaticRounding(
                scale: rounding.scale, offset: rounding.offset, weights: weights.baseAddress!, rows: n, columns: k,
                biases: rounding.biases)
        }
        let weight = unsafe Weight(
            UnsafeRawPointer(stored.pointer), dtype: .int8, rows: n, columns: k, scaling: .perRow,
            scale: UnsafeRawPointer(scales.pointer), rounding: fixed)
        let (x, out) = (scratch.rows(rows, k), scratch.rows(rows, n))
        for row in 0..<rows { for column in 0..<k { x[row, column] = product.x[row * k + column] } }
        kernels.slicedMatmul(x, weight, slices: 8, into: out, scratch)
        // What is taken off in all slices together is right: a product in one piece differs by roundings of F32 only.
        for r in 0..<rows {
            for j in 0..<n {
                let (found, exact) = (out.elements[r * n + j], product.expected(r, j))
                #expect(abs(found - exact) < 1e-4 * max(1, abs(exact)))
            }
        }
        // Two ranks have a half of the columns each, and four slices.
        let halves = (0..<2).map {
            part(of: weight, x, columns: $0 * k / 2..<($0 + 1) * k / 2, slices: 4, kernels, scratch)
        }
        #expect(firstDifference(zip(halves[0], halves[1]).map { $0 + $1 }, out.elements) == nil)
        // Ranks whose slices are not those of one rank have the same sums but for roundings of F32.
        for ranks in [16, 3] {
            let bounds = (0...ranks).map { $0 * k / ranks }
            let parts = zip(bounds, bounds.dropFirst()).map { from, to in
                part(of: weight, x, columns: from..<to, slices: 1, kernels, scratch)
            }
            for (index, found) in out.elements.enumerated() {
                let other = parts.reduce(0) { $0 + $1[index] }
                #expect(abs(other - found) < 1e-3 * max(1, abs(found)), "\(ranks) ranks")
            }
        }
    }

    /// Returns the sums that a rank with some of the columns computes.
    private func part(
        of weight: Weight, _ x: View, columns: Range<Int>, slices: Int, _ kernels: Kernels, _ scratch: Scratch
    ) -> [Float] {
        let out = scratch.rows(x.rows, weight.rows)
        kernels.slicedMatmul(x.columns(columns), weight.columns(columns), slices: slices, into: out, scratch)
        return out.elements
    }

    @Test(arguments: BF16ProfileTests.Numbers.allCases)
    func `every level adds numbers of every kind as the profile is defined`(numbers: BF16ProfileTests.Numbers) {
        var dice = Dice(seed: 90)
        for k in 1...97 {
            let product = Product(&dice, m: dice.int(1...65), n: dice.int(1...40), k: k, numbers)
            let expected = (0..<product.m).flatMap { r in (0..<product.n).map { product.expected(r, $0) } }
            for level in KernelLevel.all {
                #expect(firstDifference(product.run(level), expected) == nil, "\(level.name), \(k) terms")
            }
        }
    }

    @Test(arguments: [1, 3, 5, 64, 300])
    func `every level adds many terms of some rows as the profile is defined`(rows: Int) {
        var dice = Dice(seed: 91 + UInt64(rows))
        for k in [512, 1025, 7168] {
            let product = Product(&dice, m: rows, n: 50, k: k, .usual)
            let some = (0..<20).map { _ in (dice.int(0...rows - 1), dice.int(0...49)) }
            for level in KernelLevel.fast {
                let found = product.run(level)
                for (r, j) in some { #expect(found[r * 50 + j] == product.expected(r, j), "\(level.name), \(k) terms") }
            }
        }
    }

    @Test(arguments: KernelLevel.all, [1, 14])
    func `the largest integers do not overflow in the longest segments`(level: KernelLevel, rows: Int) {
        let k = 3 * Int(BRAID_INT8_SEGMENT) + 70
        var product = Product(
            m: rows, n: 2, k: k, x: .init(repeating: 1, count: rows * k),
            weights: .init(repeating: -128, count: k) + .init(repeating: 127, count: k), scales: [1, 1])
        for column in [0, 100] {
            product.column = column
            let found = product.run(level)
            #expect(found == (0..<rows).flatMap { r in (0..<2).map { product.expected(r, $0) } })
            // One of x is 127 steps, so that sums are near those of the weights.
            #expect(abs(found[0] + 128 * Float(k)) < 128 * Float(k) * 1e-6)
        }
    }

    @Test(arguments: KernelLevel.all)
    func `a row of which nothing is finite, or nothing counts, is a row of NaN or of zeros`(level: KernelLevel) {
        for (odd, isNumber) in [(Float.infinity, false), (.nan, false), (0x1p-101, true), (0, true)] {
            // The odd number is the only one in its row; the other row has usual numbers.
            var x = [Float](repeating: 0, count: 80)
            (x[3], x[40], x[47]) = (odd, 1, -0.5)
            let product = Product(
                m: 2, n: 20, k: 40, x: x, weights: .init(repeating: 3, count: 800),
                scales: .init(repeating: 0.5, count: 20))
            let found = product.run(level)
            #expect(found[..<20].allSatisfy { isNumber ? $0.bitPattern == 0 : $0.isNaN })
            #expect(found[20...].allSatisfy { $0 == product.expected(1, 0) && abs($0 - 0.75) < 0.01 })
        }
    }

    @Test(arguments: KernelLevel.all)
    func `other products are those of the profile without INT8`(level: KernelLevel) {
        var dice = Dice(seed: 92)
        for (profile, other) in [(BRAID_PROFILE_INT8, BRAID_PROFILE_BF16), (BRAID_PROFILE_INT8_F32, BRAID_PROFILE_F32)]
        {
            for (dtype, transposed) in [(BRAID_BF16, false), (BRAID_F32, true), (BRAID_FP8, false), (BRAID_INT8, true)]
            {
                let (m, n, k) = (dice.int(1...20), 40, 70)
                let weights = StoredMatrix(&dice, rows: transposed ? k : n, columns: transposed ? n : k, dtype: dtype)
                let input = Guarded(dice.rows(m, width: k, stride: k))
                func product(_ profile: braid_profile) -> [Float] {
                    let (out, room) = (output(m, width: n, stride: n), scratch(Int(BRAID_MATMUL_SCRATCH)))
                    let parameters = unsafe braid_matmul(
                        w: weights.weight, profile: profile, transposed: transposed, accumulate: false, m: Int64(m),
                        n: Int64(n), k: Int64(k), x: input.pointer, x_stride: Int64(k), x_rows: nil, out: out.pointer,
                        out_stride: Int64(n), out_rows: nil, gemv_max_rows: 0, scratch: room.pointer)
                    unsafe call(level.table.matmul, parameters, keeping: [weights, input, out, room])
                    return out.values
                }
                #expect(firstDifference(product(profile), product(other)) == nil, "\(dtype)")
            }
        }
    }
}
