import CKernels

extension Kernels {
    /// Copies rows `ids` of an embedding, widened to F32, into `[ids.count, columns]`. Ids are within `0 ..< w.rows`.
    package func embedding(_ w: Weight, _ ids: Indices, into out: View) {
        precondition(out.rows == ids.count && out.columns == w.columns, "embedding \(ids.count) rows into \(out.shape)")
        for row in 0..<ids.count { precondition(ids[row] >= 0 && ids[row] < w.rows, "token \(ids[row]) of \(w.rows)") }
        if share(Embedding(w: w, ids: ids, out: out), rows: ids.count, each: 2 * w.columns) { return }
        var p = unsafe braid_embedding(
            w: w.kernelValue, ids: ids.base, m: Int64(ids.count), n: Int64(w.columns), out: out.base,
            out_stride: Int64(out.stride))
        run { unsafe table.embedding(&p) }
    }

    /// Computes `out = x · wᵀ` for `w: [n, k]`, or `x · w` for `w: [k, n]` when `transposed`. Each output is one chain
    /// over k.
    ///
    /// - Parameters:
    ///   - accumulate: whether the chains continue from the contents of `out`.
    ///   - xRows: the row of `x` that each row of the product reads; `nil` reads row i.
    ///   - outRows: the row of `out` that each row of the product is written to; `nil` writes row i.
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
            w: w.kernelValue, profile: profile.kernelValue, transposed: transposed, accumulate: accumulate, m: Int64(m),
            n: Int64(n), k: Int64(k),
            x: x.base, x_stride: Int64(x.stride), x_rows: xRows?.base, out: out.base, out_stride: Int64(out.stride),
            out_rows: outRows?.base, gemv_max_rows: Int64(tuning.gemvMaxRows[w.dtype]),
            scratch: scratch.take(Float.self, Int(BRAID_MATMUL_SCRATCH)))
        run { unsafe table.matmul(&p) }
    }

    /// Computes `count` products of one shape in one call, for instance those of all attention heads. The columns of
    /// `x` and `out` and the rows of `w` are `count` equal stripes. Each product reads the first columns of its stripe
    /// of `x` and `rows` of its stripe of `w`, and fills the first columns of its stripe of `out`.
    ///
    /// - Parameters:
    ///   - transposed: `out = x · w`, contracting `rows`; otherwise `out = x · wᵀ`, contracting the columns of `w`.
    package func batchedMatmul(
        _ x: View, _ w: Weight, rows: Range<Int>, transposed: Bool = false, count: Int, into out: View,
        _ scratch: Scratch
    ) {
        precondition(x.rows == out.rows, "\(x.shape) into \(out.shape)")
        precondition(
            count > 0 && x.columns % count == 0 && w.rows % count == 0 && out.columns % count == 0,
            "\(x.shape), \(w.rows) rows of weights and \(out.shape) in \(count) stripes")
        let batch = BatchedProduct(x: x, w: w, rows: rows, transposed: transposed, count: count, out: out)
        precondition(
            batch.contracted <= x.columns / count && rows.upperBound <= w.rows / count
                && batch.outputs <= out.columns / count, "\(rows) of \(count) stripes do not fit")
        if share(batch) { return }
        let mark = scratch.mark()
        defer { scratch.reset(to: mark) }
        let product = unsafe braid_matmul(
            w: w.rows(rows).kernelValue, profile: profile.attentionValue, transposed: transposed, accumulate: false,
            m: Int64(x.rows),
            n: Int64(batch.outputs), k: Int64(batch.contracted), x: x.base, x_stride: Int64(x.stride), x_rows: nil,
            out: out.base, out_stride: Int64(out.stride), out_rows: nil,
            gemv_max_rows: Int64(tuning.gemvMaxRows[w.dtype]),
            scratch: scratch.take(Float.self, Int(BRAID_MATMUL_SCRATCH)))
        var p = unsafe braid_batched_matmul(
            product: product, count: Int64(count), x_step: Int64(x.columns / count), w_step: Int64(w.rows / count),
            out_step: Int64(out.columns / count))
        run { unsafe table.batched_matmul(&p) }
    }

    /// Computes `out = x · wᵀ` in the canonical form of a sum that ranks may share: the columns are cut into `slices`
    /// equal K-slices, each slice is one chain, and slices are added as a balanced binary tree.
    ///
    /// A rank that holds a subtree of the slices calls this with its columns and its part of `slices`; adding the
    /// ranks' results in the same tree gives bitwise equal sums.
    package func slicedMatmul(_ x: View, _ w: Weight, slices: Int, into out: View, _ scratch: Scratch) {
        precondition(slices > 0 && slices & (slices - 1) == 0, "\(slices) slices are no power of two")
        precondition(w.columns % slices == 0, "\(w.columns) columns in \(slices) slices")
        precondition(x.columns == w.columns, "contracting \(x.columns) columns with \(w.columns)")
        precondition(out.columns == w.rows && out.rows == x.rows, "\(w.rows) outputs into \(out.shape)")
        if share(SlicedProduct(x: x, w: w, slices: slices, out: out)) { return }
        let mark = scratch.mark()
        defer { scratch.reset(to: mark) }
        let product = unsafe braid_matmul(
            w: w.kernelValue, profile: profile.kernelValue, transposed: false, accumulate: false, m: Int64(x.rows),
            n: Int64(w.rows),
            k: Int64(w.columns), x: x.base, x_stride: Int64(x.stride), x_rows: nil, out: out.base,
            out_stride: Int64(out.stride), out_rows: nil, gemv_max_rows: Int64(tuning.gemvMaxRows[w.dtype]),
            scratch: scratch.take(Float.self, Int(BRAID_MATMUL_SCRATCH)))
        let partial = Int(braid_sliced_scratch(profile.kernelValue, Int64(x.rows), Int64(slices)))
        var p = unsafe braid_sliced_matmul(
            product: product, slices: Int64(slices), partial: scratch.take(Float.self, partial))
        run { unsafe table.sliced_matmul(&p) }
    }

    /// Returns the number of K-slices of a sum over `width` columns: 8, or the largest power of two below 8 that
    /// divides the width. It depends on the model alone, never on the parallel configuration.
    package static func slices(of width: Int) -> Int { min(8, 1 << width.trailingZeroBitCount) }
}
