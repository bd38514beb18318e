import CKernels
import Testing

struct QuantizationKernelTests {
    private func storeBF16(_ level: KernelLevel, _ x: [Float], width: Int, slots: [Int32], entries: Int) -> [UInt16] {
        let input = Guarded(x)
        let places = Guarded(slots)
        let lane = Guarded(repeating: UInt16(0x5555), count: entries * width)
        let parameters = unsafe braid_store_rows(
            m: Int64(slots.count), n: Int64(width), x: input.pointer, x_stride: Int64(width), slots: places.pointer,
            lane: lane.pointer, dtype: BRAID_BF16, group: Int64(width),
            scale_type: BRAID_SCALE_F32)
        unsafe call(level.table.store_rows, parameters, keeping: [input, places, lane])
        return lane.values
    }

    @Test
    func `entries are copied to rows byte by byte`() {
        var dice = Dice(seed: 36)
        for _ in 0..<100 {
            let (entries, bytes, m) = (dice.int(1...9), dice.int(1...70), dice.int(0...9))
            let lane = (0..<entries * bytes).map { _ in UInt8.random(in: 0...255, using: &dice) }
            let numbers = (0..<m).map { _ in Int32(dice.int(-1...entries - 1)) }
            let stride = (bytes + 3) / 4 + dice.int(0...3)
            for level in KernelLevel.all {
                let (list, memory) = (Guarded(numbers), Guarded(lane))
                let rows = Guarded(repeating: UInt8(0xAB), count: m * stride * 4)
                unsafe rows.pointer.withMemoryRebound(to: Float.self, capacity: m * stride) { pointer in
                    let parameters = unsafe braid_load_entries(
                        m: Int64(m), bytes: Int64(bytes), entries: list.pointer, lane: memory.pointer, rows: pointer,
                        stride: Int64(stride))
                    unsafe call(level.table.load_entries, parameters, keeping: [list, memory, rows])
                }
                for (row, entry) in numbers.enumerated() {
                    let found = Array(rows.values[row * stride * 4..<(row + 1) * stride * 4])
                    let stored = entry < 0 ? [] : Array(lane[Int(entry) * bytes..<(Int(entry) + 1) * bytes])
                    let padding = [UInt8](repeating: 0, count: entry < 0 ? 0 : (4 - bytes % 4) % 4)
                    let rest = [UInt8](repeating: 0xAB, count: found.count - stored.count - padding.count)
                    #expect(found == stored + padding + rest, "\(level.name)")
                }
            }
        }
    }

    @Test
    func `BF16 is the nearest value, the even one of two, and NaN stays NaN`() {
        let low: [UInt32] = [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF]
        for level in KernelLevel.all {
            for bits in low {
                let x = (0...UInt32(0xFFFF)).map { Float(bitPattern: $0 << 16 | bits) }
                let stored = storeBF16(level, x, width: x.count, slots: [0], entries: 1)
                for (upper, found) in stored.enumerated() {
                    let value = x[upper]
                    if value.isNaN {
                        #expect(found == UInt16(upper) | 0x40)
                    } else {
                        // Magnitudes and their codes ascend together, so the next code is the next value.
                        let up = bits > 0x8000 || (bits == 0x8000 && upper & 1 == 1)
                        #expect(Int(found) == upper + (up ? 1 : 0), "\(level.name), \(value)")
                    }
                }
            }
        }
    }

    @Test(arguments: [BRAID_BF16, BRAID_F32])
    func `rows are stored in their slots and nowhere else`(dtype: braid_dtype) {
        var dice = Dice(seed: 51)
        for _ in 0..<100 {
            let m = dice.int(0...7)
            let n = dice.width()
            let stride = n + dice.int(0...20)
            let entries = 12
            let x = dice.rows(m, width: n, stride: stride, wild: true)
            let slots = (0..<entries).shuffled(using: &dice).prefix(m).map { dice.int(0...3) == 0 ? -1 : Int32($0) }
            for level in KernelLevel.all {
                let input = Guarded(x)
                let places = Guarded(slots)
                let width = dtype == BRAID_F32 ? 2 : 1  // in units of half a float
                let lane = Guarded(repeating: UInt16(0x5555), count: entries * n * width)
                let parameters = unsafe braid_store_rows(
                    m: Int64(m), n: Int64(n), x: input.pointer, x_stride: Int64(stride), slots: places.pointer,
                    lane: lane.pointer, dtype: dtype, group: Int64(n), scale_type: BRAID_SCALE_F32)
                unsafe call(level.table.store_rows, parameters, keeping: [input, places, lane])
                var expected = [UInt16](repeating: 0x5555, count: entries * n * width)
                for r in 0..<m where slots[r] >= 0 {
                    let row = Array(x[r * stride..<r * stride + n])
                    let start = Int(slots[r]) * n * width
                    let stored =
                        dtype == BRAID_F32
                        ? row.flatMap { [UInt16(truncatingIfNeeded: $0.bitPattern), UInt16($0.bitPattern >> 16)] }
                        : storeBF16(.reference, row, width: n, slots: [0], entries: 1)
                    expected.replaceSubrange(start..<start + n * width, with: stored)
                }
                #expect(lane.values == expected, "\(level.name), \(m) x \(n)")
            }
        }
    }

    @Test(arguments: braid_scale_type.all)
    func `an FP8 entry is its values and its scales, each with zeros up to a multiple of four`(type: braid_scale_type) {
        var dice = Dice(seed: 56)
        for i in 0..<150 {
            let m = dice.int(0...7)
            let n = dice.width()
            let group = dice.flag() ? 128 : dice.int(1...140)
            let stride = n + dice.int(0...20)
            let entries = 12
            let x = dice.rows(m, width: n, stride: stride, wild: i % 3 == 0)
            let slots = (0..<entries).shuffled(using: &dice).prefix(m).map { dice.int(0...3) == 0 ? -1 : Int32($0) }
            let entryBytes = LaneShape(n, BRAID_FP8, group: group, scaleType: type).entryBytes
            var expected = [UInt8](repeating: 0x55, count: entries * entryBytes)
            for r in 0..<m where slots[r] >= 0 {
                let row = Array(x[r * stride..<r * stride + n])
                var shape = Groups(
                    n: n, group: group, stride: n, valuesStride: n, scalesStride: (n + group - 1) / group)
                shape.powerOfTwo = type == BRAID_SCALE_E8M0
                let (values, scales) = shape.quantize(.reference, row)
                let stored = scales.flatMap { storedScale($0, type) }
                let entry = toWords(values, filling: 0) + toWords(stored, filling: 0)
                #expect(entry.count == entryBytes)
                let start = Int(slots[r]) * entryBytes
                expected.replaceSubrange(start..<start + entry.count, with: entry)
            }
            for level in KernelLevel.all {
                let lane = store(
                    level, x, width: n, stride: stride, slots, entries: entries, group: group, type, as: BRAID_FP8)
                #expect(lane == expected, "\(level.name), \(m) x \(n), groups of \(group)")
            }
        }
    }

    @Test
    func `a key of DeepSeek-V4 has 448 values, seven bytes of scales and one of padding`() {
        // Groups of 64, each with one number that decides its scale, which is 1 for more than 224 up to 448. Multiplied by
        // their scales, the codes are 448, 448, 224, 224, 9.92e-5, 0 and 2.98e38.
        let largest: [Float] = [448, 448.5, 224, 225, 1e-4, 0, 3e38]
        let exponents: [UInt8] = [127, 128, 126, 127, 105, 105, 247]
        let key = largest.flatMap { [$0] + [Float](repeating: 0, count: 63) }
        let codes: [UInt8] = [0x7E, 0x76, 0x7E, 0x76, 0x7D, 0, 0x76]
        for level in KernelLevel.all {
            let lane = store(level, key, group: 64, BRAID_SCALE_E8M0)
            #expect(lane.count == 456)
            #expect(Array(lane[448...]) == exponents + [0], "\(level.name)")
            #expect(stride(from: 0, to: 448, by: 64).map { lane[$0] } == codes, "\(level.name)")
        }
    }

    /// Returns a lane of FP8 or FP4 entries after rows were stored in their slots; other bytes stay 0x55.
    private func store(
        _ level: KernelLevel, _ x: [Float], width: Int, stride: Int, _ slots: [Int32], entries: Int, group: Int,
        _ type: braid_scale_type, as dtype: braid_dtype
    ) -> [UInt8] {
        let bytes = LaneShape(width, dtype, group: group, scaleType: type).entryBytes
        let (input, places) = (Guarded(x), Guarded(slots))
        let lane = Guarded(repeating: UInt8(0x55), count: entries * bytes)
        let parameters = unsafe braid_store_rows(
            m: Int64(slots.count), n: Int64(width), x: input.pointer, x_stride: Int64(stride), slots: places.pointer,
            lane: lane.pointer, dtype: dtype, group: Int64(group), scale_type: type)
        unsafe call(level.table.store_rows, parameters, keeping: [input, places, lane])
        return lane.values
    }

    /// Returns the FP8 or FP4 entry of one row.
    private func store(
        _ level: KernelLevel, _ row: [Float], group: Int, _ type: braid_scale_type, as dtype: braid_dtype = BRAID_FP8
    ) -> [UInt8] {
        store(
            level, row, width: row.count, stride: row.count, [0], entries: 1, group: group, type, as: dtype)
    }

    /// Returns the nearest E2M1 code by comparing all eight magnitudes; the even one of two equally near.
    private func nearestFP4(_ x: Double) -> UInt8 {
        let magnitudes = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
        let best = (0..<8).min { a, b in
            let (distanceA, distanceB) = (abs(magnitudes[a] - abs(x)), abs(magnitudes[b] - abs(x)))
            return distanceA == distanceB ? a & 1 < b & 1 : distanceA < distanceB
        }
        return UInt8(best!) | (x.sign == .minus ? 8 : 0)
    }

    /// Returns what DeepSeek's code makes of a row: the smallest power of two for each group of which six are not less than
    /// its largest magnitude, and the nearest numbers.
    private func fp4Entry(_ row: [Float], group: Int) -> [UInt8] {
        var (codes, scales): ([UInt8], [UInt8]) = ([], [])
        for start in stride(from: 0, to: row.count, by: group) {
            let part = row[start..<min(start + group, row.count)]
            let largest = part.reduce(0) { max($0, Double($1.magnitude)) }
            guard part.allSatisfy(\.isFinite) else {
                scales.append(255)
                codes += part.map { _ in 0 }
                continue
            }
            let exponent = (-126...126).first { 6 * Double(sign: .plus, exponent: $0, significand: 1) >= largest }!
            scales.append(UInt8(exponent + 127))
            codes += part.map { nearestFP4(Double($0) * Double(sign: .plus, exponent: -exponent, significand: 1)) }
        }
        if codes.count % 2 == 1 { codes.append(0) }
        let pairs = stride(from: 0, to: codes.count, by: 2).map { codes[$0] | codes[$0 + 1] << 4 }
        return toWords(pairs, filling: 0) + toWords(scales, filling: 0)
    }

    @Test
    func `an FP4 entry has for each group the least scale and the nearest numbers, and zeros beside them`() {
        var dice = Dice(seed: 57)
        for i in 0..<300 {
            let m = dice.int(0...7)
            let n = dice.flag() ? 128 : dice.width()
            let group = [32, 16 * dice.int(1...9), n + dice.int(0...3)].randomElement(using: &dice)!
            let stride = n + dice.int(0...20)
            let x = dice.rows(m, width: n, stride: stride, wild: i % 3 == 0).map { i % 5 == 0 ? $0 * 1e-37 : $0 }
            let slots = (0..<12).shuffled(using: &dice).prefix(m).map { dice.int(0...3) == 0 ? -1 : Int32($0) }
            let entryBytes = LaneShape(n, BRAID_FP4, group: group, scaleType: BRAID_SCALE_E8M0).entryBytes
            var expected = [UInt8](repeating: 0x55, count: 12 * entryBytes)
            for r in 0..<m where slots[r] >= 0 {
                let entry = fp4Entry(Array(x[r * stride..<r * stride + n]), group: group)
                #expect(entry.count == entryBytes)
                let start = Int(slots[r]) * entryBytes
                expected.replaceSubrange(start..<start + entryBytes, with: entry)
            }
            for level in KernelLevel.all {
                let lane = store(
                    level, x, width: n, stride: stride, slots, entries: 12, group: group, BRAID_SCALE_E8M0,
                    as: BRAID_FP4)
                #expect(lane == expected, "\(level.name), \(m) x \(n), groups of \(group)")
            }
        }
    }

    @Test
    func `an FP4 value is the nearest of all sixteen`() {
        // Six makes the scale 1. Each number that is representable, the middle of two neighbours, and those beside it.
        let magnitudes: [Float] = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
        var x: [Float] =
            [6, .leastNonzeroMagnitude, -.leastNonzeroMagnitude, -0.0] + magnitudes + magnitudes.map { -$0 }
        for (low, high) in zip(magnitudes, magnitudes.dropFirst()) {
            let middle = (low + high) / 2
            x += [middle, middle.nextUp, middle.nextDown, -middle, -middle.nextUp, -middle.nextDown]
        }
        for level in KernelLevel.all {
            let lane = store(level, x, group: 16 * ((x.count + 15) / 16), BRAID_SCALE_E8M0, as: BRAID_FP4)
            #expect(lane == fp4Entry(x, group: x.count), "\(level.name)")
            #expect(lane[(x.count + 7) / 8 * 4] == 127)
        }
    }

    @Test
    func `an index key of DeepSeek-V4 in FP4 has 64 bytes of pairs and four of scales`() {
        // Groups of 32. A scale is 1 if the largest magnitude, in the last group 1.75, is more than 3 and at most 6. The
        // scale of zeros is the least normal one.
        let largest: [Float] = [6, 6.5, 3, 0]
        let key = largest.flatMap { [$0, -1.75] + [Float](repeating: 0, count: 30) }
        for level in KernelLevel.all {
            var lane = store(level, key, group: 32, BRAID_SCALE_E8M0, as: BRAID_FP4)
            #expect(lane.count == 68)
            #expect(Array(lane[64...]) == [127, 128, 126, 126], "\(level.name)")
            // Divided by their scales, the pairs are (6, -1.75), (3.25, -0.875), (6, -3.5) and (0, -3.5).
            #expect([0, 16, 32, 48].map { lane[$0] } == [0xC7, 0xA5, 0xE7, 0xE0], "\(level.name)")
            lane = store(level, [Float](repeating: 0, count: 128), group: 32, BRAID_SCALE_E8M0, as: BRAID_FP4)
            #expect(lane == [UInt8](repeating: 0, count: 64) + [1, 1, 1, 1], "\(level.name)")
        }
    }

    @Test(arguments: [Float.nan, -.nan, .infinity, -.infinity])
    func `a number that is not finite makes the scale of its FP4 group NaN and no other`(value: Float) {
        for level in KernelLevel.all {
            for place in [0, 17, 31] {
                var key = [Float](repeating: 6, count: 128)
                key[32 + place] = value
                let lane = store(level, key, group: 32, BRAID_SCALE_E8M0, as: BRAID_FP4)
                let codes = [UInt8](repeating: 0x77, count: 16)
                #expect(
                    lane == codes + [UInt8](repeating: 0, count: 16) + codes + codes + [127, 255, 127, 127],
                    "\(level.name)")
            }
        }
    }

    private func transform(
        _ level: KernelLevel, _ x: [Float], m: Int, heads: Int, width: Int, stride: Int
    ) -> [Float] {
        let memory = Guarded(x)
        let parameters = unsafe braid_hadamard(
            m: Int64(m), heads: Int64(heads), width: Int64(width), x: memory.pointer, x_stride: Int64(stride))
        unsafe call(level.table.hadamard, parameters, keeping: [memory])
        return memory.values
    }

    @Test
    func `the Hadamard transform is the matrix product on every level`() {
        var dice = Dice(seed: 52)
        for i in 0..<100 {
            let (m, heads, width) = (dice.int(0...5), dice.int(1...3), 1 << (i % 11))
            let stride = heads * width + dice.int(0...9)
            let x = dice.rows(m, width: heads * width, stride: stride, wild: i % 3 == 0)
            let expected = transform(.reference, x, m: m, heads: heads, width: width, stride: stride)
            for level in KernelLevel.fast {
                let found = transform(level, x, m: m, heads: heads, width: width, stride: stride)
                #expect(firstDifference(found, expected) == nil, "\(level.name), \(heads) x \(width)")
            }
            guard i % 3 != 0 else { continue }
            let size = Double(width).squareRoot()
            for start in (0..<m).flatMap({ r in (0..<heads).map { r * stride + $0 * width } }) {
                let row = x[start..<start + width].map(Double.init)
                // A sum of ten steps at most, the factor and the product.
                let tolerance = 12 * rounding * row.reduce(0) { $0 + abs($1) } / size
                for j in Set([0, 1, width / 2, width - 1, dice.int(0...width - 1)]) where j < width {
                    let exact = row.indices.reduce(0.0) {
                        $0 + ((j & $1).nonzeroBitCount % 2 == 0 ? row[$1] : -row[$1])
                    }
                    #expect(abs(Double(expected[start + j]) - exact / size) <= tolerance)
                }
            }
        }
    }

    private struct Groups {
        var m = 1, n: Int, group: Int, powerOfTwo = false, stride: Int, valuesStride: Int, scalesStride: Int

        init(row n: Int) { self.init(n: n, group: n, stride: n, valuesStride: n, scalesStride: 1) }

        init(
            m: Int = 1, n: Int, group: Int, powerOfTwo: Bool = false, stride: Int, valuesStride: Int, scalesStride: Int
        ) {
            (self.m, self.n, self.group, self.powerOfTwo) = (m, n, group, powerOfTwo)
            (self.stride, self.valuesStride, self.scalesStride) = (stride, valuesStride, scalesStride)
        }

        private func parameters(
            _ x: Guarded<Float>, _ values: Guarded<UInt8>, _ scales: Guarded<Float>
        ) -> braid_quantize_groups {
            unsafe braid_quantize_groups(
                m: Int64(m), n: Int64(n), group: Int64(group), power_of_two: powerOfTwo, x: x.pointer,
                x_stride: Int64(stride), values: values.pointer, values_stride: Int64(valuesStride),
                scales: scales.pointer, scales_stride: Int64(scalesStride))
        }

        func quantize(_ level: KernelLevel, _ x: [Float]) -> (values: [UInt8], scales: [Float]) {
            let input = Guarded(x)
            let values = Guarded(repeating: UInt8(0xA5), count: m * valuesStride)
            let scales = Guarded(repeating: untouched, count: m * scalesStride)
            unsafe call(
                level.table.quantize_groups, parameters(input, values, scales), keeping: [input, values, scales])
            return (values.values, scales.values)
        }

        func dequantize(_ level: KernelLevel, _ values: [UInt8], _ scales: [Float]) -> [Float] {
            let x = output(m, width: n, stride: stride)
            let values = Guarded(values)
            let scales = Guarded(scales)
            unsafe call(level.table.dequantize_groups, parameters(x, values, scales), keeping: [x, values, scales])
            return x.values
        }
    }

    private func groups(_ dice: inout Dice) -> Groups {
        let n = dice.width()
        let group = dice.int(1...140)
        return Groups(
            m: dice.int(0...7), n: n, group: group, powerOfTwo: dice.flag(), stride: n + dice.int(0...9),
            valuesStride: n + dice.int(0...9), scalesStride: (n + group - 1) / group + dice.int(0...2))
    }

    @Test
    func `every level quantizes and dequantizes with the bits of the reference`() {
        var dice = Dice(seed: 53)
        for i in 0..<300 {
            let shape = groups(&dice)
            let x = dice.rows(shape.m, width: shape.n, stride: shape.stride, wild: i % 3 == 0)
            let expected = shape.quantize(.reference, x)
            let codes = expected.values.indices.map { _ in UInt8(dice.int(0...255)) }
            let scales = expected.scales.indices.map { _ in dice.wildFloat() }
            let widened = shape.dequantize(.reference, codes, scales)
            #expect(isUntouchedBetweenRows(widened, width: shape.n, stride: shape.stride))
            for level in KernelLevel.fast {
                let found = shape.quantize(level, x)
                #expect(found.values == expected.values, "\(level.name)")
                #expect(firstDifference(found.scales, expected.scales) == nil, "\(level.name)")
                #expect(firstDifference(shape.dequantize(level, codes, scales), widened) == nil, "\(level.name)")
            }
        }
    }

    /// Returns the value of an E4M3 code, by the definition of the format.
    private func value(_ code: UInt8) -> Double {
        let exponent = Int(code >> 3 & 15)
        let fraction = Double(code & 7)
        let sign = code & 0x80 == 0 ? 1.0 : -1.0
        if code & 0x7F == 0x7F { return .nan }
        return sign
            * (exponent == 0
                ? fraction / 512 : Double(sign: .plus, exponent: exponent - 7, significand: 1 + fraction / 8))
    }

    /// Returns the nearest code by comparing all of them; the even one of two equally near.
    private func nearest(_ x: Float) -> UInt8 {
        let sign: UInt8 = x.sign == .minus ? 0x80 : 0
        let best = (UInt8(0)...0x7E).min { a, b in
            let distanceA = abs(value(a) - Double(x.magnitude))
            let distanceB = abs(value(b) - Double(x.magnitude))
            return distanceA == distanceB ? a & 1 < b & 1 : distanceA < distanceB
        }
        return sign | best!
    }

    @Test
    func `all 256 codes survive the way back and forth`() {
        let codes = (0...255).map { UInt8($0) }
        for level in KernelLevel.all {
            let shape = Groups(row: 256)
            let widened = shape.dequantize(level, codes, [1])
            for (code, found) in zip(codes, widened) {
                if code & 0x7F == 0x7F {
                    #expect(found.isNaN)
                } else {
                    #expect(Double(found) == value(code) && found.sign == (code < 0x80 ? .plus : .minus))
                }
            }
            let back = shape.quantize(level, widened)
            #expect(back.scales == [1])  // the largest magnitude is 448
            #expect(back.values == codes.map { $0 & 0x7F == 0x7F ? 0x7F : $0 })
        }
    }

    @Test
    func `a quantized value is the nearest of all codes`() {
        var dice = Dice(seed: 54)
        var x: [Float] = [448, -448, 0, -0.0, .leastNonzeroMagnitude, 0x1p-10, 0x1.8p-10]
        for code in UInt8(0)..<0x7E {
            let middle = Float((value(code) + value(code + 1)) / 2)
            x += [middle, middle.nextUp, middle.nextDown, -middle, -middle.nextUp, -middle.nextDown]
        }
        for _ in 0..<3000 {
            x.append(
                Float.random(in: -1...1, using: &dice) * Float(sign: .plus, exponent: dice.int(-12...8), significand: 1)
            )
        }
        let expected = x.map(nearest)
        for level in KernelLevel.all {
            let found = Groups(row: x.count).quantize(level, x)
            #expect(found.scales == [1])
            #expect(found.values == expected, "\(level.name)")
        }
    }

    @Test
    func `a group's scale follows its largest magnitude and nothing else`() {
        var dice = Dice(seed: 55)
        for _ in 0..<200 {
            var shape = groups(&dice)
            let x = dice.rows(shape.m, width: shape.n, stride: shape.stride).map { $0 * 1e-3 }
            for powerOfTwo in [false, true] {
                shape.powerOfTwo = powerOfTwo
                let scales = shape.quantize(.reference, x).scales
                for r in 0..<shape.m {
                    for g in 0..<(shape.n + shape.group - 1) / shape.group {
                        let columns = g * shape.group..<min((g + 1) * shape.group, shape.n)
                        let largest = columns.reduce(Float(1e-4)) { max($0, x[r * shape.stride + $1].magnitude) }
                        let scale = scales[r * shape.scalesStride + g]
                        if powerOfTwo {
                            #expect(scale.significand == 1 && scale >= largest / 448 && scale / 2 < largest / 448)
                        } else {
                            #expect(scale == largest / 448)
                        }
                    }
                }
            }
        }
    }

    @Test
    func `special values are NaN or saturate and leave their neighbours alone`() {
        for level in KernelLevel.all {
            for powerOfTwo in [false, true] {
                var shape = Groups(row: 3)
                shape.powerOfTwo = powerOfTwo
                let withNaN = shape.quantize(level, [.nan, 448, -.nan])
                #expect(withNaN.values == [0x7F, 0x7E, 0x7F] && withNaN.scales == [1])
                let withInfinity = shape.quantize(level, [.infinity, 448, -.infinity])
                #expect(withInfinity.values == [0x7F, 0, 0x7F] && withInfinity.scales == [.infinity])
                let exact = shape.quantize(level, [56, 28, -56])  // 448 / 8: the scale is 2^-3 both ways
                #expect(exact.values == [0x7E, 0x76, 0xFE] && exact.scales == [0.125])
                let tiny = shape.quantize(level, [0, 1e-30, -0.0])
                #expect(tiny.values == [0, 0, 0x80])
            }
        }
    }
}
