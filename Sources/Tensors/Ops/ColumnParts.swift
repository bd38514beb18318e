// Operations that are cut by columns, keys, experts and heads, and their forms by rows where those are few.

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
    let limit: Float
    let out: View

    func compute(_ columns: Range<Int>, _ kernels: Kernels, _ scratch: Scratch) {
        let first = self.columns.lowerBound
        kernels.expertHidden(
            x, weights, slots, columns: first + columns.lowerBound..<first + columns.upperBound, limit: limit,
            into: out.columns(columns), scratch)
    }
}

struct ExpertHiddenByExperts: ParallelWork {
    let hidden: ExpertHidden

    func compute(_ experts: Range<Int>, _ kernels: Kernels, _ scratch: Scratch) {
        kernels.expertHidden(
            hidden.x, hidden.weights, hidden.slots.experts(experts), columns: hidden.columns, limit: hidden.limit,
            into: hidden.out, scratch)
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
