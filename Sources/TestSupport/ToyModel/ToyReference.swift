import Foundation

/// The toy model's mathematics in plain code: it computes the whole prompt at once, without a cache or kernels, and
/// adds in double precision.
package struct ToyReference {
    private let weights: ToyWeights
    private let longEntry: Int

    package init(_ model: ToyModel) {
        weights = model.weights
        longEntry = model.longEntry
    }

    private typealias Row = [Double]

    /// Returns the logits of every token.
    package func logits(_ tokens: [Int32]) -> [[Float]] {
        var streams = tokens.map { row($0, of: weights.embedding) }
        var selected: [[Int]] = []
        var keys: [Row] = []
        for layer in weights.layers.dropLast() { forward(layer, &streams, &selected, &keys) }
        return streams.map { stream in product(read(stream, weights.finalRead), weights.head).map { Float($0) } }
    }

    /// Applies one layer to the streams of all tokens.
    ///
    /// - Parameters:
    ///   - selected: the entries that each row selected, which later layers reuse.
    ///   - keys: the entries of the last layer that has some.
    private func forward(
        _ layer: ToyLayerWeights, _ streams: inout [Row], _ selected: inout [[Int]], _ keys: inout [Row]
    ) {
        let inputs = streams.map { read($0, layer.read) }
        let window = inputs.map { product($0, layer.windowKey) }
        // The entries that a `reading` layer reads are those of a `selecting` layer.
        let tokens = layer.kind == .reading ? 4 : ToyKeys.tokensPerEntry(layer.kind, longEntry: longEntry)
        if layer.kind != .reading, tokens > 0 { keys = entries(layer, inputs, tokens) }
        if layer.kind == .selecting {
            selected = inputs.enumerated().map { position, x in
                select(x, layer, among: Array(keys.prefix((position + 1) / tokens)))
            }
        }
        for (position, x) in inputs.enumerated() {
            var seen = Array(window[max(0, position + 1 - ToySizes.window)...position])
            if tokens > 0 {
                let complete = (position + 1) / tokens
                seen += layer.kind == .long ? Array(keys.prefix(complete)) : selected[position].map { keys[$0] }
            }
            let attended = attend(product(x, layer.query), to: seen)
            let written = product(product(attended, layer.output), layer.write)
            streams[position] = zip(streams[position], written).map(+)
        }
    }

    /// Returns the complete entries, each computed from its tokens and, where entries overlap, those of the previous
    /// entry.
    private func entries(_ layer: ToyLayerWeights, _ inputs: [Row], _ tokens: Int) -> [Row] {
        let kept = inputs.map { product($0, layer.input) }
        let slots = ToyKeys.slots(layer.kind, longEntry: longEntry)
        return (0..<inputs.count / tokens).map { entry in
            let end = (entry + 1) * tokens
            let window = (end - slots..<end).flatMap { $0 < 0 ? Row(repeating: 0, count: ToySizes.inputs) : kept[$0] }
            return product(window, layer.compressor)
        }
    }

    private func select(_ x: Row, _ layer: ToyLayerWeights, among keys: [Row]) -> [Int] {
        let queries = product(x, layer.indexQuery)
        let factors = product(x, layer.indexWeights)
        let scores = keys.map { key in
            (0..<ToySizes.indexHeads).reduce(0.0) { sum, head in
                let dot = (0..<ToySizes.indexWidth).reduce(0.0) {
                    $0 + queries[head * ToySizes.indexWidth + $1] * key[ToySizes.key + $1]
                }
                return sum + factors[head] * max(0, dot)
            }
        }
        let order = scores.indices.sorted { (-scores[$0], $0) < (-scores[$1], $1) }
        return order.prefix(ToySizes.topK).sorted()
    }

    /// Returns the attended latents of all heads, `[heads * latent]`.
    private func attend(_ query: Row, to keys: [Row]) -> Row {
        (0..<ToySizes.heads).flatMap { head in
            let scores = keys.map { key in
                Double(ToySizes.scale)
                    * (0..<ToySizes.key).reduce(0.0) { $0 + query[head * ToySizes.key + $1] * key[$1] }
            }
            let largest = scores.max()!
            let weights = scores.map { exp($0 - largest) }
            let sum = weights.reduce(0, +)
            return (0..<ToySizes.latent).map { column in
                zip(weights, keys).reduce(0.0) { $0 + $1.0 * $1.1[column] } / sum
            }
        }
    }

    private func read(_ stream: Row, _ mix: ToyMatrix) -> Row {
        let input = product(stream, mix)
        let square = input.reduce(0) { $0 + $1 * $1 } / Double(input.count)
        return input.map { $0 / (square + Double(ToySizes.epsilon)).squareRoot() }
    }

    private func product(_ x: Row, _ matrix: ToyMatrix) -> Row {
        (0..<matrix.rows).map { row in
            (0..<matrix.columns).reduce(0.0) { $0 + x[$1] * Double(matrix.values[row * matrix.columns + $1]) }
        }
    }

    private func row(_ index: Int32, of matrix: ToyMatrix) -> Row {
        (0..<matrix.columns).map { Double(matrix.values[Int(index) * matrix.columns + $0]) }
    }
}
