import CKernels
import Testing

struct NormKernelTests {
    private struct Case {
        let m: Int, n: Int, stride: Int, outStride: Int
        let x: [Float], weight: [Float], bias: [Float]

        init(_ dice: inout Dice, wild: Bool) {
            m = dice.int(0...7)
            n = dice.width()
            stride = n + dice.int(0...20)
            outStride = n + dice.int(0...9)
            x = dice.rows(m, width: n, stride: stride, wild: wild)
            weight = dice.rows(1, width: n, stride: n)
            bias = dice.rows(1, width: n, stride: n)
        }

        func run(_ level: KernelLevel, layer: Bool, inPlace: Bool = false) -> [Float] {
            let input = Guarded(x)
            let weights = Guarded(weight)
            let biases = Guarded(bias)
            let out = inPlace ? input : output(m, width: n, stride: outStride)
            let parameters = unsafe braid_norm(
                m: Int64(m), n: Int64(n), x: input.pointer, x_stride: Int64(stride), weight: weights.pointer,
                bias: layer ? biases.pointer : nil, eps: 1e-6, out: out.pointer,
                out_stride: Int64(inPlace ? stride : outStride))
            unsafe call(
                layer ? level.table.layer_norm : level.table.rms_norm, parameters,
                keeping: [input, weights, biases, out])
            return out.values
        }
    }

    @Test(arguments: [false, true])
    func `every level normalises with the bits of the reference`(layer: Bool) {
        var dice = Dice(seed: 1)
        for i in 0..<300 {
            let example = Case(&dice, wild: i % 3 == 0)
            let expected = example.run(.reference, layer: layer)
            #expect(isUntouchedBetweenRows(expected, width: example.n, stride: example.outStride))
            for level in KernelLevel.fast {
                let found = example.run(level, layer: layer)
                #expect(firstDifference(found, expected) == nil, "\(level.name), \(example.m) x \(example.n)")
            }
        }
    }

    @Test(arguments: [false, true])
    func `a row normalised in place gives the same bits`(layer: Bool) {
        var dice = Dice(seed: 2)
        for _ in 0..<60 {
            let example = Case(&dice, wild: false)
            for level in KernelLevel.all {
                let apart = example.run(level, layer: layer)
                let inPlace = example.run(level, layer: layer, inPlace: true)
                for r in 0..<example.m {
                    let a = Array(apart[r * example.outStride..<r * example.outStride + example.n])
                    let b = Array(inPlace[r * example.stride..<r * example.stride + example.n])
                    #expect(firstDifference(a, b) == nil, "\(level.name), row \(r)")
                }
            }
        }
    }

    @Test
    func `rms norm is what its formula says`() {
        var dice = Dice(seed: 3)
        for _ in 0..<100 {
            let example = Case(&dice, wild: false)
            let found = example.run(.reference, layer: false)
            for r in 0..<example.m {
                let x = (0..<example.n).map { Double(example.x[r * example.stride + $0]) }
                let scale = 1 / (x.reduce(0) { $0 + $1 * $1 } / Double(example.n) + 1e-6).squareRoot()
                let tolerance = Double(example.n / 16 + 16) * rounding
                for j in 0..<example.n {
                    let expected = Double(example.weight[j]) * x[j] * scale
                    #expect(abs(Double(found[r * example.outStride + j]) - expected) <= tolerance * abs(expected))
                }
            }
        }
    }

    @Test
    func `layer norm is what its formula says`() {
        var dice = Dice(seed: 4)
        for _ in 0..<100 {
            let example = Case(&dice, wild: false)
            guard example.n > 1 else { continue }  // one column deviates from itself by nothing but rounding
            let found = example.run(.reference, layer: true)
            for r in 0..<example.m {
                let x = (0..<example.n).map { Double(example.x[r * example.stride + $0]) }
                let mean = x.reduce(0, +) / Double(example.n)
                let variance = x.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(example.n)
                let scale = 1 / (variance + 1e-6).squareRoot()
                let largest = x.map(abs).max()!
                for j in 0..<example.n {
                    let weight = Double(example.weight[j])
                    let bias = Double(example.bias[j])
                    let expected = weight * (x[j] - mean) * scale + bias
                    // A wrong mean moves a deviation, and the scale by as much, relatively to the deviation itself.
                    let relative = Double(example.n / 16 + 16) * rounding * (1 + largest * scale)
                    let tolerance = relative * (abs(weight) * (largest + abs(x[j] - mean)) * scale + abs(bias))
                    #expect(abs(Double(found[r * example.outStride + j]) - expected) <= tolerance)
                }
            }
        }
    }
}
