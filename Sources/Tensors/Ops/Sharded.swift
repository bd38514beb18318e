import CKernels

/// These operations select and list attention keys that are sharded over ranks.
extension Kernels {
    /// Returns the words of a rank's candidates for a row: their count, `topK` scores and `topK` positions.
    package static func candidateColumns(_ topK: Int) -> Int { 1 + 2 * topK }

    /// Packs each row's best keys among those that a rank owns.
    ///
    /// - Parameters:
    ///   - scores: `[rows, owned positions]`.
    ///   - best: indices among the owned positions, as `topK` writes them.
    ///   - out: `[rows, candidateColumns(best.stride)]`.
    package func packCandidates(_ scores: View, _ best: Selection, owned: ShardPositions, into out: View) {
        precondition(scores.rows == out.rows && best.counts.count == out.rows, "\(scores.shape) into \(out.shape)")
        precondition(out.columns == Self.candidateColumns(best.stride), "candidates into \(out.shape)")
        var p = unsafe braid_pack_candidates(
            m: Int64(out.rows), k: Int64(best.stride), scores: scores.base, scores_stride: Int64(scores.stride),
            selected: best.positions.base, counts: best.counts.base, owned: owned.kernelValue, out: out.base,
            out_stride: Int64(out.stride))
        run { unsafe table.pack_candidates(&p) }
    }

    /// Selects the exact best keys of rows among the candidates of several ranks, which callers have checked.
    ///
    /// - Parameters:
    ///   - candidates: the same number of rows for each rank, one rank after the other.
    ///   - rows: the rows of each rank that are merged.
    ///   - last: the last position that each of those rows sees.
    ///   - outRows: the rows of `selected` to write.
    ///   - selected: `[*, topK]`.
    package func mergeCandidates(
        _ candidates: View, ranks: Int, rows: Indices, last: Indices, into selected: ComputedIndices,
        outRows: Indices, topK: Int, _ scratch: Scratch
    ) {
        precondition(candidates.columns == Self.candidateColumns(topK), "candidates \(candidates.shape)")
        precondition(ranks > 0 && candidates.rows % ranks == 0, "\(candidates.shape) of \(ranks) ranks")
        precondition(rows.count == last.count && rows.count == outRows.count, "rows to merge")
        let each = candidates.rows / ranks
        for row in 0..<rows.count {
            precondition((0..<each).contains(Int(rows[row])), "row \(rows[row]) of \(each)")
            precondition((0..<selected.count / topK).contains(Int(outRows[row])), "into row \(outRows[row])")
        }
        let mark = scratch.mark()
        defer { scratch.reset(to: mark) }
        var p = unsafe braid_merge_candidates(
            m: Int64(rows.count), k: Int64(topK), ranks: Int64(ranks), candidates: candidates.base,
            stride: Int64(candidates.stride), rank_rows: Int64(each), rows: rows.base, last: last.base,
            selected: selected.base, out_rows: outRows.base,
            scratch: scratch.take(UInt32.self, Int(braid_merge_scratch(Int64(ranks), Int64(topK)))))
        run { unsafe table.merge_candidates(&p) }
    }

    /// Lists the owned keys that rows attend to: a row that selects keys attends to those, any other to all that it
    /// sees.
    ///
    /// - Parameters:
    ///   - selected: `[rows, topK]`; no columns where no row selects.
    ///   - most: the largest number of keys of a row.
    ///   - total: two words, the low and high half of a count to which the number of all keys is added.
    package func shardedKeys(
        of positions: Indices, selected: View, owned: ShardPositions, most: Int, total: ComputedIndices,
        _ scratch: Scratch
    ) -> Selection {
        precondition(selected.rows == positions.count && total.count == 2, "keys of \(positions.count) rows")
        let keys = Selection(
            positions: scratch.computed(positions.count * most), stride: most,
            counts: scratch.computed(positions.count))
        unsafe total.base.withMemoryRebound(to: Int64.self, capacity: 1) { total in
            unsafe selected.base.withMemoryRebound(to: Int32.self, capacity: 1) { selection in
                var p = unsafe braid_sharded_keys(
                    m: Int64(positions.count), k: Int64(selected.columns), positions: positions.base,
                    selected: selection, selected_stride: Int64(selected.stride), owned: owned.kernelValue,
                    keys: keys.positions.base, keys_stride: Int64(most), counts: keys.counts.base, total: total)
                run { unsafe table.sharded_keys(&p) }
            }
        }
        return keys
    }

    /// Returns zeros, for kernels to add to. The result is scratch.
    package func zeros(_ count: Int, _ scratch: Scratch) -> ComputedIndices {
        let (zeros, computed) = (scratch.indices(count), scratch.computed(count))
        if count == 0 { return computed }
        zeros.fill(0)
        copyRows(zeros.bits(columns: count), into: computed.bits(columns: count))
        return computed
    }
}
