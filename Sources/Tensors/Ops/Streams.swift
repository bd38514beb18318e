import CKernels

// The residual streams of hyper-connections, which replace a single residual stream; `streams.h` has the formulas.
extension Kernels {
    /// The largest number of residual streams.
    package static let maximumStreams = Int(BRAID_MAX_STREAMS)

    /// Makes the coefficients with which a sublayer reads and writes the residual streams, in place.
    ///
    /// - Parameters:
    ///   - mixes: `[rows, (2 + count) * count]`, the products of `fn` with the flattened streams, or `[rows, count]`
    ///     where the streams are only read (the head of the model).
    ///   - streams: `[rows, count * hidden]`.
    ///   - scale: `[1, 3]`, or `[1, 1]` where the streams are only read.
    ///   - base: one row like those of `mixes`.
    ///   - rounds: the number of times that the columns of the matrix that mixes streams are normalized; at least 1.
    ///   - normEpsilon: is added to the mean square of the flattened streams.
    ///   - epsilon: is added to coefficients and to the sums that divide them.
    package func streamMix(
        _ mixes: View, of streams: View, scale: View, base: View, count: Int, rounds: Int, normEpsilon: Float,
        epsilon: Float
    ) {
        let readsOnly = mixes.columns == count
        precondition((1...Self.maximumStreams).contains(count) && rounds > 0, "\(count) streams, \(rounds) rounds")
        precondition(readsOnly || mixes.columns == (2 + count) * count, "coefficients \(mixes.shape)")
        precondition(scale.columns == (readsOnly ? 1 : 3) && base.columns == mixes.columns, "scales \(scale.shape)")
        precondition(streams.rows == mixes.rows && streams.columns % count == 0, "streams \(streams.shape)")
        let work = StreamMix(
            mixes: mixes, streams: streams, scale: scale, base: base, count: count, rounds: rounds,
            normEpsilon: normEpsilon, epsilon: epsilon)
        if share(work, rows: mixes.rows, each: streams.columns + 32 * mixes.columns) { return }
        var p = unsafe braid_stream_mix(
            m: Int64(mixes.rows), count: Int64(count), n: Int64(streams.columns), rounds: Int64(rounds),
            reads_only: readsOnly, streams: streams.base, streams_stride: Int64(streams.stride), scale: scale.base,
            base: base.base, norm_eps: normEpsilon, eps: epsilon, mixes: mixes.base,
            mixes_stride: Int64(mixes.stride))
        run { unsafe table.stream_mix(&p) }
    }

    /// Computes a sublayer's input, the sum of each row's streams times their coefficients.
    ///
    /// - Parameters:
    ///   - streams: `[rows, count * hidden]`.
    ///   - mixes: the result of `streamMix`.
    ///   - input: `[rows, hidden]`.
    package func readStreams(_ streams: View, _ mixes: View, count: Int, into input: View) {
        precondition(mixes.rows == input.rows && mixes.columns >= count, "coefficients \(mixes.shape)")
        let work = StreamRead(streams: streams, mixes: mixes, count: count, input: input)
        if share(work, rows: input.rows, each: streams.columns + input.columns) { return }
        var p = unsafe streamValue(streams, mixes, count: count, input)
        run { unsafe table.read_streams(&p) }
    }

    /// Mixes each row's streams and adds a sublayer's output to them, in place.
    ///
    /// - Parameters:
    ///   - output: `[rows, hidden]`.
    ///   - mixes: `[rows, (2 + count) * count]`, the result of `streamMix`.
    ///   - streams: `[rows, count * hidden]`.
    package func writeStreams(_ output: View, _ mixes: View, count: Int, into streams: View) {
        precondition(mixes.rows == output.rows && mixes.columns == (2 + count) * count, "coefficients \(mixes.shape)")
        let work = StreamWrite(output: output, mixes: mixes, count: count, streams: streams)
        if share(work, rows: output.rows, each: 2 * streams.columns + output.columns) { return }
        var p = unsafe streamValue(streams, mixes, count: count, output)
        run { unsafe table.write_streams(&p) }
    }

    private func streamValue(_ streams: View, _ mixes: View, count: Int, _ x: View) -> braid_streams {
        precondition((1...Self.maximumStreams).contains(count), "\(count) streams")
        precondition(streams.rows == x.rows && streams.columns == count * x.columns, "\(streams.shape) of \(x.shape)")
        return unsafe braid_streams(
            m: Int64(x.rows), count: Int64(count), n: Int64(x.columns), mixes: mixes.base,
            mixes_stride: Int64(mixes.stride), streams: streams.base, streams_stride: Int64(streams.stride), x: x.base,
            x_stride: Int64(x.stride))
    }
}
