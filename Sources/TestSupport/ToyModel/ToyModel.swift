package import KVCache
package import Modeling
package import Parallelism
package import Tensors

/// A small model with simple mathematics that uses everything a model with compressed keys needs: windows, entries of
/// several tokens, a compressor's state, a selection that later layers reuse, four residual streams, and a next-token
/// block.
///
/// It is also the example of how to add a model: a type that conforms to `Model`, the key sets of its layers
/// (`ToyKeys`), and a forward pass for one rank that publishes keys, selects, attends and crosses edges (`ToyLayer`).
package final class ToyModel: Model {
    package let weights: ToyWeights
    /// The number of tokens of the longest entries.
    package let longEntry: Int
    private let layers: [ToyLayer]

    /// The units that pipeline stages consist of: a layer that reads another layer's key set must be in the same stage.
    static let units: [[ToyLayerKind]] = [[.window], [.selecting, .reading], [.reusing], [.long]]
    /// The kinds of all layers, with the next-token block as the last.
    static let kinds = units.flatMap { $0 } + [.window]

    package init(longEntry: Int = 128) {
        self.longEntry = longEntry
        let weights = ToyWeights(Self.kinds, longEntry: longEntry)
        self.weights = weights
        layers = weights.layers.enumerated().map { number, layer in
            ToyLayer(layer, number: number, slots: ToyKeys.slots(layer.kind, longEntry: longEntry))
        }
    }

    package var canDraft: Bool { true }

    /// The description has only what planning needs: the keys that layers attend to and select from.
    package var description: ModelDescription {
        let shape = ModelShape(
            layers: Self.units.count, heads: ToySizes.heads, valueWidth: ToySizes.latent, experts: 8, expertWidth: 8,
            denseWidth: 8, sharedWidth: 0)
        let layers = Self.kinds.map { kind in
            LayerDescription(
                kind: "\(kind)",
                operations: [
                    .attend(
                        .init(
                            heads: ToySizes.heads, latentWidth: ToySizes.latent, ropeWidth: ToySizes.rotary,
                            latentRounding: ToyKeys.latentRounding,
                            topK: kind == .selecting ? ToySizes.topK : nil))
                ])
        }
        return ModelDescription(
            modelType: "toy", vocabularySize: ToySizes.vocabulary, hiddenSize: ToySizes.hidden,
            stateWidth: ToySizes.state, contextLength: ToySizes.context, layers: Array(layers.dropLast()),
            draftLayers: [layers.last!], reusedSelection: ToySizes.topK, embedding: .init([]),
            finalNorm: .init([]),
            head: .init([]), parallelShape: shape, formats: WeightFormats(.f32))
    }

    package func cacheFormat(_ type: CacheType, pageSize: Int) -> CacheFormat {
        CacheFormat(
            layers: Self.kinds.map { ToyKeys.sets($0, longEntry: longEntry, type) }, pageSize: pageSize)
    }

    package func forward(_ step: Step, _ seat: Seat, into hidden: View) throws(GroupFailure) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let state = LayerState(
            rows: step.own.count, stateWidth: stateWidth, selected: ToySizes.topK, seat)
        let stream = state.residual.stream
        try seat.enter(state.carried) { seat.kernels.embedding(weights.embedding.weight, step.tokens, into: stream) }
        for unit in seat.layers(of: Self.units.count) {
            let first = Self.units[..<unit].reduce(0) { $0 + $1.count }
            for layer in layers[first..<first + Self.units[unit].count] { try layer.forward(state, step, seat) }
        }
        if try seat.leave(state.carried) { return }
        seat.kernels.copyRows(stream, xRows: ComputedIndices(step.outputs), into: hidden)
    }

    package func draft(_ step: Step, _ seat: Seat, states: View, continues: Bool) throws(GroupFailure) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let state = LayerState(rows: states.rows, stateWidth: stateWidth, selected: 0, seat)
        let both = seat.scratch.rows(states.rows, 2 * stateWidth)
        seat.kernels.embedding(weights.embedding.weight, step.tokens, into: both.columns(0..<stateWidth))
        seat.kernels.copyRows(states, into: both.columns(stateWidth..<both.columns))
        seat.kernels.matmul(both, weights.draftProjection.weight, into: state.residual.stream, seat.scratch)
        try layers.last!.forward(state, step, seat)
        seat.kernels.copyRows(state.residual.stream, into: states)
    }

    package func logits(_ hidden: View, vocabulary: Range<Int>, _ seat: Seat, into logits: View) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let input = Residual(stream: hidden).read(weights.finalRead, seat)
        seat.kernels.inF32.matmul(input, weights.head.weight.rows(vocabulary), into: logits, seat.scratch)
    }
}

extension Residual {
    /// Returns a sublayer's input: a mix of the streams, normed.
    func read(_ mix: ToyMatrix, _ seat: Seat) -> View {
        let input = seat.scratch.rows(stream.rows, mix.rows)
        seat.kernels.matmul(stream, mix.weight, into: input, seat.scratch)
        seat.kernels.rmsNorm(input, Self.ones.view, epsilon: ToySizes.epsilon, into: input)
        return input
    }

    /// Adds a sublayer's output to the streams, mixed differently for each.
    func write(_ output: View, _ mix: ToyMatrix, _ seat: Seat) {
        let mixed = seat.scratch.rows(output.rows, mix.rows)
        seat.kernels.matmul(output, mix.weight, into: mixed, seat.scratch)
        write(mixed, seat)
    }

    private static let ones = Vector([Float](repeating: 1, count: ToySizes.hidden))
}
