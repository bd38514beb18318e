import Checkpoints
import Modeling
import Parallelism
import Tensors

/// One layer: attention, then a feed-forward or experts; each reads the normed residual stream and adds to it.
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

    /// Runs the layer for own rows and updates `state` in place.
    func forward(_ state: LayerState, _ angles: StepAngles, _ step: Step, _ seat: Seat) throws(GroupFailure) {
        try attend(state, angles, step, seat)
        let residual = state.residual
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let normed = residual.read(feedForwardNorm, epsilon: epsilon, seat)
        step.recorder?.record(.feedForwardNorm, layer: number, normed, of: step.own, seat)
        let output =
            switch second {
            case .dense(let feedForward): try feedForward.forward(normed, seat)
            case .experts(let experts): try experts.forward(normed, layer: number, step, seat)
            }
        step.recorder?.record(.feedForward, layer: number, output, of: step.own, seat)
        residual.write(output, seat)
        step.recorder?.record(.output, layer: number, residual.stream, of: step.own, seat)
    }

    private func attend(_ state: LayerState, _ angles: StepAngles, _ step: Step, _ seat: Seat) throws(GroupFailure) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let normed = state.residual.read(attentionNorm, epsilon: epsilon, seat)
        step.recorder?.record(.attentionNorm, layer: number, normed, of: step.own, seat)
        let output = try attention.forward(normed, state, angles, layer: number, step, seat)
        step.recorder?.record(.attention, layer: number, output, of: step.own, seat)
        state.residual.write(output, seat)
    }
}

extension MoE {
    /// Loads a layer's router, routed experts and shared experts.
    fileprivate init(
        _ model: DeepSeekConfiguration, _ source: WeightSource, layer: Int
    ) throws(CheckpointError) {
        let (hidden, rule) = (model.hiddenSize, model.experts.gate)
        func name(_ name: String) -> String { WeightNames.feedForward(layer, name) }
        let router = try source.matrix(name("gate.weight"), rule.experts, hidden)
        let bias = try source.vector(name("gate.e_score_correction_bias"), rule.experts, dummy: 0)
        var experts: [FeedForward] = []
        for number in 0..<rule.experts {
            experts.append(
                try FeedForward(
                    source, WeightNames.expert(layer, number), hidden: hidden, width: model.experts.width))
        }
        let width = model.experts.shared * model.experts.width
        let shared = width == 0 ? nil : try FeedForward(source, name("shared_experts."), hidden: hidden, width: width)
        self.init(router: router, .scores(bias: bias), rule, experts: experts, shared: shared)
    }
}
