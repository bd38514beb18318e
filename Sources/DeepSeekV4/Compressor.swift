import Checkpoints
import KVCache
import Modeling
import Parallelism
import Tensors

/// A compressor makes one entry of several tokens: for each channel, a mean of their values weighted by a softmax of
/// their gates, normed and rotated to the position of the entry's first token.
struct Compressor {
    private let values: Weight
    private let gates: Weight
    /// The addend of the gates that depends on a token's place in its entry, `[tokens per entry, halves * width]`.
    private let places: Vector
    private let norm: Vector
    private let kind: LayerKind
    private let width: Int
    private let ropeWidth: Int
    private let epsilon: Float
    /// The input before a request's first token: values 0 and gates -infinity, so that it weighs nothing.
    private let missing: Vector

    /// Loads a compressor.
    ///
    /// - Parameters:
    ///   - prefix: the part of the tensors' names before `wkv.weight`.
    ///   - width: the number of elements of an entry.
    init(
        _ model: DeepSeekV4Configuration, _ source: WeightSource, _ prefix: String, _ kind: LayerKind, width: Int
    ) throws(CheckpointError) {
        let columns = kind.halves * width
        values = try source.matrix(prefix + "wkv.weight", columns, model.hiddenSize)
        gates = try source.matrix(prefix + "wgate.weight", columns, model.hiddenSize)
        places = try source.vector(prefix + "ape", rows: kind.tokensPerEntry, columns, dummy: 0)
        norm = try source.vector(prefix + "norm.weight", width, dummy: 1)
        self.kind = kind
        self.width = width
        ropeWidth = model.ropeWidth
        epsilon = model.normEpsilon
        missing = Vector(Array(repeating: 0, count: columns) + Array(repeating: -.infinity, count: columns))
    }

    /// Computes the input of each row, `[rows, 2 * halves * width]`: values, then gates.
    func inputs(_ x: View, _ seat: Seat, into out: View) {
        seat.kernels.matmul(x, values, into: out.columns(0..<values.rows), seat.scratch)
        seat.kernels.matmul(x, gates, into: out.columns(values.rows..<out.columns), seat.scratch)
    }

    /// Computes the entries that own rows complete, `[entries, width]`, from the inputs of their tokens.
    ///
    /// - Parameters:
    ///   - lane: the lane of the layer's inputs.
    ///   - rows: the own rows that complete an entry.
    ///   - angles: those of the entries' first tokens.
    func entries(
        of layer: Int, lane: Int, rows: Indices, _ angles: RotaryAngles, _ step: Step, _ seat: Seat, into out: View
    ) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let inputs = seat.scratch.rows(rows.count * kind.slots, 2 * values.rows)
        step.copyWindow(
            of: KeySetID(layer: layer, KeySets.inputs), lane: lane, rows: rows, count: kind.slots,
            missing: missing.view, into: inputs, seat)
        seat.work.compressed += rows.count * kind.slots
        seat.kernels.compressEntries(
            inputs, slots: kind.slots, halves: kind.halves,
            ape: places.view.integers.bits(columns: values.rows), into: out)
        seat.kernels.rmsNorm(out, norm.view, epsilon: epsilon, into: out)
        seat.kernels.rope(
            out.columns(width - ropeWidth..<width), heads: 1, headStride: ropeWidth, interleaved: true, angles)
    }
}
