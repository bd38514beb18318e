import Checkpoints
import KVCache
import Modeling
import Parallelism
import Tensors

/// Attention whose heads share one key for each token, which is also the value. Rows attend to the keys of a window of
/// tokens together with, in most layers, compressed entries, and to a sink.
struct Attention {
    private let queryDown: Weight
    private let queryNorm: Vector
    private let queryUp: Weight
    private let key: Weight
    private let keyNorm: Vector
    /// A logit for each head that takes part in its softmax and has no value, `[heads]`.
    private let sinks: Vector
    /// The first output projection, which each group of heads has for itself: `[groups * rank, head / group]`.
    private let outputDown: Weight
    private let outputUp: Weight
    private let compressor: Compressor?
    private let indexer: Indexer?
    private let kind: LayerKind
    private let layer: Int
    private let configuration: DeepSeekV4Configuration
    /// The weights of a norm that has none.
    private let ones: Vector

    init(_ model: DeepSeekV4Configuration, _ source: WeightSource, layer: Int) throws(CheckpointError) {
        configuration = model
        self.layer = layer
        kind = model.kind(ofLayer: layer)
        let (heads, width, prefix) = (model.heads, model.headWidth, model.prefix(ofLayer: layer) + "attn.")
        queryDown = try source.matrix(prefix + "wq_a.weight", model.queryRank, model.hiddenSize)
        queryNorm = try source.vector(prefix + "q_norm.weight", model.queryRank, dummy: 1)
        queryUp = try source.matrix(prefix + "wq_b.weight", heads * width, model.queryRank)
        key = try source.matrix(prefix + "wkv.weight", width, model.hiddenSize)
        keyNorm = try source.vector(prefix + "kv_norm.weight", width, dummy: 1)
        sinks = try source.vector(prefix + "attn_sink", heads, dummy: 0)
        let outputs = model.outputGroups * model.outputRank
        outputDown = try source.matrix(prefix + "wo_a.weight", outputs, heads * width / model.outputGroups)
        outputUp = try source.matrix(prefix + "wo_b.weight", model.hiddenSize, outputs)
        compressor =
            kind == .slidingWindow ? nil : try Compressor(model, source, prefix + "compressor.", kind, width: width)
        ones = Vector(Array(repeating: 1, count: width))
        indexer = kind == .compressedSparse ? try Indexer(model, source, prefix + "indexer.", kind) : nil
    }

    private func set(_ index: Int) -> KeySetID { KeySetID(layer: layer, index) }

    /// Computes attention of own rows and publishes their keys.
    ///
    /// - Parameter x: own rows, normed.
    /// - Returns: the output projection of own rows, `[own rows, hidden]`.
    func forward(_ x: View, _ angles: Angles, _ step: Step, _ seat: Seat) throws(GroupFailure) -> View {
        let (rows, entries) = angles.of(kind)
        let compressed = compress(x, seat)
        let published = try publish(x, rows.own, entries, step, seat)
        let index = indexQuery(x, compressed: compressed, rows.own, step, seat)
        let groups = seat.part(of: configuration.outputGroups, along: .tensor)
        let heads = configuration.heads(ofGroups: groups)
        let query = query(try seat.cross(Sharding.query, compressed), heads, rows.attended, seat)
        try step.finish(published, seat)
        seat.keysAreStored(ofLayer: layer)
        let attended = try attend(query, heads.count, to: KeySets.window, nil, step, seat)
        if kind != .slidingWindow {
            let selection = try selection(index, step, seat)
            let others = try attend(query, heads.count, to: KeySets.entries, selection, step, seat)
            seat.kernels.mergeAttention(
                attended.values, attended.logSumExp, with: others.values, others.logSumExp)
        }
        seat.kernels.applySink(attended.values, attended.logSumExp, sinks: sinks.view.columns(heads))
        rotate(attended.values, heads.count, rows.attended.inverse, seat)
        return try seat.cross(Sharding.attentionOutput, project(attended.values, groups, seat))
    }

    /// Returns the compressed query of own rows, normed.
    private func compress(_ x: View, _ seat: Seat) -> View {
        let compressed = seat.scratch.rows(x.rows, queryDown.rows)
        seat.kernels.matmul(x, queryDown, into: compressed, seat.scratch)
        seat.kernels.rmsNorm(compressed, queryNorm.view, epsilon: configuration.normEpsilon, into: compressed)
        return compressed
    }

    /// Publishes the key of each row, the compressor's input of each row, and the entries that are complete.
    ///
    /// - Returns: the last publication, which is not finished yet.
    private func publish(
        _ x: View, _ angles: RotaryAngles, _ entryAngles: RotaryAngles?, _ step: Step, _ seat: Seat
    ) throws(GroupFailure) -> PendingKeys {
        let window = try step.publish(keys(x, angles, seat), into: set(KeySets.window), seat)
        guard let compressor, let entryAngles else { return window }
        try step.finish(window, seat)
        try step.finish(try step.publish(inputs(x, compressor, seat), into: set(KeySets.inputs), seat), seat)
        return try step.publish(entries(compressor, entryAngles, step, seat), into: set(KeySets.entries), seat)
    }

    /// Returns the key of each row, normed and rotated.
    private func keys(_ x: View, _ angles: RotaryAngles, _ seat: Seat) -> View {
        let keys = seat.scratch.rows(x.rows, key.rows)
        seat.kernels.matmul(x, key, into: keys, seat.scratch)
        seat.kernels.rmsNorm(keys, keyNorm.view, epsilon: configuration.normEpsilon, into: keys)
        rotate(keys, 1, angles, seat)
        return keys
    }

    /// Returns the compressors' inputs of each row, in the order of the lanes.
    private func inputs(_ x: View, _ compressor: Compressor, _ seat: Seat) -> View {
        let own = 2 * kind.halves * key.rows
        let inputs = seat.scratch.rows(x.rows, own + 2 * kind.halves * (indexer?.width ?? 0))
        compressor.inputs(x, seat, into: inputs.columns(0..<own))
        indexer?.compressor.inputs(x, seat, into: inputs.columns(own..<inputs.columns))
        return inputs
    }

    /// Returns the entries that own rows complete: the key and, in layers with an indexer, the index key.
    private func entries(_ compressor: Compressor, _ angles: RotaryAngles, _ step: Step, _ seat: Seat) -> View {
        let rows = step.entries[step.group(of: set(KeySets.entries)).index].rows
        let entries = seat.scratch.rows(rows.count, key.rows + (indexer?.width ?? 0))
        compressor.entries(
            of: layer, lane: KeySets.attentionInputs, rows: rows, angles, step, seat,
            into: entries.columns(0..<key.rows))
        if let indexer {
            let index = entries.columns(key.rows..<entries.columns)
            indexer.compressor.entries(
                of: layer, lane: KeySets.indexInputs, rows: rows, angles, step, seat, into: index)
            indexer.spread(index, heads: 1, set(KeySets.entries), step, seat)
        }
        return entries
    }

    /// Returns the index queries of own rows; `nil` if no rank reads them, which saves reading their weights.
    private func indexQuery(
        _ x: View, compressed: View, _ angles: RotaryAngles, _ step: Step, _ seat: Seat
    ) -> IndexQuery? {
        let entries = set(KeySets.entries)
        guard let indexer, ContextAttention.needsIndexQueries(topK: indexer.topK, of: entries, step) else { return nil }
        return indexer.query(x, compressed: compressed, angles, entries, step, seat)
    }

    /// Returns the entries that the attended rows select; `nil` if none sees more than it selects, and in layers whose
    /// rows attend to all entries.
    private func selection(_ index: IndexQuery?, _ step: Step, _ seat: Seat) throws(GroupFailure) -> Selection? {
        guard let indexer else { return nil }
        return try ContextAttention.select(index, topK: indexer.topK, of: set(KeySets.entries), step, seat)
    }

    /// Returns each head's query, normed without weights and rotated: `[rows, heads * width]`.
    private func query(_ compressed: View, _ heads: Range<Int>, _ angles: RotaryAngles, _ seat: Seat) -> View {
        let width = configuration.headWidth
        let query = seat.scratch.rows(compressed.rows, heads.count * width)
        let ofHeads = queryUp.rows(heads.lowerBound * width..<heads.upperBound * width)
        seat.kernels.matmul(compressed, ofHeads, into: query, seat.scratch)
        let each = query.integers.bits(columns: width)
        seat.kernels.rmsNorm(each, ones.view, epsilon: configuration.normEpsilon, into: each)
        rotate(query, heads.count, angles, seat)
        return query
    }

    /// Rotates the last elements of every head in place.
    private func rotate(_ x: View, _ heads: Int, _ angles: RotaryAngles, _ seat: Seat) {
        let width = configuration.headWidth
        seat.kernels.rope(
            x.columns(width - configuration.ropeWidth..<x.columns), heads: heads, headStride: width, interleaved: true,
            angles)
    }

    private func attend(
        _ query: View, _ heads: Int, to index: Int, _ selection: Selection?, _ step: Step, _ seat: Seat
    ) throws(GroupFailure) -> AttendedValues {
        let keys = AttentionKeys(
            set(index), latent: KeySets.latent, rotary: KeySets.rotary, valuesIncludeRotary: true)
        return try ContextAttention.attend(
            query, to: keys, heads: heads, scale: configuration.softmaxScale, selection,
            topK: index == KeySets.entries ? indexer?.topK : nil, step, seat)
    }

    /// Returns the addend of these groups of heads in the output projection: each group's own projection, then the one
    /// they share.
    private func project(_ values: View, _ groups: Range<Int>, _ seat: Seat) -> View {
        let rank = configuration.outputRank
        let part = groups.lowerBound * rank..<groups.upperBound * rank
        let inner = seat.scratch.rows(values.rows, part.count)
        seat.kernels.batchedMatmul(
            values, outputDown.rows(part), rows: 0..<rank, count: groups.count, into: inner, seat.scratch)
        let out = seat.scratch.rows(values.rows, outputUp.rows)
        seat.kernels.slicedMatmul(
            inner, outputUp.columns(part), slices: seat.slices(of: outputUp.columns, along: .tensor), into: out,
            seat.scratch)
        return out
    }
}
