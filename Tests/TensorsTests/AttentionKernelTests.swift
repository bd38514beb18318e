import CKernels
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Names the keys that a row attends to: every visible key, some, or keys of one class only.
enum AttendedKeys: CaseIterable { case all, some, oneClass }

struct AttentionKernelTests {
    private struct Case {
        let m: Int, heads: Int, latent: Int, rope: Int
        let positions: [Int]
        var selected: [[Int]]?
        var cache: PagedLanes
        let qStride: Int, outStride: Int
        var q: [Float]
        let scale: Float
        /// True if a value is the whole key.
        let rotaryValues: Bool
        var profile: braid_profile
        /// 0 selects the level's default.
        let directKeyMaxHeads: Int

        /// Uses the widths that tiles of stored keys take, and enough keys for several blocks of a class; of the narrowest,
        /// enough for several parts of a class on AMX, and sometimes more heads than two tiles have.
        init(whole dice: inout Dice, keys: AttendedKeys) {
            let latent = [32, 64, 128, 160, 512].randomElement(using: &dice)!
            let type = [BRAID_F32, BRAID_BF16, BRAID_FP8].randomElement(using: &dice)!
            let group = [nil, 32, 64, 96, 128].randomElement(using: &dice)!
            let scaleType = braid_scale_type.all.randomElement(using: &dice)!
            let rope = LaneShape(dice.int(0...4) * 16, dice.flag() ? BRAID_BF16 : BRAID_F32)
            let (rows, longest) = (1, latent == 32 ? 6000 : 2600)
            self.init(
                &dice, keys: keys, rows: rows,
                heads: latent == 32 && dice.flag() ? 40 : dice.int(1...(latent == 32 ? 5 : 25)),
                LaneShape(latent, type, group: group, scaleType: scaleType), rope,
                positions: (0..<rows).map { _ in dice.int(longest - 1500...longest) }, longest: longest, kept: 3,
                wild: false)
        }

        init(_ dice: inout Dice, keys: AttendedKeys, small: Bool = false, wild: Bool = false) {
            let (rows, longest) = (dice.int(0...3), small || dice.flag() ? 40 : 600)
            let latent = dice.flag() ? dice.int(1...9) * 16 : dice.int(1...150)
            let rope = dice.flag() ? dice.int(0...4) * 16 : dice.int(0...64)
            self.init(
                &dice, keys: keys, rows: rows, heads: dice.flag() ? dice.int(1...9) : dice.int(1...30),
                LaneShape(&dice, width: latent), LaneShape(&dice, width: rope),
                positions: (0..<rows).map { _ in dice.int(0...longest) }, longest: longest, kept: dice.int(0...3),
                wild: wild)
        }

        private init(
            _ dice: inout Dice, keys: AttendedKeys, rows: Int, heads: Int, _ latents: LaneShape, _ ropes: LaneShape,
            positions: [Int], longest: Int, kept: Int, wild: Bool
        ) {
            m = rows
            self.heads = heads
            (latent, rope) = (latents.width, ropes.width)
            self.positions = positions
            let residue = dice.int(0...7)
            selected =
                keys == .all
                ? nil
                : positions.map { last in
                    (0...last).filter { keys == .some ? dice.int(0...3) < kept : $0 % 8 == residue }
                }
            let stored = Set(selected?.joined().map { $0 } ?? positions.flatMap { Array(0...$0) })
            cache = PagedLanes(
                &dice, lanes: [latents, ropes], positions: longest + 1, stored: stored, wild: wild)
            qStride = heads * (latent + rope) + dice.int(0...3)
            rotaryValues = dice.flag()
            profile = dice.flag() ? BRAID_PROFILE_BF16 : BRAID_PROFILE_F32
            outStride = heads * (latent + (rotaryValues ? rope : 0)) + dice.int(0...3)
            q = dice.rows(m, width: heads * (latent + rope), stride: qStride)
            scale = 1 / Float(latent + rope).squareRoot()
            directKeyMaxHeads = dice.flag() ? 0 : dice.int(1...40)
        }

        /// The width of a value.
        var value: Int { latent + (rotaryValues ? rope : 0) }

        func run(_ level: KernelLevel, stride: Int = 1, offset: Int = 0) -> (out: [Float], lse: [Float]) {
            let width = max(1, selected?.map(\.count).max() ?? 1)
            let chosen = (selected ?? []).flatMap { row in (0..<width).map { $0 < row.count ? Int32(row[$0]) : .min } }
            let most = selected?.map(\.count).max() ?? (positions.max() ?? 0) + 1
            let queries = Guarded(q)
            let (list, counts) = (Guarded(chosen), Guarded((selected ?? []).map { Int32($0.count) }))
            let last = Guarded(positions.map { Int32($0) })
            let out = output(m, width: heads * value, stride: outStride)
            let lse = output(m, width: heads, stride: heads)
            let room = scratch(Int(braid_attention_scratch(Int64(heads), Int64(value), Int64(most))))
            let parameters = unsafe braid_attention(
                profile: profile, m: Int64(m), heads: Int64(heads), q: queries.pointer,
                q_stride: Int64(qStride), scale: scale,
                latent: cache.lane(0), rope: cache.lane(1), rotary_values: rotaryValues, pages: cache.pages.pointer,
                page_shift: Int32(cache.pageShift), positions: last.pointer,
                selected: selected == nil ? nil : UnsafePointer(list.pointer), selected_stride: Int64(width),
                selected_count: selected == nil ? nil : UnsafePointer(counts.pointer), class_stride: Int32(stride),
                class_offset: Int32(offset), out: out.pointer, out_stride: Int64(outStride), lse: lse.pointer,
                direct_key_max_heads: Int64(directKeyMaxHeads), scratch: room.pointer)
            unsafe call(
                level.table.attention, parameters, keeping: [queries, list, counts, last, out, lse, room, cache])
            return (out.values, lse.values)
        }

        var description: String {
            "profile \(profile.rawValue), m \(m), heads \(heads), latent \(latent), rope \(rope), to \(positions)"
        }
    }

    @Test(arguments: AttendedKeys.allCases)
    func `every level attends with the bits of the reference`(keys: AttendedKeys) {
        var dice = Dice(seed: 30)
        for i in 0..<80 {
            var example = Case(&dice, keys: keys, wild: i % 5 == 1)
            if i % 5 == 0 { example.q = example.q.map { _ in dice.wildFloat() } }
            let stride = 1 << dice.int(0...3)
            let offset = dice.int(0...stride - 1)
            let expected = example.run(.reference, stride: stride, offset: offset)
            let width = example.heads * example.value
            #expect(isUntouchedBetweenRows(expected.out, width: width, stride: example.outStride))
            for level in KernelLevel.fast {
                let found = example.run(level, stride: stride, offset: offset)
                #expect(firstDifference(found.out, expected.out) == nil, "\(level.name), \(example.description)")
                #expect(firstDifference(found.lse, expected.lse) == nil, "\(level.name), \(example.description)")
            }
        }
    }

    @Test(arguments: AttendedKeys.allCases)
    func `keys taken as they are stored give the bits of the reference`(keys: AttendedKeys) {
        var dice = Dice(seed: 37)
        for _ in 0..<12 {
            let example = Case(whole: &dice, keys: keys)
            let expected = example.run(.reference)
            for level in KernelLevel.fast {
                let found = example.run(level)
                #expect(firstDifference(found.out, expected.out) == nil, "\(level.name), \(example.description)")
                #expect(firstDifference(found.lse, expected.lse) == nil, "\(level.name), \(example.description)")
            }
        }
    }

    @Test(arguments: KernelLevel.all)
    func `scaled keys give the bits of the F32 keys they stand for`(level: KernelLevel) {
        var dice = Dice(seed: 36)
        for i in 0..<60 {
            var example = Case(&dice, keys: AttendedKeys.allCases[i % 3], wild: i % 5 == 1)
            let found = example.run(level)
            example.cache = PagedLanes(twinOf: example.cache)
            let expected = example.run(level)
            #expect(firstDifference(found.out, expected.out) == nil, "\(example.description)")
            #expect(firstDifference(found.lse, expected.lse) == nil, "\(example.description)")
        }
    }

    /// Computes softmax attention in double precision: the output and log-sum-exp of a row and head.
    private static func exact(_ example: Case, row: Int, head: Int) -> (out: [Double], lse: Double) {
        let (latent, rope) = (example.latent, example.rope)
        let q = row * example.qStride + head * (latent + rope)
        let keys = example.selected?[row] ?? Array(0...example.positions[row])
        let scores = keys.map { key in
            var dot = 0.0
            for d in 0..<latent { dot += Double(example.q[q + d]) * Double(example.cache.values[0][key * latent + d]) }
            for d in 0..<rope {
                dot += Double(example.q[q + latent + d]) * Double(example.cache.values[1][key * rope + d])
            }
            return dot * Double(example.scale)
        }
        let largest = scores.max() ?? 0
        let e = scores.map { exp($0 - largest) }
        let sum = e.reduce(0, +)
        let out = (0..<example.value).map { d in
            zip(keys, e).reduce(0.0) { total, key in
                let value =
                    d < latent
                    ? example.cache.values[0][key.0 * latent + d] : example.cache.values[1][key.0 * rope + d - latent]
                return total + key.1 * Double(value)
            } / sum
        }
        return (out, largest + log(sum))
    }

    @Test(arguments: AttendedKeys.allCases)
    func `attention is what its formula says`(keys: AttendedKeys) {
        var dice = Dice(seed: 31)
        for _ in 0..<40 {
            var example = Case(&dice, keys: keys, small: true)
            example.profile = BRAID_PROFILE_F32  // the tolerance below is that of F32
            let found = example.run(.reference)
            for r in 0..<example.m where example.selected?[r].isEmpty != true {
                for h in 0..<example.heads {
                    let expected = Self.exact(example, row: r, head: h)
                    // Scores are of size 10 at most, known to some hundred roundings of a sum of 200 terms; the
                    // probabilities' relative error is that, and the latents are of size 4 at most.
                    let tolerance = 4 * 3000 * rounding
                    #expect(abs(Double(found.lse[r * example.heads + h]) - expected.lse) <= tolerance)
                    for d in 0..<example.value {
                        let value = Double(found.out[r * example.outStride + h * example.value + d])
                        #expect(abs(value - expected.out[d]) <= tolerance)
                    }
                }
            }
        }
    }

    @Test(arguments: KernelLevel.all, [2, 4, 8])
    func `ranks that merge their classes get the bits of one rank`(level: KernelLevel, ranks: Int) {
        var dice = Dice(seed: 32)
        for i in 0..<24 {
            let example = Case(&dice, keys: AttendedKeys.allCases[i % 3])
            let whole = example.run(level)
            // A tree over the ranks with reversed bits: rank r with r + ranks / 2 first, then with r + ranks / 4 ...
            var parts = (0..<ranks).map { example.run(level, stride: ranks, offset: $0) }
            let dense = parts.map { part in
                (0..<example.m).flatMap { r in
                    part.out[r * example.outStride..<r * example.outStride + example.heads * example.value]
                }
            }
            for (j, out) in dense.enumerated() { parts[j].out = out }
            while parts.count > 1 {
                let half = parts.count / 2
                parts = (0..<half).map { Self.merge(level, example, parts[$0], parts[$0 + half]) }
            }
            let expected = (0..<example.m).flatMap { r in
                whole.out[r * example.outStride..<r * example.outStride + example.heads * example.value]
            }
            #expect(firstDifference(parts[0].out, expected) == nil, "\(example.description)")
            #expect(firstDifference(parts[0].lse, whole.lse) == nil, "\(example.description)")
        }
    }

    private typealias Partial = (out: [Float], lse: [Float])

    private static func merge(_ level: KernelLevel, _ example: Case, _ a: Partial, _ b: Partial) -> Partial {
        let (out, lse) = (Guarded(a.out), Guarded(a.lse))
        let (otherOut, otherLSE) = (Guarded(b.out), Guarded(b.lse))
        let parameters = unsafe braid_merge(
            m: Int64(example.m), heads: Int64(example.heads), width: Int64(example.value), a: out.pointer,
            a_lse: lse.pointer, b: otherOut.pointer, b_lse: otherLSE.pointer)
        unsafe call(level.table.merge_attention, parameters, keeping: [out, lse, otherOut, otherLSE])
        return (out.values, lse.values)
    }

    @Test(arguments: KernelLevel.all)
    func `a row without keys is zero and minus infinity`(level: KernelLevel) {
        var dice = Dice(seed: 33)
        var example = Case(&dice, keys: .some)
        while example.m < 2 { example = Case(&dice, keys: .some) }
        example.selected?[0] = []
        let found = example.run(level)
        #expect(found.out[..<(example.heads * example.value)].allSatisfy { $0 == 0 })
        #expect(found.lse[..<example.heads].allSatisfy { $0 == -.infinity })
    }

    @Test(arguments: KernelLevel.all)
    func `selecting every visible key gives the bits of attention to all`(level: KernelLevel) {
        var dice = Dice(seed: 34)
        for _ in 0..<20 {
            var example = Case(&dice, keys: .all)
            let all = example.run(level)
            example.selected = example.positions.map { Array(0...$0) }
            let selected = example.run(level)
            #expect(firstDifference(all.out, selected.out) == nil && firstDifference(all.lse, selected.lse) == nil)
        }
    }

    @Test(arguments: KernelLevel.all)
    func `a query that is not a number spoils its own head only`(level: KernelLevel) {
        var dice = Dice(seed: 35)
        var example = Case(&dice, keys: .all)
        while example.m == 0 || example.heads < 3 { example = Case(&dice, keys: .all) }
        example.q[example.latent + example.rope] = .nan
        let found = example.run(level)
        for h in 0..<example.heads {
            #expect(found.lse[h].isNaN == (h == 1))
            #expect(found.out[h * example.value..<(h + 1) * example.value].allSatisfy { $0.isNaN == (h == 1) })
        }
    }

    private struct Sink {
        let m: Int, heads: Int, width: Int, stride: Int
        var x: [Float], lse: [Float], sinks: [Float]

        init(_ dice: inout Dice, wild: Bool) {
            (m, heads, width) = (dice.int(0...5), dice.int(1...9), dice.width())
            stride = heads * width + dice.int(0...9)
            x = dice.rows(m, width: heads * width, stride: stride, wild: wild)
            lse = dice.rows(m, width: heads, stride: heads, wild: wild)
            sinks = dice.rows(1, width: heads, stride: heads, wild: wild)
        }

        func run(_ level: KernelLevel) -> [Float] {
            let (values, sums, scores) = (Guarded(x), Guarded(lse), Guarded(sinks))
            let parameters = unsafe braid_sink(
                m: Int64(m), heads: Int64(heads), width: Int64(width), x: values.pointer, x_stride: Int64(stride),
                lse: sums.pointer, sinks: scores.pointer)
            unsafe call(level.table.apply_sink, parameters, keeping: [values, sums, scores])
            return values.values
        }
    }

    @Test
    func `every level applies a sink with the bits of the reference, which are those of its formula`() {
        var dice = Dice(seed: 38)
        for i in 0..<200 {
            let example = Sink(&dice, wild: i % 3 == 0)
            let expected = example.run(.reference)
            for level in KernelLevel.fast {
                #expect(firstDifference(example.run(level), expected) == nil, "\(level.name)")
            }
            if i % 3 == 0 { continue }
            for (at, x) in example.x.enumerated() where at % example.stride < example.heads * example.width {
                let (row, head) = (at / example.stride, at % example.stride / example.width)
                let sum = exp(Double(example.lse[row * example.heads + head]))
                let share = Double(x) * sum / (sum + exp(Double(example.sinks[head])))
                #expect(abs(Double(expected[at]) - share) <= 16 * rounding * abs(share))
            }
        }
    }

    @Test(arguments: KernelLevel.all)
    func `a row without keys stays zero with a sink`(level: KernelLevel) {
        var dice = Dice(seed: 39)
        var example = Sink(&dice, wild: false)
        while example.m == 0 { example = Sink(&dice, wild: false) }
        example.x = example.x.map { _ in 0 }
        example.lse = example.lse.map { _ in -.infinity }
        #expect(example.run(level).allSatisfy { $0 == 0 })
    }
}
