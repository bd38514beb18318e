import CKernels
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

struct StreamsKernelTests {
    private struct Case {
        let m: Int, count: Int, hidden: Int, rounds: Int, readsOnly: Bool
        let streamsStride: Int, mixesStride: Int, xStride: Int
        let streams: [Float], mixes: [Float], scale: [Float], base: [Float], x: [Float]

        var coefficients: Int { readsOnly ? count : (2 + count) * count }

        /// - Parameter usual: four streams that are read and written, as in released models.
        init(_ dice: inout Dice, usual: Bool, wild: Bool = false) {
            (m, hidden, rounds) = (dice.int(0...5), dice.width(), dice.int(1...20))
            (count, readsOnly) = usual ? (4, false) : (dice.int(1...8), dice.flag())
            let numbers = readsOnly ? count : (2 + count) * count
            streamsStride = count * hidden + dice.int(0...9)
            mixesStride = numbers + dice.int(0...5)
            xStride = hidden + dice.int(0...9)
            streams = dice.rows(m, width: count * hidden, stride: streamsStride, wild: wild)
            mixes = dice.rows(m, width: numbers, stride: mixesStride, wild: wild)
            scale = dice.rows(1, width: readsOnly ? 1 : 3, stride: 3)
            base = dice.rows(1, width: numbers, stride: numbers)
            x = dice.rows(m, width: hidden, stride: xStride, wild: wild)
        }

        func mix(_ level: KernelLevel) -> [Float] {
            let (numbers, u) = (Guarded(mixes), Guarded(streams))
            let (factors, addends) = (Guarded(scale), Guarded(base))
            let parameters = unsafe braid_stream_mix(
                m: Int64(m), count: Int64(count), n: Int64(count * hidden), rounds: Int64(rounds),
                reads_only: readsOnly, streams: u.pointer, streams_stride: Int64(streamsStride),
                scale: factors.pointer, base: addends.pointer, norm_eps: 1e-6, eps: 1e-6, mixes: numbers.pointer,
                mixes_stride: Int64(mixesStride))
            unsafe call(level.table.stream_mix, parameters, keeping: [numbers, u, factors, addends])
            return numbers.values
        }

        private func move(_ level: KernelLevel, writes: Bool, _ x: Guarded<Float>) -> [Float] {
            let (numbers, u) = (Guarded(mixes), Guarded(streams))
            let parameters = unsafe braid_streams(
                m: Int64(m), count: Int64(count), n: Int64(hidden), mixes: numbers.pointer,
                mixes_stride: Int64(mixesStride), streams: u.pointer, streams_stride: Int64(streamsStride),
                x: x.pointer, x_stride: Int64(xStride))
            unsafe call(
                writes ? level.table.write_streams : level.table.read_streams, parameters, keeping: [numbers, u, x])
            return writes ? u.values : x.values
        }

        func read(_ level: KernelLevel) -> [Float] {
            move(level, writes: false, output(m, width: hidden, stride: xStride))
        }

        func write(_ level: KernelLevel) -> [Float] { move(level, writes: true, Guarded(x)) }

        var description: String {
            "\(m) rows, \(count) streams of \(hidden), \(rounds) rounds, reads only \(readsOnly)"
        }
    }

    @Test(arguments: [false, true])
    func `every level mixes, reads and writes with the bits of the reference`(usual: Bool) {
        var dice = Dice(seed: 71)
        for i in 0..<300 {
            let example = Case(&dice, usual: usual, wild: i % 3 == 0)
            let (mixes, input) = (example.mix(.reference), example.read(.reference))
            let streams = example.readsOnly ? [] : example.write(.reference)
            #expect(isUntouchedBetweenRows(input, width: example.hidden, stride: example.xStride))
            for level in KernelLevel.fast {
                #expect(firstDifference(example.mix(level), mixes) == nil, "\(level.name), \(example.description)")
                #expect(firstDifference(example.read(level), input) == nil, "\(level.name), \(example.description)")
                if example.readsOnly { continue }
                #expect(firstDifference(example.write(level), streams) == nil, "\(level.name), \(example.description)")
            }
        }
    }

    /// Computes a row's coefficients in double precision.
    private func exactMix(_ example: Case, row: Int) -> [Double] {
        let (count, eps) = (example.count, 1e-6)
        let u = (0..<count * example.hidden).map { Double(example.streams[row * example.streamsStride + $0]) }
        let factor = 1 / (u.reduce(0) { $0 + $1 * $1 } / Double(u.count) + 1e-6).squareRoot()
        let z = (0..<example.coefficients).map { i in
            let product = Double(example.mixes[row * example.mixesStride + i]) * factor
            return product * Double(example.scale[min(i / count, 2)]) + Double(example.base[i])
        }
        func sigmoid(_ z: Double) -> Double { 1 / (1 + exp(-z)) }
        let pre = z[..<count].map { sigmoid($0) + eps }
        if example.readsOnly { return pre }
        let post = z[count..<2 * count].map { 2 * sigmoid($0) }
        var a = (0..<count).map { j -> [Double] in
            let e = (0..<count).map { exp(z[(2 + j) * count + $0]) }
            return e.map { $0 / e.reduce(0, +) + eps }
        }
        for round in 0..<example.rounds {
            if round > 0 { a = a.map { row in row.map { $0 / (row.reduce(0, +) + eps) } } }
            let columns = (0..<count).map { k in a.reduce(0) { $0 + $1[k] } + eps }
            a = a.map { row in row.indices.map { row[$0] / columns[$0] } }
        }
        return pre + post + a.joined()
    }

    @Test(arguments: [false, true])
    func `coefficients are what their formulas say`(usual: Bool) {
        var dice = Dice(seed: 72)
        for _ in 0..<60 {
            let example = Case(&dice, usual: usual)
            let found = example.mix(.reference)
            for r in 0..<example.m {
                let expected = exactMix(example, row: r)
                for (i, value) in expected.enumerated() {
                    // An exponent of size 20 is known to a few roundings of itself; each round adds some more.
                    let tolerance = Double(400 + 20 * example.rounds) * rounding * abs(value)
                    let difference = abs(Double(found[r * example.mixesStride + i]) - value)
                    #expect(difference <= tolerance, "coefficient \(i), \(example.description)")
                }
            }
        }
    }

    @Test(arguments: [false, true])
    func `reading and writing are the sums that their formulas say`(usual: Bool) {
        var dice = Dice(seed: 73)
        for _ in 0..<60 {
            let example = Case(&dice, usual: usual)
            let (count, hidden) = (example.count, example.hidden)
            let (input, streams) = (example.read(.reference), example.readsOnly ? [] : example.write(.reference))
            for r in 0..<example.m {
                let mixes = example.mixes[(r * example.mixesStride)...].prefix(example.coefficients).map(Double.init)
                for d in 0..<hidden {
                    let before = (0..<count).map {
                        Double(example.streams[r * example.streamsStride + $0 * hidden + d])
                    }
                    let terms = zip(mixes, before).map { $0 * $1 }
                    let tolerance = 10 * rounding
                    let read = Double(input[r * example.xStride + d])
                    #expect(abs(read - terms.reduce(0, +)) <= tolerance * terms.reduce(0) { $0 + abs($1) })
                    for k in 0..<(example.readsOnly ? 0 : count) {
                        let own = mixes[count + k] * Double(example.x[r * example.xStride + d])
                        let terms = [own] + (0..<count).map { mixes[(2 + $0) * count + k] * before[$0] }
                        let written = Double(streams[r * example.streamsStride + k * hidden + d])
                        #expect(abs(written - terms.reduce(0, +)) <= tolerance * terms.reduce(0) { $0 + abs($1) })
                    }
                }
            }
        }
    }

    @Test(arguments: KernelLevel.all)
    func `a row with a NaN spoils its own coefficients only`(level: KernelLevel) {
        for count in [3, 4] {
            let (n, numbers) = (count * 5, (2 + count) * count)
            var streams = [Float](repeating: 0.5, count: 2 * n)
            streams[n + 3] = .nan
            let (mixes, u) = (Guarded([Float](repeating: 1, count: 2 * numbers)), Guarded(streams))
            let (scale, base) = (Guarded<Float>([1, 1, 1]), Guarded(repeating: Float(0), count: numbers))
            let parameters = unsafe braid_stream_mix(
                m: 2, count: Int64(count), n: Int64(n), rounds: 20, reads_only: false, streams: u.pointer,
                streams_stride: Int64(n), scale: scale.pointer, base: base.pointer, norm_eps: 1e-6, eps: 1e-6,
                mixes: mixes.pointer, mixes_stride: Int64(numbers))
            unsafe call(level.table.stream_mix, parameters, keeping: [mixes, u, scale, base])
            #expect(mixes.values.prefix(numbers).allSatisfy { $0.isFinite && $0 > 0 })
            #expect(mixes.values.suffix(numbers).allSatisfy { $0.isNaN })
        }
    }
}
