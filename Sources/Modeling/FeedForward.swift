package import Checkpoints
package import Parallelism
package import Tensors

/// The names of a feed-forward's three matrices, without `.weight`.
package struct FeedForwardNames: Sendable {
    package let gate: String
    package let up: String
    package let down: String

    package init(gate: String, up: String, down: String) { (self.gate, self.up, self.down) = (gate, up, down) }

    /// The names that most released checkpoints use.
    package static let projections = FeedForwardNames(gate: "gate_proj", up: "up_proj", down: "down_proj")

    /// The names of the tensors, in the order gate, up, down.
    ///
    /// - Parameter prefix: the part of the names before these.
    package func tensors(_ prefix: String) -> [String] { [gate, up, down].map { "\(prefix)\($0).weight" } }
}

/// A feed-forward `down(silu(gate x) * up x)`, of dense layers and of the shared experts. It also holds the weights of
/// one routed expert.
package struct FeedForward {
    package let gate: Weight
    package let up: Weight
    package let down: Weight
    /// The bound to which products are clamped: `gate x` from above, `up x` on both sides; infinity for none.
    package let limit: Float

    /// Loads a feed-forward of `width` inner columns.
    ///
    /// - Parameter prefix: the part of the tensors' names before `names`.
    package init(
        _ source: WeightSource, _ prefix: String, _ names: FeedForwardNames = .projections, hidden: Int, width: Int,
        limit: Float = .infinity
    ) throws(CheckpointError) {
        let tensors = names.tensors(prefix)
        gate = try source.matrix(tensors[0], width, hidden)
        up = try source.matrix(tensors[1], width, hidden)
        down = try source.matrix(tensors[2], hidden, width)
        self.limit = limit
    }

    /// Computes the feed-forward of own rows.
    ///
    /// - Parameter x: own rows, normed, `[own rows, hidden]`.
    /// - Returns: `[own rows, hidden]`.
    package func forward(_ x: View, _ seat: Seat) throws(GroupFailure) -> View {
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
        seat.kernels.swiglu(hidden, upper, limit: limit, into: hidden)
    }
}
