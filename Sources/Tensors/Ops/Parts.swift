// How the operations are cut: a part of one is the same operation on a part of its operands. RowParts.swift and
// ColumnParts.swift have the parts.

extension Kernels {
    /// Shares work that is cut by rows.
    ///
    /// - Parameter each: the cost of a row; see `Team.share`.
    func share(_ work: some ParallelWork, rows: Int, each: Int) -> Bool {
        share(work, WorkSplit(units: rows), cost: rows * each)
    }

    /// Shares a product of `rows` rows: by outputs, so that each weight is read and widened by one thread; by rows where
    /// outputs are few.
    func share(_ product: Product, rows: Int) -> Bool {
        guard let team else { return false }
        let (outputs, contracted) = (product.out.columns, product.x.columns)
        let cost = outputs * contracted + rows * outputs * contracted / 16
        // Many rows are packed anew for each part.
        let byOutputs = WorkSplit(units: outputs, step: 64, least: rows > 16 ? 512 : 64)
        if byOutputs.parts(threads: team.threads) >= team.threads { return share(product, byOutputs, cost: cost) }
        return share(
            ProductByRows(product: product, rows: rows), WorkSplit(units: rows, step: 12, least: 48), cost: cost)
    }

    /// Shares products of one shape: each is made by one thread; where they are few, by rows.
    func share(_ batch: BatchedProduct) -> Bool {
        guard let team else { return false }
        let cost = batch.count * batch.outputs * batch.contracted * (16 + batch.x.rows) / 16
        let byRows = WorkSplit(units: batch.x.rows, step: 12, least: 48)
        if batch.count >= team.threads || byRows.parts(threads: team.threads) < batch.count {
            return share(batch, WorkSplit(units: batch.count), cost: cost)
        }
        return share(BatchedProductByRows(batch: batch), byRows, cost: cost)
    }

    /// Shares a sliced product as any other: by outputs, or by rows where outputs are few.
    func share(_ product: SlicedProduct) -> Bool {
        guard let team else { return false }
        let (rows, outputs, contracted) = (product.x.rows, product.out.columns, product.x.columns)
        let cost = outputs * contracted + rows * outputs * contracted / 16
        let byOutputs = WorkSplit(units: outputs, step: 64, least: rows > 16 ? 512 : 64)
        if byOutputs.parts(threads: team.threads) >= team.threads { return share(product, byOutputs, cost: cost) }
        return share(SlicedProductByRows(product: product), WorkSplit(units: rows, step: 12, least: 48), cost: cost)
    }

    /// Shares the hidden values of experts: by columns of their width, so that it does not matter which experts are
    /// chosen; by experts where columns are few.
    func share(_ hidden: ExpertHidden) -> Bool {
        guard let team else { return false }
        let (pairs, columns) = (hidden.slots.capacity, hidden.columns.count)
        let cost = min(pairs, hidden.slots.experts.count) * columns * hidden.x.columns * 2
        let byColumns = WorkSplit(units: columns, step: 64, least: hidden.x.rows > 16 ? 512 : 64)
        if byColumns.parts(threads: team.threads) >= team.threads { return share(hidden, byColumns, cost: cost) }
        return share(
            ExpertHiddenByExperts(hidden: hidden), WorkSplit(units: hidden.slots.experts.count), cost: cost)
    }

    /// Shares attention by rows; few rows one after the other, each by heads.
    func share(_ attention: Attention, keysPerRow keys: Int) -> Bool {
        guard let team else { return false }
        let (rows, heads) = (attention.q.rows, attention.heads)
        let each = keys * (attention.q.columns + attention.out.columns) / 16
        if rows >= 2 * team.threads { return share(attention, WorkSplit(units: rows), cost: rows * each) }
        for row in 0..<rows {
            let one = attention.rows(row..<row + 1)
            if share(AttentionByHeads(row: one), WorkSplit(units: heads, least: 4), cost: each) { continue }
            // The first is as much work as any other.
            precondition(row == 0, "all rows of an attention are shared, or none")
            return false
        }
        return true
    }
}
