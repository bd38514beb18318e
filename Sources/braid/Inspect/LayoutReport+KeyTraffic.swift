import KVCache
import Modeling
import Parallelism
import Planning

/// This part of the report compares what ranks of a data group receive of each other's keys with gathering the keys and
/// the compressors' inputs of whole sequences, as engines do in which every rank makes all entries.
extension LayoutReport {
    /// The bytes of keys that ranks of a data group send each other in a layer of one kind.
    package struct KeyTraffic: Sendable, Equatable {
        /// The kind of layer.
        package let kind: String
        /// The number of layers of the kind.
        package let layers: Int
        /// The bytes that a rank receives for each token of the example, on average over ranks: compressed entries, and
        /// of windows and compressors' inputs what rows of other ranks see.
        package let moved: Double
        /// The bytes that a rank would receive for each token if all ranks received the keys and the compressors' inputs
        /// of all tokens.
        package let wholeSequences: Double
        /// The quotient of the two: whole sequences are so many times as much.
        package var factor: Double { wholeSequences / moved }
    }

    /// The traffic of each kind of layer; empty for a model without windows of keys, or for one rank in a data group.
    package var keyTraffic: [KeyTraffic] {
        let ranks = Double(parallel.context * parallel.tensor)
        guard parallel.context > 1, cost.format.window > 0 else { return [] }
        return cost.layerKinds.map { kind in
            let sets = cost.format.layers[kind.layers[0]]
            let moved = cost.transfers(of: kind).filter(\.isPublication).reduce(0) { $0 + bytesPerUnit($1) }
            let whole = sets.reduce(0) { $1.window == nil ? $0 : $0 + $1.bytesPerEntry }
            return KeyTraffic(
                kind: kind.name, layers: kind.layers.count, moved: moved / ranks,
                wholeSequences: Double(whole) * (ranks - 1) / ranks)
        }
    }

    var keyTrafficTable: [String] {
        if keyTraffic.isEmpty { return [] }
        var table = TextTable(["layers", "kind", "bytes/token", "whole sequences", "ratio"], left: 2)
        for traffic in keyTraffic {
            let ratio = traffic.moved > 0 ? "1/\(number((traffic.factor * 10).rounded() / 10))" : "0"
            table.add([
                "\(traffic.layers)", traffic.kind, number(traffic.moved), number(traffic.wholeSequences), ratio,
            ])
        }
        return ["keys that a rank receives in each layer, and what gathering whole sequences would move"] + table.lines
    }
}
