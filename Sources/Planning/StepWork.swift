package import KVCache
package import Modeling
import Tensors

/// Step work counts the operations a step computes and the bytes it must read at least once, in consecutive parts.
/// Divided by a processor's peak rates, it bounds the time of a step from below: the roofline.
///
/// The bytes are those of the weights that the rows use, in the formats that `config.json` names, and of the keys they
/// see, as the cache stores them. Activations are left out, because they fit in the processor's caches.
package struct StepWork: Sendable, Equatable {
    package struct Part: Sendable, Equatable {
        package let name: String
        /// The number of floating-point operations; a multiplication and an addition are two.
        package var operations: Double
        package var bytes: Double
    }

    /// The name of the part that consists of products with weights.
    package static let matrices = "matrices"

    package private(set) var parts: [Part]

    /// Counts the work of one step.
    ///
    /// - Parameters:
    ///   - requests: For each request the positions of its rows.
    ///   - outputs: The number of rows that get logits.
    package init(
        _ model: ModelDescription, format: CacheFormat, requests: [Range<Int>], outputs: Int
    ) {
        let counts = FloatingPointOperations(model)
        let rows = requests.reduce(0) { $0 + $1.count }
        var scores = Part(name: "index scores", operations: 0, bytes: 0)
        var attention = Part(name: "attention", operations: 0, bytes: 0)
        let bytes = Self.keyBytes(model, format)
        for positions in requests where !positions.isEmpty {
            let (first, last) = (positions.lowerBound + 1, positions.upperBound)
            scores.operations += counts.indexing(first, last)
            attention.operations += counts.attention(first, last)
            // Rows of a chunk may select the same keys, but never more than all.
            var selected = last
            if let selection = model.selection {
                selected = min(last, selection.topK * selection.tokensPerEntry * positions.count)
                if last > selection.firstPosition { scores.bytes += Double(last) * bytes.index }
            }
            attention.bytes += Double(selected) * bytes.attention
        }
        parts = [
            Part(
                name: Self.matrices, operations: counts.matrices(rows: rows, outputs: outputs),
                bytes: Self.weightBytes(model, rows: rows, outputs: outputs)),
            scores, attention,
        ]
    }

    /// Returns the bytes of one token's keys in all layers: those that index scores read, and those that attention
    /// reads.
    private static func keyBytes(
        _ model: ModelDescription, _ format: CacheFormat
    ) -> (index: Double, attention: Double) {
        var sum = (index: 0.0, attention: 0.0)
        for (layer, sets) in zip(model.layers, format.layers) {
            let bytes = layer.keyBytes(sets)
            sum.index += bytes.index
            sum.attention += bytes.attention
        }
        return sum
    }

    /// Returns the expected bytes of the weights that `rows` rows use if all experts are equally likely. The head's are
    /// read if any row gets logits. The embedding is left out, as each row reads only one of its rows.
    private static func weightBytes(_ model: ModelDescription, rows: Int, outputs: Int) -> Double {
        func bytes(_ weights: [LayerDescription.Weights]) -> Double {
            weights.reduce(0) { $0 + Double(model.formats.bytes(of: $1)) }
        }
        var sum = bytes([model.finalNorm] + (outputs > 0 ? [model.head] : []))
        for operation in model.layers.flatMap(\.operations) {
            if case .experts(let experts) = operation {
                sum += usedExperts(experts.gate, rows: rows) * bytes([experts.expert(0).weights])
            } else {
                sum += bytes(operation.weights)
            }
        }
        return sum
    }

    /// Returns the expected number of experts that `rows` rows choose.
    private static func usedExperts(_ gate: GateRule, rows: Int) -> Double {
        var missed = 1.0
        for _ in 0..<rows where missed > 1e-9 { missed *= 1 - Double(gate.expertsPerToken) / Double(gate.experts) }
        return Double(gate.experts) * (1 - missed)
    }

    /// Returns the work of a prompt's first `tokens` tokens, computed in chunks.
    ///
    /// - Parameter outputs: the number of rows of the last chunk that get logits.
    package static func prefill(
        _ model: ModelDescription, format: CacheFormat, tokens: Int, chunk: Int, outputs: Int
    ) -> StepWork {
        func step(_ start: Int) -> StepWork {
            let end = min(start + chunk, tokens)
            return StepWork(model, format: format, requests: [start..<end], outputs: end == tokens ? outputs : 0)
        }
        var work = step(0)
        for start in stride(from: chunk, to: tokens, by: chunk) { work.add(step(start)) }
        return work
    }

    /// Adds the work of another step.
    package mutating func add(_ other: StepWork) {
        for index in parts.indices {
            parts[index].operations += other.parts[index].operations
            parts[index].bytes += other.parts[index].bytes
        }
    }
}

extension LayerDescription {
    /// Returns the bytes of one token's keys in the layer's key sets: those that index scores read, and those that
    /// attention reads. Key sets with a window are not counted.
    func keyBytes(_ sets: [KeySet]) -> (index: Double, attention: Double) {
        func perToken(_ bytes: Int, _ set: KeySet) -> Double { Double(bytes) / Double(set.tokensPerEntry) }
        let all = sets.reduce(0) { $1.window == nil ? $0 + perToken($1.bytesPerEntry, $1) : $0 }
        // The index key is the last lane of the last key set of a layer that selects.
        guard selection != nil, let set = sets.last else { return (0, all) }
        let index = perToken(set.lanes.last!.bytesPerEntry, set)
        return (index, all - index)
    }
}
