import CKernels

extension Kernels {
    /// Computes `weight * x / sqrt(mean(x²) + epsilon)` for each row. `out` may be `x`.
    package func rmsNorm(_ x: View, _ weight: View, epsilon: Float, into out: View) {
        precondition(weight.columns == x.columns, "a weight of \(weight.columns) for \(x.shape)")
        precondition(out.rows == x.rows && out.columns == x.columns, "norm of \(x.shape) into \(out.shape)")
        let work = RMSNorm(x: x, weight: weight, epsilon: epsilon, out: out)
        if share(work, rows: x.rows, each: 2 * x.columns) { return }
        var p = unsafe braid_norm(
            m: Int64(x.rows), n: Int64(x.columns), x: x.base, x_stride: Int64(x.stride), weight: weight.base, bias: nil,
            eps: epsilon, out: out.base, out_stride: Int64(out.stride))
        run { unsafe table.rms_norm(&p) }
    }

    /// Computes `weight * (x - mean) / sqrt(variance + epsilon) + bias` for each row. `out` may be `x`.
    package func layerNorm(_ x: View, _ weight: View, _ bias: View, epsilon: Float, into out: View) {
        precondition(weight.columns == x.columns && bias.columns == x.columns, "norm of \(x.shape)")
        precondition(out.rows == x.rows && out.columns == x.columns, "norm of \(x.shape) into \(out.shape)")
        let work = LayerNorm(x: x, weight: weight, bias: bias, epsilon: epsilon, out: out)
        if share(work, rows: x.rows, each: 3 * x.columns) { return }
        var p = unsafe braid_norm(
            m: Int64(x.rows), n: Int64(x.columns), x: x.base, x_stride: Int64(x.stride), weight: weight.base,
            bias: bias.base, eps: epsilon, out: out.base, out_stride: Int64(out.stride))
        run { unsafe table.layer_norm(&p) }
    }

    /// Rotates the first `angles.width` elements of every head in place.
    ///
    /// - Parameters:
    ///   - x: `[rows, …]`; head h of a row begins at column `h * headStride`.
    ///   - angles: one row of cosines and sines per row of `x`.
    package func rope(_ x: View, heads: Int, headStride: Int, interleaved: Bool, _ angles: RotaryAngles) {
        let width = angles.cosine.columns * 2
        precondition(angles.cosine.rows == x.rows, "\(angles.cosine.rows) rows of angles for \(x.rows)")
        precondition((heads - 1) * headStride + width <= x.columns || x.rows == 0, "\(heads) heads in \(x.shape)")
        let work = Rope(x: x, heads: heads, headStride: headStride, interleaved: interleaved, angles: angles)
        if share(work, rows: x.rows, each: 2 * heads * width) { return }
        var p = unsafe braid_rope(
            m: Int64(x.rows), heads: Int64(heads), width: Int64(width), interleaved: interleaved,
            inverse: angles.isInverse, x: x.base, x_stride: Int64(x.stride), head_stride: Int64(headStride),
            cosine: angles.cosine.base, sine: angles.sine.base)
        run { unsafe table.rope(&p) }
    }

    /// Computes `out = a + b`. `out` may be either operand.
    package func add(_ a: View, _ b: View, into out: View) {
        precondition(a.rows == b.rows && a.columns == b.columns, "adding \(a.shape) and \(b.shape)")
        precondition(a.rows == out.rows && a.columns == out.columns, "adding \(a.shape) into \(out.shape)")
        if share(Sum(a: a, b: b, out: out), rows: a.rows, each: 3 * a.columns) { return }
        var p = unsafe braid_add(
            m: Int64(a.rows), n: Int64(a.columns), a: a.base, a_stride: Int64(a.stride), b: b.base,
            b_stride: Int64(b.stride), out: out.base, out_stride: Int64(out.stride))
        run { unsafe table.add(&p) }
    }

    /// Multiplies every element by `factor`, in place.
    package func scale(_ x: View, by factor: Float) {
        if share(Scale(x: x, factor: factor), rows: x.rows, each: 2 * x.columns) { return }
        var p = unsafe braid_scale(
            m: Int64(x.rows), n: Int64(x.columns), factor: factor, x: x.base, x_stride: Int64(x.stride))
        run { unsafe table.scale(&p) }
    }

    /// Copies bits, which may be integers. The columns of `x` and `out` are `pieces` equal stripes each; from each
    /// stripe of `x`, `columns` are copied to the stripe of `out`, from `column` on.
    ///
    /// - Parameters:
    ///   - columns: the columns of a stripe to copy; `nil` copies all of them.
    ///   - xRows: the row of `x` that each copied row is read from; `nil` reads row i.
    ///   - outRows: the row of `out` that each copied row is written to; `nil` writes row i.
    package func copyRows(
        _ x: View, pieces: Int = 1, columns: Range<Int>? = nil, xRows: ComputedIndices? = nil, into out: View,
        at column: Int = 0, outRows: ComputedIndices? = nil
    ) {
        precondition(x.columns % pieces == 0 && out.columns % pieces == 0, "\(x.shape), \(out.shape) in \(pieces)")
        let (xStep, outStep, m) = (x.columns / pieces, out.columns / pieces, xRows?.count ?? outRows?.count ?? x.rows)
        let columns = columns ?? 0..<xStep
        precondition(columns.upperBound <= xStep && column + columns.count <= outStep, "\(columns) at \(column)")
        precondition(xRows != nil || x.rows >= m, "rows of x")
        precondition(outRows.map { $0.count == m } ?? (out.rows >= m), "rows of out")
        let work = Copy(
            x: x, pieces: pieces, columns: columns, xRows: xRows, out: out, column: column, outRows: outRows)
        if share(work, rows: m, each: 2 * pieces * columns.count) { return }
        var p = unsafe braid_copy_rows(
            m: Int64(m), pieces: Int64(pieces), n: Int64(columns.count), x: x.base + columns.lowerBound,
            x_stride: Int64(x.stride), x_step: Int64(xStep), x_rows: xRows?.base, out: out.base + column,
            out_stride: Int64(out.stride), out_step: Int64(outStep), out_rows: outRows?.base)
        run { unsafe table.copy_rows(&p) }
    }

    /// Computes `silu(gate) * up`, times the row's weight if there are weights (`[1, rows]`). `out` may be `gate` or
    /// `up`.
    ///
    /// - Parameter limit: `gate` is first bounded from above and `up` from both sides, as DeepSeek-V4 does.
    package func swiglu(_ gate: View, _ up: View, rowWeights: View? = nil, limit: Float = .infinity, into out: View) {
        precondition(gate.rows == up.rows && gate.columns == up.columns, "\(gate.shape) and \(up.shape)")
        precondition(rowWeights.map { $0.columns == gate.rows } ?? true, "a weight per row")
        let work = SwiGLU(gate: gate, up: up, rowWeights: rowWeights, limit: limit, out: out)
        if share(work, rows: gate.rows, each: 8 * gate.columns) { return }
        var p = unsafe braid_swiglu(
            m: Int64(gate.rows), n: Int64(gate.columns), gate: gate.base, gate_stride: Int64(gate.stride), up: up.base,
            up_stride: Int64(up.stride), row_weight: rowWeights?.base, limit: limit, out: out.base,
            out_stride: Int64(out.stride))
        run { unsafe table.swiglu(&p) }
    }

    /// Compresses the inputs of `slots` tokens to one entry: for every column the sum of the tokens' values, weighted by
    /// the softmax of their gates. The formulas are in `compress.h`.
    ///
    /// - Parameters:
    ///   - inputs: `[entries * slots, 2 * halves * width]`, each token's values and then its gates. A token without a
    ///     part in the sum has gates of minus infinity.
    ///   - halves: 2 if windows overlap: then the first half of the slots uses the first half of values and gates, and
    ///     the other slots the second. Otherwise 1.
    ///   - ape: `[slots / halves, halves * width]`, packed; it is added to the gates.
    ///   - out: `[entries, width]`.
    package func compressEntries(_ inputs: View, slots: Int, halves: Int, ape: View, into out: View) {
        precondition((halves == 1 || halves == 2) && slots > 0 && slots % halves == 0, "\(slots) slots, \(halves)")
        precondition(inputs.rows == out.rows * slots && inputs.columns == 2 * halves * out.columns, "\(inputs.shape)")
        precondition(ape.rows == slots / halves && ape.columns == halves * out.columns && ape.isPacked, "\(ape.shape)")
        let work = Compression(inputs: inputs, slots: slots, halves: halves, ape: ape, out: out)
        if share(work, rows: out.rows, each: 8 * slots * out.columns) { return }
        var p = unsafe braid_compress(
            m: Int64(out.rows), slots: Int64(slots), halves: Int64(halves), n: Int64(out.columns), inputs: inputs.base,
            inputs_stride: Int64(inputs.stride), ape: ape.base, out: out.base, out_stride: Int64(out.stride))
        run { unsafe table.compress_entries(&p) }
    }

    /// Stores rows in a cache lane, converted to its element type. Row i becomes entry `slots[i]`; a negative slot
    /// skips it.
    package func store(_ x: View, slots: Indices, in lane: CacheLane) {
        precondition(x.rows == slots.count && x.columns == lane.width, "storing \(x.shape) in a lane of \(lane.width)")
        for row in 0..<slots.count { precondition(slots[row] < lane.entries, "slot \(slots[row]) of \(lane.entries)") }
        if share(Store(x: x, slots: slots, lane: lane), rows: x.rows, each: 2 * x.columns) { return }
        var p = unsafe braid_store_rows(
            m: Int64(x.rows), n: Int64(x.columns), x: x.base, x_stride: Int64(x.stride), slots: slots.base,
            lane: lane.base, dtype: lane.dtype.kernelValue, group: Int64(lane.group),
            scale_type: lane.scaleType.kernelValue)
        run { unsafe table.store_rows(&p) }
    }

    /// Copies entries of a lane as they are stored, scales included, into rows, one entry per row from `column` on.
    /// Zeros fill the rest of the last column.
    package func loadEntries(_ entries: Indices, of lane: CacheLane, into rows: View, column: Int) {
        precondition(rows.rows == entries.count, "\(entries.count) entries for \(rows.rows) rows")
        for row in 0..<entries.count {
            precondition((0..<lane.entries).contains(Int(entries[row])), "entry \(entries[row]) of \(lane.entries)")
        }
        let target = rows.columns(column..<column + lane.entryColumns)
        var p = unsafe braid_load_entries(
            m: Int64(entries.count), bytes: Int64(lane.entryBytes), entries: entries.base, lane: lane.base,
            rows: target.base, stride: Int64(target.stride))
        run { unsafe table.load_entries(&p) }
    }

    /// Transforms every head of every row in place to `H x / sqrt(width)`, where H is the Hadamard matrix. The
    /// transform is orthogonal, so dot products of transformed vectors equal those of the vectors. `width` is a power
    /// of two.
    package func hadamard(_ x: View, heads: Int) {
        let width = x.columns / heads
        precondition(width * heads == x.columns && Self.canRotate(width: width), "\(heads) heads in \(x.shape)")
        if share(Hadamard(x: x, heads: heads), rows: x.rows, each: 2 * x.columns) { return }
        var p = unsafe braid_hadamard(
            m: Int64(x.rows), heads: Int64(heads), width: Int64(width), x: x.base, x_stride: Int64(x.stride))
        run { unsafe table.hadamard(&p) }
    }

    /// Returns true if there is a Hadamard transform of this width.
    package static func canRotate(width: Int) -> Bool {
        width > 0 && width & (width - 1) == 0 && width <= Int(BRAID_MAX_HADAMARD)
    }
}

/// Holds the cosines and sines of each row's rotary angles, `[rows, width / 2]` each.
package struct RotaryAngles {
    package let cosine: View
    package let sine: View
    /// True if rotations are by the negative angles.
    package let isInverse: Bool

    package init(cosine: View, sine: View) { self.init(cosine: cosine, sine: sine, isInverse: false) }

    private init(cosine: View, sine: View, isInverse: Bool) {
        precondition(cosine.stride == cosine.columns && sine.stride == sine.columns, "angles are packed")
        self.cosine = cosine
        self.sine = sine
        self.isInverse = isInverse
    }

    /// The same angles with the opposite sign: rotating by both changes nothing but roundings.
    package var inverse: RotaryAngles { RotaryAngles(cosine: cosine, sine: sine, isInverse: !isInverse) }

    /// Returns the angles of some of the rows.
    package func rows(_ range: Range<Int>) -> RotaryAngles {
        RotaryAngles(cosine: cosine.rows(range), sine: sine.rows(range), isInverse: isInverse)
    }
}
