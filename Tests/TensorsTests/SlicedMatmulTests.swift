import Tensors
import TestSupport
import Testing

/// Holds a matrix of weights in its own memory, and the numbers it represents.
final class OwnedWeight {
    let rows: Int, columns: Int
    /// [rows, columns].
    let values: [Float]
    private let dtype: DType
    private let scaling: Scaling
    private let bytes: Guarded<UInt8>
    private let scales: Guarded<UInt8>

    init(_ dice: inout Dice, rows: Int, columns: Int, dtype: DType, _ scratch: Scratch) {
        (self.rows, self.columns, self.dtype) = (rows, columns, dtype)
        let scaling = dtype.scalings.randomElement(using: &dice)!
        self.scaling = scaling
        precondition(dtype != .fp4 || columns % 2 == 0, "FP4 elements are pairs")
        let all = 0..<rows * columns
        switch dtype {
        case .fp4: bytes = Guarded((0..<all.count / 2).map { _ in UInt8(dice.int(0...255)) })
        case .f32: bytes = Guarded(all.flatMap { _ in Self.bytes(dice.float(), from: 0) })
        case .bf16: bytes = Guarded(all.flatMap { _ in Self.bytes(dice.float(), from: 16) })
        // Every byte is used except those of E4M3's NaN.
        case .fp8, .int8: bytes = Guarded(all.map { _ in UInt8(dice.int(0...0x7E)) | (dice.flag() ? 0x80 : 0) })
        }
        let grid = scaling.grid(rows: rows, columns: columns) ?? (0, 0)
        scales = Guarded(
            (0..<grid.rows * grid.columns).flatMap { _ in
                dtype == .fp4 ? [UInt8(dice.int(120...130))] : Self.bytes(abs(dice.float()) + 0.01, from: 0)
            })
        let widened = scratch.rows(rows, columns)
        let ids = scratch.indices(rows)
        ids.copy((0..<rows).map { Int32($0) })
        let whole = unsafe Weight(
            bytes.pointer, dtype: dtype, rows: rows, columns: columns, scaling: scaling,
            scale: scaling == .none ? nil : scales.pointer)
        Kernels(.reference)!.embedding(whole, ids, into: widened)
        values = widened.elements
    }

    /// Creates F32 weights.
    init(_ values: [Float], rows: Int, columns: Int) {
        (self.rows, self.columns, self.values, dtype, scaling) = (rows, columns, values, .f32, .none)
        bytes = Guarded(values.flatMap { Self.bytes($0, from: 0) })
        scales = Guarded([])
    }

    private static func bytes(_ value: Float, from bit: Int) -> [UInt8] {
        stride(from: bit, to: 32, by: 8).map { UInt8(truncatingIfNeeded: value.bitPattern >> $0) }
    }

    /// Is valid while this object lives.
    var weight: Weight {
        unsafe Weight(
            bytes.pointer, dtype: dtype, rows: rows, columns: columns, scaling: scaling,
            scale: scaling == .none ? nil : scales.pointer)
    }

    /// Returns a copy of some columns, in F32.
    func cut(_ range: Range<Int>) -> OwnedWeight {
        let cut = (0..<rows).flatMap { row in range.map { values[row * columns + $0] } }
        return OwnedWeight(cut, rows: rows, columns: range.count)
    }
}

/// Returns a pairwise sum: halves are added to each other, level by level.
private func tree(_ terms: ArraySlice<[Float]>) -> [Float] {
    guard terms.count > 1 else { return terms.first! }
    let middle = terms.startIndex + terms.count / 2
    return zip(tree(terms[..<middle]), tree(terms[middle...])).map { $0 + $1 }
}

func bits(_ values: [Float]) -> [UInt32] { values.map(\.bitPattern) }

@Suite struct `A matrix product in slices` {
    /// Lists rows of x, outputs and contracted width; slices have 1, 2, 25, 96 and 256 columns.
    static let shapes = [(1, 5, 8), (3, 33, 16), (2, 130, 200), (17, 40, 768), (9, 20, 2048)]

    @Test(arguments: Kernels.available.map(\.level), DType.allCases)
    func `is a balanced tree over slices cut by hand`(level: Kernels.Level, dtype: DType) throws {
        let kernels = try #require(Kernels(level))
        var dice = Dice(seed: 11)
        for (m, n, k) in Self.shapes {
            let scratch = Scratch()
            let x = Self.input(&dice, rows: m, columns: k, scratch)
            let w = OwnedWeight(&dice, rows: n, columns: k, dtype: dtype, scratch)
            for slices in [1, 2, 4, 8] {
                let out = scratch.rows(m, n)
                kernels.slicedMatmul(x, w.weight, slices: slices, into: out, scratch)
                let terms = (0..<slices).map { slice in
                    let range = slice * (k / slices)..<(slice + 1) * (k / slices)
                    let copy = scratch.rows(m, range.count)
                    copy.transfer(from: x.columns(range))
                    let product = scratch.rows(m, n)
                    let part = w.cut(range)
                    withExtendedLifetime(part) { kernels.matmul(copy, part.weight, into: product, scratch) }
                    return product.elements
                }
                #expect(bits(out.elements) == bits(tree(terms[...])), "\(m) × \(n) × \(k) in \(slices)")
            }
            withExtendedLifetime((w, scratch)) {}
        }
    }

    @Test(arguments: Kernels.available.map(\.level), [2, 4, 8])
    func `is the sum of what ranks compute of it`(level: Kernels.Level, ranks: Int) throws {
        let kernels = try #require(Kernels(level))
        var dice = Dice(seed: 12)
        for (m, n, k) in Self.shapes {
            let scratch = Scratch()
            let x = Self.input(&dice, rows: m, columns: k, scratch)
            let w = OwnedWeight(&dice, rows: n, columns: k, dtype: .fp8, scratch)
            let whole = scratch.rows(m, n)
            kernels.slicedMatmul(x, w.weight, slices: 8, into: whole, scratch)
            let shares = (0..<ranks).map { rank in
                let range = rank * (k / ranks)..<(rank + 1) * (k / ranks)
                let out = scratch.rows(m, n)
                kernels.slicedMatmul(
                    x.columns(range), w.weight.columns(range), slices: 8 / ranks, into: out, scratch)
                return out.elements
            }
            #expect(bits(whole.elements) == bits(tree(shares[...])), "\(m) × \(n) × \(k) over \(ranks)")
            withExtendedLifetime((w, scratch)) {}
        }
    }

    @Test func `has other bits than one chain, or the tests above would prove nothing`() {
        var dice = Dice(seed: 13)
        let scratch = Scratch()
        let x = Self.input(&dice, rows: 4, columns: 1024, scratch)
        let w = OwnedWeight(&dice, rows: 32, columns: 1024, dtype: .f32, scratch)
        let (chain, sliced, halves) = (scratch.rows(4, 32), scratch.rows(4, 32), scratch.rows(4, 32))
        Kernels.best.matmul(x, w.weight, into: chain, scratch)
        Kernels.best.slicedMatmul(x, w.weight, slices: 8, into: sliced, scratch)
        Kernels.best.slicedMatmul(x, w.weight, slices: 2, into: halves, scratch)
        #expect(bits(chain.elements) != bits(sliced.elements))
        #expect(bits(halves.elements) != bits(sliced.elements))
        withExtendedLifetime((w, scratch)) {}
    }

    @Test(arguments: [(1, 1), (2, 2), (6, 2), (7, 1), (8, 8), (12, 4), (16, 8), (24, 8), (2048, 8), (2049, 1)])
    func `has as many slices as the width allows, at most eight`(width: Int, slices: Int) {
        #expect(Kernels.slices(of: width) == slices)
    }

    /// Returns rows that are columns of a wider view, with NaN beside them.
    private static func input(_ dice: inout Dice, rows: Int, columns: Int, _ scratch: Scratch) -> View {
        let wide = scratch.rows(rows, columns + 3)
        wide.fill(.nan)
        let x = wide.columns(1..<columns + 1)
        for row in 0..<rows {
            for column in 0..<columns { x[row, column] = dice.float() }
        }
        return x
    }
}
