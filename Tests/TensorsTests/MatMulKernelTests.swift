import CKernels
import Testing

struct MatMulKernelTests {
    private struct Case {
        let m: Int, n: Int, k: Int
        let transposed: Bool, accumulate: Bool
        var weights: StoredMatrix
        var profile: braid_profile
        let x: [Float], xStride: Int, xRows: [Int32]?
        let out: [Float], outStride: Int, outRows: [Int32]?
        /// 0 selects the level's default.
        let gemvMaxRows: Int

        init(
            _ dice: inout Dice, dtype: braid_dtype, transposed: Bool, rows: ClosedRange<Int>, wild: Bool = false,
            released: Bool = false
        ) {
            let (m, n) = (dice.int(rows), dice.flag() ? dice.int(1...5) * 16 : dice.int(1...80))
            (self.m, self.n) = (m, n)
            k = released || dice.flag() ? dice.int(1...6) * 64 : dice.int(0...330)
            self.transposed = transposed
            profile = dice.profile()
            accumulate = dice.flag()
            weights = StoredMatrix(
                &dice, rows: transposed ? k : n, columns: transposed ? n : k, dtype: dtype, wild: wild,
                released: released)
            xStride = k + dice.int(0...4)
            let outStride = n + dice.int(0...4)
            self.outStride = outStride
            let all = m + 3
            x = dice.rows(all, width: k, stride: xStride, wild: wild)
            xRows = dice.flag() ? (0..<m).map { _ in Int32(dice.int(0...all - 1)) } : nil
            outRows = dice.flag() ? (0..<Int32(all)).shuffled(using: &dice) : nil
            out = (0..<all * outStride).map { $0 % outStride < n ? dice.float() : untouched }
            gemvMaxRows = dice.flag() ? 0 : dice.int(1...40)
        }

        /// Returns the product's output, or that of some of its rows, with chains that continue from `out`.
        func run(
            _ level: KernelLevel, weights: StoredMatrix? = nil, rows: Range<Int>? = nil, out: [Float]? = nil
        ) -> [Float] {
            let range = rows ?? 0..<m
            let weights = weights ?? self.weights
            let room = scratch(Int(BRAID_MATMUL_SCRATCH))
            let (input, result) = (Guarded(x), Guarded(out ?? self.out))
            let from = Guarded(range.map { xRows?[$0] ?? Int32($0) })
            let to = Guarded(range.map { outRows?[$0] ?? Int32($0) })
            let gathers = xRows != nil || rows != nil
            let scatters = outRows != nil || rows != nil
            let parameters = unsafe braid_matmul(
                w: weights.weight, profile: profile, transposed: transposed, accumulate: accumulate,
                m: Int64(range.count), n: Int64(n),
                k: Int64(k), x: input.pointer, x_stride: Int64(xStride), x_rows: gathers ? from.pointer : nil,
                out: result.pointer, out_stride: Int64(outStride), out_rows: scatters ? to.pointer : nil,
                gemv_max_rows: Int64(gemvMaxRows), scratch: room.pointer)
            unsafe call(level.table.matmul, parameters, keeping: [weights, input, result, from, to, room])
            return result.values
        }

        var description: String {
            "m \(m), n \(n), k \(k), dtype \(weights.dtype.rawValue), profile \(profile.rawValue), transposed \(transposed)"
        }
    }

    /// What a kernel reads before it has written it spoils the result.
    @Test(arguments: [1, 1000, (1 << 18) + 5, 1 << 21])
    func `scratch is full of NaN, whatever was written to that of other calls`(floats: Int) {
        let (one, other) = (scratch(floats), scratch(floats))
        for index in 0..<one.count { unsafe one.pointer[index] = 1 }
        #expect(other.values.allSatisfy(\.isNaN) && scratch(floats).values.allSatisfy(\.isNaN))
        #expect(other.count >= floats)
    }

    @Test(arguments: braid_dtype.all, [false, true])
    func `every level multiplies with the bits of the reference`(dtype: braid_dtype, transposed: Bool) {
        var dice = Dice(seed: 10 + UInt64(dtype.rawValue))
        for i in 0..<60 {
            let rows = i % 4 == 0 ? 0...70 : 0...14
            let example = Case(&dice, dtype: dtype, transposed: transposed, rows: rows, wild: i % 5 == 0)
            let expected = example.run(.reference)
            for level in KernelLevel.fast {
                #expect(firstDifference(example.run(level), expected) == nil, "\(level.name), \(example.description)")
            }
        }
    }

    /// Scales that are powers of two are exact in BF16, which kernels of few rows use.
    @Test(arguments: [BRAID_FP8, BRAID_FP4, BRAID_INT8])
    func `few rows meet scales as released with the bits of the reference`(dtype: braid_dtype) {
        var dice = Dice(seed: 70 + UInt64(dtype.rawValue))
        for i in 0..<80 {
            var example = Case(&dice, dtype: dtype, transposed: false, rows: 1...9, wild: i % 3 == 0, released: true)
            example.profile = BRAID_PROFILE_BF16
            let expected = example.run(.reference)
            for level in KernelLevel.fast {
                #expect(firstDifference(example.run(level), expected) == nil, "\(level.name), \(example.description)")
            }
        }
    }

    @Test(arguments: KernelLevel.all, braid_profile.all)
    func `more rows and columns than one block are multiplied alike`(level: KernelLevel, profile: braid_profile) {
        var dice = Dice(seed: 11)
        let (m, n, k) = (261, 70, 600)
        let weights = StoredMatrix(&dice, rows: n, columns: k, dtype: BRAID_BF16)
        let input = Guarded(dice.rows(m, width: k, stride: k))
        func product(_ level: KernelLevel) -> [Float] {
            let out = output(m, width: n, stride: n)
            let room = scratch(Int(BRAID_MATMUL_SCRATCH))
            let parameters = unsafe braid_matmul(
                w: weights.weight, profile: profile, transposed: false, accumulate: false, m: Int64(m),
                n: Int64(n), k: Int64(k),
                x: input.pointer, x_stride: Int64(k), x_rows: nil, out: out.pointer, out_stride: Int64(n),
                out_rows: nil, gemv_max_rows: 0, scratch: room.pointer)
            unsafe call(level.table.matmul, parameters, keeping: [weights, input, out, room])
            return out.values
        }
        #expect(firstDifference(product(level), product(.reference)) == nil)
    }

    @Test(arguments: braid_dtype.all, [false, true])
    func `long sums of many rows are continued from part to part`(dtype: braid_dtype, transposed: Bool) {
        var dice = Dice(seed: 19 + UInt64(dtype.rawValue))
        let (m, n, k) = (70, 300, 2112)
        let weights = StoredMatrix(&dice, rows: transposed ? k : n, columns: transposed ? n : k, dtype: dtype)
        let input = Guarded(dice.rows(m, width: k, stride: k))
        func product(_ level: KernelLevel) -> [Float] {
            let (out, room) = (output(m, width: n, stride: n), scratch(Int(BRAID_MATMUL_SCRATCH)))
            let parameters = unsafe braid_matmul(
                w: weights.weight, profile: BRAID_PROFILE_BF16, transposed: transposed, accumulate: false, m: Int64(m),
                n: Int64(n), k: Int64(k), x: input.pointer, x_stride: Int64(k), x_rows: nil, out: out.pointer,
                out_stride: Int64(n), out_rows: nil, gemv_max_rows: 0, scratch: room.pointer)
            unsafe call(level.table.matmul, parameters, keeping: [weights, input, out, room])
            return out.values
        }
        let expected = product(.reference)
        for level in KernelLevel.fast { #expect(firstDifference(product(level), expected) == nil, "\(level.name)") }
    }

    @Test(arguments: braid_dtype.all, [false, true])
    func `products of one shape in one call have the bits of one call each`(dtype: braid_dtype, transposed: Bool) {
        var dice = Dice(seed: 15 + UInt64(dtype.rawValue))
        for i in 0..<30 {
            let (m, n, k, count) = (dice.int(0...30), dice.int(1...70), dice.int(0...90), dice.int(0...5))
            let (rows, profile) = (transposed ? k : n, dice.profile())
            let (xStep, wStep, outStep) = (k + dice.int(0...5), rows + dice.int(0...140), n + dice.int(0...5))
            let weights = StoredMatrix(
                &dice, rows: max(count - 1, 0) * wStep + rows, columns: transposed ? n : k, dtype: dtype,
                wild: i % 5 == 0)
            let (xStride, outStride) = (max(count * xStep, 1), max(count * outStep, 1))
            let x = Guarded(dice.rows(m, width: xStride, stride: xStride, wild: i % 5 == 0))
            let room = scratch(Int(BRAID_MATMUL_SCRATCH))
            func run(_ body: (braid_matmul) -> Void) -> [Float] {
                let out = output(m, width: outStride, stride: outStride)
                let product = unsafe braid_matmul(
                    w: weights.weight, profile: profile, transposed: transposed, accumulate: false,
                    m: Int64(m), n: Int64(n), k: Int64(k),
                    x: x.pointer, x_stride: Int64(xStride), x_rows: nil, out: out.pointer,
                    out_stride: Int64(outStride), out_rows: nil, gemv_max_rows: 0, scratch: room.pointer)
                unsafe body(product)
                return withExtendedLifetime((weights, x, room)) { out.values }
            }
            let expected = unsafe run { product in
                for b in 0..<count {
                    var one = unsafe product
                    unsafe one.w.data += b * wStep * weights.stride * dtype.bits / 8
                    unsafe one.w.row += Int64(b * wStep)
                    unsafe one.x += b * xStep
                    unsafe one.out += b * outStep
                    unsafe call(KernelLevel.reference.table.matmul, one, keeping: [])
                }
            }
            for level in KernelLevel.all {
                let found = unsafe run { product in
                    let parameters = unsafe braid_batched_matmul(
                        product: product, count: Int64(count), x_step: Int64(xStep), w_step: Int64(wStep),
                        out_step: Int64(outStep))
                    unsafe call(level.table.batched_matmul, parameters, keeping: [])
                }
                #expect(firstDifference(found, expected) == nil, "\(level.name), \(count) of \(m), \(n), \(k)")
            }
        }
    }

    /// Returns the outputs of a product in slices, with what is between their rows.
    private func sliced(
        _ level: KernelLevel, _ profile: braid_profile, _ weights: StoredMatrix, _ x: Guarded<Float>, m: Int, n: Int,
        k: Int, slices: Int, xStride: Int, outStride: Int
    ) -> [Float] {
        let (out, room) = (output(m, width: n, stride: outStride), scratch(Int(BRAID_MATMUL_SCRATCH)))
        let partial = scratch(Int(braid_sliced_scratch(profile, Int64(m), Int64(slices))))
        let product = unsafe braid_matmul(
            w: weights.weight, profile: profile, transposed: false, accumulate: false, m: Int64(m), n: Int64(n),
            k: Int64(k), x: x.pointer, x_stride: Int64(xStride), x_rows: nil, out: out.pointer,
            out_stride: Int64(outStride), out_rows: nil, gemv_max_rows: 0, scratch: room.pointer)
        let parameters = unsafe braid_sliced_matmul(
            product: product, slices: Int64(slices), partial: partial.pointer)
        unsafe call(level.table.sliced_matmul, parameters, keeping: [weights, x, out, room, partial])
        return out.values
    }

    @Test(arguments: braid_dtype.all)
    func `every level adds K-slices with the bits of the reference`(dtype: braid_dtype) {
        var dice = Dice(seed: 18 + UInt64(dtype.rawValue))
        for i in 0..<40 {
            let m = i % 10 == 0 ? dice.int(600...1100) : i % 3 == 0 ? dice.int(0...60) : dice.int(0...9)
            // Few rows also have more outputs than a block, and slices of whole chunks, which are read without a panel.
            let slices = 1 << dice.int(0...4)
            let n = dice.flag() ? dice.int(1...(m < 10 ? 1100 : 300)) : 64 * dice.int(1...4)
            let k = slices * (m < 10 && dice.flag() ? 64 * dice.int(1...4) : dice.int(m > 100 ? 1...4 : 1...70))
            let profile = dice.profile()
            let weights = StoredMatrix(&dice, rows: n, columns: k, dtype: dtype, wild: i % 5 == 0)
            let (xStride, outStride) = (k + dice.int(0...4), n + dice.int(0...4))
            let x = Guarded(dice.rows(m, width: k, stride: xStride, wild: i % 5 == 0))
            func run(_ level: KernelLevel) -> [Float] {
                sliced(
                    level, profile, weights, x, m: m, n: n, k: k, slices: slices, xStride: xStride, outStride: outStride
                )
            }
            let expected = run(.reference)
            #expect(isUntouchedBetweenRows(expected, width: n, stride: outStride))
            for level in KernelLevel.fast {
                #expect(firstDifference(run(level), expected) == nil, "\(level.name), \(m), \(n), \(k) in \(slices)")
            }
        }
    }

    @Test(arguments: braid_dtype.all)
    func `K-slices of many terms are continued from block to block`(dtype: braid_dtype) {
        var dice = Dice(seed: 20 + UInt64(dtype.rawValue))
        // The last two cross a multiple of BRAID_INT8_SEGMENT, where an INT8 sum has a second scale.
        for (m, n, k, slices) in [
            (65, 20, 1088, 2), (130, 33, 4 * 544, 4), (300, 17, 2 * 1600, 2), (66, 40, 8 * 640, 8), (9, 3, 66_560, 16),
            (70, 2, 66_560, 16),
        ] {
            let weights = StoredMatrix(&dice, rows: n, columns: k, dtype: dtype)
            let x = Guarded(dice.rows(m, width: k, stride: k))
            for profile in [BRAID_PROFILE_BF16, BRAID_PROFILE_INT8] {
                func run(_ level: KernelLevel) -> [Float] {
                    sliced(level, profile, weights, x, m: m, n: n, k: k, slices: slices, xStride: k, outStride: n)
                }
                let expected = run(.reference)
                for level in KernelLevel.fast {
                    #expect(
                        firstDifference(run(level), expected) == nil,
                        "\(level.name), profile \(profile.rawValue), \(m), \(n), \(k) in \(slices)")
                }
            }
        }
    }

    @Test(arguments: [BRAID_FP8, BRAID_INT8, BRAID_FP4], [false, true])
    func `a quantized matrix gives the bits of its dequantized twin`(dtype: braid_dtype, transposed: Bool) {
        var dice = Dice(seed: 12)
        for _ in 0..<30 {
            var example = Case(&dice, dtype: dtype, transposed: transposed, rows: 1...20)
            // In the profile INT8 a matrix of INT8 is not multiplied as its twin.
            example.profile = dice.flag() ? BRAID_PROFILE_F32 : BRAID_PROFILE_BF16
            let twin = StoredMatrix(twinOf: example.weights)
            for level in KernelLevel.all {
                let (found, expected) = (example.run(level), example.run(level, weights: twin))
                #expect(firstDifference(found, expected) == nil, "\(level.name), \(example.description)")
            }
        }
    }

    @Test(arguments: [BRAID_BF16, BRAID_INT8])
    func `a row's result does not depend on the rows beside it`(dtype: braid_dtype) {
        var dice = Dice(seed: 13)
        for _ in 0..<20 {
            let example = Case(&dice, dtype: dtype, transposed: false, rows: 2...40)
            for level in KernelLevel.all {
                var parts = example.out
                var begin = 0
                while begin < example.m {
                    let end = min(example.m, begin + dice.int(1...13))
                    parts = example.run(level, rows: begin..<end, out: parts)
                    begin = end
                }
                #expect(firstDifference(example.run(level), parts) == nil, "\(level.name), \(example.description)")
            }
        }
    }

    @Test(arguments: braid_dtype.all)
    func `a product is what its formula says`(dtype: braid_dtype) {
        var dice = Dice(seed: 14)
        for _ in 0..<30 {
            var example = Case(&dice, dtype: dtype, transposed: dice.flag(), rows: 1...6)
            example.profile = BRAID_PROFILE_F32
            let found = example.run(.reference)
            for i in 0..<example.m {
                let xRow = Int(example.xRows?[i] ?? Int32(i)) * example.xStride
                let outRow = Int(example.outRows?[i] ?? Int32(i)) * example.outStride
                for j in 0..<example.n {
                    var sum = example.accumulate ? Double(example.out[outRow + j]) : 0
                    var magnitude = abs(sum)
                    for l in 0..<example.k {
                        let at = example.transposed ? l * example.n + j : j * example.k + l
                        let term = Double(example.x[xRow + l]) * Double(example.weights.values[at])
                        sum += term
                        magnitude += abs(term)
                    }
                    let error = abs(Double(found[outRow + j]) - sum)
                    #expect(error <= Double(example.k + 1) * rounding * magnitude)
                }
            }
        }
    }

    @Test(arguments: KernelLevel.all)
    func `a product of nothing is positive zero`(level: KernelLevel) {
        var dice = Dice(seed: 15)
        let weights = StoredMatrix(&dice, rows: 40, columns: 0, dtype: BRAID_F32)
        for m in [1, 9] {
            let out = output(m, width: 40, stride: 40)
            let room = scratch(Int(BRAID_MATMUL_SCRATCH))
            let parameters = unsafe braid_matmul(
                w: weights.weight, profile: BRAID_PROFILE_F32, transposed: false, accumulate: false, m: Int64(m), n: 40,
                k: 0, x: room.pointer,
                x_stride: 0, x_rows: nil, out: out.pointer, out_stride: 40, out_rows: nil, gemv_max_rows: 0,
                scratch: room.pointer)
            unsafe call(level.table.matmul, parameters, keeping: [weights, out, room])
            #expect(out.values.allSatisfy { $0.bitPattern == 0 })
        }
    }

    @Test(arguments: KernelLevel.all)
    func `every FP8 byte is widened as the format defines it`(level: KernelLevel) {
        let bytes = Guarded((0...255).map { UInt8($0) })
        let ones = Guarded([Float](repeating: 1, count: 2))
        let unit = Guarded([Float(1)])
        let ids = Guarded([Int32(0)])
        let row = output(1, width: 256, stride: 256)
        let column = output(1, width: 256, stride: 256)
        let room = scratch(Int(BRAID_MATMUL_SCRATCH))
        let weight = unsafe braid_weight(
            data: bytes.pointer, dtype: BRAID_FP8, stride: 256, scale: ones.pointer, scale_stride: 2, row: 0, column: 0,
            row_shift: 7, column_shift: 7, rounding: nil)
        let embedding = unsafe braid_embedding(
            w: weight, ids: ids.pointer, m: 1, n: 256, out: row.pointer, out_stride: 256)
        unsafe call(level.table.embedding, embedding, keeping: [bytes, ones, ids, row])
        let tall = unsafe braid_weight(
            data: bytes.pointer, dtype: BRAID_FP8, stride: 1, scale: ones.pointer, scale_stride: 1, row: 0, column: 0,
            row_shift: 7, column_shift: 7, rounding: nil)
        let product = unsafe braid_matmul(
            w: tall, profile: BRAID_PROFILE_F32, transposed: false, accumulate: false, m: 1, n: 256, k: 1,
            x: unit.pointer, x_stride: 1,
            x_rows: nil, out: column.pointer, out_stride: 256, out_rows: nil, gemv_max_rows: 0, scratch: room.pointer)
        unsafe call(level.table.matmul, product, keeping: [bytes, ones, unit, column, room])
        let expected = (0...255).map { e4m3(UInt8($0)) }
        #expect(firstDifference(row.values, expected) == nil)
        // A product's sum begins at +0, so that it has no negative zero.
        #expect(firstDifference(column.values, expected.map { $0 == 0 ? 0 : $0 }) == nil)
    }

    @Test(arguments: braid_dtype.all)
    func `an embedding is a row of the matrix`(dtype: braid_dtype) {
        var dice = Dice(seed: 16)
        for _ in 0..<30 {
            let weights = StoredMatrix(&dice, rows: dice.int(1...9), columns: dice.width(), dtype: dtype, wild: true)
            let n = weights.columns
            let stride = n + dice.int(0...3)
            let chosen = (0..<dice.int(0...5)).map { _ in dice.int(0...weights.rows - 1) }
            let ids = Guarded(chosen.map { Int32($0) })
            for level in KernelLevel.all {
                let out = output(chosen.count, width: n, stride: stride)
                let parameters = unsafe braid_embedding(
                    w: weights.weight, ids: ids.pointer, m: Int64(chosen.count), n: Int64(n), out: out.pointer,
                    out_stride: Int64(stride))
                unsafe call(level.table.embedding, parameters, keeping: [weights, ids, out])
                let found = out.values
                #expect(isUntouchedBetweenRows(found, width: n, stride: stride))
                for (i, id) in chosen.enumerated() {
                    let row = Array(found[i * stride..<i * stride + n])
                    #expect(firstDifference(row, Array(weights.values[id * n..<(id + 1) * n])) == nil, "\(level.name)")
                }
            }
        }
    }
}
