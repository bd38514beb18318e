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
            x.rows(rows), heads: heads, headStride: headStride, interleaved: interleaved, angles.rows(rows))
    }
}

struct StreamMix: ParallelWork {
    let mixes: View
    let streams: View
    let scale: View
    let base: View
    let count: Int
    let rounds: Int
    let normEpsilon: Float
    let epsilon: Float

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.streamMix(
            mixes.rows(rows), of: streams.rows(rows), scale: scale, base: base, count: count, rounds: rounds,
            normEpsilon: normEpsilon, epsilon: epsilon)
    }
}

struct StreamRead: ParallelWork {
    let streams: View
    let mixes: View
    let count: Int
    let input: View

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.readStreams(streams.rows(rows), mixes.rows(rows), count: count, into: input.rows(rows))
    }
}

struct StreamWrite: ParallelWork {
    let output: View
    let mixes: View
    let count: Int
    let streams: View

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.writeStreams(output.rows(rows), mixes.rows(rows), count: count, into: streams.rows(rows))
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
    let limit: Float
    let out: View

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.swiglu(
            gate.rows(rows), up.rows(rows), rowWeights: rowWeights?.columns(rows), limit: limit, into: out.rows(rows))
    }
}

struct Compression: ParallelWork {
    let inputs: View
    let slots: Int
    let halves: Int
    let ape: View
    let out: View

    func compute(_ entries: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.compressEntries(
            inputs.rows(entries.lowerBound * slots..<entries.upperBound * slots), slots: slots, halves: halves,
            ape: ape, into: out.rows(entries))
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
    /// True if the experts are chosen already.
    let given: Bool
    let chosen: ComputedIndices
    let weights: View

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        let (each, logits, weights) = (rule.expertsPerToken, logits.rows(rows), weights.rows(rows))
        let chosen = chosen[rows.lowerBound * each..<rows.upperBound * each]
        if given { return kernels.gate(logits, ofExperts: chosen, rule, weights: weights) }
        kernels.gate(logits, bias: bias, rule, chosen: chosen, weights: weights)
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

struct Sink: ParallelWork {
    let values: View
    let logSumExp: View
    let sinks: View

    func compute(_ rows: Range<Int>, _ kernels: Kernels, _: Scratch) {
        kernels.applySink(values.rows(rows), logSumExp.rows(rows), sinks: sinks)
    }
}

struct Attention: ParallelWork {
    let q: View
    let heads: Int
    let scale: Float
    let latent: CacheLane
    let rope: CacheLane
    let valuesIncludeRotary: Bool
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
            q: q.rows(rows), heads: heads, scale: scale, latent: latent, rope: rope,
            valuesIncludeRotary: valuesIncludeRotary, pages: pages, positions: positions[rows],
            selection: selection?.rows(rows), classes: classes, out: out.rows(rows),
            logSumExp: logSumExp.rows(rows))
    }

    func heads(_ heads: Range<Int>) -> Attention {
        let value = out.columns / self.heads
        func columns(_ width: Int) -> Range<Int> { heads.lowerBound * width..<heads.upperBound * width }
        return Attention(
            q: q.columns(columns(latent.width + rope.width)), heads: heads.count, scale: scale, latent: latent,
            rope: rope, valuesIncludeRotary: valuesIncludeRotary, pages: pages, positions: positions,
            selection: selection, classes: classes, out: out.columns(columns(value)),
            logSumExp: logSumExp.columns(heads))
    }

    func compute(_ kernels: Kernels, _ scratch: Scratch) {
        kernels.attention(
            q, heads: heads, scale: scale, latent: latent, rope: rope, valuesIncludeRotary: valuesIncludeRotary, pages,
            positions: positions, selection: selection, classes: classes, into: out, logSumExp: logSumExp, scratch)
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
