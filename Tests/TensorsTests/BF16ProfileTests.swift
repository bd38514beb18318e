import CKernels
import Foundation
import Testing

/// Tests what the profile BF16 computes, by its definition in `profile.h`, and that every level computes it alike.
struct BF16ProfileTests {
    /// Says what kind of numbers a product gets.
    enum Numbers: CaseIterable {
        case usual, anyExponent, nearSmallest, zeros, infinities, notNumbers, mixed

        func draw(_ dice: inout Dice) -> Float {
            let usual = dice.float()
            switch self {
            case .usual: return usual
            case .anyExponent: return usual * Float(sign: .plus, exponent: dice.int(-126...55), significand: 1)
            case .nearSmallest: return usual * Float(sign: .plus, exponent: dice.int(-66 ... -60), significand: 1)
            case .zeros: return dice.flag() ? usual : dice.flag() ? 0 : -0.0
            case .infinities: return dice.int(0...700) == 0 ? (dice.flag() ? .infinity : -.infinity) : usual
            case .notNumbers: return dice.int(0...700) == 0 ? .nan : usual
            case .mixed: return Self.allCases[dice.int(0...5)].draw(&dice)
            }
        }
    }

    /// A product of packed F32 rows with packed BF16 weights.
    private struct Product {
        let m: Int, n: Int, k: Int
        let x: [Float]
        /// `[n, k]`, exact in BF16.
        let weights: [Float]

        init(m: Int, n: Int, k: Int, x: [Float], weights: [Float]) {
            (self.m, self.n, self.k, self.x) = (m, n, k, x)
            // A number below the smallest normal one stays as it is stored.
            self.weights = weights.map {
                $0.magnitude < .leastNormalMagnitude ? $0 : BF16ProfileTests.rounded($0)
            }
        }

        init(_ dice: inout Dice, m: Int, n: Int, k: Int, _ numbers: Numbers) {
            self.init(
                m: m, n: n, k: k, x: (0..<m * k).map { _ in numbers.draw(&dice) },
                weights: (0..<n * k).map { _ in numbers.draw(&dice) })
        }

        func run(_ level: KernelLevel, transposed: Bool = false) -> [Float] {
            let order = transposed ? (0..<k).flatMap { l in (0..<n).map { $0 * k + l } } : Array(0..<n * k)
            let stored = Guarded(order.flatMap { storedBytes(weights[$0], BRAID_BF16) })
            let (input, out, room) = (Guarded(x), output(m, width: n, stride: n), scratch(Int(BRAID_MATMUL_SCRATCH)))
            let weight = unsafe braid_weight(
                data: stored.pointer, dtype: BRAID_BF16, stride: Int64(transposed ? n : k), scale: nil,
                scale_stride: 0, row: 0, column: 0, row_shift: 0, column_shift: 0, rounding: nil)
            let parameters = unsafe braid_matmul(
                w: weight, profile: BRAID_PROFILE_BF16, transposed: transposed, accumulate: false, m: Int64(m),
                n: Int64(n), k: Int64(k), x: input.pointer, x_stride: Int64(k), x_rows: nil, out: out.pointer,
                out_stride: Int64(n), out_rows: nil, gemv_max_rows: 0, scratch: room.pointer)
            unsafe call(level.table.matmul, parameters, keeping: [stored, input, out, room])
            return out.values
        }
    }

    /// Rounds to BF16, ties to even, by the definition of the format.
    private static func rounded(_ value: Float) -> Float {
        if value.isNaN || value.isInfinite { return value }
        if value.magnitude < Float.leastNormalMagnitude { return Float(signOf: value, magnitudeOf: 0) }
        let unit = Double(sign: .plus, exponent: Int(value.exponent) - 7, significand: 1)
        return Float((Double(value) / unit).rounded(.toNearestOrEven) * unit)
    }

    /// Where the system refuses AMX, the log of the tests says so, because nothing of it is tested then.
    @Test func `AMX is tested wherever the processor and the operating system have it`() throws {
        let names = KernelLevel.all.map(\.name)
        let state = braid_tiles()
        print("levels of this processor: \(names.joined(separator: ", "))")
        if state == BRAID_TILES_REFUSED { print("THE OPERATING SYSTEM REFUSES AMX: its kernels are not tested") }
        #expect(names.contains("AMX") == (state == BRAID_TILES_USABLE))
        guard let text = try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8) else { return }
        let needed: Set<Substring> = ["amx_bf16", "amx_tile", "avx512vbmi", "avx512_bf16", "avx512_vnni"]
        #expect(needed.isSubset(of: text.split { " \n\t".contains($0) }) == (state != BRAID_TILES_MISSING))
    }

    @Test(arguments: Numbers.allCases)
    func `every level adds numbers of every kind with the bits of the reference`(numbers: Numbers) {
        var dice = Dice(seed: 80)
        for k in 1...97 {
            let product = Product(&dice, m: dice.int(1...65), n: dice.int(1...40), k: k, numbers)
            let expected = product.run(.reference)
            for level in KernelLevel.fast {
                #expect(firstDifference(product.run(level), expected) == nil, "\(level.name), \(k) terms")
                let transposed = product.run(level, transposed: true)
                #expect(firstDifference(transposed, expected) == nil, "\(level.name), \(k) terms, transposed")
            }
        }
    }

    @Test(arguments: KernelLevel.all)
    func `a product is that of the rounded operands`(level: KernelLevel) {
        var dice = Dice(seed: 81)
        for k in [1, 31, 32, 33, 200, 1024] {
            let product = Product(&dice, m: 3, n: 20, k: k, .usual)
            let found = product.run(level)
            for r in 0..<3 {
                for j in 0..<20 {
                    var (sum, magnitude) = (0.0, 0.0)
                    for l in 0..<k {
                        let term = Double(Self.rounded(product.x[r * k + l])) * Double(product.weights[j * k + l])
                        sum += term
                        magnitude += abs(term)
                    }
                    #expect(abs(Double(found[r * 20 + j]) - sum) <= Double(k + 1) * rounding * magnitude)
                }
            }
        }
    }

    @Test(arguments: KernelLevel.all)
    func `even and odd terms of a block are added apart`(level: KernelLevel) {
        // One chain would lose each of the ones that follow 2^24. Apart, the odd terms' ones are added first.
        var x = [Float](repeating: 0, count: 40)
        (x[0], x[1], x[3], x[5]) = (0x1p24, 1, 1, 1)
        let weights = [Float](repeating: 1, count: 40)
        let apart = Product(m: 1, n: 1, k: 40, x: x, weights: weights)
        #expect(apart.run(level) == [0x1p24 + 4])  // 2^24 + 3, rounded to even
        // A new block begins at zero again.
        (x[5], x[33], x[34]) = (0, 1, 1)
        let blocks = Product(m: 1, n: 1, k: 40, x: x, weights: weights)
        #expect(blocks.run(level) == [0x1p24 + 4])
    }

    @Test(arguments: KernelLevel.all)
    func `a sum that would round to the smallest normal number stays, and a smaller one becomes zero`(
        level: KernelLevel
    ) {
        // 2^-126 - d: with 24 bits of precision and any exponent it is 2^-126 again if d is at most 2^-151.
        func difference(_ d: Float) -> Float {
            var (x, weights) = ([Float](repeating: 0, count: 32), [Float](repeating: 0, count: 32))
            (x[0], weights[0]) = (0x1p-63, 0x1p-63)
            (x[2], weights[2]) = (-0x1p-75, d)
            return Product(m: 1, n: 1, k: 32, x: x, weights: weights).run(level)[0]
        }
        #expect(difference(0x1.fep-77) == 0x1p-126)
        #expect(difference(0x1p-76) == 0x1p-126)
        #expect(difference(0x1.02p-76) == 0)
        #expect(difference(0x1p-52) == 0)
    }

    @Test(arguments: KernelLevel.all)
    func `numbers below the smallest normal one count as zeros`(level: KernelLevel) {
        let operand = Product(m: 1, n: 1, k: 2, x: [0x1p-130, 0], weights: [0x1p60, 0])
        #expect(operand.run(level) == [0])
        for x: Float in [1, 0x1p100] {
            let weight = Product(
                m: 1, n: 2, k: 32, x: [x] + Array(repeating: 0, count: 31),
                weights: [1] + Array(repeating: 0, count: 31) + [0x1p-130] + Array(repeating: 0, count: 31))
            #expect(weight.run(level) == [x, 0])
        }
    }

}
