import Checkpoints
import KVCache
import Modeling
import Parallelism
import Tensors

/// Multi-head latent attention in absorbed form: queries are projected into the latent space, so that the cache stores
/// one latent and one rotary key per token for all heads.
struct Attention {
    private let queryDown: Weight
    private let queryNorm: Vector
    private let queryUp: Weight
    private let keyDown: Weight
    private let keyNorm: Vector
    /// The up projections of keys and values for each head, `[heads * (nope + value), latent]`.
    private let keyValueUp: Weight
    private let output: Weight
    /// The layer's own indexer; `nil` if the layer reuses a selection, or if rows attend to all keys.
    private let indexer: Indexer?
    /// The largest number of keys that a row selects; `nil` if rows attend to all keys.
    private let topK: Int?
    private let configuration: DeepSeekConfiguration

    init(_ model: DeepSeekConfiguration, _ source: WeightSource, layer: Int) throws(CheckpointError) {
        configuration = model
        let (heads, latent, rope) = (model.heads, model.latentWidth, model.ropeWidth)
        func name(_ name: String) -> String { WeightNames.attention(layer, name) }
        queryDown = try source.matrix(name("q_a_proj.weight"), model.queryRank, model.hiddenSize)
        queryNorm = try source.vector(name("q_a_layernorm.weight"), model.queryRank, dummy: 1)
        queryUp = try source.matrix(name("q_b_proj.weight"), heads * (model.nopeWidth + rope), model.queryRank)
        keyDown = try source.matrix(name("kv_a_proj_with_mqa.weight"), latent + rope, model.hiddenSize)
        keyNorm = try source.vector(name("kv_a_layernorm.weight"), latent, dummy: 1)
        keyValueUp = try source.matrix(name("kv_b_proj.weight"), heads * (model.nopeWidth + model.valueWidth), latent)
        output = try source.matrix(name("o_proj.weight"), model.hiddenSize, heads * model.valueWidth)
        topK = model.indexer?.topK
        if let own = model.indexer(ofLayer: layer) {
            indexer = try Indexer(own, model, source, layer: layer)
        } else {
            indexer = nil
        }
    }

    /// Computes attention of own rows and publishes their keys.
    ///
    /// - Parameters:
    ///   - x: own rows, normed.
    ///   - state: has the selection that the layer reuses, or receives the one it makes if later layers reuse it.
    /// - Returns: the output projection of own rows, `[own rows, hidden]`.
    func forward(
        _ x: View, _ state: LayerState, _ angles: StepAngles, layer: Int, _ step: Step, _ seat: Seat
    ) throws(GroupFailure) -> View {
        let compressed = compress(x, seat)
        let keySet = KeySetID(layer: layer)
        let published = try step.publish(keys(x, angles.own, keySet, step, seat), into: keySet, seat)
        let index = state.isSelected ? nil : indexQuery(x, compressed: compressed, angles.own, keySet, step, seat)
        let heads = seat.part(of: configuration.heads, along: .tensor)
        let query = absorbedQuery(try seat.cross(Sharding.query, compressed), heads, angles.attended, seat)
        try step.finish(published, seat)
        seat.keysAreStored(ofLayer: layer)
        let selection = try selection(index, state, keySet, step, seat)
        let attended = try ContextAttention.attend(
            query, to: AttentionKeys(keySet, latent: KeyLanes.latent, rotary: KeyLanes.rotary), heads: heads.count,
            scale: configuration.softmaxScale, selection, topK: topK, step, seat)
        return try seat.cross(Sharding.attentionOutput, project(values(attended.values, heads, seat), heads, seat))
    }

    /// Returns the compressed query of own rows, normed.
    private func compress(_ x: View, _ seat: Seat) -> View {
        let compressed = seat.scratch.rows(x.rows, queryDown.rows)
        seat.kernels.matmul(x, queryDown, into: compressed, seat.scratch)
        seat.kernels.rmsNorm(compressed, queryNorm.view, epsilon: configuration.normEpsilon, into: compressed)
        return compressed
    }

    /// Returns the index queries of own rows; `nil` if no rank reads them, which saves reading their weights.
    private func indexQuery(
        _ x: View, compressed: View, _ angles: RotaryAngles, _ keySet: KeySetID, _ step: Step, _ seat: Seat
    ) -> IndexQuery? {
        guard let indexer, ContextAttention.needsIndexQueries(topK: indexer.topK, of: keySet, step) else { return nil }
        return indexer.query(x, compressed: compressed, angles, keySet, step, seat)
    }

    /// Returns the selections of the attended rows, made in this layer or reused; `nil` if no attended row sees more
    /// entries than it selects.
    private func selection(
        _ index: IndexQuery?, _ state: LayerState, _ keySet: KeySetID, _ step: Step, _ seat: Seat
    ) throws(GroupFailure) -> Selection? {
        guard let topK else { return nil }
        if indexer != nil, state.selectedCount == 0 {
            return try ContextAttention.select(index, topK: topK, of: keySet, step, seat)
        }
        if let index {
            let best = LayerState.firstEntries(topK, rows: step.own.count, seat)
            try ContextAttention.select(index, step, seat, into: best)
            state.keep(best, seat)
        }
        return try ContextAttention.selection(
            state.selected(of: keySet, step, seat), topK: topK, of: keySet, step, seat)
    }

    /// Returns each head's query in the latent space, `q_nope · W_UK`, followed by its rotary part:
    /// `[rows, heads * (latent + rope)]`.
    private func absorbedQuery(
        _ compressed: View, _ heads: Range<Int>, _ angles: RotaryAngles, _ seat: Seat
    ) -> View {
        let (nope, rope, latent) = (configuration.nopeWidth, configuration.ropeWidth, configuration.latentWidth)
        let query = seat.scratch.rows(compressed.rows, heads.count * (latent + rope))
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let ofHeads = queryUp.rows(heads.lowerBound * (nope + rope)..<heads.upperBound * (nope + rope))
        let plain = seat.scratch.rows(compressed.rows, ofHeads.rows)
        seat.kernels.matmul(compressed, ofHeads, into: plain, seat.scratch)
        seat.kernels.rope(
            plain.columns(nope..<plain.columns), heads: heads.count, headStride: nope + rope, interleaved: true, angles)
        seat.kernels.batchedMatmul(
            plain, keyValueUp(heads), rows: 0..<nope, transposed: true, count: heads.count, into: query, seat.scratch)
        seat.kernels.copyRows(plain, pieces: heads.count, columns: nope..<nope + rope, into: query, at: latent)
        return query
    }

    /// Returns the entry of each row: normed latent, rotary key (not normed), and in layers with an indexer the index key.
    private func keys(_ x: View, _ angles: RotaryAngles, _ keySet: KeySetID, _ step: Step, _ seat: Seat) -> View {
        let (latent, rope) = (configuration.latentWidth, configuration.ropeWidth)
        let keys = seat.scratch.rows(x.rows, latent + rope + (indexer?.width ?? 0))
        let latents = keys.columns(0..<latent)
        seat.kernels.matmul(x, keyDown, into: keys.columns(0..<latent + rope), seat.scratch)
        seat.kernels.rmsNorm(latents, keyNorm.view, epsilon: configuration.normEpsilon, into: latents)
        seat.kernels.rope(
            keys.columns(latent..<latent + rope), heads: 1, headStride: rope, interleaved: true, angles)
        if let indexer {
            let columns = keys.columns(latent + rope..<keys.columns)
            indexer.keys(x, angles, keptAs: step.cache.format[keySet].lanes[KeyLanes.index].dtype, seat, into: columns)
        }
        return keys
    }

    /// Returns each head's value, `W_UV · attended latent`: `[rows, heads * value]`.
    private func values(_ attended: View, _ heads: Range<Int>, _ seat: Seat) -> View {
        let (nope, value) = (configuration.nopeWidth, configuration.valueWidth)
        let values = seat.scratch.rows(attended.rows, heads.count * value)
        seat.kernels.batchedMatmul(
            attended, keyValueUp(heads), rows: nope..<nope + value, count: heads.count, into: values, seat.scratch)
        return values
    }

    /// Returns the addend of these heads in the output projection.
    private func project(_ values: View, _ heads: Range<Int>, _ seat: Seat) -> View {
        let columns = heads.lowerBound * configuration.valueWidth..<heads.upperBound * configuration.valueWidth
        let out = seat.scratch.rows(values.rows, output.rows)
        seat.kernels.slicedMatmul(
            values, output.columns(columns), slices: seat.slices(of: output.columns, along: .tensor), into: out,
            seat.scratch)
        return out
    }

    /// Returns the weights `W_UK` and `W_UV` of some heads: for each head `[nope, latent]`, then `[value, latent]`.
    private func keyValueUp(_ heads: Range<Int>) -> Weight {
        let rows = configuration.nopeWidth + configuration.valueWidth
        return keyValueUp.rows(heads.lowerBound * rows..<heads.upperBound * rows)
    }
}
