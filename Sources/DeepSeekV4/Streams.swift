import Checkpoints
import Modeling
import Parallelism
import Tensors

/// The residual streams at one site: manifold-constrained hyper-connections, which mix several streams into a
/// sublayer's input and its output back into the streams. The formulas are those of `Kernels.streamMix`.
struct Streams {
    /// The projection of all streams to the mix, `[mixes, count * hidden]`, F32.
    private let projection: Weight
    private let base: Vector
    private let scale: Vector
    private let configuration: DeepSeekV4Configuration.StreamConfiguration
    private let normEpsilon: Float

    /// Loads the weights of a site.
    ///
    /// - Parameters:
    ///   - prefix: the part of the tensors' names before `fn`, `base` and `scale`.
    ///   - isHead: true for the mix that the output head reads, to which nothing is written.
    init(
        _ model: DeepSeekV4Configuration, _ source: WeightSource, _ prefix: String, isHead: Bool = false
    ) throws(CheckpointError) {
        configuration = model.streams
        normEpsilon = model.normEpsilon
        let mixes = configuration.mixes(isHead: isHead)
        projection = try source.matrix(prefix + "fn", mixes, model.stateWidth)
        base = try source.vector(prefix + "base", mixes, dummy: 0)
        scale = try source.vector(prefix + "scale", isHead ? 1 : 3, dummy: 1)
    }

    /// Returns a sublayer's input, the mix of the streams, normed, with the factors by which `write` mixes them.
    ///
    /// - Parameter streams: `[rows, count * hidden]`.
    /// - Returns: the input, `[rows, hidden]`, and the factors, `[rows, mixes]`.
    func read(_ streams: View, _ norm: Vector, _ seat: Seat) -> (input: View, mixes: View) {
        let mixes = seat.scratch.rows(streams.rows, projection.rows)
        let input = seat.scratch.rows(streams.rows, streams.columns / configuration.count)
        seat.kernels.inF32.matmul(streams, projection, into: mixes, seat.scratch)
        seat.kernels.streamMix(
            mixes, of: streams, scale: scale.view, base: base.view, count: configuration.count,
            rounds: configuration.rounds, normEpsilon: normEpsilon, epsilon: configuration.epsilon)
        seat.kernels.readStreams(streams, mixes, count: configuration.count, into: input)
        seat.kernels.rmsNorm(input, norm.view, epsilon: normEpsilon, into: input)
        return (input, mixes)
    }

    /// Mixes the streams and adds a sublayer's output to them, in place.
    ///
    /// - Parameter mixes: the factors that `read` returned for the same streams.
    func write(_ output: View, _ mixes: View, _ streams: View, _ seat: Seat) {
        seat.kernels.writeStreams(output, mixes, count: configuration.count, into: streams)
    }
}
