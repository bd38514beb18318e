// How the operations are cut: a part of one is the same operation on a part of its operands.

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
        let each = heads * keys * (2 * attention.latent.width + attention.rope.width) / 16
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

// MARK: - By rows

struct Embedding: ParallelWork {
    let w: Weight
    let ids: Indices
    let out: View

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.embedding(w, ids[rows], into: out.rows(rows))
    }
}

struct RMSNorm: ParallelWork {
    let x: View
    let weight: View
    let epsilon: Float
    let out: View

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.rmsNorm(x.rows(rows), weight, epsilon: epsilon, into: out.rows(rows))
    }
}

struct LayerNorm: ParallelWork {
    let x: View
    let weight: View
    let bias: View
    let epsilon: Float
    let out: View

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.layerNorm(x.rows(rows), weight, bias, epsilon: epsilon, into: out.rows(rows))
    }
}

struct Rope: ParallelWork {
    let x: View
    let heads: Int
    let headStride: Int
    let interleaved: Bool
    let angles: RotaryAngles

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.rope(
            x.rows(rows), heads: heads, headStride: headStride, interleaved: interleaved,
            RotaryAngles(cosine: angles.cosine.rows(rows), sine: angles.sine.rows(rows)))
    }
}

struct Sum: ParallelWork {
    let a: View
    let b: View
    let out: View

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.add(a.rows(rows), b.rows(rows), into: out.rows(rows))
    }
}

struct Scaling: ParallelWork {
    let x: View
    let factor: Float

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.scale(x.rows(rows), by: factor)
    }
}

struct Copy: ParallelWork {
    let x: View
    let pieces: Int
    let columns: Range<Int>
    let xRows: ComputedIndices?
    let out: View
    let column: Int
    let outRows: ComputedIndices?

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.copyRows(
            xRows == nil ? x.rows(rows) : x, pieces: pieces, columns: columns, xRows: xRows?[rows],
            into: outRows == nil ? out.rows(rows) : out, at: column, outRows: outRows?[rows])
    }
}

struct SwiGLU: ParallelWork {
    let gate: View
    let up: View
    let rowWeights: View?
    let out: View

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.swiglu(gate.rows(rows), up.rows(rows), rowWeights: rowWeights?.columns(rows), into: out.rows(rows))
    }
}

struct Store: ParallelWork {
    let x: View
    let slots: Indices
    let lane: CacheLane

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.store(x.rows(rows), slots: slots[rows], in: lane)
    }
}

struct Hadamard: ParallelWork {
    let x: View
    let heads: Int

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.hadamard(x.rows(rows), heads: heads)
    }
}

struct Gate: ParallelWork {
    let logits: View
    let bias: View?
    let rule: GateRule
    let chosen: ComputedIndices
    let weights: View

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        let each = rule.expertsPerToken
        kernels.gate(
            logits.rows(rows), bias: bias, rule, chosen: chosen[rows.lowerBound * each..<rows.upperBound * each],
            weights: weights.rows(rows))
    }
}

struct TopK: ParallelWork {
    let scores: View
    let visible: Indices
    let selection: Selection

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _ scratch: Scratch) {
        kernels.topK(scores.rows(rows), visible: visible[rows], into: selection.rows(rows), scratch)
    }
}

struct Merge: ParallelWork {
    let a: View
    let aLogSumExp: View
    let b: View
    let bLogSumExp: View

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.mergeAttention(a.rows(rows), aLogSumExp.rows(rows), with: b.rows(rows), bLogSumExp.rows(rows))
    }
}

struct Attention: ParallelWork {
    let q: View
    let heads: Int
    let scale: Float
    let latent: CacheLane
    let rope: CacheLane
    let pages: PageMap
    let positions: Indices
    let selection: Selection?
    let classes: (count: Int, index: Int)
    let out: View
    let logSumExp: View

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _ scratch: Scratch) {
        self.rows(rows).compute(kernels, scratch)
    }

    func rows(_ rows: Range<Int>) -> Attention {
        Attention(
            q: q.rows(rows), heads: heads, scale: scale, latent: latent, rope: rope, pages: pages,
            positions: positions[rows], selection: selection?.rows(rows), classes: classes, out: out.rows(rows),
            logSumExp: logSumExp.rows(rows))
    }

    func heads(_ heads: Range<Int>) -> Attention {
        func columns(_ width: Int) -> Range<Int> { heads.lowerBound * width..<heads.upperBound * width }
        return Attention(
            q: q.columns(columns(latent.width + rope.width)), heads: heads.count, scale: scale, latent: latent,
            rope: rope, pages: pages, positions: positions, selection: selection, classes: classes,
            out: out.columns(columns(latent.width)), logSumExp: logSumExp.columns(heads))
    }

    func compute(_ kernels: Kernels, _ scratch: Scratch) {
        kernels.attention(
            q, heads: heads, scale: scale, latent: latent, rope: rope, pages, positions: positions,
            selection: selection, classes: classes, into: out, logSumExp: logSumExp, scratch)
    }
}

struct ProductByRows: ParallelWork {
    let product: Product
    let rows: Int

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _ scratch: Scratch) {
        let p = product
        kernels.matmul(
            p.xRows == nil ? p.x.rows(rows) : p.x, p.w, transposed: p.transposed, accumulate: p.accumulate,
            xRows: p.xRows?[rows], outRows: p.outRows?[rows], into: p.outRows == nil ? p.out.rows(rows) : p.out,
            scratch)
    }
}

// MARK: - By columns, keys and heads

struct Product: ParallelWork {
    let x: View
    let w: Weight
    let transposed: Bool
    let accumulate: Bool
    let xRows: Indices?
    let outRows: Indices?
    let out: View

    func compute(_ outputs: Range<Int>, _ kernels: Kernels, _ scratch: Scratch) {
        kernels.matmul(
            x, transposed ? w.columns(outputs) : w.rows(outputs), transposed: transposed, accumulate: accumulate,
            xRows: xRows, outRows: outRows, into: out.columns(outputs), scratch)
    }
}

struct BatchedProduct: ParallelWork {
    let x: View
    let w: Weight
    let rows: Range<Int>
    let transposed: Bool
    let count: Int
    let out: View

    var contracted: Int { transposed ? rows.count : w.columns }
    var outputs: Int { transposed ? w.columns : rows.count }

    func compute(_ products: Range<Int>, _ kernels: Kernels, _ scratch: Scratch) {
        func stripes(_ all: Int) -> Range<Int> {
            all / count * products.lowerBound..<all / count * products.upperBound
        }
        kernels.batchedMatmul(
            x.columns(stripes(x.columns)), w.rows(stripes(w.rows)), rows: rows, transposed: transposed,
            count: products.count, into: out.columns(stripes(out.columns)), scratch)
    }
}

struct BatchedProductByRows: ParallelWork {
    let batch: BatchedProduct

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _ scratch: Scratch) {
        kernels.batchedMatmul(
            batch.x.rows(rows), batch.w, rows: batch.rows, transposed: batch.transposed, count: batch.count,
            into: batch.out.rows(rows), scratch)
    }
}

struct SlicedProduct: ParallelWork {
    let x: View
    let w: Weight
    let slices: Int
    let out: View

    func compute(_ outputs: Range<Int>, _ kernels: Kernels, _ scratch: Scratch) {
        kernels.slicedMatmul(x, w.rows(outputs), slices: slices, into: out.columns(outputs), scratch)
    }
}

struct SlicedProductByRows: ParallelWork {
    let product: SlicedProduct

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _ scratch: Scratch) {
        kernels.slicedMatmul(
            product.x.rows(rows), product.w, slices: product.slices, into: product.out.rows(rows), scratch)
    }
}

struct ExpertHidden: ParallelWork {
    let x: View
    let weights: ExpertWeights
    let slots: ExpertSlots
    let columns: Range<Int>
    let out: View

    func compute(_ columns: Range<Int>, _ kernels: Kernels, _ scratch: Scratch) {
        let first = self.columns.lowerBound
        kernels.expertHidden(
            x, weights, slots, columns: first + columns.lowerBound..<first + columns.upperBound,
            into: out.columns(columns), scratch)
    }
}

struct ExpertHiddenByExperts: ParallelWork {
    let hidden: ExpertHidden

    func compute(_ experts: Range<Int>, _ kernels: Kernels, _ scratch: Scratch) {
        kernels.expertHidden(
            hidden.x, hidden.weights, hidden.slots.experts(experts), columns: hidden.columns, into: hidden.out, scratch)
    }
}

struct ExpertSums: ParallelWork {
    let hidden: View
    let weights: ExpertWeights
    let slots: ExpertSlots
    let columns: Range<Int>
    let slices: Int
    let groups: ExpertGroups
    let outputs: Range<Int>
    let out: View

    func compute(_ outputs: Range<Int>, _ kernels: Kernels, _ scratch: Scratch) {
        let first = self.outputs.lowerBound
        kernels.expertSums(
            hidden, weights, slots, columns: columns, slices: slices, groups,
            outputs: first + outputs.lowerBound..<first + outputs.upperBound, into: out.columns(outputs), scratch)
    }
}

struct Combination: ParallelWork {
    let y: View
    let slots: ComputedIndices
    let out: View

    func compute(_ columns: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.combineExperts(y.columns(columns), slots: slots, into: out.columns(columns))
    }
}

struct IndexScores: ParallelWork {
    let q: View
    let weights: View
    let keys: CacheLane
    let pages: PageMap
    let owned: ShardPositions
    let first: Int
    let scores: View

    func compute(_ numbers: Range<Int>, _ kernels: Kernels, _ scratch: Scratch) {
        kernels.indexScores(
            q, weights: weights, keys: keys, pages, owned: owned, first: first + numbers.lowerBound,
            into: scores.columns(numbers), scratch)
    }
}

struct AttentionByHeads: ParallelWork {
    let row: Attention

    func compute(_ heads: Range<Int>, _ kernels: Kernels, _ scratch: Scratch) {
        row.heads(heads).compute(kernels, scratch)
    }
}
