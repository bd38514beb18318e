// Operations that are cut by rows.

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

struct Scale: ParallelWork {
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
