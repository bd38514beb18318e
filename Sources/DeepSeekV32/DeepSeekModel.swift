package import Checkpoints
package import KVCache
package import Modeling
package import Parallelism
package import Tensors

/// DeepSeek-V3, DeepSeek-V3.2 and GLM-5: embedding, layers, final norm, head, and optionally a next-token block.
package final class DeepSeekModel: Model {
    package let configuration: DeepSeekConfiguration
    package let description: ModelDescription
    /// The owners of the weights' memory: the mapped files, or the dummy matrices.
    private let owners: [any Sendable]
    private let embedding: Weight
    private let layers: [DecoderLayer]
    private let finalNorm: Vector
    private let head: Weight
    private let nextToken: NextTokenBlock?
    private let frequencies: [Float]

    /// Builds a model whose weights stay where `source` has them.
    ///
    /// - Parameters:
    ///   - drafts: true to load the next-token block, which the configuration must have.
    ///   - progress: called with each layer's number when its weights are in place.
    /// - Throws: `CheckpointError` naming the tensor that is missing or does not fit the configuration.
    package init(
        _ configuration: DeepSeekConfiguration, _ source: WeightSource, drafts: Bool = false,
        progress: (Int) -> Void = { _ in }
    ) throws(CheckpointError) {
        self.configuration = configuration
        description = configuration.description
        let (vocabulary, hidden) = (configuration.vocabularySize, configuration.hiddenSize)
        embedding = try source.matrix(WeightNames.embedding, vocabulary, hidden)
        var layers: [DecoderLayer] = []
        for layer in 0..<configuration.layers {
            layers.append(try DecoderLayer(configuration, source, layer: layer))
            progress(layer)
        }
        self.layers = layers
        finalNorm = try source.vector(WeightNames.finalNorm, hidden, dummy: 1)
        head =
            configuration.tiesEmbeddings
            ? try source.matrix(WeightNames.head, tiedTo: embedding, WeightNames.embedding)
            : try source.matrix(WeightNames.head, vocabulary, hidden)
        precondition(!drafts || configuration.nextTokenLayers > 0, "a model without a next-token block")
        nextToken = drafts ? try NextTokenBlock(configuration, source, layer: configuration.layers) : nil
        frequencies = configuration.rotary.frequencies
        owners = source.owners
    }

    package func cacheFormat(_ type: CacheType, pageSize: Int) -> CacheFormat {
        configuration.cacheFormat(type, pageSize: pageSize, drafts: canDraft)
    }

    package func forward(_ step: Step, _ seat: Seat, into hidden: View) throws(GroupFailure) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let state = LayerState(
            rows: step.own.count, stateWidth: stateWidth, selected: configuration.reusedSelection, seat)
        let stream = state.residual.stream
        try seat.enter(state.carried) { seat.kernels.embedding(embedding, step.tokens, into: stream) }
        let angles = angles(of: step, seat)
        for number in seat.layers(of: layers.count) {
            try seat.span("layer", number) { () throws(GroupFailure) in
                try layers[number].forward(state, angles, step, seat)
            }
        }
        if try seat.leave(state.carried) { return }
        seat.kernels.copyRows(stream, xRows: ComputedIndices(step.outputs), into: hidden)
        seat.kernels.rmsNorm(hidden, finalNorm.view, epsilon: configuration.normEpsilon, into: hidden)
        guard let recorder = step.recorder else { return }
        for row in 0..<step.outputs.count {
            let values = seat.kernels.synchronize(hidden.rows(row..<row + 1)).elements
            recorder.record(.finalNorm, layer: layers.count, values, of: step.own, row: Int(step.outputs[row]))
        }
    }

    package var canDraft: Bool { nextToken != nil }

    package var draftStateWidth: Int {
        guard let indexer = configuration.indexer, indexer.isSharedInDrafts else { return stateWidth }
        return stateWidth + indexer.topK
    }

    package func draft(_ step: Step, _ seat: Seat, states: View, continues: Bool) throws(GroupFailure) {
        guard let nextToken else { preconditionFailure("the next-token block was not loaded") }
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        try seat.span("draft", layers.count) { () throws(GroupFailure) in
            try nextToken.forward(
                states, continues: continues, embedding: embedding, angles(of: step, seat), step, seat)
        }
    }

    private func angles(of step: Step, _ seat: Seat) -> StepAngles {
        StepAngles(of: step) { configuration.rotary.angles(of: $0, frequencies, seat.scratch) }
    }

    package func logits(_ hidden: View, vocabulary: Range<Int>, _ seat: Seat, into logits: View) {
        seat.kernels.inF32.matmul(hidden, head.rows(vocabulary), into: logits, seat.scratch)
    }
}
