package import DeepSeekV32
package import KVCache
package import Modeling
import Tensors
import Tokenization

/// What a step has to compute, and which bytes it has to read at least once, in parts that come one after the other.
/// Divided by what a processor can do, it is the time no engine can be faster than: the roofline.
///
/// Read are the weights a step's rows use, in the type `config.json` names, and the keys they see, as the cache keeps
/// them. Activations are left out: they fit in caches.
package struct StepWork: Sendable, Equatable {
    package struct Part: Sendable, Equatable {
        package let name: String
        /// A multiplication and an addition are two.
        package var operations: Double
        package var bytes: Double
    }

    package private(set) var parts: [Part]

    /// Of one step.
    ///
    /// - Parameters:
    ///   - requests: for each request the positions of its rows.
    ///   - outputs: rows that get logits.
    package init(
        _ configuration: DeepSeekConfiguration, cacheType: CacheType, requests: [Range<Int>], outputs: Int
    ) {
        let counts = FloatingPointOperations(configuration)
        let rows = requests.reduce(0) { $0 + $1.count }
        func bytes(_ lanes: [Int]) -> Double {
            let sets = configuration.cacheFormat(cacheType, pageSize: 1).layers.joined()
            return Double(sets.reduce(0) { sum, set in lanes.reduce(sum) { $0 + set.lanes[$1].bytesPerEntry } })
        }
        var scores = Part(name: "index scores", operations: 0, bytes: 0)
        var attention = Part(name: "attention", operations: 0, bytes: 0)
        for positions in requests where !positions.isEmpty {
            let (first, last) = (positions.lowerBound + 1, positions.upperBound)
            scores.operations += counts.indexing(first, last) * Double(configuration.layers)
            attention.operations += counts.attention(first, last) * Double(configuration.layers)
            // Rows of a chunk may select the same keys: no more than all are read.
            var selected = last
            if let topK = configuration.indexer?.topK {
                selected = min(last, topK * positions.count)
                if last > topK { scores.bytes += Double(last) * bytes([KeyLanes.index]) }
            }
            attention.bytes += Double(selected) * bytes([KeyLanes.latent, KeyLanes.rotary])
        }
        parts = [
            Part(
                name: "matrices", operations: counts.matrices(rows: rows, outputs: outputs),
                bytes: Self.weights(configuration, rows: rows) * Double(configuration.storedType.bytes)),
            scores, attention,
        ]
    }

    /// Weights that so many rows use, each expert as likely as the others; of the embedding only a row each.
    private static func weights(_ configuration: DeepSeekConfiguration, rows: Int) -> Double {
        let (total, active) = configuration.parameters
        let gate = configuration.experts.gate
        let (experts, chosen) = (Double(gate.experts), Double(gate.expertsPerToken))
        var missed = 1.0
        for _ in 0..<rows where missed > 1e-9 { missed *= 1 - chosen / experts }
        let others = experts > chosen ? (experts * (1 - missed) - chosen) / (experts - chosen) : 0
        let embedding = configuration.vocabularySize * configuration.hiddenSize
        return Double(active - embedding) + Double(total - active) * others
    }

    /// Adds the work of another step.
    package mutating func add(_ other: StepWork) {
        for index in parts.indices {
            parts[index].operations += other.parts[index].operations
            parts[index].bytes += other.parts[index].bytes
        }
    }

    /// A member of a line of JSON.
    var member: JSONMember {
        JSONMember(
            "work",
            .object(
                parts.map {
                    JSONMember(
                        $0.name, .record(["operations": .amount($0.operations), "bytes": .amount($0.bytes.rounded())]))
                }))
    }
}
