import CKernels
import Testing

struct TopKKernelTests {
    private struct Result: Equatable {
        var selected: [Int32]
        var counts: [Int32]
    }

    private func select(
        _ level: KernelLevel, _ scores: [Float], stride: Int, visible: [Int32], k: Int, selectedStride: Int
    ) -> Result {
        let input = Guarded(scores)
        let sizes = Guarded(visible)
        let selected = Guarded(repeating: Int32(-7), count: visible.count * selectedStride)
        let counts = Guarded(repeating: Int32(-7), count: visible.count)
        let scratch = Guarded(repeating: UInt32(0xDEAD_BEEF), count: Int(BRAID_TOP_K_SCRATCH))
        let parameters = unsafe braid_top_k(
            m: Int64(visible.count), k: Int64(k), scores: input.pointer, scores_stride: Int64(stride),
            visible: sizes.pointer, selected: selected.pointer, selected_stride: Int64(selectedStride),
            counts: counts.pointer, scratch: scratch.pointer)
        unsafe call(level.table.top_k, parameters, keeping: [input, sizes, selected, counts, scratch])
        return Result(selected: selected.values, counts: counts.values)
    }

    /// Returns the best `k` of one row on one level.
    private func best(_ level: KernelLevel, _ row: [Float], k: Int) -> [Int32] {
        let width = max(min(k, row.count), 1)
        let result = select(
            level, row, stride: row.count, visible: [Int32(row.count)], k: k, selectedStride: width)
        #expect(result.counts == [Int32(min(k, row.count))])
        return Array(result.selected.prefix(min(k, row.count)))
    }

    /// Returns the same by sorting.
    private func sorted(_ row: [Float], k: Int) -> [Int32] {
        let order = row.indices.sorted { a, b in
            let x = row[a]
            let y = row[b]
            if x.isNaN || y.isNaN { return x.isNaN && y.isNaN ? a < b : y.isNaN }
            return x == y ? a < b : x > y
        }
        return order.prefix(k).sorted().map(Int32.init)
    }

    /// Creates rows of every kind: smooth, wild, few different values, only zeros of both signs, sorted, mostly empty.
    private func row(_ n: Int, kind: Int, _ dice: inout Dice) -> [Float] {
        switch kind {
        case 0: (0..<n).map { _ in dice.float() }
        case 1: (0..<n).map { _ in dice.wildFloat() }
        case 2: (0..<n).map { _ in Float(dice.int(-3...3)) }
        case 3: (0..<n).map { _ in dice.flag() ? 0 : -0.0 }
        case 4: (0..<n).map { Float($0) }
        case 5: (0..<n).map { Float(-$0) }
        case 6: (0..<n).map { _ in max(dice.float() - 1, 0) }
        case 7: (0..<n).map { $0 / 16 % 32 == 0 ? 100 + dice.float() : dice.float() }  // a sample reads just these
        case 8: (0..<n).map { $0 / 16 % 32 == 0 ? -100 : dice.float() }  // a sample misses the rest
        default: [Float](repeating: .nan, count: n)
        }
    }
    private static let kinds = 0...9

    @Test
    func `every level finds what sorting finds in short rows`() {
        var dice = Dice(seed: 31)
        for i in 0..<600 {
            let scores = row(dice.width(), kind: i % Self.kinds.count, &dice)
            let k = dice.int(1...80)
            let expected = sorted(scores, k: k)
            for level in KernelLevel.all {
                #expect(best(level, scores, k: k) == expected, "\(level.name), \(k) of \(scores.count)")
            }
        }
    }

    @Test(arguments: kinds)
    func `every level finds what sorting finds in long rows`(kind: Int) {
        var dice = Dice(seed: 32)
        for (n, k) in [(8191, 64), (8192, 2048), (9001, 2000), (16384, 2048), (30011, 1), (65536, 2048)] {
            let scores = row(n, kind: kind, &dice)
            let expected = sorted(scores, k: k)
            for level in KernelLevel.all {
                #expect(best(level, scores, k: k) == expected, "\(level.name), \(k) of \(n)")
            }
        }
    }

    @Test
    func `nothing beyond the visible scores is read and nothing beyond the count is written`() {
        var dice = Dice(seed: 33)
        for i in 0..<100 {
            let m = dice.int(0...7)
            let n = dice.width()
            let stride = n + dice.int(0...20)
            let k = dice.int(1...60)
            let selectedStride = k + dice.int(0...5)
            let visible = (0..<m).map { _ in Int32(dice.int(0...n)) }
            let scores = (0..<m).flatMap {
                row(Int(visible[$0]), kind: i % Self.kinds.count, &dice)
                    + [Float](repeating: .infinity, count: stride - Int(visible[$0]))
            }
            for level in KernelLevel.all {
                let found = select(
                    level, scores, stride: stride, visible: visible, k: k, selectedStride: selectedStride)
                for r in 0..<m {
                    let count = min(k, Int(visible[r]))
                    let expected = sorted(Array(scores[r * stride..<r * stride + Int(visible[r])]), k: k)
                    let written = found.selected[r * selectedStride..<(r + 1) * selectedStride]
                    #expect(found.counts[r] == Int32(count))
                    #expect(Array(written.prefix(count)) == expected, "\(level.name)")
                    #expect(written.dropFirst(count).allSatisfy { $0 == -7 })
                }
            }
        }
    }

    @Test
    func `ties at the cut go to the smaller position and NaN goes last`() {
        for level in KernelLevel.all {
            #expect(best(level, [1, 2, 1, 2, 1], k: 3) == [0, 1, 3])
            #expect(best(level, [-0.0, 0, -0.0, 0], k: 2) == [0, 1])
            #expect(best(level, [.nan, -.infinity, -.nan, -.infinity], k: 3) == [0, 1, 3])
            #expect(best(level, [.nan, .infinity, 3], k: 2) == [1, 2])
            #expect(best(level, [5, 6], k: 9) == [0, 1])
        }
    }
}
