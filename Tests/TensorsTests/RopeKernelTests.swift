import CKernels
import Testing

struct RopeKernelTests {
    private struct Case {
        let m: Int, heads: Int, width: Int, interleaved: Bool, inverse: Bool, headStride: Int, stride: Int
        let x: [Float], cosine: [Float], sine: [Float]

        init(_ dice: inout Dice, wild: Bool) {
            m = dice.int(0...5)
            heads = dice.int(1...4)
            width = 2 * dice.int(1...70)
            (interleaved, inverse) = (dice.flag(), dice.flag())
            headStride = width + dice.int(0...9)
            stride = heads * headStride + dice.int(0...7)
            let count = m == 0 ? 0 : (m - 1) * stride + (heads - 1) * headStride + width
            x = (0..<count).map { _ in wild ? dice.wildFloat() : dice.float() }
            cosine = dice.rows(m, width: width / 2, stride: width / 2)
            sine = dice.rows(m, width: width / 2, stride: width / 2)
        }

        func run(_ level: KernelLevel) -> [Float] {
            let values = Guarded(x)
            let cosines = Guarded(cosine)
            let sines = Guarded(sine)
            let parameters = unsafe braid_rope(
                m: Int64(m), heads: Int64(heads), width: Int64(width), interleaved: interleaved,
                inverse: inverse, x: values.pointer, x_stride: Int64(stride), head_stride: Int64(headStride),
                cosine: cosines.pointer, sine: sines.pointer)
            unsafe call(level.table.rope, parameters, keeping: [values, cosines, sines])
            return values.values
        }
    }

    @Test
    func `every level rotates with the bits of the reference`() {
        var dice = Dice(seed: 11)
        for i in 0..<400 {
            let example = Case(&dice, wild: i % 3 == 0)
            let expected = example.run(.reference)
            for level in KernelLevel.fast {
                let shape = "\(level.name), width \(example.width), interleaved \(example.interleaved)"
                #expect(firstDifference(example.run(level), expected) == nil, "\(shape)")
            }
        }
    }

    @Test
    func `a rotation is what its formula says and touches nothing else`() {
        var dice = Dice(seed: 12)
        for _ in 0..<60 {
            let example = Case(&dice, wild: false)
            let found = example.run(.reference)
            var expected = example.x.map(Double.init)
            var tolerance = [Double](repeating: 0, count: expected.count)
            let pairs = example.width / 2
            for r in 0..<example.m {
                for h in 0..<example.heads {
                    for i in 0..<pairs {
                        let start = r * example.stride + h * example.headStride
                        let first = start + (example.interleaved ? 2 * i : i)
                        let second = first + (example.interleaved ? 1 : pairs)
                        let a = expected[first]
                        let b = expected[second]
                        let c = Double(example.cosine[r * pairs + i])
                        let s = Double(example.sine[r * pairs + i]) * (example.inverse ? -1 : 1)
                        (expected[first], expected[second]) = (a * c - b * s, a * s + b * c)
                        tolerance[first] = 3 * rounding * (abs(a * c) + abs(b * s))
                        tolerance[second] = 3 * rounding * (abs(a * s) + abs(b * c))
                    }
                }
            }
            for i in expected.indices { #expect(abs(Double(found[i]) - expected[i]) <= tolerance[i]) }
        }
    }
}
