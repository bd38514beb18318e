import CKernels
import Testing

struct IndexerKernelTests {
    private struct Case {
        let m: Int, heads: Int, width: Int, first: Int, count: Int, stride: Int
        var keys: PagedLanes
        var q: [Float], weights: [Float]
        /// 0 selects the level's default.
        let panels: Int
        var profile: braid_profile

        init(_ dice: inout Dice, small: Bool = false, wild: Bool = false) {
            m = dice.int(0...(small ? 3 : 9))
            heads = dice.flag() ? dice.int(1...5) : dice.int(1...33)
            width = dice.flag() ? dice.int(1...4) * 32 : dice.int(1...70)
            first = dice.int(0...40)
            count = dice.int(0...(small ? 40 : 330))
            stride = count + dice.int(0...4)
            keys = PagedLanes(
                &dice, lanes: [LaneShape(&dice, width: width, index: true)], positions: first + count + 1,
                stored: Set(first..<first + count), wild: wild)
            q = dice.rows(m * heads, width: width, stride: width)
            weights = dice.rows(m, width: heads, stride: heads)
            panels = dice.flag() ? 0 : dice.int(1...12)
            profile = dice.flag() ? BRAID_PROFILE_F32 : BRAID_PROFILE_BF16
        }

        /// Creates few (row, head) pairs, of one type.
        init(few pairs: Int, _ type: braid_dtype, _ dice: inout Dice) {
            let heads = (1...pairs).filter { pairs % $0 == 0 }.randomElement(using: &dice)!
            (m, self.heads) = (pairs / heads, heads)
            width = [63, 64, 65, 128, 160, 256, 1024].randomElement(using: &dice)!
            first = dice.int(0...70)
            count = dice.int(1...90)
            stride = count
            let group = [nil, 16, 32, 48, 64, 144].randomElement(using: &dice)!
            let scaleType =
                type == BRAID_FP4 ? BRAID_SCALE_E8M0 : braid_scale_type.all.randomElement(using: &dice)!
            keys = PagedLanes(
                &dice, lanes: [LaneShape(width, type, group: group, scaleType: scaleType)],
                positions: first + count + 1,
                stored: Set(first..<first + count), wild: dice.int(0...3) == 0)
            q = dice.rows(m * heads, width: width, stride: width)
            weights = dice.rows(m, width: heads, stride: heads)
            panels = 0
            profile = dice.flag() ? BRAID_PROFILE_F32 : BRAID_PROFILE_BF16
        }

        func run(_ level: KernelLevel, skipping skipped: Int = 0) -> [Float] {
            let (queries, factors) = (Guarded(q), Guarded(weights))
            let out = Guarded(repeating: untouched, count: m * stride)
            let room = scratch(Int(BRAID_INDEX_SCRATCH))
            let parameters = unsafe braid_index_scores(
                profile: profile, m: Int64(m), heads: Int64(heads), q: queries.pointer,
                weights: factors.pointer, keys: keys.lane(0),
                pages: keys.pages.pointer, page_shift: Int32(keys.pageShift),
                owned: braid_kv_sharding(ranks: 1, unit: 1, rank: 0), first: Int64(first + skipped),
                count: Int64(count - skipped), scores: out.pointer, scores_stride: Int64(stride),
                index_key_tiles: Int64(panels), scratch: room.pointer)
            unsafe call(level.table.index_scores, parameters, keeping: [queries, factors, keys, out, room])
            return out.values
        }

        var description: String {
            "profile \(profile.rawValue), m \(m), heads \(heads), width \(width), \(count) from \(first)"
        }
    }

    @Test
    func `every level scores with the bits of the reference`() {
        var dice = Dice(seed: 20)
        for i in 0..<150 {
            var example = Case(&dice, wild: i % 5 == 1)
            if i % 5 == 0 { example.q = example.q.map { _ in dice.wildFloat() } }
            let expected = example.run(.reference)
            #expect(isUntouchedBetweenRows(expected, width: example.count, stride: max(1, example.stride)))
            for level in KernelLevel.fast {
                #expect(firstDifference(example.run(level), expected) == nil, "\(level.name), \(example.description)")
            }
        }
    }

    @Test(arguments: [BRAID_F32, BRAID_BF16, BRAID_FP8, BRAID_FP4])
    func `few rows and heads score with the bits of the reference`(type: braid_dtype) {
        var dice = Dice(seed: 25)
        for pairs in 1...17 {
            for _ in 0..<6 {
                let example = Case(few: pairs, type, &dice)
                let expected = example.run(.reference)
                for level in KernelLevel.fast {
                    #expect(
                        firstDifference(example.run(level), expected) == nil, "\(level.name), \(example.description)")
                }
            }
        }
    }

    @Test(arguments: KernelLevel.all)
    func `scaled keys give the bits of the F32 keys they stand for`(level: KernelLevel) {
        var dice = Dice(seed: 24)
        for i in 0..<100 {
            var example = Case(&dice, wild: i % 5 == 1)
            example.profile = BRAID_PROFILE_F32  // the other one may multiply by a key's scale last
            let found = example.run(level)
            example.keys = PagedLanes(twinOf: example.keys)
            #expect(firstDifference(found, example.run(level)) == nil, "\(example.description)")
        }
    }

    @Test
    func `the index key of DeepSeek-V4 in FP4 is 64 bytes of pairs and a byte for each 32 values`() {
        // A key with the sixteen codes in turn, scaled by 1, 2, 4 and 8, and a query that reads one of its values. The
        // reading is done by scores: with a weight of 1 and the query's sign that of the value, a score is its magnitude.
        let codes: [Float] = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]
        let pairs = (0..<64).map { (i: Int) -> UInt8 in
            let low = UInt8(2 * i % 16)
            return low | (low + 1) << 4
        }
        let shape = LaneShape(128, BRAID_FP4, group: 32, scaleType: BRAID_SCALE_E8M0)
        let lane = PagedLanes(entry: pairs + [127, 128, 129, 130], of: shape)
        #expect(shape.entryBytes == 68)
        for profile in [BRAID_PROFILE_F32, BRAID_PROFILE_BF16] {
            for level in KernelLevel.all {
                let found = (0..<128).map { i in
                    var query = [Float](repeating: 0, count: 128)
                    query[i] = codes[i % 16].sign == .minus ? -1 : 1
                    return score(level, profile, query, lane)
                }
                let expected = (0..<128).map { (i: Int) -> Float in codes[i % 16].magnitude * Float(1 << (i / 32)) }
                #expect(found == expected, "\(level.name), profile \(profile.rawValue)")
            }
        }
    }

    /// Returns the score of one key for one head of weight 1.
    private func score(
        _ level: KernelLevel, _ profile: braid_profile, _ query: [Float], _ keys: PagedLanes
    ) -> Float {
        let (queries, weights, out) = (Guarded(query), Guarded([Float(1)]), Guarded(repeating: untouched, count: 1))
        let room = scratch(Int(BRAID_INDEX_SCRATCH))
        let parameters = unsafe braid_index_scores(
            profile: profile, m: 1, heads: 1, q: queries.pointer, weights: weights.pointer, keys: keys.lane(0),
            pages: keys.pages.pointer, page_shift: Int32(keys.pageShift),
            owned: braid_kv_sharding(ranks: 1, unit: 1, rank: 0), first: 0, count: 1, scores: out.pointer,
            scores_stride: 1, index_key_tiles: 0, scratch: room.pointer)
        unsafe call(level.table.index_scores, parameters, keeping: [queries, weights, keys, out, room])
        return out.values[0]
    }

    @Test
    func `scores are what their formula says`() {
        var dice = Dice(seed: 21)
        for _ in 0..<40 {
            let example = Case(&dice, small: true)
            let found = example.run(.reference)
            for r in 0..<example.m {
                for i in 0..<example.count {
                    var sum = 0.0
                    var magnitude = 0.0
                    for h in 0..<example.heads {
                        var dot = 0.0
                        var size = 0.0
                        for d in 0..<example.width {
                            let key = example.keys.values[0][(example.first + i) * example.width + d]
                            let term = Double(example.q[(r * example.heads + h) * example.width + d]) * Double(key)
                            dot += term
                            size += abs(term)
                        }
                        sum += Double(example.weights[r * example.heads + h]) * max(0, dot)
                        magnitude += abs(Double(example.weights[r * example.heads + h])) * size
                    }
                    // In the BF16 profile, a query and a key each lose 2^-9 of themselves at most.
                    let lost = example.profile == BRAID_PROFILE_BF16 ? 0x1p-7 : 0
                    let tolerance = (Double(example.width + example.heads) * rounding + lost) * magnitude
                    #expect(abs(Double(found[r * example.stride + i]) - sum) <= tolerance)
                }
            }
        }
    }

    @Test(arguments: KernelLevel.all)
    func `a position's score does not depend on where the call begins`(level: KernelLevel) {
        var dice = Dice(seed: 22)
        for _ in 0..<30 {
            let example = Case(&dice)
            let skipped = dice.int(0...example.count)
            let (whole, part) = (example.run(level), example.run(level, skipping: skipped))
            for r in 0..<example.m {
                let a = Array(whole[r * example.stride + skipped..<r * example.stride + example.count])
                let b = Array(part[r * example.stride..<r * example.stride + example.count - skipped])
                #expect(firstDifference(a, b) == nil, "\(example.description)")
            }
        }
    }

    @Test(arguments: KernelLevel.all)
    func `a query that is not a number makes the row's scores NaN and no other's`(level: KernelLevel) {
        var dice = Dice(seed: 23)
        var example = Case(&dice)
        while example.m < 3 || example.count == 0 { example = Case(&dice) }
        example.q[example.heads * example.width] = .nan
        let found = example.run(level)
        for r in 0..<example.m {
            #expect((0..<example.count).allSatisfy { found[r * example.stride + $0].isNaN == (r == 1) })
        }
    }
}
