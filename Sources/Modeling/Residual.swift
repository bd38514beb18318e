package import Parallelism
package import Tensors

/// The stream that layers read from and add to: only here is said how a sublayer's input comes of a row's state.
package struct Residual {
    /// `[own rows, stateWidth]`.
    package let stream: View

    package init(stream: View) { self.stream = stream }

    /// What a sublayer works on: the stream, normalised.
    package func read(_ norm: Vector, epsilon: Float, _ seat: Seat) -> View {
        let normed = seat.scratch.rows(stream.rows, stream.columns)
        seat.kernels.rmsNorm(stream, norm.view, epsilon: epsilon, into: normed)
        return normed
    }

    /// Adds a sublayer's output.
    package func write(_ output: View, _ seat: Seat) { seat.kernels.add(stream, output, into: stream) }
}
