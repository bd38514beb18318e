import Checkpoints
import Modeling
import Parallelism
import Tensors

/// The checkpoint's next-token (MTP) block: from a row's final state and the token that follows the row, it computes a
/// state whose logits score the token after that (DeepSeek-V3, arXiv:2412.19437, section 2.2).
///
/// Given its own states and the tokens drafted from them, it drafts further tokens. It uses the model's embedding and
/// head.
struct NextTokenBlock {
    private let embeddingNorm: Vector
    private let stateNorm: Vector
    /// The projection of the embedding, followed by the state, to a residual stream: `[hidden, 2 * hidden]`.
    private let projection: Weight
    private let layer: DecoderLayer
    private let finalNorm: Vector
    private let epsilon: Float

    /// Loads the block.
    ///
    /// - Parameter number: the number of the layer under which the block is stored, which also owns its key set.
    init(_ model: DeepSeekConfiguration, _ source: WeightSource, layer number: Int) throws(CheckpointError) {
        let (prefix, hidden) = (WeightNames.layer(number), model.hiddenSize)
        epsilon = model.normEpsilon
        embeddingNorm = try source.vector(prefix + "enorm.weight", hidden, dummy: 1)
        stateNorm = try source.vector(prefix + "hnorm.weight", hidden, dummy: 1)
        projection = try source.matrix(prefix + "eh_proj.weight", hidden, 2 * hidden)
        layer = try DecoderLayer(model, source, layer: number)
        finalNorm = try source.vector(prefix + "shared_head.norm.weight", hidden, dummy: 1)
    }

    /// Runs the block for own rows and publishes their keys.
    ///
    /// - Parameters:
    ///   - states: final states of own rows, normed, `[own rows, hidden]`; they become the block's states. Where the rows
    ///     of a chain share a selection, it follows in further columns.
    ///   - continues: true if an earlier call made the states and the selection.
    func forward(
        _ states: View, continues: Bool, embedding: Weight, _ angles: StepAngles, _ step: Step, _ seat: Seat
    ) throws(GroupFailure) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let width = projection.rows
        let (final, selection) = (states.columns(0..<width), states.columns(width..<states.columns))
        let both = seat.scratch.rows(states.rows, 2 * width)
        let embedded = both.columns(0..<width)
        seat.kernels.embedding(embedding, step.tokens, into: embedded)
        seat.kernels.rmsNorm(embedded, embeddingNorm.view, epsilon: epsilon, into: embedded)
        seat.kernels.rmsNorm(final, stateNorm.view, epsilon: epsilon, into: both.columns(width..<both.columns))
        // The block selects keys for itself, also in models whose layers reuse a selection.
        let isShared = selection.columns > 0
        let state = LayerState(
            rows: states.rows, stateWidth: width, selected: selection.columns, isSelected: isShared && continues, seat)
        if state.isSelected { seat.kernels.copyRows(selection, into: state.selection) }
        seat.kernels.matmul(both, projection, into: state.residual.stream, seat.scratch)
        try layer.forward(state, angles, step, seat)
        if isShared, !continues { seat.kernels.copyRows(state.selection, into: selection) }
        seat.kernels.rmsNorm(state.residual.stream, finalNorm.view, epsilon: epsilon, into: final)
    }
}
