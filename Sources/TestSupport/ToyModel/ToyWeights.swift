import Tensors

/// A matrix of random numbers that are the same every time, for kernels and for plain code.
package final class ToyMatrix: @unchecked Sendable {
    package let rows: Int
    package let columns: Int
    package let values: [Float]
    private let memory: Buffer

    /// Uniform with variance `1 / columns`, as trained projections roughly have.
    init(_ rows: Int, _ columns: Int, _ draw: inout SplitMix64) {
        self.rows = rows
        self.columns = columns
        let range = (3 / Float(columns)).squareRoot()
        values = (0..<rows * columns).map { _ in (Float(draw.next() >> 40) / Float(1 << 23) - 1) * range }
        memory = Buffer(bytes: rows * columns * MemoryLayout<Float>.stride)
        let target = unsafe memory.pointer.bindMemory(to: Float.self, capacity: rows * columns)
        for (index, value) in values.enumerated() { unsafe target[index] = value }
    }

    /// Valid as long as this matrix lives.
    var weight: Weight { unsafe Weight(memory.pointer, dtype: .f32, rows: rows, columns: columns) }
}

/// The sizes of the toy model.
package enum ToySizes {
    static let vocabulary = 40
    static let context = 1024
    static let hidden = 16
    /// Residual streams of a row.
    static let streams = 4
    static let heads = 8
    static let latent = 16
    static let rotary = 4
    /// Numbers that a compressor keeps of a token.
    static let inputs = 8
    static let indexHeads = 2
    static let indexWidth = 8
    /// Entries that a row selects.
    static let topK = 6
    /// Tokens that a row sees one by one.
    static let window = 24
    static let epsilon: Float = 1e-6

    static let state = hidden * streams
    static let key = latent + rotary
    static var scale: Float { 1 / Float(key).squareRoot() }
}

/// What one layer of the toy model does besides attending to its window.
package enum ToyLayerKind: Sendable, Equatable {
    case window
    /// Compresses tokens into entries, overlapping with the entry before, and selects among them.
    case selecting
    /// Owns no entries: attends to those that the layer before has selected, and reads that layer's.
    case reading
    /// Compresses its own entries, and attends to those that an earlier layer has selected.
    case reusing
    /// Compresses many tokens into each entry, and attends to all entries.
    case long
}

/// One layer's weights.
package struct ToyLayerWeights: Sendable {
    let kind: ToyLayerKind
    /// `[hidden, state]`: what a sublayer reads of the streams.
    let read: ToyMatrix
    /// `[state, hidden]`: what becomes of its output.
    let write: ToyMatrix
    /// `[heads * key, hidden]`.
    let query: ToyMatrix
    /// `[key, hidden]`.
    let windowKey: ToyMatrix
    /// `[hidden, heads * latent]`.
    let output: ToyMatrix
    /// `[inputs, hidden]`: what a compressor keeps of each token.
    let input: ToyMatrix
    /// `[entry, slots * inputs]`: what it makes an entry of.
    let compressor: ToyMatrix
    /// `[indexHeads * indexWidth, hidden]` and `[indexHeads, hidden]`.
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

/// All weights of the toy model.
package struct ToyWeights: Sendable {
    /// `[vocabulary, state]`.
    let embedding: ToyMatrix
    let layers: [ToyLayerWeights]
    /// `[state, 2 * state]`, for the embedding first and the state second.
    let draftProjection: ToyMatrix
    /// `[hidden, state]` and `[vocabulary, hidden]`.
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
