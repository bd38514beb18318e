import CKernels
import Testing

/// Tests keys that are sharded over ranks.
struct ShardedKernelTests {
    /// Returns an integer as the word that carries it.
    private func word(_ value: Int32) -> Float { Float(bitPattern: UInt32(bitPattern: value)) }

    // MARK: - A rank's candidates

    @Test
    func `candidates are a count, then scores and positions by the numbers of the best`() {
        var dice = Dice(seed: 90)
        for _ in 0..<100 {
            let (m, k, ranks) = (dice.int(0...5), dice.int(1...20), dice.int(1...4))
            let owned = braid_kv_sharding(
                ranks: Int64(ranks), unit: Int64(dice.int(1...3)), rank: Int64(dice.int(0...ranks - 1)))
            let width = dice.int(k...k + 30)
            let scores = dice.rows(m, width: width, stride: width + 2, wild: true)
            let counts = (0..<m).map { _ in Int32(dice.int(0...k)) }
            let best = counts.flatMap { count in
                (0..<Int32(width)).shuffled(using: &dice).prefix(Int(count)).sorted()
                    + Array(repeating: -9, count: k - Int(count))
            }
            let stride = 1 + 2 * k + dice.int(0...3)
            var expected = [Float](repeating: untouched, count: m * stride)
            for r in 0..<m {
                expected[r * stride] = word(counts[r])
                for i in 0..<Int(counts[r]) {
                    let number = Int(best[r * k + i])
                    expected[r * stride + 1 + i] = scores[r * (width + 2) + number]
                    expected[r * stride + 1 + k + i] = word(Int32(braid_sharded(owned, Int64(number))))
                }
            }
            for level in KernelLevel.all {
                let (values, numbers, found) = (Guarded(scores), Guarded(best), Guarded(counts))
                let out = Guarded(repeating: untouched, count: m * stride)
                let parameters = unsafe braid_pack_candidates(
                    m: Int64(m), k: Int64(k), scores: values.pointer, scores_stride: Int64(width + 2),
                    selected: numbers.pointer, counts: found.pointer, owned: owned, out: out.pointer,
                    out_stride: Int64(stride))
                unsafe call(level.table.pack_candidates, parameters, keeping: [values, numbers, found, out])
                #expect(out.values.map(\.bitPattern) == expected.map(\.bitPattern), "\(level.name)")
            }
        }
    }

    // MARK: - The best candidates of all ranks

    private struct Lists {
        let k: Int, ranks: Int, rankRows: Int
        /// Holds candidates by rank and row, ascending by position.
        var lists: [[(score: Float, position: Int32)]]

        init(_ dice: inout Dice, wild: Bool) {
            (k, ranks, rankRows) = (dice.int(1...40), dice.int(1...9), dice.int(1...4))
            let (k, ranks, rankRows) = (k, ranks, rankRows)
            // There are few different scores, so that there are ties.
            let few = (0..<5).map { _ in wild ? dice.wildFloat() : dice.float() }
            lists = Array(repeating: [], count: ranks * rankRows)
            for row in 0..<rankRows {
                let positions = (0..<Int32(k * ranks * 2)).shuffled(using: &dice).prefix(k * ranks)
                for rank in 0..<ranks {
                    let count = rank == 0 ? k : dice.int(0...k)
                    lists[rank * rankRows + row] = positions[rank * k..<rank * k + count].sorted().map {
                        (dice.flag() ? few.randomElement(using: &dice)! : dice.float(), $0)
                    }
                }
            }
        }

        var last: Int32 { Int32(k * ranks * 2) }

        func packed(_ word: (Int32) -> Float) -> [Float] {
            lists.flatMap { list in
                let space = Array(repeating: Float.nan, count: k - list.count)
                return [word(Int32(list.count))] + list.map(\.score) + space + list.map { word($0.position) } + space
            }
        }

        /// Returns the best of a row by sorting, ascending by position.
        func best(of row: Int) -> [Int32] {
            func rank(_ score: Float) -> Float { score == 0 ? 0 : score }
            let all = (0..<ranks).flatMap { lists[$0 * rankRows + row] }
            let sorted = all.sorted { a, b in
                if a.score.isNaN || b.score.isNaN {
                    return a.score.isNaN == b.score.isNaN ? a.position < b.position : b.score.isNaN
                }
                return (-rank(a.score), a.position) < (-rank(b.score), b.position)
            }
            return sorted.prefix(k).map(\.position).sorted()
        }
    }

    private func merge(
        _ lists: Lists, _ candidates: [Float], last: Int32, _ level: KernelLevel
    ) -> [Int32] {
        let (k, m) = (lists.k, lists.rankRows)
        let input = Guarded(candidates)
        let (rows, outRows) = (Guarded((0..<Int32(m)).map { $0 }), Guarded((0..<Int32(m)).map { Int32(m) - 1 - $0 }))
        let lasts = Guarded(repeating: last, count: m)
        let selected = Guarded(repeating: Int32(-7), count: m * k)
        let room = Guarded(
            repeating: UInt32(0xFFFF_FFFF),
            count: (Int(braid_merge_scratch(Int64(lists.ranks), Int64(k))) + 15) / 16 * 16)
        let parameters = unsafe braid_merge_candidates(
            m: Int64(m), k: Int64(k), ranks: Int64(lists.ranks), candidates: input.pointer, stride: Int64(1 + 2 * k),
            rank_rows: Int64(m), rows: rows.pointer, last: lasts.pointer, selected: selected.pointer,
            out_rows: outRows.pointer, scratch: room.pointer)
        unsafe call(
            level.table.merge_candidates, parameters,
            keeping: [input, rows, outRows, lasts, selected, room])
        return selected.values
    }

    @Test
    func `the best of several ranks' candidates are those that sorting finds`() {
        var dice = Dice(seed: 91)
        for i in 0..<200 {
            let lists = Lists(&dice, wild: i % 3 == 0)
            let expected = (0..<lists.rankRows).reversed().flatMap { lists.best(of: $0) }
            for level in KernelLevel.all {
                let found = merge(lists, lists.packed(word), last: lists.last, level)
                #expect(found == expected, "\(level.name)")
            }
        }
    }

    @Test
    func `candidates that cannot be right select nothing beyond what a row sees`() {
        var dice = Dice(seed: 92)
        for _ in 0..<300 {
            let lists = Lists(&dice, wild: false)
            var candidates = lists.packed(word)
            let stride = 1 + 2 * lists.k
            let strange: [Int32] = [-1, .min, .max, lists.last + 1, Int32(lists.k + 1), 0]
            for _ in 0..<dice.int(1...4) {
                let row = dice.int(0...lists.lists.count - 1) * stride
                candidates[row + (dice.flag() ? 0 : dice.int(1 + lists.k...2 * lists.k))] =
                    word(strange.randomElement(using: &dice)!)
            }
            let expected = merge(lists, candidates, last: lists.last, .reference)
            #expect(expected.allSatisfy { $0 >= 0 && $0 <= lists.last })
            for level in KernelLevel.all {
                #expect(merge(lists, candidates, last: lists.last, level) == expected, "\(level.name)")
            }
        }
    }

    // MARK: - The keys that a rank attends to

    @Test
    func `a rank attends to its own of the keys that were selected, or of all that a row sees`() {
        var dice = Dice(seed: 93)
        for _ in 0..<200 {
            let (m, k, ranks) = (dice.int(0...6), dice.int(0...12), dice.int(1...4))
            let owned = braid_kv_sharding(
                ranks: Int64(ranks), unit: Int64(dice.int(1...3)), rank: Int64(dice.int(0...ranks - 1)))
            let positions = (0..<m).map { _ in Int32(dice.int(0...40)) }
            let stride = k + dice.int(0...3)
            let selected = positions.flatMap { position in
                let best = (0...position).shuffled(using: &dice).prefix(k).sorted()
                return best + Array(repeating: Int32(-9), count: stride - best.count)
            }
            let expected = positions.enumerated().map { row, position in
                let all =
                    k > 0 && position >= Int32(k)
                    ? Array(selected[row * stride..<row * stride + k]) : Array(0...position)
                return all.filter { braid_in_shard(owned, Int64($0)) }
            }
            let most = max(expected.map(\.count).max() ?? 0, 1)
            for level in KernelLevel.all {
                let (places, choices) = (Guarded(positions), Guarded(selected))
                let (keys, counts) = (
                    Guarded(repeating: Int32(-7), count: m * most), Guarded(repeating: Int32(-7), count: m)
                )
                let total = Guarded([Int64(1) << 40])
                let parameters = unsafe braid_sharded_keys(
                    m: Int64(m), k: Int64(k), positions: places.pointer, selected: choices.pointer,
                    selected_stride: Int64(stride), owned: owned, keys: keys.pointer, keys_stride: Int64(most),
                    counts: counts.pointer, total: total.pointer)
                unsafe call(level.table.sharded_keys, parameters, keeping: [places, choices, keys, counts, total])
                #expect(counts.values == expected.map { Int32($0.count) }, "\(level.name)")
                for (row, wanted) in expected.enumerated() {
                    #expect(Array(keys.values[row * most..<row * most + wanted.count]) == wanted, "\(level.name)")
                }
                #expect(total.values[0] == 1 << 40 + Int64(expected.joined().count))
            }
        }
    }
}
