import Checkpoints
import Parallelism
import Tensors

/// One layer: attention, then a feed-forward or experts, each reading the normed stream and adding to it.
struct DecoderLayer {
    private enum Second {
        case dense(FeedForward)
        case experts(MoE)
    }

    private let number: Int
    private let epsilon: Float
    private let attentionNorm: Vector
    private let attention: Attention
    private let feedForwardNorm: Vector
    private let second: Second

    init(_ model: DeepSeekConfiguration, _ source: WeightSource, layer: Int) throws(CheckpointError) {
        number = layer
        epsilon = model.normEpsilon
        let prefix = WeightNames.layer(layer)
        attentionNorm = try source.vector(prefix + "input_layernorm.weight", model.hiddenSize, dummy: 1)
        attention = try Attention(model, source, layer: layer)
        feedForwardNorm = try source.vector(prefix + "post_attention_layernorm.weight", model.hiddenSize, dummy: 1)
        second =
            layer < model.denseLayers
            ? .dense(
                try FeedForward(
                    source, WeightNames.feedForward(layer, ""), hidden: model.hiddenSize, width: model.denseWidth))
            : .experts(try MoE(model, source, layer: layer))
    }

    func forward(_ residual: Residual, _ angles: RotaryAngles, _ step: Step, _ seat: Seat) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let normed = seat.scratch.rows(residual.stream.rows, residual.stream.columns)
        let output = seat.scratch.rows(residual.stream.rows, residual.stream.columns)

        residual.read(attentionNorm, epsilon: epsilon, seat, into: normed)
        step.recorder?.record(.attentionNorm, layer: number, normed)
        attention.forward(normed, angles, layer: number, step, seat, into: output)
        step.recorder?.record(.attention, layer: number, output)
        residual.write(seat.cross(Sharding.attentionOutput, output), seat)

        residual.read(feedForwardNorm, epsilon: epsilon, seat, into: normed)
        step.recorder?.record(.feedForwardNorm, layer: number, normed)
        switch second {
        case .dense(let feedForward): feedForward.forward(normed, seat, into: output)
        case .experts(let experts): experts.forward(normed, layer: number, step, seat, into: output)
        }
        step.recorder?.record(.feedForward, layer: number, output)
        residual.write(seat.cross(Sharding.feedForwardOutput, output), seat)
        step.recorder?.record(.output, layer: number, residual.stream)
    }
}
