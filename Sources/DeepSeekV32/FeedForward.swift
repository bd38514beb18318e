import Checkpoints
import Modeling
import Parallelism
import Tensors

/// A feed-forward `down(silu(gate x) * up x)`, of dense layers and of the shared experts. It also holds the weights of
/// one routed expert.
struct FeedForward {
    let gate: Weight
    let up: Weight
    let down: Weight

    init(_ source: WeightSource, _ prefix: String, hidden: Int, width: Int) throws(CheckpointError) {
        gate = try source.matrix(prefix + "gate_proj.weight", width, hidden)
        up = try source.matrix(prefix + "up_proj.weight", width, hidden)
        down = try source.matrix(prefix + "down_proj.weight", hidden, width)
    }

    /// Computes the feed-forward of own rows.
    ///
    /// - Parameter x: own rows, normed, `[own rows, hidden]`.
    /// - Returns: `[own rows, hidden]`.
    func forward(_ x: View, _ seat: Seat) throws(GroupFailure) -> View {
        let input = try seat.cross(Sharding.feedForwardInput, x)
        let columns = seat.part(of: down.columns, along: .dense)
        let addend = seat.scratch.rows(input.rows, down.rows)
        let mark = seat.scratch.mark()
        let hidden = seat.scratch.rows(input.rows, columns.count)
        activate(input, columns: columns, seat, into: hidden)
        seat.kernels.slicedMatmul(
            hidden, down.columns(columns), slices: seat.slices(of: down.columns, along: .dense), into: addend,
            seat.scratch)
        seat.scratch.reset(to: mark)
        return try seat.cross(Sharding.feedForwardOutput, addend)
    }

    /// Computes `silu(gate x) * up x` in some columns.
    private func activate(_ x: View, columns: Range<Int>, _ seat: Seat, into hidden: View) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let upper = seat.scratch.rows(hidden.rows, hidden.columns)
        seat.kernels.matmul(x, gate.rows(columns), into: hidden, seat.scratch)
        seat.kernels.matmul(x, up.rows(columns), into: upper, seat.scratch)
        seat.kernels.swiglu(hidden, upper, into: hidden)
    }
}
