import Checkpoints
import Modeling
import Parallelism
import Tensors

/// One layer: attention, then experts; each reads a mix of the residual streams and writes to all of them.
struct DecoderLayer {
    private let number: Int
    private let attentionStreams: Streams
    private let attentionNorm: Vector
    private let attention: Attention
    private let expertStreams: Streams
    private let expertNorm: Vector
    private let experts: MoE

    init(_ model: DeepSeekV4Configuration, _ source: WeightSource, layer: Int) throws(CheckpointError) {
        number = layer
        let prefix = model.prefix(ofLayer: layer)
        attentionStreams = try Streams(model, source, prefix + "hc_attn_")
        attentionNorm = try source.vector(prefix + "attn_norm.weight", model.hiddenSize, dummy: 1)
        attention = try Attention(model, source, layer: layer)
        expertStreams = try Streams(model, source, prefix + "hc_ffn_")
        expertNorm = try source.vector(prefix + "ffn_norm.weight", model.hiddenSize, dummy: 1)
        experts = try MoE(model, source, layer: layer)
    }

    /// Runs the layer for own rows and updates `state` in place.
    func forward(_ state: LayerState, _ angles: Angles, _ step: Step, _ seat: Seat) throws(GroupFailure) {
        try attend(state, angles, step, seat)
        let streams = state.residual.stream
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let (normed, mixes) = expertStreams.read(streams, expertNorm, seat)
        step.recorder?.record(.feedForwardNorm, layer: number, normed, of: step.own, seat)
        let output = try experts.forward(normed, layer: number, step, seat)
        step.recorder?.record(.feedForward, layer: number, output, of: step.own, seat)
        expertStreams.write(output, mixes, streams, seat)
        step.recorder?.record(.output, layer: number, streams, of: step.own, seat)
    }

    private func attend(_ state: LayerState, _ angles: Angles, _ step: Step, _ seat: Seat) throws(GroupFailure) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let (normed, mixes) = attentionStreams.read(state.residual.stream, attentionNorm, seat)
        step.recorder?.record(.attentionNorm, layer: number, normed, of: step.own, seat)
        let output = try attention.forward(normed, angles, step, seat)
        step.recorder?.record(.attention, layer: number, output, of: step.own, seat)
        attentionStreams.write(output, mixes, state.residual.stream, seat)
    }
}

extension MoE {
    /// Loads a layer's router, routed experts and shared experts.
    fileprivate init(
        _ model: DeepSeekV4Configuration, _ source: WeightSource, layer: Int
    ) throws(CheckpointError) {
        let (prefix, hidden, rule) = (model.prefix(ofLayer: layer) + "ffn.", model.hiddenSize, model.experts.gate)
        let router = try source.matrix(prefix + "gate.weight", rule.experts, hidden)
        let choice: Choice =
            model.routesByToken(layer)
            ? .tokens(try source.tokenExperts(prefix + "gate.tid2eid", vocabulary: model.vocabularySize, rule))
            : .scores(bias: try source.vector(prefix + "gate.bias", rule.experts, dummy: 0))
        func feedForward(_ name: String, width: Int) throws(CheckpointError) -> FeedForward {
            try FeedForward(
                source, prefix + name, WeightNames.feedForward, hidden: hidden, width: width,
                limit: model.experts.limit)
        }
        var experts: [FeedForward] = []
        for number in 0..<rule.experts {
            experts.append(try feedForward("experts.\(number).", width: model.experts.width))
        }
        self.init(
            router: router, choice, rule, experts: experts,
            shared: try feedForward("shared_experts.", width: model.experts.shared * model.experts.width))
    }
}
