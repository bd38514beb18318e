import CKernels

/// Holds the keys that each row attends to: `[rows, k]` ascending positions, and the number of them per row.
package struct Selection {
    package let positions: ComputedIndices
    package let stride: Int
    package let counts: ComputedIndices
    package init(positions: ComputedIndices, stride: Int, counts: ComputedIndices) {
        precondition(positions.count == stride * counts.count, "a selection is rows × \(stride)")
        self.positions = positions
        self.stride = stride
        self.counts = counts
    }

    /// Returns the selection of some of the rows.
    package func rows(_ range: Range<Int>) -> Selection {
        Selection(
            positions: positions[range.lowerBound * stride..<range.upperBound * stride], stride: stride,
            counts: counts[range])
    }
}

/// Describes a rank's share of a request's positions: runs of `unit` positions are assigned to `ranks` ranks
/// round-robin.
package struct ShardPositions: Sendable, Equatable {
    package let ranks: Int
    package let unit: Int
    package let rank: Int

    package init(ranks: Int, unit: Int, rank: Int) {
        precondition(ranks > 0 && unit > 0 && (0..<ranks).contains(rank), "rank \(rank) of \(ranks)")
        self.ranks = ranks
        self.unit = unit
        self.rank = rank
    }

    package static let all = ShardPositions(ranks: 1, unit: 1, rank: 0)

    /// Returns the owned position with this index among all owned positions.
    package func position(_ index: Int) -> Int { Int(braid_sharded(kernelValue, Int64(index))) }

    /// Returns true if a position, which may be any number, is owned.
    package func contains(_ position: Int) -> Bool { position >= 0 && position / unit % ranks == rank }

    var kernelValue: braid_kv_sharding { braid_kv_sharding(ranks: Int64(ranks), unit: Int64(unit), rank: Int64(rank)) }
}

extension Kernels {
    /// Computes scores of the lightning indexer for `scores.columns` owned positions of one request, without a mask.
    ///
    /// - Parameters:
    ///   - q: `[rows, heads * width]`, packed.
    ///   - weights: `[rows, heads]`, packed, scale factors included.
    ///   - first: the index of the first of those positions among the owned ones.
    ///   - scores: `[rows, positions]`.
    package func indexScores(
        _ q: View, weights: View, keys: CacheLane, _ pages: PageMap, owned: ShardPositions = .all, first: Int = 0,
        into scores: View, _ scratch: Scratch
    ) {
        precondition(q.stride == q.columns && q.columns == weights.columns * keys.width, "index queries \(q.shape)")
        precondition(weights.stride == weights.columns && weights.rows == q.rows && scores.rows == q.rows)
        precondition(keys.width <= Self.maximumIndexWidth, "index keys of \(keys.width)")
        let last = scores.columns == 0 ? -1 : owned.position(first + scores.columns - 1)
        precondition(last < pages.capacity, "position \(last) of \(pages.capacity)")
        let work = IndexScores(
            q: q, weights: weights, keys: keys, pages: pages, owned: owned, first: first, scores: scores)
        // Keys are widened once for all rows, so the cost does not grow with the rows alone.
        let cost = scores.columns * (keys.width + scores.rows * q.columns / 16)
        if share(work, WorkSplit(units: scores.columns, step: 64, least: 512), cost: cost) { return }
        let mark = scratch.mark()
        defer { scratch.reset(to: mark) }
        var p = unsafe braid_index_scores(
            profile: profile.attentionValue, m: Int64(q.rows), heads: Int64(weights.columns), q: q.base,
            weights: weights.base, keys: keys.kernelValue,
            pages: pages.pages.base, page_shift: Int32(pages.shift), owned: owned.kernelValue, first: Int64(first),
            count: Int64(scores.columns),
            scores: scores.base, scores_stride: Int64(scores.stride), index_key_tiles: Int64(tuning.indexKeyTiles),
            scratch: scratch.take(Float.self, Int(BRAID_INDEX_SCRATCH)))
        run { unsafe table.index_scores(&p) }
    }

    /// Selects the exact best `selection.stride` positions among the first `visible[r]` of each row, in ascending
    /// order. Ties go to the smaller position.
    package func topK(_ scores: View, visible: Indices, into selection: Selection, _ scratch: Scratch) {
        precondition(visible.count == scores.rows && selection.counts.count == scores.rows)
        let work = TopK(scores: scores, visible: visible, selection: selection)
        if share(work, rows: scores.rows, each: 2 * scores.columns) { return }
        let mark = scratch.mark()
        defer { scratch.reset(to: mark) }
        var p = unsafe braid_top_k(
            m: Int64(scores.rows), k: Int64(selection.stride), scores: scores.base,
            scores_stride: Int64(scores.stride), visible: visible.base, selected: selection.positions.base,
            selected_stride: Int64(selection.stride), counts: selection.counts.base,
            scratch: scratch.take(UInt32.self, Int(BRAID_TOP_K_SCRATCH)))
        run { unsafe table.top_k(&p) }
    }

    /// Computes absorbed latent attention of rows of one request over its pages.
    ///
    /// - Parameters:
    ///   - q: `[rows, heads * (latent + rope)]`.
    ///   - valuesIncludeRotary: whether a value is the whole key, the latent part and then the rotary part, and not only
    ///     the latent part.
    ///   - positions: the rows' own positions; without a selection, row r sees `0 ... positions[r]`.
    ///   - classes: only keys with `position mod classes.count == classes.index` take part; the count divides 8.
    ///     Partial results of all classes, merged by `mergeAttention` in bit-reversed order, are bitwise equal to one
    ///     call.
    ///   - out: `[rows, heads * value]`, where a value is as wide as the latent part, or as the whole key.
    ///   - logSumExp: `[rows, heads]`, packed.
    package func attention(
        _ q: View, heads: Int, scale: Float, latent: CacheLane, rope: CacheLane, valuesIncludeRotary: Bool = false,
        _ pages: PageMap, positions: Indices, selection: Selection?, classes: (count: Int, index: Int) = (1, 0),
        into out: View, logSumExp: View, _ scratch: Scratch
    ) {
        precondition(8 % classes.count == 0 && (0..<classes.count).contains(classes.index), "class \(classes)")
        precondition(latent.width <= Self.maximumLatentWidth && rope.width <= Self.maximumRopeWidth)
        precondition(latent.dtype != .fp4 && rope.dtype != .fp4, "only index keys may be FP4")
        precondition(q.rows == positions.count, "\(positions.count) positions for \(q.rows) rows")
        precondition(q.columns == heads * (latent.width + rope.width), "queries \(q.shape)")
        let value = latent.width + (valuesIncludeRotary ? rope.width : 0)
        precondition(out.rows == q.rows && out.columns == heads * value, "attention into \(out.shape)")
        precondition(logSumExp.rows == q.rows && logSumExp.columns == heads && logSumExp.isPacked)
        if q.rows == 0 { return }
        let maxPosition = (0..<positions.count).reduce(0) { max($0, Int(positions[$1])) } + 1
        precondition(maxPosition <= pages.capacity, "position \(maxPosition - 1) has no page")
        let keys = selection.map { min($0.stride, maxPosition) } ?? maxPosition
        let work = Attention(
            q: q, heads: heads, scale: scale, latent: latent, rope: rope, valuesIncludeRotary: valuesIncludeRotary,
            pages: pages, positions: positions, selection: selection, classes: classes, out: out, logSumExp: logSumExp)
        if share(work, keysPerRow: keys / classes.count) { return }
        let mark = scratch.mark()
        defer { scratch.reset(to: mark) }
        let floats = braid_attention_scratch(Int64(heads), Int64(value), Int64(keys))
        var p = unsafe braid_attention(
            profile: profile.attentionValue, m: Int64(q.rows), heads: Int64(heads), q: q.base,
            q_stride: Int64(q.stride),
            scale: scale,
            latent: latent.kernelValue, rope: rope.kernelValue, rotary_values: valuesIncludeRotary,
            pages: pages.pages.base, page_shift: Int32(pages.shift),
            positions: positions.base, selected: selection?.positions.base,
            selected_stride: Int64(selection?.stride ?? 0), selected_count: selection?.counts.base,
            class_stride: Int32(classes.count), class_offset: Int32(classes.index), out: out.base,
            out_stride: Int64(out.stride), lse: logSumExp.base,
            direct_key_max_heads: Int64(tuning.directKeyMaxHeads[latent.dtype]),
            scratch: scratch.take(Float.self, Int(floats)))
        run { unsafe table.attention(&p) }
    }

    /// Merges results of the same rows over two sets of keys: `a` becomes the result over both. All views are packed.
    ///
    /// - Parameters:
    ///   - a: `[rows, heads * width]`, followed by its log-sum-exp, `[rows, heads]`.
    ///   - b: the other result, of the same shapes.
    package func mergeAttention(_ a: View, _ aLogSumExp: View, with b: View, _ bLogSumExp: View) {
        let heads = aLogSumExp.columns
        precondition(a.rows == b.rows && a.columns == b.columns && heads > 0 && a.columns % heads == 0)
        precondition(aLogSumExp.rows == a.rows && bLogSumExp.rows == a.rows && bLogSumExp.columns == heads)
        precondition(a.isPacked && b.isPacked && aLogSumExp.isPacked && bLogSumExp.isPacked, "merging unpacked rows")
        let work = Merge(a: a, aLogSumExp: aLogSumExp, b: b, bLogSumExp: bLogSumExp)
        if share(work, rows: a.rows, each: 3 * a.columns) { return }
        var p = unsafe braid_merge(
            m: Int64(a.rows), heads: Int64(heads), width: Int64(a.columns / heads), a: a.base, a_lse: aLogSumExp.base,
            b: b.base, b_lse: bLogSumExp.base)
        run { unsafe table.merge_attention(&p) }
    }

    /// Adds an attention sink to each head's softmax, in place: one more exponential, whose value is zero. Results over
    /// all keys of a row are merged before.
    ///
    /// - Parameters:
    ///   - values: `[rows, heads * width]`.
    ///   - logSumExp: `[rows, heads]`, packed; it stays without the sink.
    ///   - sinks: the sinks' scores, `[1, heads]`, finite.
    package func applySink(_ values: View, _ logSumExp: View, sinks: View) {
        let heads = sinks.columns
        precondition(heads > 0 && values.columns % heads == 0, "\(heads) sinks for \(values.shape)")
        precondition(logSumExp.rows == values.rows && logSumExp.columns == heads && logSumExp.isPacked)
        let work = Sink(values: values, logSumExp: logSumExp, sinks: sinks)
        if share(work, rows: values.rows, each: 2 * values.columns) { return }
        var p = unsafe braid_sink(
            m: Int64(values.rows), heads: Int64(heads), width: Int64(values.columns / heads), x: values.base,
            x_stride: Int64(values.stride), lse: logSumExp.base, sinks: sinks.base)
        run { unsafe table.apply_sink(&p) }
    }
}
