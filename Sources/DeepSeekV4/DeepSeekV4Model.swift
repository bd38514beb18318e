package import Checkpoints
package import KVCache
package import Modeling
package import Parallelism
package import Tensors

/// DeepSeek-V4: embedding, layers over several residual streams, their final mix, norm and head, and optionally a
/// next-token block.
package final class DeepSeekV4Model: Model {
    package let configuration: DeepSeekV4Configuration
    package let description: ModelDescription
    /// The owners of the weights' memory: the mapped files, or the dummy matrices.
    private let owners: [any Sendable]
    private let embedding: Weight
    private let layers: [DecoderLayer]
    private let headStreams: Streams
    private let finalNorm: Vector
    private let head: Weight
    private let nextToken: NextTokenBlock?
    private let frequencies: (window: [Float], compressed: [Float])

    /// Builds a model whose weights stay where `source` has them.
    ///
    /// - Parameters:
    ///   - drafts: true to load the next-token block, which the configuration must have.
    ///   - progress: called with each layer's number when its weights are in place.
    /// - Throws: `CheckpointError` naming the tensor that is missing or does not fit the configuration.
    package init(
        _ configuration: DeepSeekV4Configuration, _ source: WeightSource, drafts: Bool = false,
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
        headStreams = try Streams(configuration, source, WeightNames.headStreams, isHead: true)
        finalNorm = try source.vector(WeightNames.finalNorm, hidden, dummy: 1)
        head =
            configuration.tiesEmbeddings
            ? try source.matrix(WeightNames.head, tiedTo: embedding, WeightNames.embedding)
            : try source.matrix(WeightNames.head, vocabulary, hidden)
        precondition(!drafts || configuration.nextTokenLayers > 0, "a model without a next-token block")
        nextToken = drafts ? try NextTokenBlock(configuration, source, layer: configuration.layers) : nil
        frequencies = (configuration.rotary.frequencies, configuration.compressedRotary.frequencies)
        owners = source.owners
    }

    package func cacheFormat(_ type: CacheType, pageSize: Int) -> CacheFormat {
        configuration.cacheFormat(type, pageSize: pageSize, drafts: canDraft)
    }

    package func forward(_ step: Step, _ seat: Seat, into hidden: View) throws(GroupFailure) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let state = LayerState(rows: step.own.count, stateWidth: stateWidth, selected: 0, seat)
        let stream = state.residual.stream
        try seat.enter(state.carried) { embed(step.tokens, seat, into: stream) }
        let angles = angles(of: step, seat)
        for number in seat.layers(of: layers.count) {
            try seat.span("layer", number) { () throws(GroupFailure) in
                try layers[number].forward(state, angles, step, seat)
            }
        }
        if try seat.leave(state.carried) { return }
        seat.kernels.copyRows(stream, xRows: ComputedIndices(step.outputs), into: hidden)
        guard let recorder = step.recorder else { return }
        let final = headStreams.read(hidden, finalNorm, seat).input
        for row in 0..<step.outputs.count {
            let values = seat.kernels.synchronize(final.rows(row..<row + 1)).elements
            recorder.record(.finalNorm, layer: layers.count, values, of: step.own, row: Int(step.outputs[row]))
        }
    }

    /// Fills every stream with the tokens' embeddings.
    private func embed(_ tokens: Indices, _ seat: Seat, into streams: View) {
        let hidden = embedding.columns
        for stream in 0..<configuration.streams.count {
            seat.kernels.embedding(embedding, tokens, into: streams.columns(stream * hidden..<(stream + 1) * hidden))
        }
    }

    package var canDraft: Bool { nextToken != nil }

    package func draft(_ step: Step, _ seat: Seat, states: View, continues: Bool) throws(GroupFailure) {
        guard let nextToken else { preconditionFailure("the next-token block was not loaded") }
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        try seat.span("draft", layers.count) { () throws(GroupFailure) in
            try nextToken.forward(states, embedding: embedding, angles(of: step, seat), step, seat)
        }
    }

    private func angles(of step: Step, _ seat: Seat) -> Angles {
        Angles(
            window: StepAngles(of: step) { configuration.rotary.angles(of: $0, frequencies.window, seat.scratch) },
            compressed: StepAngles(of: step) { compressedAngles(of: $0, seat) },
            sparseEntries: entryAngles(.compressedSparse, step, seat),
            heavyEntries: entryAngles(.heavilyCompressed, step, seat))
    }

    private func compressedAngles(of positions: Indices, _ seat: Seat) -> RotaryAngles {
        configuration.compressedRotary.angles(of: positions, frequencies.compressed, seat.scratch)
    }

    /// Returns the angles of the first token of each entry that own rows complete; `nil` if no layer has such entries.
    private func entryAngles(_ kind: LayerKind, _ step: Step, _ seat: Seat) -> RotaryAngles? {
        guard let layer = configuration.kinds.firstIndex(of: kind) else { return nil }
        let rows = step.entries[step.group(of: KeySetID(layer: layer, KeySets.entries)).index].rows
        let positions = seat.scratch.indices(rows.count)
        for entry in 0..<rows.count {
            positions[entry] = step.own.positions[Int(rows[entry])] + 1 - Int32(kind.tokensPerEntry)
        }
        return compressedAngles(of: positions, seat)
    }

    package func logits(_ hidden: View, vocabulary: Range<Int>, _ seat: Seat, into logits: View) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let final = headStreams.read(hidden, finalNorm, seat).input
        seat.kernels.inF32.matmul(final, head.rows(vocabulary), into: logits, seat.scratch)
    }

    package func draftLogits(_ states: View, vocabulary: Range<Int>, _ seat: Seat, into logits: View) {
        guard let nextToken else { preconditionFailure("the next-token block was not loaded") }
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        seat.kernels.inF32.matmul(nextToken.final(states, seat), head.rows(vocabulary), into: logits, seat.scratch)
    }
}

/// The rotary angles of a step: layers that only have a window rotate by other angles than those with entries.
struct Angles {
    let window: StepAngles
    let compressed: StepAngles
    /// The angles of the first tokens of the entries that own rows complete, in each kind of layer with entries; `nil`
    /// if the model has no such layer.
    let sparseEntries: RotaryAngles?
    let heavyEntries: RotaryAngles?

    /// Returns the angles of rows and of entries in a kind of layer.
    func of(_ kind: LayerKind) -> (rows: StepAngles, entries: RotaryAngles?) {
        switch kind {
        case .slidingWindow: (window, nil)
        case .compressedSparse: (compressed, sparseEntries)
        case .heavilyCompressed: (compressed, heavyEntries)
        }
    }
}
