import CKernels
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

struct CompressKernelTests {
    private struct Case {
        let m: Int, slots: Int, halves: Int, n: Int, stride: Int, outStride: Int
        var inputs: [Float]
        let ape: [Float]

        var each: Int { slots / halves }
        var columns: Int { halves * n }

        init(_ dice: inout Dice, wild: Bool = false) {
            (m, halves) = (dice.int(0...4), dice.int(1...2))
            slots = halves * (dice.flag() ? dice.int(1...8) : dice.int(1...130))
            n = dice.flag() ? dice.int(1...40) : dice.int(1...130)
            stride = 2 * halves * n + dice.int(0...9)
            outStride = n + dice.int(0...9)
            inputs = dice.rows(m * slots, width: 2 * halves * n, stride: stride, wild: wild)
            ape = dice.rows(slots / halves, width: halves * n, stride: halves * n, wild: wild)
        }

        /// The index in `inputs` of a slot's value of column `d`; its gate is `columns` behind.
        func value(_ entry: Int, _ slot: Int, _ d: Int) -> Int {
            (entry * slots + slot) * stride + slot / each * n + d
        }

        func run(_ level: KernelLevel) -> [Float] {
            let (rows, places) = (Guarded(inputs), Guarded(ape))
            let out = output(m, width: n, stride: outStride)
            let parameters = unsafe braid_compress(
                m: Int64(m), slots: Int64(slots), halves: Int64(halves), n: Int64(n), inputs: rows.pointer,
                inputs_stride: Int64(stride), ape: places.pointer, out: out.pointer, out_stride: Int64(outStride))
            unsafe call(level.table.compress_entries, parameters, keeping: [rows, places, out])
            return out.values
        }

        var description: String { "\(m) entries of \(slots) slots in \(halves) halves, \(n) columns" }
    }

    @Test
    func `every level compresses with the bits of the reference`() {
        var dice = Dice(seed: 91)
        for i in 0..<150 {
            let example = Case(&dice, wild: i % 3 == 0)
            let expected = example.run(.reference)
            #expect(isUntouchedBetweenRows(expected, width: example.n, stride: example.outStride))
            for level in KernelLevel.fast {
                #expect(firstDifference(example.run(level), expected) == nil, "\(level.name), \(example.description)")
            }
        }
    }

    @Test
    func `an entry is what its formula says`() {
        var dice = Dice(seed: 92)
        for _ in 0..<60 {
            let example = Case(&dice)
            let found = example.run(.reference)
            for r in 0..<example.m {
                for d in 0..<example.n {
                    var (values, sum, magnitude) = (0.0, 0.0, 0.0)
                    for slot in 0..<example.slots {
                        let at = example.value(r, slot, d)
                        let place = example.ape[
                            slot % example.each * example.columns + slot / example.each * example.n + d]
                        let e = exp(Double(example.inputs[at + example.columns]) + Double(place))
                        values += e * Double(example.inputs[at])
                        magnitude += e * abs(Double(example.inputs[at]))
                        sum += e
                    }
                    // An exponent of size 16 is known to two roundings of itself, and both sums have `slots` roundings.
                    let tolerance = Double(2 * example.slots + 48) * rounding * magnitude / sum
                    #expect(abs(Double(found[r * example.outStride + d]) - values / sum) <= tolerance)
                }
            }
        }
    }

    @Test(arguments: KernelLevel.all)
    func `a missing window leaves the entry to the slots of the other`(level: KernelLevel) {
        var dice = Dice(seed: 93)
        for _ in 0..<40 {
            var example = Case(&dice)
            while example.halves == 1 { example = Case(&dice) }
            for r in 0..<example.m {
                for slot in 0..<example.each {
                    for column in 0..<example.columns {
                        let at = (r * example.slots + slot) * example.stride + column
                        (example.inputs[at], example.inputs[at + example.columns]) = (0, -.infinity)
                    }
                }
            }
            let found = example.run(level)
            for r in 0..<example.m {
                for d in 0..<example.n {
                    let own = (example.each..<example.slots).map { example.inputs[example.value(r, $0, d)] }
                    let value = found[r * example.outStride + d]
                    #expect(value >= own.min()! - 1e-5 && value <= own.max()! + 1e-5)
                    if own.count == 1 { #expect(value == own[0]) }
                }
            }
        }
    }

    @Test(arguments: KernelLevel.all)
    func `large gates do not overflow, and a NaN spoils its own column only`(level: KernelLevel) {
        var dice = Dice(seed: 94)
        var example = Case(&dice)
        while example.m == 0 || example.n < 3 || example.slots < 3 { example = Case(&dice) }
        for slot in 0..<example.slots { example.inputs[example.value(0, slot, 0) + example.columns] = -1e30 }
        example.inputs[example.value(0, 2, 0) + example.columns] = 1e30
        example.inputs[example.value(0, 1, 1)] = .nan
        let found = example.run(level)
        #expect(found[0] == example.inputs[example.value(0, 2, 0)])
        #expect(found[1].isNaN && found[2].isFinite)
    }
}
