import KVCache
import Modeling
import Parallelism
import Tensors

/// One layer: attention over a row's window together with, in most layers, compressed entries.
struct ToyLayer: Sendable {
    private let weights: ToyLayerWeights
    private let number: Int
    /// The number of tokens from which an entry is computed; 0 if the layer owns no entries.
    private let slots: Int

    init(_ weights: ToyLayerWeights, number: Int, slots: Int) {
        self.weights = weights
        self.number = number
        self.slots = slots
    }

    private func set(_ index: Int) -> KeySetID { KeySetID(layer: number, index) }

    /// Runs the layer for own rows and updates `state` in place.
    func forward(_ state: LayerState, _ step: Step, _ seat: Seat) throws(GroupFailure) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let x = state.residual.read(weights.read, seat)
        try publish(product(x, weights.windowKey, seat), into: set(ToyKeys.window), step, seat)
        if slots > 0 { try publishEntries(x, step, seat) }
        seat.keysAreStored(ofLayer: number)
        let selection = try selection(x, state, step, seat)
        let rows = try seat.cross(Sharding.query, x)
        let heads = seat.part(of: ToySizes.heads, along: .tensor)
        let query = seat.scratch.rows(rows.rows, heads.count * ToySizes.key)
        let ofHeads = weights.query.weight.rows(heads.lowerBound * ToySizes.key..<heads.upperBound * ToySizes.key)
        seat.kernels.matmul(rows, ofHeads, into: query, seat.scratch)
        let attended = try attend(query, heads.count, to: set(ToyKeys.window), nil, step, seat)
        if let entries {
            let others = try attend(query, heads.count, to: entries, selection, step, seat)
            seat.kernels.mergeAttention(
                attended.values, attended.logSumExp, with: others.values, others.logSumExp)
        }
        let columns = heads.lowerBound * ToySizes.latent..<heads.upperBound * ToySizes.latent
        let addend = seat.scratch.rows(rows.rows, ToySizes.hidden)
        seat.kernels.slicedMatmul(
            attended.values, weights.output.weight.columns(columns),
            slices: seat.slices(of: weights.output.columns, along: .tensor), into: addend, seat.scratch)
        let output = try seat.cross(Sharding.attentionOutput, addend)
        step.recorder?.record(.attention, layer: number, output, of: step.own, seat)
        state.residual.write(output, weights.write, seat)
        step.recorder?.record(.output, layer: number, state.residual.stream, of: step.own, seat)
    }

    /// The key set of the entries that the layer attends to: its own, or that of the previous layer.
    private var entries: KeySetID? {
        switch weights.kind {
        case .window: nil
        case .selecting, .reusing, .long: set(ToyKeys.entries)
        case .reading: KeySetID(layer: number - 1, ToyKeys.entries)
        }
    }

    private func product(_ x: View, _ matrix: ToyMatrix, rows: Indices? = nil, _ seat: Seat) -> View {
        let out = seat.scratch.rows(rows?.count ?? x.rows, matrix.rows)
        seat.kernels.matmul(x, matrix.weight, xRows: rows, into: out, seat.scratch)
        return out
    }

    private func publish(_ keys: View, into set: KeySetID, _ step: Step, _ seat: Seat) throws(GroupFailure) {
        try step.finish(try step.publish(keys, into: set, seat), seat)
    }

    /// Publishes the compressor's input for each token, then the entries that are complete.
    private func publishEntries(_ x: View, _ step: Step, _ seat: Seat) throws(GroupFailure) {
        try publish(product(x, weights.input, seat), into: set(ToyKeys.inputs), step, seat)
        let complete = step.entries[step.group(of: set(ToyKeys.entries)).index].rows
        let tokens = seat.scratch.rows(complete.count * slots, ToySizes.inputs)
        step.copyWindow(of: set(ToyKeys.inputs), lane: 0, rows: complete, count: slots, into: tokens, seat)
        let inputs = tokens.integers.bits(columns: slots * ToySizes.inputs)
        try publish(product(inputs, weights.compressor, seat), into: set(ToyKeys.entries), step, seat)
    }

    /// Returns the selection of the attended rows, made in this layer or an earlier one; `nil` in layers that do not
    /// select.
    private func selection(_ x: View, _ state: LayerState, _ step: Step, _ seat: Seat) throws(GroupFailure)
        -> Selection?
    {
        switch weights.kind {
        case .window, .long: return nil
        case .selecting:
            let index = IndexQuery(
                queries: product(x, weights.indexQuery, seat), weights: product(x, weights.indexWeights, seat),
                topK: ToySizes.topK, set: set(ToyKeys.entries), lane: ToyKeys.index)
            let best = seat.kernels.zeros(x.rows * ToySizes.topK, seat.scratch)
            try ContextAttention.select(index, step, seat, into: best)
            state.keep(best, seat)
        case .reading, .reusing: break
        }
        return try ContextAttention.selection(
            try state.selected(of: entries!, step, seat), topK: ToySizes.topK, of: entries!, step, seat)
    }

    private func attend(
        _ query: View, _ heads: Int, to set: KeySetID, _ selection: Selection?, _ step: Step, _ seat: Seat
    ) throws(GroupFailure) -> AttendedValues {
        let selects = weights.kind != .long && set.index == ToyKeys.entries
        return try ContextAttention.attend(
            query, to: AttentionKeys(set, latent: ToyKeys.latent, rotary: ToyKeys.rotary), heads: heads,
            scale: ToySizes.scale, selection, topK: selects ? ToySizes.topK : nil, step, seat)
    }
}
