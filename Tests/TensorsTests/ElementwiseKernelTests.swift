import CKernels
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

struct ElementwiseKernelTests {
    @Test
    func `every level copies pieces of rows bit by bit and touches nothing else`() {
        var dice = Dice(seed: 57)
        for _ in 0..<200 {
            let (m, pieces, n) = (dice.int(0...9), dice.int(1...5), dice.width())
            let (step, outStep) = (n + dice.int(0...9), n + dice.int(0...9))
            let (stride, outStride) = (pieces * step, pieces * outStep)
            let x = (0..<(m + 1) * stride).map { _ in Float(bitPattern: UInt32.random(in: 0...UInt32.max, using: &dice))
            }
            let from = dice.flag() ? (0..<m).map { _ in Int32(dice.int(0...m)) } : nil
            let to = dice.flag() ? (0..<Int32(m)).shuffled(using: &dice) : nil
            var expected = [Float](repeating: untouched, count: (m + 1) * outStride)
            for row in 0..<m {
                for piece in 0..<pieces {
                    for column in 0..<n {
                        expected[Int(to?[row] ?? Int32(row)) * outStride + piece * outStep + column] =
                            x[Int(from?[row] ?? Int32(row)) * stride + piece * step + column]
                    }
                }
            }
            for level in KernelLevel.all {
                let (input, out) = (Guarded(x), Guarded(repeating: untouched, count: (m + 1) * outStride))
                let (read, written) = (Guarded(from ?? []), Guarded(to ?? []))
                let parameters = unsafe braid_copy_rows(
                    m: Int64(m), pieces: Int64(pieces), n: Int64(n), x: input.pointer, x_stride: Int64(stride),
                    x_step: Int64(step), x_rows: from == nil ? nil : read.pointer, out: out.pointer,
                    out_stride: Int64(outStride), out_step: Int64(outStep), out_rows: to == nil ? nil : written.pointer)
                unsafe call(level.table.copy_rows, parameters, keeping: [input, out, read, written])
                #expect(out.values.map(\.bitPattern) == expected.map(\.bitPattern), "\(level.name)")
            }
        }
    }

    @Test
    func `every level scales with one rounding an element`() {
        var dice = Dice(seed: 58)
        for i in 0..<100 {
            let (m, n, factor) = (dice.int(0...7), dice.width(), i % 3 == 0 ? dice.wildFloat() : dice.float())
            let stride = n + dice.int(0...20)
            let x = dice.rows(m, width: n, stride: stride, wild: i % 2 == 0)
            let expected = x.indices.map { $0 % stride < n ? x[$0] * factor : x[$0] }
            for level in KernelLevel.all {
                let values = Guarded(x)
                let parameters = unsafe braid_scale(
                    m: Int64(m), n: Int64(n), factor: factor, x: values.pointer, x_stride: Int64(stride))
                unsafe call(level.table.scale, parameters, keeping: [values])
                #expect(firstDifference(values.values, expected) == nil, "\(level.name)")
            }
        }
    }

    private struct Case {
        let m: Int, n: Int, stride: Int, otherStride: Int, outStride: Int
        let x: [Float], other: [Float], rowWeight: [Float]
        let limit: Float

        init(_ dice: inout Dice, wild: Bool) {
            m = dice.int(0...7)
            n = dice.width()
            stride = n + dice.int(0...20)
            otherStride = n + dice.int(0...20)
            outStride = n + dice.int(0...9)
            x = dice.rows(m, width: n, stride: stride, wild: wild)
            other = dice.rows(m, width: n, stride: otherStride, wild: wild)
            rowWeight = dice.rows(1, width: m, stride: max(m, 1))
            limit = dice.flag() ? .infinity : abs(dice.float())
        }

        func add(_ level: KernelLevel) -> [Float] {
            let a = Guarded(x)
            let b = Guarded(other)
            let out = output(m, width: n, stride: outStride)
            let parameters = unsafe braid_add(
                m: Int64(m), n: Int64(n), a: a.pointer, a_stride: Int64(stride), b: b.pointer,
                b_stride: Int64(otherStride), out: out.pointer, out_stride: Int64(outStride))
            unsafe call(level.table.add, parameters, keeping: [a, b, out])
            return out.values
        }

        func swiglu(_ level: KernelLevel, weighted: Bool) -> [Float] {
            let gate = Guarded(x)
            let up = Guarded(other)
            let weights = Guarded(rowWeight)
            let out = output(m, width: n, stride: outStride)
            let parameters = unsafe braid_swiglu(
                m: Int64(m), n: Int64(n), gate: gate.pointer, gate_stride: Int64(stride), up: up.pointer,
                up_stride: Int64(otherStride), row_weight: weighted ? weights.pointer : nil, limit: limit,
                out: out.pointer, out_stride: Int64(outStride))
            unsafe call(level.table.swiglu, parameters, keeping: [gate, up, weights, out])
            return out.values
        }

        func softmax(_ level: KernelLevel, log: Bool) -> [Float] {
            let input = Guarded(x)
            let out = output(m, width: n, stride: outStride)
            let parameters = unsafe braid_softmax(
                m: Int64(m), n: Int64(n), x: input.pointer, x_stride: Int64(stride), out: out.pointer,
                out_stride: Int64(outStride))
            unsafe call(
                log ? level.table.log_softmax : level.table.softmax, parameters, keeping: [input, out])
            return out.values
        }
    }

    private static let operations: [(name: String, run: @Sendable (Case, KernelLevel) -> [Float])] = [
        ("add", { $0.add($1) }),
        ("swiglu", { $0.swiglu($1, weighted: false) }),
        ("swiglu, weighted", { $0.swiglu($1, weighted: true) }),
        ("softmax", { $0.softmax($1, log: false) }),
        ("log softmax", { $0.softmax($1, log: true) }),
    ]

    @Test(arguments: operations.indices)
    func `every level has the bits of the reference`(operation: Int) {
        let (name, run) = Self.operations[operation]
        var dice = Dice(seed: 21)
        for i in 0..<300 {
            let example = Case(&dice, wild: i % 3 == 0)
            let expected = run(example, .reference)
            #expect(isUntouchedBetweenRows(expected, width: example.n, stride: example.outStride))
            for level in KernelLevel.fast {
                let found = run(example, level)
                #expect(firstDifference(found, expected) == nil, "\(name), \(level.name), \(example.m) x \(example.n)")
            }
        }
    }

    /// Softmax and log softmax of one row in place.
    private func softmaxInPlace(_ row: [Float], _ level: KernelLevel, log: Bool) -> [Float] {
        let memory = Guarded(row)
        let parameters = unsafe braid_softmax(
            m: 1, n: Int64(row.count), x: memory.pointer, x_stride: Int64(row.count), out: memory.pointer,
            out_stride: Int64(row.count))
        unsafe call(log ? level.table.log_softmax : level.table.softmax, parameters, keeping: [memory])
        return memory.values
    }

    @Test
    func `softmax, add and swiglu work in place`() {
        var dice = Dice(seed: 22)
        for _ in 0..<60 {
            let n = dice.width()
            let x = dice.rows(1, width: n, stride: n)
            let y = dice.rows(1, width: n, stride: n)
            for level in KernelLevel.all {
                let apart = Guarded(x)
                for log in [false, true] {
                    let out = output(1, width: n, stride: n)
                    let parameters = unsafe braid_softmax(
                        m: 1, n: Int64(n), x: apart.pointer, x_stride: Int64(n), out: out.pointer, out_stride: Int64(n))
                    unsafe call(
                        log ? level.table.log_softmax : level.table.softmax, parameters, keeping: [apart, out])
                    #expect(firstDifference(softmaxInPlace(x, level, log: log), out.values) == nil)
                }
                for overSecond in [false, true] {
                    let sum = output(1, width: n, stride: n)
                    let product = output(1, width: n, stride: n)
                    let a = Guarded(x)
                    let b = Guarded(y)
                    let gate = Guarded(x)
                    let up = Guarded(y)
                    var addition = unsafe braid_add(
                        m: 1, n: Int64(n), a: a.pointer, a_stride: Int64(n), b: b.pointer, b_stride: Int64(n),
                        out: sum.pointer, out_stride: Int64(n))
                    var activation = unsafe braid_swiglu(
                        m: 1, n: Int64(n), gate: gate.pointer, gate_stride: Int64(n), up: up.pointer,
                        up_stride: Int64(n), row_weight: nil, limit: 1, out: product.pointer, out_stride: Int64(n))
                    unsafe call(level.table.add, addition, keeping: [a, b, sum])
                    unsafe call(level.table.swiglu, activation, keeping: [gate, up, product])
                    unsafe addition.out = overSecond ? b.pointer : a.pointer
                    unsafe activation.out = overSecond ? up.pointer : gate.pointer
                    unsafe call(level.table.add, addition, keeping: [a, b, sum])
                    unsafe call(level.table.swiglu, activation, keeping: [gate, up, product])
                    #expect(firstDifference((overSecond ? b : a).values, sum.values) == nil)
                    #expect(firstDifference((overSecond ? up : gate).values, product.values) == nil)
                }
            }
        }
    }

    @Test
    func `swiglu is what its formula says`() {
        var dice = Dice(seed: 23)
        for _ in 0..<60 {
            let example = Case(&dice, wild: false)
            let found = example.swiglu(.reference, weighted: true)
            for r in 0..<example.m {
                for j in 0..<example.n {
                    let limit = Double(example.limit)
                    let gate = min(Double(example.x[r * example.stride + j]), limit)
                    let up = max(-limit, min(Double(example.other[r * example.otherStride + j]), limit))
                    let expected = gate / (1 + exp(-gate)) * up * Double(example.rowWeight[r])
                    let difference = abs(Double(found[r * example.outStride + j]) - expected)
                    #expect(difference <= 8 * rounding * abs(expected) + 1e-37)
                }
            }
        }
    }

    @Test(arguments: KernelLevel.all)
    func `swiglu bounds the gate from above and the other factor from both sides`(level: KernelLevel) {
        func swiglu(_ gate: Float, _ up: Float, limit: Float) -> Float {
            let (a, b, out) = (Guarded([gate]), Guarded([up]), Guarded(repeating: untouched, count: 1))
            let parameters = unsafe braid_swiglu(
                m: 1, n: 1, gate: a.pointer, gate_stride: 1, up: b.pointer, up_stride: 1, row_weight: nil,
                limit: limit, out: out.pointer, out_stride: 1)
            unsafe call(level.table.swiglu, parameters, keeping: [a, b, out])
            return out.values[0]
        }
        #expect(swiglu(50, 3, limit: 10) == swiglu(10, 3, limit: .infinity))
        #expect(swiglu(-50, 3, limit: 10) == swiglu(-50, 3, limit: .infinity))
        #expect(swiglu(1, 50, limit: 10) == swiglu(1, 10, limit: .infinity))
        #expect(swiglu(1, -50, limit: 10) == swiglu(1, -10, limit: .infinity))
        #expect(swiglu(.infinity, -.infinity, limit: 10) == swiglu(10, -10, limit: .infinity))
        #expect(swiglu(.nan, 1, limit: 10).isNaN && swiglu(1, .nan, limit: 10).isNaN)
    }

    @Test
    func `softmax is what its formula says`() {
        var dice = Dice(seed: 24)
        for _ in 0..<60 {
            let example = Case(&dice, wild: false)
            let found = example.softmax(.reference, log: false)
            let logs = example.softmax(.reference, log: true)
            for r in 0..<example.m {
                let x = example.x[r * example.stride..<r * example.stride + example.n].map(Double.init)
                let largest = x.max()!
                let sum = x.reduce(0) { $0 + exp($1 - largest) }
                let relative = Double(example.n / 16 + 24) * rounding
                for j in 0..<example.n {
                    let expected = exp(x[j] - largest) / sum
                    let expectedLog = x[j] - (largest + log(sum))
                    let value = Double(found[r * example.outStride + j])
                    let logValue = Double(logs[r * example.outStride + j])
                    #expect(abs(value - expected) <= relative * (1 + largest - x[j]) * expected)
                    #expect(abs(logValue - expectedLog) <= relative * (1 + abs(largest) + abs(expectedLog)))
                }
            }
        }
    }

    @Test
    func `scores of minus infinity get nothing and the others share all`() {
        for level in KernelLevel.all {
            for n in [1, 5, 16, 33, 100] {
                var row = [Float](repeating: -.infinity, count: n)
                #expect(softmaxInPlace(row, level, log: false).allSatisfy { $0.bitPattern == 0 })
                #expect(softmaxInPlace(row, level, log: true).allSatisfy { $0 == -.infinity })
                row[n / 2] = -3
                let shares = softmaxInPlace(row, level, log: false)
                let logs = softmaxInPlace(row, level, log: true)
                for j in 0..<n {
                    #expect(shares[j] == (j == n / 2 ? 1 : 0))
                    #expect(logs[j] == (j == n / 2 ? 0 : -.infinity))
                }
            }
        }
    }

    @Test(arguments: [Float.nan, .infinity])
    func `a NaN or plus infinity anywhere makes the whole row NaN`(poison: Float) {
        for level in KernelLevel.all {
            for n in [1, 16, 33, 130] {
                for filler in [Float(0.5), -.infinity] {
                    for at in [0, n / 2, n - 1] {
                        var row = [Float](repeating: filler, count: n)
                        row[at] = poison
                        #expect(softmaxInPlace(row, level, log: false).allSatisfy { $0.isNaN }, "\(level.name), \(n)")
                        #expect(softmaxInPlace(row, level, log: true).allSatisfy { $0.isNaN }, "\(level.name), \(n)")
                    }
                }
            }
        }
    }
}
