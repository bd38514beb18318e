import Checkpoints
import Parallelism
import Tensors

/// `down(silu(gate x) * up x)`: the feed-forward of dense layers, of shared experts, and one routed expert's weights.
struct FeedForward {
    let gate: Weight
    let up: Weight
    let down: Weight

    init(_ source: WeightSource, _ prefix: String, hidden: Int, width: Int) throws(CheckpointError) {
        gate = try source.matrix(prefix + "gate_proj.weight", width, hidden)
        up = try source.matrix(prefix + "up_proj.weight", width, hidden)
        down = try source.matrix(prefix + "down_proj.weight", hidden, width)
    }

    func forward(_ x: View, _ seat: Seat, into out: View) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let hidden = seat.scratch.rows(x.rows, gate.rows)
        activate(x, seat, into: hidden)
        seat.kernels.slicedMatmul(
            hidden, down, slices: Kernels.slices(of: down.columns), into: out, seat.scratch)
    }

    /// `silu(gate x) * up x`, of the given rows and times their weights where there are any.
    func activate(
        _ x: View, rows: Indices? = nil, weights: View? = nil, _ seat: Seat, into hidden: View
    ) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let upper = seat.scratch.rows(hidden.rows, hidden.columns)
        seat.kernels.matmul(x, gate, xRows: rows, into: hidden, seat.scratch)
        seat.kernels.matmul(x, up, xRows: rows, into: upper, seat.scratch)
        seat.kernels.swiglu(hidden, upper, rowWeights: weights, into: hidden)
    }
}
