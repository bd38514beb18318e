import CKernels

extension Kernels {
    /// Rows `ids` of an embedding, widened to F32: `[ids.count, columns]`. Ids are within `0 ..< w.rows`.
    package func embedding(_ w: Weight, _ ids: Indices, into out: View) {
        precondition(out.rows == ids.count && out.columns == w.columns, "embedding \(ids.count) rows into \(out.shape)")
        for row in 0..<ids.count { precondition(ids[row] >= 0 && ids[row] < w.rows, "token \(ids[row]) of \(w.rows)") }
        if share(Embedding(w: w, ids: ids, out: out), rows: ids.count, each: 2 * w.columns) { return }
        var p = unsafe braid_embedding(
            w: w.kernelValue, ids: ids.base, m: Int64(ids.count), n: Int64(w.columns), out: out.base,
            out_stride: Int64(out.stride))
        unsafe table.embedding(&p)
    }

    /// `out = x · wᵀ` for `w: [n, k]`, or `x · w` for `w: [k, n]` when `transposed`. One chain per output over k.
    ///
    /// - Parameters:
    ///   - accumulate: continue the chains from what `out` holds.
    ///   - xRows: row i of the product reads this row of `x`; `nil` reads row i.
    ///   - outRows: row i of the product is written to this row of `out`; `nil` writes row i.
    package func matmul(
        _ x: View, _ w: Weight, transposed: Bool = false, accumulate: Bool = false, xRows: Indices? = nil,
        outRows: Indices? = nil, into out: View, _ scratch: Scratch
    ) {
        let (n, k) = transposed ? (w.columns, w.rows) : (w.rows, w.columns)
        let m = xRows?.count ?? outRows?.count ?? x.rows
        precondition(x.columns == k, "contracting \(x.columns) columns with \(k)")
        precondition(out.columns == n, "\(n) outputs into \(out.columns) columns")
        precondition(xRows != nil || x.rows >= m, "rows of x")
        precondition(outRows.map { $0.count == m } ?? (out.rows >= m), "rows of out")
        let work = Product(
            x: x, w: w, transposed: transposed, accumulate: accumulate, xRows: xRows, outRows: outRows, out: out)
        if share(work, rows: m) { return }
        let mark = scratch.mark()
        defer { scratch.reset(to: mark) }
        var p = unsafe braid_matmul(
            w: w.kernelValue, transposed: transposed, accumulate: accumulate, m: Int64(m), n: Int64(n), k: Int64(k),
            x: x.base, x_stride: Int64(x.stride), x_rows: xRows?.base, out: out.base, out_stride: Int64(out.stride),
            out_rows: outRows?.base, gemv_max_rows: Int64(tuning.gemvMaxRows[w.dtype]),
            scratch: scratch.take(Float.self, Int(BRAID_MATMUL_SCRATCH)))
        unsafe table.matmul(&p)
    }

    /// `out = x · wᵀ` in the canonical form of a sum that ranks may share: the columns are cut into `slices` equal
    /// K-slices, each one chain, added as a balanced binary tree.
    ///
    /// A rank that holds a subtree of the slices calls this with its columns and its share of `slices`, and the tree
    /// goes on over ranks with the same bits.
    package func slicedMatmul(_ x: View, _ w: Weight, slices: Int, into out: View, _ scratch: Scratch) {
        precondition(slices > 0 && w.columns % slices == 0, "\(w.columns) columns in \(slices) slices")
        if slices == 1 { return matmul(x, w, into: out, scratch) }
        let half = w.columns / 2
        let mark = scratch.mark()
        defer { scratch.reset(to: mark) }
        let right = scratch.rows(out.rows, out.columns)
        slicedMatmul(x.columns(0..<half), w.columns(0..<half), slices: slices / 2, into: out, scratch)
        slicedMatmul(
            x.columns(half..<w.columns), w.columns(half..<w.columns), slices: slices / 2, into: right, scratch)
        add(out, right, into: out)
    }

    /// The number of K-slices of a sum over `width` columns: 8, or the largest power of two below it that divides
    /// the width. A property of the model, never of the layout.
    package static func slices(of width: Int) -> Int { min(8, 1 << width.trailingZeroBitCount) }
}
