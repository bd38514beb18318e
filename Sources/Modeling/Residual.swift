package import Parallelism
package import Tensors

/// The residual stream, which layers read and add to. Only this type defines how a sublayer's input follows from a
/// row's state.
package struct Residual {
    /// The stream, `[own rows, stateWidth]`.
    package let stream: View

    package init(stream: View) { self.stream = stream }

    /// Returns a sublayer's input: the stream, normed.
    package func read(_ norm: Vector, epsilon: Float, _ seat: Seat) -> View {
        let normed = seat.scratch.rows(stream.rows, stream.columns)
        seat.kernels.rmsNorm(stream, norm.view, epsilon: epsilon, into: normed)
        return normed
    }

    /// Adds a sublayer's output to the stream.
    package func write(_ output: View, _ seat: Seat) { seat.kernels.add(stream, output, into: stream) }
}
