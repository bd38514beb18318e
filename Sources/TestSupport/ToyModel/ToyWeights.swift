import Tensors

/// A matrix of reproducible random numbers, readable by kernels and by plain code.
package final class ToyMatrix: @unchecked Sendable {
    package let rows: Int
    package let columns: Int
    package let values: [Float]
    private let memory: Buffer

    /// Draws numbers of variance `1 / columns`, as trained projections roughly have.
    init(_ rows: Int, _ columns: Int, _ draw: inout SplitMix64) {
        self.rows = rows
        self.columns = columns
        let range = (3 / Float(columns)).squareRoot()
        values = (0..<rows * columns).map { _ in (Float(draw.next() >> 40) / Float(1 << 23) - 1) * range }
        memory = Buffer(bytes: rows * columns * MemoryLayout<Float>.stride)
        let target = unsafe memory.pointer.bindMemory(to: Float.self, capacity: rows * columns)
        for (index, value) in values.enumerated() { unsafe target[index] = value }
    }

    /// The matrix as kernels read it; valid as long as this object lives.
    var weight: Weight { unsafe Weight(memory.pointer, dtype: .f32, rows: rows, columns: columns) }
}

/// The sizes of the toy model.
package enum ToySizes {
    static let vocabulary = 40
    static let context = 1024
    static let hidden = 16
    /// The number of residual streams.
    static let streams = 4
    static let heads = 8
    static let latent = 16
    static let rotary = 4
    /// The number of elements of a compressor's input for one token.
    static let inputs = 8
    static let indexHeads = 2
    static let indexWidth = 8
    /// The number of entries that a row selects.
    static let topK = 6
    /// The number of tokens whose own keys a row sees.
    static let window = 24
    static let epsilon: Float = 1e-6

    static let state = hidden * streams
    static let key = latent + rotary
    static var scale: Float { 1 / Float(key).squareRoot() }
}

/// The kinds of layers, by what they do besides attention over the window.
package enum ToyLayerKind: Sendable, Equatable {
    case window
    /// Compresses tokens into entries that overlap with the previous entry, and selects among them.
    case selecting
    /// Owns no entries: it attends to those that the previous layer has selected, and reads that layer's key set.
    case reading
    /// Compresses tokens into its own entries, and attends to those that an earlier layer has selected.
    case reusing
    /// Compresses many tokens into each entry, and attends to all entries.
    case long
}

/// The weights of one layer.
package struct ToyLayerWeights: Sendable {
    let kind: ToyLayerKind
    /// The mix of the streams that a sublayer reads, `[hidden, state]`.
    let read: ToyMatrix
    /// The mix with which a sublayer writes to the streams, `[state, hidden]`.
    let write: ToyMatrix
    /// The query projection, `[heads * key, hidden]`.
    let query: ToyMatrix
    /// The projection to the window's keys, `[key, hidden]`.
    let windowKey: ToyMatrix
    /// The output projection, `[hidden, heads * latent]`.
    let output: ToyMatrix
    /// The projection to a compressor's input for one token, `[inputs, hidden]`.
    let input: ToyMatrix
    /// The projection of the inputs of several tokens to an entry, `[entry, slots * inputs]`.
    let compressor: ToyMatrix
    /// The indexer's query projection, `[indexHeads * indexWidth, hidden]`, and that to head weights,
    /// `[indexHeads, hidden]`.
    let indexQuery: ToyMatrix
    let indexWeights: ToyMatrix

    init(_ kind: ToyLayerKind, longEntry: Int, _ draw: inout SplitMix64) {
        typealias Size = ToySizes
        self.kind = kind
        read = ToyMatrix(Size.hidden, Size.state, &draw)
        write = ToyMatrix(Size.state, Size.hidden, &draw)
        query = ToyMatrix(Size.heads * Size.key, Size.hidden, &draw)
        windowKey = ToyMatrix(Size.key, Size.hidden, &draw)
        output = ToyMatrix(Size.hidden, Size.heads * Size.latent, &draw)
        input = ToyMatrix(Size.inputs, Size.hidden, &draw)
        let entry = Size.key + (kind == .selecting ? Size.indexWidth : 0)
        compressor = ToyMatrix(entry, ToyKeys.slots(kind, longEntry: longEntry) * Size.inputs, &draw)
        indexQuery = ToyMatrix(Size.indexHeads * Size.indexWidth, Size.hidden, &draw)
        indexWeights = ToyMatrix(Size.indexHeads, Size.hidden, &draw)
    }
}

/// The weights of the toy model.
package struct ToyWeights: Sendable {
    /// The embedding, `[vocabulary, state]`.
    let embedding: ToyMatrix
    let layers: [ToyLayerWeights]
    /// The projection of the embedding, followed by the state, in the next-token block: `[state, 2 * state]`.
    let draftProjection: ToyMatrix
    /// The mix of the final state, `[hidden, state]`, and the output head, `[vocabulary, hidden]`.
    let finalRead: ToyMatrix
    let head: ToyMatrix

    init(_ kinds: [ToyLayerKind], longEntry: Int) {
        var draw = SplitMix64(seed: 7)
        embedding = ToyMatrix(ToySizes.vocabulary, ToySizes.state, &draw)
        layers = kinds.map { ToyLayerWeights($0, longEntry: longEntry, &draw) }
        draftProjection = ToyMatrix(ToySizes.state, 2 * ToySizes.state, &draw)
        finalRead = ToyMatrix(ToySizes.hidden, ToySizes.state, &draw)
        head = ToyMatrix(ToySizes.vocabulary, ToySizes.hidden, &draw)
    }
}
