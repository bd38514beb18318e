import Checkpoints
import Modeling
import Parallelism
import Tensors

/// The checkpoint's next-token (MTP) block: from a row's streams and the token that follows the row, it computes streams
/// whose logits score the token after that.
///
/// Given its own streams and the tokens drafted from them, it drafts further tokens. It uses the model's embedding and
/// the matrix of its head.
struct NextTokenBlock {
    private let embeddingNorm: Vector
    private let stateNorm: Vector
    /// The projections of the embedding and of each stream to the block's streams, `[hidden, hidden]`.
    private let embeddingProjection: Weight
    private let stateProjection: Weight
    private let layer: DecoderLayer
    private let headStreams: Streams
    private let finalNorm: Vector
    private let epsilon: Float
    private let streamCount: Int

    /// Loads the block.
    ///
    /// - Parameter number: the number of the layer after the last, under which the block owns its key set.
    init(_ model: DeepSeekV4Configuration, _ source: WeightSource, layer number: Int) throws(CheckpointError) {
        let (prefix, hidden) = (model.prefix(ofLayer: number), model.hiddenSize)
        epsilon = model.normEpsilon
        streamCount = model.streams.count
        embeddingNorm = try source.vector(prefix + "enorm.weight", hidden, dummy: 1)
        stateNorm = try source.vector(prefix + "hnorm.weight", hidden, dummy: 1)
        embeddingProjection = try source.matrix(prefix + "e_proj.weight", hidden, hidden)
        stateProjection = try source.matrix(prefix + "h_proj.weight", hidden, hidden)
        layer = try DecoderLayer(model, source, layer: number)
        headStreams = try Streams(model, source, prefix + WeightNames.headStreams, isHead: true)
        finalNorm = try source.vector(prefix + "norm.weight", hidden, dummy: 1)
    }

    /// Runs the block for own rows and publishes their keys.
    ///
    /// - Parameter states: the streams of own rows after the last layer, `[own rows, streams * hidden]`; they become
    ///   the block's.
    func forward(
        _ states: View, embedding: Weight, _ angles: Angles, _ step: Step, _ seat: Seat
    ) throws(GroupFailure) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let hidden = embedding.columns
        let state = LayerState(rows: states.rows, stateWidth: states.columns, selected: 0, seat)
        let streams = state.residual.stream
        let normed = seat.scratch.rows(states.rows * streamCount, hidden)
        seat.kernels.rmsNorm(
            states.integers.bits(columns: hidden), stateNorm.view, epsilon: epsilon, into: normed)
        seat.kernels.matmul(normed, stateProjection, into: streams.integers.bits(columns: hidden), seat.scratch)
        let token = seat.scratch.rows(states.rows, hidden)
        let embedded = normed.rows(0..<states.rows)
        seat.kernels.embedding(embedding, step.tokens, into: embedded)
        seat.kernels.rmsNorm(embedded, embeddingNorm.view, epsilon: epsilon, into: embedded)
        seat.kernels.matmul(embedded, embeddingProjection, into: token, seat.scratch)
        for stream in 0..<streamCount {
            let columns = streams.columns(stream * hidden..<(stream + 1) * hidden)
            seat.kernels.add(columns, token, into: columns)
        }
        try layer.forward(state, angles, step, seat)
        seat.kernels.copyRows(streams, into: states)
    }

    /// Returns what the output head reads of the block's streams, `[rows, hidden]`.
    func final(_ states: View, _ seat: Seat) -> View { headStreams.read(states, finalNorm, seat).input }
}
